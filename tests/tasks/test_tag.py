"""Tagging: each word's first piece carries its tag; entities are scored as a hand count says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertForTokenClassification

from families import bert_config
from graftune.datasets import Row
from graftune.errors import GraftuneError
from graftune.inference.evaluation import check, evaluate, problems_of
from graftune.tasks import Tag, from_state, metrics, state_of
from graftune.tasks.features import PromptEncoder
from graftune.templates import Template

from .conftest import Plain, byte_level

TOKENIZER = byte_level(("[CLS]", "[SEP]"))
ROWS = [
    Row(("the", "sea", "is", "he"), ("O", "B-X", "O", "B-Y"), 1),
    Row(("good", "he"), ("B-X", "I-X"), 2),
    Row(("bad",), ("O",), 3),
]
FIRST = 1000


def fitted() -> Tag:
    return Tag().fit(ROWS)


def bound():
    return fitted().bind(bert_config(), TOKENIZER)


def base() -> BertForTokenClassification:
    config = bert_config()
    config.vocab_size, config.num_labels = len(TOKENIZER), len(fitted().labels)
    torch.manual_seed(0)
    return BertForTokenClassification(config).eval()


words = st.lists(st.text("abgeh.", min_size=1, max_size=5), min_size=1, max_size=6)


@given(words, st.sampled_from(["{input}", "{P:2}{input}{P:1}", "tag: {input}"]))
def test_the_first_piece_of_each_word_carries_its_tag(words, template):
    task = fitted()
    tags = tuple(task.labels[i % len(task.labels)] for i in range(len(words)))
    (features,) = bound().encode(Row(tuple(words), tags, 1), PromptEncoder(TOKENIZER, Template(template), FIRST))
    assert len(features.ids) == len(features.labels)
    own = TOKENIZER(" ".join(words), add_special_tokens=False)
    start = len(features.ids) - len(own.input_ids) - 1 - template.count("{P:1}")
    assert features.ids[start : start + len(own.input_ids)] == own.input_ids
    place = 0
    expected = [-100] * len(features.ids)
    for word, tag in zip(words, tags, strict=True):
        expected[start + own.char_to_token(max(place - 1, 0))] = task.labels.index(tag)  # a space may be a token
        place += len(word) + 1
    assert features.labels == expected
    assert sum(label != -100 for label in features.labels) == len(words)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_evaluation_equals_one_row_at_a_time_in_float64(batch_size):
    task, model = fitted(), base()
    result = evaluate(Plain(model), bound(), ROWS, None, Template(), batch_size=batch_size)
    losses, guesses = [], []
    for row in ROWS:
        ids = TOKENIZER(" ".join(row.input))
        scores = model(torch.tensor([ids.input_ids])).logits[0].double().log_softmax(-1)
        places = [len(" ".join(row.input[:n])) + (n > 0) for n in range(len(row.input))]
        firsts = [ids.char_to_token(max(place - 1, 0)) for place in places]
        losses += [-scores[at, task.labels.index(tag)].item() for at, tag in zip(firsts, row.target, strict=True)]
        guesses.append([task.labels[i] for i in scores[firsts].argmax(-1).tolist()])
    assert result.metrics["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert [p["tags"] for p in result.predictions] == guesses


def test_entities_are_counted_as_conlleval_does():
    truth = [["B-X", "I-X", "O", "B-Y"], ["O", "B-X"]]
    guess = [["B-X", "O", "O", "B-Y"], ["B-X", "B-X"]]  # found: X(short), Y, X, X; right: Y and the last X
    found = metrics.tags(guess, truth)
    scores, notes = found.values, found.notes
    assert scores["precision"] == pytest.approx(2 / 4)
    assert scores["recall"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert "seqeval" in notes["f1"]
    found = metrics.tags([["N", "V"]], [["N", "N"]])
    scores, notes = found.values, found.notes
    assert scores["accuracy"] == 0.5
    assert "no entities" in notes["f1"]


def test_entities_are_shown_in_the_text():
    assert metrics.marked(("of", "colon", "cancer", "."), ("O", "B-D", "I-D", "O")) == "of [colon cancer | D] ."
    assert metrics.marked(("a", "b"), ("O", "B-D")) == "a [b | D]"
    assert metrics.marked(("a", "b"), ("O", "O")) == "a b"
    assert metrics.marked(("he", "is"), ("N", "V")) == "he/N is/V"


def test_words_beyond_the_limit_are_tagged_in_windows_of_their_own():
    """Every word has a prediction and a loss: no row is cut."""
    row = Row(tuple(f"w{i}" for i in range(40)), ("B-X",) * 40, 1)
    windows = bound().encode(row, PromptEncoder(TOKENIZER, Template("{P:1}{input}"), FIRST, 24))
    assert all(len(window.ids) <= 24 for window in windows)
    assert len(windows) > 5
    assert sorted(word for window in windows for word in window.words) == list(range(40))
    result = evaluate(Plain(base()), bound(), [row, *ROWS], None, Template(), max_length=24)
    assert len(result.predictions[0]["tags"]) == 40
    assert result.notes["windows"].startswith("1 of 4")
    alone = evaluate(Plain(base()), bound(), [row], None, Template(), max_length=24)
    assert alone.predictions[0] == result.predictions[0]


def test_loss_is_the_mean_over_words():
    logits = torch.randn(1, 4, 4)
    labels = torch.tensor([[-100, 2, -100, 1]])
    expected = -logits.double().log_softmax(-1)[0, [1, 3], [2, 1]].mean()
    batch = {"labels": labels}
    sums, counts = bound().losses(SimpleNamespace(logits=logits), batch), bound().counts(batch)
    assert (sums / counts).item() == pytest.approx(expected.item())


def test_state_and_bad_rows():
    task = fitted()
    assert from_state(state_of(task)) == task
    wrong = problems_of(bound(), [*ROWS, Row(("a", "b"), ("O",), 7), Row(("a",), ("B-Z",), 9)])
    assert wrong[7] == "2 words and 1 tags"
    assert wrong[9].startswith("unknown label 'B-Z'")
    assert set(wrong) == {7, 9}
    with pytest.raises(GraftuneError, match="line 7: 2 words and 1 tags"):
        check(bound(), [Row(("a", "b"), ("O",), 7)])
