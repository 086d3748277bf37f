"""Forgetting: every figure against float64 loops over one row at a time, the plain base being a copy of its own."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cosine_similarity, kl_div
from transformers import (
    BartConfig,
    BartForQuestionAnswering,
    BertForMaskedLM,
    BertForSequenceClassification,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

from all_families import IMAGE, STACKS, T5, YOLOS
from families import bert_config, llama_config, randomised
from graftune.comparison import forgetting as module
from graftune.comparison import neutral
from graftune.comparison.forgetting import Forgetting, forgetting
from graftune.comparison.sides import Sides
from graftune.datasets import Row
from graftune.datasets.values import Answer
from graftune.errors import GraftuneError
from graftune.inference.running import encoder_for
from graftune.methods.method import make
from graftune.model.adapted import AdaptedModel
from graftune.tasks import Classify, Cloze, Detect, Extract, Generate, ImageClassify
from graftune.templates.template import Template, composed, text_ids
from methods_under_test import disturb
from tasks.conftest import byte_level
from training.tiny import small

ROWS = [Row("one he", "yes", 1), Row("a much longer input", "no he", 2), Row("x", "perhaps", 4), Row("be", "no", 5)]
TEXTS = ["he goes home.", "A bee, and the longer sentence that it is in.", "茶馆很热闹", "go"]
#: The head is another one under "full", and the other methods add tokens or rows.
METHODS = ["lora", "prefix", "prompt", "p-tuning", "full"]
TOLERANCE = 2e-5


@pytest.fixture(autouse=True)
def knowing(monkeypatch):
    """The random bases here know nothing, and are measured all the same."""
    monkeypatch.setattr(module, "BY_CHANCE", math.inf)


@dataclass
class Case:
    """An adapter that has been moved, and the base as it was before there was one."""

    trained: SimpleNamespace
    plain: object
    rows: list[Row]

    @property
    def model(self) -> AdaptedModel:
        return self.trained.model

    def measured(self, texts=TEXTS, rows=None, inputs=200) -> Forgetting:
        tables = SimpleNamespace(eval=SimpleNamespace(rows=self.rows if rows is None else rows))
        return forgetting(self.trained, SimpleNamespace(tables=tables), texts, inputs)

    def sides(self, ids, placed=None, **inputs):
        """Both outputs for one row; `placed` is what the adapter reads where it is not what the base reads."""
        inputs = {name: torch.tensor([value]) for name, value in inputs.items()}
        with torch.no_grad():
            plain = self.plain(input_ids=torch.tensor([ids]), output_hidden_states=True, **inputs)
            own = torch.tensor([ids if placed is None else placed])
            return plain, self.model(input_ids=own, adapters="trained", output_hidden_states=True, **inputs)

    def with_virtual(self, text):
        """The ids of a text as the adapter's template has them around it."""
        if self.model.adapter("trained").method.preset != "p-tuning":
            return list(text)
        first = self.trained.encoder.first_virtual_id
        return [first, first + 1, *text, first + 2, first + 3]


def case(base, tokenizer, task, method="lora", rows=ROWS, moved=True):
    """An adapter as training would leave it."""
    task = task.fit(rows).bind(base.config, tokenizer)
    plain = copy.deepcopy(base)
    model = AdaptedModel(base, tokenizer)
    method = small(method) if method != "prompt" else small("prompt", init="random")
    model.add("trained", method, heads=task.task.head(base.config).modules(base), seed=0)
    if moved:
        disturb(model, "trained", size=0.1)
    encoder = encoder_for(model, tokenizer, Template(composed(method.template, task.task.template)), "trained", None)
    return Case(SimpleNamespace(model=model, name="trained", task=task, encoder=encoder), plain, rows)


def made(model_class, config, tokenizer):
    config.vocab_size = len(tokenizer)
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
    return randomised(model_class, config)


def decoder(method="lora", opening="", **options):
    tokenizer = byte_level(wrap=(opening, "") if opening else None)
    return case(made(LlamaForCausalLM, llama_config(), tokenizer), tokenizer, Generate(), method, **options)


def pair(method="lora", **options):
    tokenizer = byte_level(wrap=("", "</s>"))
    config = T5Config(**T5 | {"decoder_start_token_id": 0})
    return case(made(T5ForConditionalGeneration, config, tokenizer), tokenizer, Generate(), method, **options)


