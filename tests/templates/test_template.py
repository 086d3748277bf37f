"""Templates: the plain one is the tokenizer; cutting takes from the input's end and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftune.errors import GraftuneError
from graftune.templates.template import Template, composed, shared, special_tokens, tokens
from tasks.conftest import byte_level

FIRST = 1000
TOKENIZERS = [byte_level(wrap) for wrap in (None, ("<s>", ""), ("[CLS]", "[SEP]"))]

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
pieces = st.lists(st.one_of(words, st.integers(1, 3)), max_size=3)
tokenizers = st.sampled_from(TOKENIZERS)


def written(parts: list[str | int]) -> str:
    return "".join(f"{{P:{part}}}" if isinstance(part, int) else Template.literal(part) for part in parts)


def encoded(tokenizer, parts: list[str | int], first: int) -> list[int]:
    """The ids of joined words and virtual tokens, by a second road."""
    ids: list[int] = []
    text = ""
    for part in [*parts, 0]:
        if isinstance(part, str):
            text += part
            continue
        ids += tokens(tokenizer, text)
        text = ""
        ids += range(first, first + part)
        first += part
    return ids


@given(tokenizers, words)
def test_plain_template_is_the_tokenizer(tokenizer, text):
    assert Template("{input}").encode(tokenizer, text, FIRST)[:2] == (tokenizer(text).input_ids, False)


@given(tokenizers, words.filter(bool), words, words)
def test_words_and_input_are_tokenised_as_one_string(tokenizer, text, left, right):
    template = Template(Template.literal(left) + "{input}" + Template.literal(right))
    assert template.encode(tokenizer, text, FIRST).ids == tokenizer(left + text + right).input_ids


@given(tokenizers, words, pieces, pieces)
def test_virtual_tokens_stand_where_the_template_says(tokenizer, text, left, right):
    opening, closing = special_tokens(tokenizer)
    template = Template(written(left) + "{input}" + written(right))
    ids = template.encode(tokenizer, text, FIRST).ids
    assert ids == opening + encoded(tokenizer, [*left, text, *right], FIRST) + closing
    count = sum(part for part in [*left, *right] if isinstance(part, int))
    assert [i for i in ids if i >= FIRST] == list(range(FIRST, FIRST + count))
    assert template.virtual_tokens == count


@given(tokenizers, words.filter(bool), pieces, pieces, st.integers(1, 60), st.booleans())
def test_cutting_takes_from_the_end_of_the_input_only(tokenizer, text, left, right, limit, suffix):
    opening, closing = special_tokens(tokenizer)
    template = Template(written(left) + "{input}" + written(right))
    whole = template.encode(tokenizer, text, FIRST, suffix=suffix)
    count = sum(part for part in left if isinstance(part, int))
    before = opening + encoded(tokenizer, left, FIRST)
    after = encoded(tokenizer, right, FIRST + count) + (closing if suffix else [])
    own = tokens(tokenizer, text)
    if limit >= len(whole.ids):
        assert template.encode(tokenizer, text, FIRST, limit, suffix=suffix) == whole
    elif limit <= len(before) + len(after):
        with pytest.raises(GraftuneError, match="no room for the input"):
            template.encode(tokenizer, text, FIRST, limit, suffix=suffix)
    else:
        ids, truncated, *_ = template.encode(tokenizer, text, FIRST, limit, suffix=suffix)
        room = limit - len(before) - len(after)
        assert ids == before + own[:room] + after
        assert len(ids) <= limit
        assert truncated == (room < len(own))


@given(words, words)
def test_literal_text_is_never_read_as_template(text, input):
    template = Template(Template.literal(text) + "{input}")
    assert template.encode(TOKENIZERS[0], input, FIRST).ids == tokens(TOKENIZERS[0], text + input)


def test_suffix_is_dropped_on_request():
    cls, sep = TOKENIZERS[2].convert_tokens_to_ids(["[CLS]", "[SEP]"])
    ids = Template("{P:2}{input}").encode(TOKENIZERS[2], "x", FIRST).ids
    assert ids == [cls, FIRST, FIRST + 1, *tokens(TOKENIZERS[2], "x"), sep]
    assert Template("{P:2}{input}").encode(TOKENIZERS[2], "x", FIRST, suffix=False).ids == ids[:-1]


sizes = st.lists(st.integers(0, 30), min_size=1, max_size=5)


@given(sizes, st.integers(0, 100))
def test_room_is_shared_by_cutting_the_longest(sizes, room):
    kept = shared(room, sizes)
    assert sum(kept) == min(sum(sizes), room)
    assert all(k <= size for k, size in zip(kept, sizes, strict=True))
    cut = [k for k, size in zip(kept, sizes, strict=True) if k < size]
    assert all(k <= min(cut) + 1 for k in kept) if cut else kept == sizes


@given(st.lists(words.filter(bool), min_size=2, max_size=2), pieces, st.integers(1, 60))
def test_cutting_several_columns_keeps_words_and_virtual_tokens(texts, between, limit):
    template = Template("{first}" + written(between) + "{second}")
    tokenizer = TOKENIZERS[2]
    values = dict(zip(("first", "second"), texts, strict=True))
    fixed = 2 + len(encoded(tokenizer, between, FIRST))
    whole = template.encode(tokenizer, values, FIRST)
    if len(whole.ids) <= limit:
        assert template.encode(tokenizer, values, FIRST, limit) == whole
    elif limit < fixed + 2:
        with pytest.raises(GraftuneError, match="no room"):
            template.encode(tokenizer, values, FIRST, limit)
    else:
        own = [tokens(tokenizer, text) for text in texts]
        a, b = shared(limit - fixed, [len(ids) for ids in own])
        ids = template.encode(tokenizer, values, FIRST, limit).ids
        opening, closing = special_tokens(tokenizer)
        assert ids == opening + own[0][:a] + encoded(tokenizer, between, FIRST) + own[1][:b] + closing


def test_columns_given_as_ids_stand_where_places_says():
    cls, sep = TOKENIZERS[2].convert_tokens_to_ids(["[CLS]", "[SEP]"])
    found = Template("{P:2}{question}?{context}").encode(
        TOKENIZERS[2], {"question": [11, 12, 13], "context": [21, 22]}, FIRST, 9
    )
    mark = tokens(TOKENIZERS[2], "?")
    assert found.ids == [cls, FIRST, FIRST + 1, 11, 12, *mark, 21, 22, sep]
    assert (found.truncated, found.places) == (True, {"question": (3, 2), "context": (6, 2)})


def test_an_unknown_column_is_named():
    with pytest.raises(GraftuneError, match="unknown template column 'txt'") as caught:
        Template("{txt}").encode(TOKENIZERS[0], {"text": "a", "input": "a"}, FIRST)
    assert "did you mean 'text'?" in str(caught.value)


def test_a_mask_stands_as_the_tokenizers_own_token():
    tokenizer = byte_level(("[CLS]", "[SEP]"), mask_token="<pad>")
    mask = tokenizer.convert_tokens_to_ids("<pad>")
    ids = Template("{input} is {mask}.").encode(tokenizer, "x", FIRST).ids
    assert ids.count(mask) == 1
    assert ids == tokenizer("x is <pad>.").input_ids
    cut = Template("{input} is {mask}.").encode(tokenizer, "abcdefgh", FIRST, len(ids)).ids
    assert cut[1] == tokens(tokenizer, "a")[0]
    assert cut[2:] == tokenizer(" is <pad>.").input_ids[1:]
    with pytest.raises(GraftuneError, match=r"no token for \{mask\}"):
        Template("{input} {mask}").encode(TOKENIZERS[0], "x", FIRST)


def test_a_separator_is_a_new_line_in_plain_text():
    template = Template("{premise}{sep}{hypothesis}? {mask}")
    assert template.has_separator and not Template("{{sep}} {input}").has_separator
    assert template.written({"premise": "a", "hypothesis": "b"}, "yes") == "a\nb? yes"
    assert template.until_mask() == Template("{premise}{sep}{hypothesis}?")


def test_a_model_that_writes_from_left_to_right_reads_up_to_the_mask():
    assert Template("{input} It was {mask}.").until_mask() == Template("{input} It was")
    assert Template("{{mask}} {input}").until_mask() == Template("{{mask}} {input}")
    for text in ("{mask}{input}", "{input}{mask}{P:2}"):
        with pytest.raises(GraftuneError, match="cannot see what stands behind"):
            Template(text).until_mask()


@pytest.mark.parametrize(
    ("method", "task", "together"),
    [
        ("{input}", "{input}", "{input}"),
        ("{P:2}{input}{P:1}", "{input} It was {mask}.", "{P:2}{input}{P:1} It was {mask}."),
        ("{P:2}{input}", "{premise}? {mask}, {hypothesis}", "{P:2}{premise}? {mask}, {hypothesis}"),
        ("{P:2}{input}", "{premise}{sep}{hypothesis}", "{P:2}{premise}{sep}{hypothesis}"),
        ("{P:2}{text}{P:1}{mask}", "{input} It was {mask}.", "{P:2}{text}{P:1}{mask}"),
        ("say {{input}} {input}", "{{input}} {input}!", "{{input}} say {{input}} {input}!"),
    ],
)
def test_a_methods_template_stands_in_the_tasks(method, task, together):
    assert composed(method, task) == together


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Table:", ["no {input} slot", "{input} or other columns"]),
        ("{input}{input}", ["{input} more than once"]),
        ("{input}{mask}{mask}", ["{mask} more than once"]),
        ("{inp:t}", ["unknown template slot 'inp:t'", "did you mean 'input'?"]),
        ("{input}{}", ["unknown template slot ''"]),
        ("{input}{p:3}", ["virtual tokens are written {P:<count>}", "received: {p:3}"]),
        ("{input}{P}", ["virtual tokens are written {P:<count>}", "{P:3}"]),
        ("{input}{P:0}", ["from 1 to 65536"]),
        ("{input}{P:-1}", ["from 1 to 65536"]),
        ("{input}{P:3", ["single '{' at character 8", "'{{'"]),
        ("}{input}", ["single '}' at character 1"]),
    ],
)
def test_errors(text, parts):
    with pytest.raises(GraftuneError) as caught:
        Template(text)
    assert all(part in str(caught.value) for part in parts)
    assert "what to do:" in str(caught.value)


def test_a_tokenizer_that_changes_the_text_is_refused():
    class Odd:
        def __call__(self, text, add_special_tokens=True, **options):
            ids = [1, 2] if add_special_tokens else [3]
            return type("Ids", (), {"input_ids": ids if isinstance(text, str) else [ids for _ in text]})

    with pytest.raises(GraftuneError, match="special tokens"):
        special_tokens(Odd())
