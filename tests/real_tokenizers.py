"""Tokenizers of the kinds that people have, built here from a few sentences: no file comes from elsewhere."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import transformers as t
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ENGLISH = ["the boat left at noon", "we left the quay", "she stayed at home, he did not", "Anna lives in New York."]
GERMAN = ["das boot ist weg", "wir gehen um neun uhr nach hause", "sie blieb zu hause, er nicht"]
UNIGRAM = [
    ("<s>", 0.0),
    ("<pad>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    ("▁a", -1.0),
    ("b", -2.0),
    ("▁", -3.0),
    ("a", -3.0),
]


def _fast(tokenizer: Tokenizer, **options: Any) -> Any:
    return t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


@cache
def bert() -> Any:
    """WordPiece, lower case: [CLS] a [SEP] b [SEP] with types 0 and 1."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(ENGLISH, trainers.WordPieceTrainer(vocab_size=150, special_tokens=specials))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    words = {f"{name.strip('[]').lower()}_token": name for name in specials}
    return _fast(tokenizer, model_input_names=names, **words)


def _byte_level(prefix: bool, specials: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=list(specials), initial_alphabet=alphabet)
    tokenizer.train_from_iterator(ENGLISH * 3, trainer)
    return tokenizer


@cache
def gpt2() -> Any:
    """Byte-level without a space in front and without special tokens around a text."""
    return _fast(_byte_level(False, ("<|endoftext|>",)), bos_token="<|endoftext|>", eos_token="<|endoftext|>")


@cache
def llama3() -> Any:
    """Byte-level with a token that begins a text."""
    tokenizer = _byte_level(False, ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B", special_tokens=[("<|begin_of_text|>", 0)]
    )
    return _fast(tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")


@cache
def roberta() -> Any:
    """Byte-level: <s> a </s></s> b </s>."""
    tokenizer = _byte_level(False, ("<s>", "<pad>", "</s>", "<mask>"))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    words = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>", "eos_token": "</s>"}
    return _fast(tokenizer, bos_token="<s>", **words)


@cache
def t5() -> Any:
    """Unigram with a space in front of the text and its end after it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(ENGLISH, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return _fast(tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@cache
def llama2() -> Any:
    """Unigram with <s> in front, as Llama 2 and Mistral have it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>")
    tokenizer.train_from_iterator(ENGLISH, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return _fast(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def marian() -> Any:
    """Two SentencePiece models, one for each side, and one vocabulary."""
    folder = Path(tempfile.mkdtemp())
    pieces = []
    for name, lines, size in (("source", ENGLISH, 40), ("target", GERMAN, 35)):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines * 20),
            model_prefix=str(folder / name),
            vocab_size=size,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.model"))
        pieces += [model.id_to_piece(i) for i in range(len(model))]
    words = dict.fromkeys(["<unk>", "</s>", *pieces, "<pad>"])
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    files = {"source_spm": str(folder / "source.model"), "target_spm": str(folder / "target.model")}
    return t.MarianTokenizer(**files, vocab=str(folder / "vocab.json"), source_lang="en", target_lang="de")


@cache
def nllb() -> Any:
    """BPE with the language in front: eng_Latn a </s>."""
    words = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a", "c"])}
    return t.NllbTokenizer(vocab=words, merges=[("▁", "a")], src_lang="eng_Latn")


@cache
def mbart() -> Any:
    """Unigram with the language after the end: a </s> en_XX."""
    return t.MBartTokenizer(vocab=UNIGRAM, src_lang="en_XX")


@cache
def mbart50() -> Any:
    """Unigram with the language in front: en_XX a </s>."""
    return t.MBart50Tokenizer(vocab=UNIGRAM, src_lang="en_XX")