def masked(method="lora", **options):
    tokenizer = byte_level(("[CLS]", "[SEP]"), mask_token="[MASK]")
    rows = [Row("he is good", "good", 1), Row("no", "bad", 2), Row("so very bad", "bad", 3)]
    task = Cloze(words="first", pattern="{input} is {mask}.")
    return case(made(BertForMaskedLM, bert_config(), tokenizer), tokenizer, task, method, rows, **options)


def classifier(method="lora", model_class=BertForSequenceClassification, config=bert_config, **options):
    tokenizer = byte_level(("[CLS]", "[SEP]"))
    return case(made(model_class, config(), tokenizer), tokenizer, Classify(), method, **options)


KINDS = {"decoder": decoder, "encoder-decoder": pair, "masked": masked, "classifier": classifier}


def divergences(plain, adapted):
    """KL(base || adapted) at each place of logits (T, V), in float64."""
    p, q = (logits.double().log_softmax(-1) for logits in (plain, adapted))
    return kl_div(q, p, reduction="none", log_target=True).sum(-1)


def check(found, sums, counts, tolerance=TOLERANCE):
    assert found.counts.tolist() == pytest.approx(counts)
    assert found.sums.tolist() == pytest.approx(sums, rel=tolerance, abs=1e-5)
    assert found.mean == pytest.approx(sum(sums) / sum(counts), rel=tolerance)
    assert found.mean > 1e-3  # the adapter has moved something


# On the task's inputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_divergence_of_a_decoder_is_over_the_tokens_of_the_inputs(method):
    one = decoder(method)
    sums, counts = [], []
    for row in ROWS:
        text, separator = text_ids(one.trained.task.processor, row.input), text_ids(one.trained.task.processor, "\n")
        placed = one.with_virtual(text)
        plain, adapted = one.sides(text + separator, placed + separator)
        real = [i for i, token in enumerate(placed + separator) if token < one.trained.encoder.first_virtual_id]
        sums.append(float(divergences(plain.logits[0], adapted.logits[0][real]).sum()))
        counts.append(len(text) + 1)
    found = one.measured()
    check(found.kl_task, sums, counts)
    assert found.means["kl_task"] == found.kl_task.mean
    assert found.drift is None


@pytest.mark.parametrize("method", METHODS)
def test_divergence_of_an_encoder_decoder_is_on_the_decoders_side(method):
    one = pair(method)
    sums, counts = [], []
    for row in ROWS:
        text = text_ids(one.trained.task.processor, row.input)
        target = [*text_ids(one.trained.task.processor, row.target), 2]
        plain, adapted = one.sides([*text, 2], [*one.with_virtual(text), 2], decoder_input_ids=[0, *target[:-1]])
        sums.append(float(divergences(plain.logits[0], adapted.logits[0]).sum()))
        counts.append(len(target))
    check(one.measured().kl_task, sums, counts)


def test_divergence_of_a_masked_language_model_is_at_the_masked_word():
    one = masked()
    tokenizer = one.trained.task.processor
    sums = []
    for row in one.rows:
        ids = tokenizer(f"{row.input} is [MASK].").input_ids
        plain, adapted = (output.logits[0, [ids.index(tokenizer.mask_token_id)]] for output in one.sides(ids))
        sums.append(float(divergences(plain, adapted).sum()))
    check(one.measured().kl_task, sums, [1] * len(sums))


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt", "p-tuning"])
@pytest.mark.parametrize(
    ("model_class", "config"),
    [(BertForSequenceClassification, bert_config), (LlamaForSequenceClassification, llama_config)],
    ids=["encoder", "decoder"],
)
def test_drift_of_a_base_without_words(method, model_class, config):
    one = classifier(method, model_class, config)
    sums, counts = [], []
    for row in ROWS:
        opening, closing = [3], [4]
        text = text_ids(one.trained.task.processor, row.input)
        placed = opening + one.with_virtual(text) + closing
        plain, adapted = one.sides(opening + text + closing, placed)
        real = [i for i, token in enumerate(placed) if token < one.trained.encoder.first_virtual_id]
        with torch.no_grad():
            last = one.plain.base_model(torch.tensor([opening + text + closing])).last_hidden_state
        assert torch.equal(last, plain.hidden_states[-1])
        states = adapted.hidden_states[-1][0, real]
        sums.append(float((1 - cosine_similarity(last[0].double(), states.double(), -1)).sum()))
        counts.append(len(text) + 2)
    found = one.measured()
    check(found.drift, sums, counts)
    assert set(found.means) == {"drift"}


