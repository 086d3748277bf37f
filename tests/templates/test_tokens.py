"""Texts as real tokenizers read them: as the tokenizer itself does, but data never becomes a special token."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import AddedToken, NormalizedString, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from graftune.errors import GraftuneError
from graftune.templates.frames import joins_pairs
from graftune.templates.template import Encoded, NoRoom, Template, special_tokens, text_ids, tokens
from real_tokenizers import SENTENCES, TOKENIZERS

FIRST = 100_000
names = st.sampled_from(sorted(TOKENIZERS))
SPELLED = sorted({token for build in TOKENIZERS.values() for token in build().all_special_tokens[:12]})
pieces = st.one_of(
    st.sampled_from([word for sentence in SENTENCES for word in sentence.split(" ")]),
    st.sampled_from(
        [
            " ",
            "  ",
            "\n",
            "\t",
            "\u200b",
            "\u00ad",
            "\x00",
            "\x1f",
            "e\u0301",
            "👩\u200d🚀",
            "שלום",
            "\u202e",
            "ﬁ",
            "＜mask＞",
        ]
    ),
    st.sampled_from(SPELLED),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
texts = st.lists(pieces, max_size=6).map("".join)
words = texts.filter(lambda text: "＜" not in text)  # a special token is meant where it is spelled letter by letter


def own(tokenizer, text, **options):
    return tokenizer(text, add_special_tokens=False, **options).input_ids if text else []


def spells_none(tokenizer, text):
    return str(tokenizer.unk_token) not in text and not specials(tokenizer, own(tokenizer, text))


def specials(tokenizer, ids):
    """The special tokens among ids; one that stands for what is unknown says nothing of the text."""
    known = set(tokenizer.all_special_ids)
    if tokenizer.unk_token != tokenizer.eos_token:
        known.discard(tokenizer.unk_token_id)
    return [index for index in ids if index in known]


@given(names, texts)
def test_data_is_read_as_the_tokenizer_reads_it_and_never_becomes_a_special_token(name, text):
    tokenizer = TOKENIZERS[name]()
    ids = text_ids(tokenizer, text)
    assert not specials(tokenizer, ids)
    if spells_none(tokenizer, text):
        assert ids == own(tokenizer, text)


@given(names, words)
def test_words_of_a_template_are_read_as_the_tokenizer_reads_them(name, text):
    tokenizer = TOKENIZERS[name]()
    assert tokens(tokenizer, text) == own(tokenizer, text)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_special_token_stays_text_in_data_and_is_one_in_words(name):
    tokenizer = TOKENIZERS[name]()
    assert tokenizer.all_special_tokens
    for token in tokenizer.all_special_tokens:
        index = tokenizer.convert_tokens_to_ids(token)
        assert index in tokens(tokenizer, f"on {token} off")
        if index != tokenizer.unk_token_id or name == "gpt2":
            assert index not in text_ids(tokenizer, f"on {token} off")
            template = Template(f"[{{a}}] {Template.literal(token)} {{b}}")
            ids = template.encode(tokenizer, {"a": token, "b": token}, FIRST).ids
            opening, closing = special_tokens(tokenizer)
            assert ids[len(opening) : len(ids) - len(closing)].count(index) == 1


@given(names, words, texts, words)
def test_words_and_data_are_tokenised_as_one_string(name, left, text, right):
    tokenizer = TOKENIZERS[name]()
    whole = left + text + right
    meant = specials(tokenizer, own(tokenizer, left) + own(tokenizer, right))
    template = Template(Template.literal(left) + "{input}" + Template.literal(right))
    opening, closing = special_tokens(tokenizer)
    found = template.encode(tokenizer, text, FIRST).ids
    if str(tokenizer.unk_token) not in whole and specials(tokenizer, own(tokenizer, whole)) == meant:
        assert found == tokenizer(whole).input_ids
    assert len(specials(tokenizer, found)) <= len(meant) + len(specials(tokenizer, opening + closing))


@pytest.mark.parametrize("text", ["[{input}]", "<{input}s>", "<|{input}|>", "<{input}>"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_words_and_data_do_not_make_a_special_token_together(name, text):
    tokenizer = TOKENIZERS[name]()
    opening, closing = special_tokens(tokenizer)
    for value in ("MASK", "SEP", "/", "", "endoftext", "eot_id", "mask", "pad", "extra_id_0"):
        ids = Template(text).encode(tokenizer, value, FIRST).ids
        if value or text != "<{input}s>":
            assert not specials(tokenizer, ids[len(opening) : len(ids) - len(closing)])


values = st.one_of(texts, st.lists(st.integers(0, 99), max_size=5))


@given(
    names,
    st.sampled_from(
        ["{a}", "{P:2}{a}: {b}{P:1}", "{a}{sep}{b}", "<s>[MASK] {P:1}{a} {sep}no {b}.", "{a}{P:3}{sep}{b}"]
    ),
    st.lists(st.fixed_dictionaries({"a": values, "b": values}), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(1, 40)),
    st.booleans(),
)
def test_many_rows_are_encoded_as_each_by_itself(name, text, rows, limit, suffix):
    tokenizer, template = TOKENIZERS[name](), Template(text)

    def each() -> list[Encoded]:
        return [template.encode(tokenizer, row, FIRST, limit, suffix=suffix) for row in rows]

    try:
        alone = each()
    except NoRoom:
        with pytest.raises(NoRoom):
            template.encode_many(tokenizer, rows, FIRST, limit, suffix=suffix)
        return
    assert template.encode_many(tokenizer, rows, FIRST, limit, suffix=suffix) == alone
    for row, found in zip(rows, alone, strict=True):
        assert limit is None or len(found.ids) <= limit
        assert found.type_ids is None or len(found.type_ids) == len(found.ids)
        for column, (start, count) in found.places.items():
            assert found.ids[start : start + count] == row[column][:count]
        assert found.places.keys() == {c for c in template.columns if not isinstance(row[c], str)}


def test_no_row_is_no_row():
    assert Template().encode_many(TOKENIZERS["bert"](), [], FIRST) == []


# Pairs ------------------------------------------------------------------------------------------------------

PAIRED = ["bert", "roberta", "roberta_prefix", "modernbert", "t5", "xlm_roberta", "xlnet"]


def test_the_tokenizers_with_a_form_for_pairs():
    assert [name for name in TOKENIZERS if joins_pairs(TOKENIZERS[name]())] == PAIRED


@given(st.sampled_from(PAIRED), texts, texts)
def test_a_pair_is_joined_as_the_tokenizer_joins_it(name, first, second):
    tokenizer = TOKENIZERS[name]()
    assume(second and spells_none(tokenizer, first) and spells_none(tokenizer, second))
    wanted = tokenizer(first, second)
    found = Template("{premise}{sep}{hypothesis}").encode(tokenizer, {"premise": first, "hypothesis": second}, FIRST)
    assert found.ids == wanted.input_ids
    assert found.type_ids == wanted.get("token_type_ids")


@pytest.mark.parametrize("name", sorted(TOKENIZERS.keys() - set(PAIRED)))
def test_a_pair_stands_on_two_lines_where_the_tokenizer_has_no_form_for_it(name):
    tokenizer = TOKENIZERS[name]()
    found = Template("{a}{sep}{b}").encode(tokenizer, {"a": "It rains.", "b": "It is wet."}, FIRST)
    assert found.ids == tokenizer("It rains.\nIt is wet.").input_ids
    assert found.type_ids is None


@pytest.mark.parametrize("name", ["bert", "xlnet"])
def test_one_text_has_the_tokenizers_token_types(name):
    tokenizer = TOKENIZERS[name]()
    found = Template("so: {input}").encode(tokenizer, "Anna lives", FIRST)
    assert found.type_ids == tokenizer("so: Anna lives").token_type_ids


def test_virtual_tokens_have_the_token_type_of_their_side():
    tokenizer = TOKENIZERS["bert"]()
    found = Template("{P:2}{a}{sep}{b}{P:1}").encode(tokenizer, {"a": "Anna", "b": "lives"}, FIRST)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    first, second = own(tokenizer, "Anna"), own(tokenizer, "lives")
    assert found.ids == [cls, FIRST, FIRST + 1, *first, sep, *second, FIRST + 2, sep]
    assert found.type_ids == [0] * (4 + len(first)) + [1] * (2 + len(second))


@pytest.mark.parametrize("name", PAIRED)
def test_of_a_pair_the_longer_side_is_cut_first(name):
    tokenizer = TOKENIZERS[name]()
    long, short = SENTENCES[0], "It rains."
    room = 2 * len(own(tokenizer, short)) + 3
    limit = room + tokenizer.num_special_tokens_to_add(pair=True)
    for first, second in ((long, short), (short, long)):
        found = Template("{a}{sep}{b}").encode(tokenizer, {"a": first, "b": second}, FIRST, limit)
        wanted = tokenizer(first, second, truncation="longest_first", max_length=limit)
        assert (found.ids, found.truncated) == (wanted.input_ids, True)
        assert found.type_ids == wanted.get("token_type_ids")


def test_two_separators_are_refused():
    with pytest.raises(GraftuneError, match=r"\{sep\} more than once"):
        Template("{a}{sep}{b}{sep}")


# The tokenizer stays as it is ------------------------------------------------------------------------------


def small(**options):
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "[MASK]": 3, "c": 4}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **options)


def test_truncation_and_padding_of_a_tokenizer_json_are_off_and_restored():
    tokenizer = small(mask_token="[MASK]", pad_token="c")
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(2)
    backend.enable_padding(length=8, pad_id=4, pad_token="c")
    before = backend.to_str()
    assert tokens(tokenizer, "a b a b") == [1, 2, 1, 2]
    assert Template().encode(tokenizer, "a b a b", FIRST).ids == [1, 2, 1, 2]
    assert backend.to_str() == before


def test_a_word_that_is_a_special_token_of_the_vocabulary_is_unknown_in_data():
    tokenizer = small(mask_token="[MASK]")
    assert tokenizer("a [MASK]", split_special_tokens=True).input_ids == [1, 3]
    assert text_ids(tokenizer, "a [MASK] b") == [1, 0, 2]
    assert Template("{input} {mask}").encode(tokenizer, "[MASK]", FIRST).ids == [0, 3]


def test_tokens_added_later_are_seen():
    tokenizer = small()
    assert tokens(tokenizer, "a <x> <y>") == [1, 0, 0]
    tokenizer.add_tokens(["<x>"])
    tokenizer.add_tokens([AddedToken("<y>", special=True)])
    assert tokens(tokenizer, "a <x> <y>") == [1, 5, 6]
    assert text_ids(tokenizer, "a <x> <y>") == [1, 5, 0]


def test_special_tokens_follow_the_tokenizer():
    tokenizer = TOKENIZERS["mbart"]()
    code = tokenizer.convert_tokens_to_ids
    try:
        assert special_tokens(tokenizer) == ([], [2, code("en_XX")])
        assert special_tokens(tokenizer, target=True) == ([], [2, code("ro_RO")])
        tokenizer.src_lang, tokenizer.tgt_lang = "de_DE", "fr_XX"
        assert special_tokens(tokenizer) == ([], [2, code("de_DE")])
        assert special_tokens(tokenizer, target=True) == ([], [2, code("fr_XX")])
    finally:
        tokenizer.src_lang, tokenizer.tgt_lang = "en_XX", "ro_RO"


class Letters:
    def pre_tokenize(self, pretok):
        pretok.split(lambda _, text: [text[i : i + 1] for i in range(len(str(text)))])


def test_a_backend_with_parts_in_python_is_called():
    tokenizer = small(mask_token="[MASK]")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Letters())
    assert isinstance(NormalizedString("ab")[0:1], NormalizedString)
    assert text_ids(tokenizer, "ab[MASK]") == [1, 2, 0, 0, 0, 0, 0, 0]
    assert tokens(tokenizer, "ab[MASK]c") == [1, 2, 3, 4]


def test_half_a_surrogate_pair_is_read_as_an_unknown_character():
    for build in TOKENIZERS.values():
        assert text_ids(build(), "a\ud83db") == text_ids(build(), "a\ufffdb")
        assert text_ids(build(), "\ud83d\ude00") == text_ids(build(), "😀")
