def words_ids(tokenizer, words):
    p = tokenizer(list(words), is_split_into_words=True, add_special_tokens=False, verbose=False)
    return list(p["input_ids"]), list(p.word_ids())