@pytest.mark.parametrize("method", ["lora", "prompt"])
def test_drift_of_an_encoder_decoder_with_another_head_is_its_encoders(method):
    tokenizer = byte_level(("<s>", "</s>"), merges=False)
    text = {"context": "he is good"}
    rows = [Row("who", (Answer("good", 6),), 1, columns=text), Row("a longer question", (), 2, columns=text)]
    base = made(BartForQuestionAnswering, BartConfig(**STACKS), tokenizer)
    one = case(base, tokenizer, Extract(), method, rows)
    sums, counts = [], []
    for row in rows:
        ids = tokenizer(f"{row.input} he is good").input_ids
        plain, adapted = (output.encoder_last_hidden_state[0].double() for output in one.sides(ids))
        sums.append(float((1 - cosine_similarity(plain, adapted, -1)).sum()))
        counts.append(len(ids))
    check(one.measured().drift, sums, counts)


@pytest.mark.parametrize("kind", ["classes", "objects"])
def test_drift_of_images_of_two_sizes(kind, tmp_path):
    rows = []
    for number, size in enumerate([(12, 8), (8, 8), (12, 8)]):
        file = tmp_path / f"{number}.png"
        Image.effect_noise(size, 90 + number).save(file)
        target = "ab"[number % 2] if kind == "classes" else (("cell", (1.0, 2.0, 5.0, 6.0)),)
        rows.append(Row(file, target, number + 1))
    if kind == "classes":
        config = ViTConfig(**IMAGE)
        base, processor = randomised(ViTForImageClassification, config), ViTImageProcessor(size=8, do_normalize=False)
        task = ImageClassify()
    else:
        base = randomised(YolosForObjectDetection, YolosConfig(**YOLOS, num_labels=1))
        processor = YolosImageProcessor(do_resize=False, do_pad=False, image_mean=[0.5], image_std=[0.5])
        task = Detect()
    one = case(base, processor, task, rows=rows)
    sums, counts = [], []
    for row in rows:
        (features,) = one.trained.task.encode(row, one.trained.encoder)
        with torch.no_grad():
            plain = one.plain.base_model(features.pixels[None]).last_hidden_state[0]
            read = []
            handle = one.model.base.base_model.register_forward_hook(lambda *args, read=read: read.append(args[-1]))
            one.model(pixel_values=features.pixels[None], adapters="trained")
            handle.remove()
        states = read[0].last_hidden_state[0]
        sums.append(float((1 - cosine_similarity(plain.double(), states.double(), -1)).sum()))
        counts.append(len(states))
    assert (len(set(counts)) == 2) == (kind == "objects")
    found = one.measured()
    check(found.drift, sums, counts)
    assert set(found.means) == {"drift"}


def test_rows_and_places_are_spread_evenly(monkeypatch):
    one = decoder()
    whole = one.measured()
    few = one.measured(inputs=2)
    assert few.kl_task.sums == pytest.approx(whole.kl_task.sums[[0, 2]], rel=TOLERANCE)
    monkeypatch.setattr(module, "PLACES", 3)
    assert one.measured(inputs=2).kl_task.counts.tolist() == [3, 2]  # "x" and a new line


# On neutral passages ----------------------------------------------------------------------------------------


def bits_of(output, wanted, places):
    """-log2 of the chance of each wanted token, in float64, token by token."""
    return sum(
        -float(output.logits[0, place].double().log_softmax(-1)[token]) / math.log(2)
        for token, place in zip(wanted, places, strict=True)
    )


