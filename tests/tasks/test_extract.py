"""Extraction: windows see the whole text, positions name the answer, the best span is the best of all."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertForQuestionAnswering

from families import bert_config
from graftune.datasets import Row
from graftune.datasets.values import Answer
from graftune.errors import GraftuneError
from graftune.inference.evaluation import evaluate, problems_of
from graftune.tasks import Extract, metrics
from graftune.tasks.features import PromptEncoder
from graftune.tasks.spans import best_span, best_threshold
from graftune.templates import Template

from .conftest import Plain, byte_level

TOKENIZER = byte_level(("[CLS]", "[SEP]"))
TEXT = "the boat left at noon and came back at nine"
FIRST = 1000


def row(question: str = "when?", answer: str = "noon", text: str = TEXT, line: int = 1) -> Row:
    return Row(question, (Answer(answer, None),), line, columns={"context": text, "question": question})


@given(st.integers(20, 60), st.integers(1, 6), st.sampled_from(["boat", "noon", "nine", "back at nine"]))
def test_windows_see_all_of_the_text_and_name_the_answer(limit, stride, answer):
    task = Extract(stride=stride).bind(bert_config(), TOKENIZER)
    template = Template("{P:2}{input} {context}")
    windows = task.encode(row(answer=answer), PromptEncoder(TOKENIZER, template, FIRST, limit))
    seen = set()
    for window in windows:
        assert len(window.ids) <= limit
        seen |= {place for span in window.offsets for place in range(*span)}
        start, end = window.labels
        if (start, end) != (0, 0):
            first, last = window.offsets[start - window.start], window.offsets[end - window.start]
            assert TEXT[first[0] : last[1]].strip() == answer
    assert seen == set(range(len(TEXT)))
    for before, after in pairwise(windows):
        assert len(set(map(tuple, before.offsets)) & set(map(tuple, after.offsets))) == stride
    if len(windows) == 1:
        assert windows[0].labels != [0, 0]


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**31))
def test_the_best_span_is_the_best_of_all(size, longest, seed):
    generator = torch.Generator().manual_seed(seed)
    start, end = torch.randn(2, size, generator=generator)
    sums = {(i, j): float(start[i] + end[j]) for i in range(size) for j in range(i, min(size, i + longest))}
    value, first, last = best_span(start, end, longest)
    assert sums[first, last] == pytest.approx(max(sums.values()))
    assert value == pytest.approx(max(sums.values()))


def test_evaluation_reads_the_answer_off_the_best_window():
    config = bert_config()
    config.vocab_size = len(TOKENIZER)
    torch.manual_seed(0)
    model = BertForQuestionAnswering(config).eval()
    task = Extract(stride=2).bind(model.config, TOKENIZER)
    template = Template(task.task.pattern)
    rows = [row(), row(answer="nine", line=2), row(answer="boat", text="a boat", line=3)]
    result = evaluate(Plain(model), task, rows, None, template, max_length=30, batch_size=2)
    alone = [evaluate(Plain(model), task, [r], None, template, max_length=30).predictions[0] for r in rows]
    assert result.predictions == alone
    assert all(p["prediction"] in r.columns["context"] for p, r in zip(alone, rows, strict=True))
    assert "2 of 3 texts read in more than one window" in result.notes["windows"]
    assert set(result.metrics) == {"f1", "em", "loss"}


def test_bad_rows_and_options():
    task = Extract().bind(bert_config(), TOKENIZER)
    assert problems_of(task, [row(answer="never", line=4), row()]) == {4: "'context' does not hold the answer 'never'"}
    with pytest.raises(GraftuneError, match="unknown column 'context'"):
        problems_of(task, [Row("a", (Answer("b", None),), 1, columns={"contxt": "b"})])
    with pytest.raises(GraftuneError, match="line 1: there is no room for windows"):
        task.encode(row(), PromptEncoder(TOKENIZER, Template(task.task.pattern), FIRST, 12))
    with pytest.raises(GraftuneError, match="stride is too small"):
        Extract(stride=0)
    with pytest.raises(GraftuneError, match="received: window=64, stride=64"):
        Extract(window=64)


def test_the_annotated_place_is_trained_on_and_not_the_first_one():
    """SQuAD says where its answer starts; "noon" stands in this text twice."""
    text = "noon is not when the boat left, which was at noon"
    at = text.rindex("noon")
    task = Extract().bind(bert_config(), TOKENIZER)
    for start, expected in ((at, at), (None, 0)):  # an unknown place is searched for
        found = Row("when?", (Answer("noon", start),), 1, columns={"context": text})
        (window,) = task.encode(found, PromptEncoder(TOKENIZER, Template(task.task.pattern), FIRST))
        first, last = (window.offsets[place - window.start] for place in window.labels)
        assert text[first[0] : last[1]].strip() == "noon"
        assert first[1] - 4 <= expected <= first[1]


@pytest.mark.parametrize("start", [6, 8, 3, 400])
def test_an_answer_that_does_not_stand_where_it_says_is_a_bad_row(start):
    text = "it was noon when the boat left, at noon"
    rows = [Row("when?", (Answer("noon", start),), 1, columns={"context": text})]
    problem = problems_of(Extract().bind(bert_config(), TOKENIZER), rows)[1]
    assert problem == f"the answer 'noon' does not start at {start}: {text[start : start + 4]!r} stands there"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_does_not_depend_on_padding_or_on_the_batch(smoothing):
    config = bert_config()
    config.vocab_size = len(TOKENIZER)
    torch.manual_seed(0)
    model = Plain(BertForQuestionAnswering(config).double().eval())
    task = Extract(stride=2).bind(config, TOKENIZER)
    encoder = PromptEncoder(TOKENIZER, Template(task.task.pattern), FIRST, 30)
    windows = [w for r in (row(), row(text="a boat", answer="boat")) for w in task.encode(r, encoder)]
    alone = []
    for window in windows:
        outputs = model(**task.model_inputs(task.collate([window])), adapters=None)
        alone.append(task.losses(outputs, task.collate([window]), smoothing))
        # by hand: over the first position and the text
        allowed = [0, *range(window.start, window.start + len(window.offsets))]
        sides = (outputs.start_logits, outputs.end_logits)
        logs = [side[0, allowed].double().log_softmax(-1) for side in sides]
        targets = [allowed.index(place) for place in window.labels]
        hand = [-(1 - smoothing) * log[t] - smoothing * log.mean() for log, t in zip(logs, targets, strict=True)]
        assert alone[-1].item() == pytest.approx((sum(hand) / 2).item(), rel=1e-5)
    for width in (0, 40, 60):
        batch = task.collate(windows, width)
        together = task.losses(model(**task.model_inputs(batch), adapters=None), batch, smoothing)
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_a_question_without_an_answer_is_legal_and_trained_to_point_at_the_first_position():
    rows = [row(), Row("why?", (), 2, columns={"context": TEXT, "question": "why?"})]
    fitted = Extract().fit(rows)
    assert fitted.unanswerable
    assert not Extract().fit(rows[:1]).unanswerable
    task = fitted.bind(bert_config(), TOKENIZER)
    assert task.needs_calibration
    assert problems_of(task, rows) == {}
    (window,) = task.encode(rows[1], PromptEncoder(TOKENIZER, Template(fitted.pattern), FIRST))
    assert window.labels == [0, 0]


@given(
    st.lists(
        st.tuples(st.floats(-5, 5), st.sampled_from(["boat", "noon"]), st.sampled_from([[], ["boat"], ["noon"]])),
        min_size=1,
        max_size=8,
    )
)
def test_the_threshold_is_the_best_of_all(rows):
    margins, texts, references = zip(*rows, strict=True)

    def quality(threshold):
        chosen = ["" if margin > threshold else text for margin, text in zip(margins, texts, strict=True)]
        return metrics.spans(chosen, references).values["f1"]

    best = quality(best_threshold(margins, texts, references))
    for threshold in (*margins, *(margin - 1e-3 for margin in margins), -10, 0, 10):
        assert quality(threshold) <= best + 1e-3