@pytest.mark.parametrize("opening", ["", "<s>"])
@pytest.mark.parametrize("method", METHODS)
def test_bits_of_a_decoder_are_over_all_tokens_of_the_text(method, opening):
    one = decoder(method, opening)
    sums = []
    for text in TEXTS:
        ids = text_ids(one.trained.task.processor, text)
        placed = [1, *one.with_virtual(ids)]
        outputs = one.sides([1, *ids], placed)
        first = placed.index(ids[0], 1)
        ways = [range(len(ids)), range(first - 1, first - 1 + len(ids))]
        sums.append([bits_of(output, ids, places) for output, places in zip(outputs, ways, strict=True)])
    found = one.measured()
    check(found.base_bits, [base for base, _ in sums], [len(text.encode()) for text in TEXTS])
    check(found.adapted_bits, [adapted for _, adapted in sums], [len(text.encode()) for text in TEXTS])
    base, adapted = (sum(side) / sum(len(text.encode()) for text in TEXTS) for side in zip(*sums, strict=True))
    assert found.means["bits_per_byte"] == pytest.approx(base, rel=TOLERANCE)
    assert found.means["bits_per_byte_change"] == pytest.approx(adapted - base, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_bits_of_an_encoder_decoder_are_over_the_second_half(method):
    one = pair(method)
    halves = [
        ("he goes", "home."),
        ("A bee, and the longer sentence", "that it is in."),
        ("茶馆", "很热闹"),
        ("g", "o"),
    ]
    sums = []
    for before, after in halves:
        source, target = (text_ids(one.trained.task.processor, text) for text in (before, after))
        outputs = one.sides([*source, 2], [*one.with_virtual(source), 2], decoder_input_ids=[0, *target])
        sums.append([bits_of(output, target, range(len(target))) for output in outputs])
    found = one.measured()
    counts = [len(after.encode()) for _, after in halves]
    check(found.base_bits, [base for base, _ in sums], counts)
    check(found.adapted_bits, [adapted for _, adapted in sums], counts)


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt", "p-tuning"])
def test_bits_of_a_masked_language_model_are_over_masked_tokens(method):
    one = masked(method)
    tokenizer, first = one.trained.task.processor, one.trained.encoder.first_virtual_id
    readings = neutral.readings(Sides(one.trained), one.trained, TEXTS)
    sums, counts = [], []
    for text, reading in zip(TEXTS, readings, strict=True):
        ids = text_ids(tokenizer, text)
        hidden = [i for i, token in enumerate(reading.ids) if token == tokenizer.mask_token_id]
        assert len(hidden) == max(1, round(0.15 * len(ids)))
        restored = list(reading.ids)
        for place, token in zip(hidden, reading.wanted, strict=True):
            restored[place] = token
        assert restored == [3, *one.with_virtual(ids), 4]
        kept = [i for i, token in enumerate(reading.ids) if token < first]
        plain, adapted = one.sides([reading.ids[i] for i in kept], reading.ids)
        places = [kept.index(i) for i in hidden]
        sums.append([bits_of(plain, reading.wanted, places), bits_of(adapted, reading.wanted, hidden)])
        counts.append(len(text.encode()) * len(hidden) / len(ids))
    found = one.measured()
    check(found.base_bits, [base for base, _ in sums], counts)
    check(found.adapted_bits, [adapted for _, adapted in sums], counts)


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder", "masked"])
def test_what_is_too_long_is_cut_and_its_bytes_are_not_counted(kind, monkeypatch):
    one = KINDS[kind]()
    monkeypatch.setattr(neutral, "LONGEST", 12)
    text = "他们去了南方的山里"  # 3 bytes a character, and as many tokens
    tokens = {"decoder": 9, "encoder-decoder": 9, "masked": 9}[kind]  # of 12, with what stands around them
    (reading,) = neutral.readings(Sides(one.trained), one.trained, [text])
    scored = len(reading.wanted)
    assert scored == (1 if kind == "masked" else tokens)
    assert reading.amount == pytest.approx(scored)


def test_a_passage_with_unknown_tokens_is_left_out():
    words = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "go", "home", "x", "yes"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    specials = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **specials)
    rows = [Row("go home", "yes", 1)]
    one = case(made(LlamaForCausalLM, llama_config(), tokenizer), tokenizer, Generate(), rows=rows)
    found = one.measured(["go home", "go away", "home x go"])
    assert found.base_bits.counts.tolist() == [7, 0, 9]
    assert (found.base_bits.sums > 0).tolist() == [True, False, True]
    nothing = one.measured(["go away"])
    assert nothing.base_bits is None
    assert set(nothing.means) == {"kl_task"}


def test_a_passage_that_the_base_never_knew_is_left_out(monkeypatch):
    one = decoder()
    whole = one.measured()
    each = whole.base_bits.sums / whole.base_bits.counts
    monkeypatch.setattr(module, "BY_CHANCE", float(sorted(each)[1] + sorted(each)[2]) / 2)
    some = one.measured()
    known = each < module.BY_CHANCE
    assert known.sum() == 2
    for before, after in ((whole.base_bits, some.base_bits), (whole.adapted_bits, some.adapted_bits)):
        assert after.counts.tolist() == (before.counts * known).tolist()
        assert after.sums.tolist() == (before.sums * known).tolist()
    monkeypatch.setattr(module, "BY_CHANCE", 0.0)
    assert set(one.measured().means) == {"kl_task"}


# What holds for all -----------------------------------------------------------------------------------------


def arrays(found):
    given = {name: getattr(found, name) for name in ("kl_task", "drift", "base_bits", "adapted_bits")}
    return {name: sums for name, sums in given.items() if sums is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_change_is_no_change(kind):
    found = KINDS[kind](moved=False).measured()
    if kind == "classifier":
        assert abs(found.means["drift"]) < 1e-12
        return
    assert found.means["kl_task"] == 0
    assert found.means["bits_per_byte_change"] == 0
    assert found.means["bits_per_byte"] > 0.5


def test_the_baseline_is_the_plain_base_and_not_the_untrained_adapter():
    found = decoder("prompt", moved=False).measured()
    assert found.means["kl_task"] > 1e-3
    assert found.means["bits_per_byte_change"] != 0


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_say_the_same_together_and_alone(kind, method):
    one = KINDS[kind](method)
    together = arrays(one.measured(TEXTS))
    for number, row in enumerate(one.rows):
        alone = arrays(one.measured(TEXTS[:1], [row]))
        for name in {"kl_task", "drift"} & set(together):
            assert alone[name].sums[0] == pytest.approx(together[name].sums[number], rel=1e-4, abs=1e-6)
    for number, text in enumerate(TEXTS if "base_bits" in together else []):
        if kind == "masked" and number:
            continue  # which tokens are masked depends on the place of a passage
        alone = arrays(one.measured([text], one.rows[:1]))
        for name in ("base_bits", "adapted_bits"):
            assert alone[name].sums[0] == pytest.approx(together[name].sums[number], rel=1e-4)


def test_few_logits_at_a_time_give_the_same(monkeypatch):
    one = decoder("full")
    whole = one.measured()
    monkeypatch.setattr("graftune.comparison.sides.CHUNK_BYTES", 4 * 268 * 3)
    monkeypatch.setattr("graftune.comparison.sides.LOGIT_BYTES", 1)
    for name, sums in arrays(one.measured()).items():
        assert sums.sums == pytest.approx(getattr(whole, name).sums, rel=TOLERANCE)


def test_measuring_leaves_base_and_modes_as_they_were():
    one = decoder("lora")
    one.model.train()
    before = {name: value.clone() for name, value in one.model.base.state_dict().items()}
    first, second = one.measured(), one.measured()
    assert first.means == second.means
    assert one.model.training
    assert all(torch.equal(value, before[name]) for name, value in one.model.base.state_dict().items())


def test_a_method_without_training_changes_nothing():
    one = decoder()
    one.model.remove("trained")
    one.model.add("trained", make("hard-prompt"))
    assert one.measured() == Forgetting()
    assert one.measured().means == {}


def test_the_passages_of_the_package():
    texts = neutral.passages()
    chinese = [text for text in texts if "，" in text]
    english = [text for text in texts if text.isascii()]
    assert (len(english), len(chinese), len(set(texts))) == (24, 8, 32)
    assert all(60 <= len(text.split()) <= 120 for text in english)
    assert all(100 <= len(text) <= 200 for text in chinese)


def test_passages_stand_between_blank_lines():
    assert neutral.split("\n a b\nc \n\n \n\nd\n") == ("a b c", "d")
    assert neutral.split(" \n") == ()


def test_neutral_passages_of_ones_own(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("First,\nand on.\n\n\nSecond.\n", encoding="utf-8")
    assert neutral.passages(str(file)) == ("First, and on.", "Second.")


@pytest.mark.parametrize("content", [None, b"\n \n", b"\xff\xfe broken"])
def test_neutral_passages_that_are_none_are_refused(tmp_path, content):
    file = tmp_path / "mine.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(GraftuneError, match="neutral passages"):
        neutral.passages(str(file))
