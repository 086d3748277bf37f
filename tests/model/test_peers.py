"""What peers get wrong, each as a test: one method at a time, next to the laws."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from families import DECODERS, PAD, VOCABULARY, base, batch, bert_config
from graftune.errors import GraftuneError
from graftune.methods import IA3, BottleneckAdapter, LoRA, PrefixTuning, PromptTuning, PTuning, PTuningV2
from graftune.methods.method import Method, make
from graftune.model.adapted import AdaptedModel
from graftune.parts import KeyValueRows, TableMLP, TokenRows
from graftune.parts.generators import PromptLSTM
from methods_under_test import METHODS, disturb

EXACT = 1e-5
Inputs = dict[str, torch.Tensor]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=EXACT, rtol=EXACT)


def with_adapters(plain: PreTrainedModel, **methods: Method) -> AdaptedModel:
    """A model with trained-looking adapters, each with values of its own."""
    model = AdaptedModel(plain)
    for seed, (name, method) in enumerate(methods.items()):
        model.add(name, method, seed=seed)
        disturb(model, name, seed=seed)
    return model


def alone(inputs: Inputs, row: int) -> Inputs:
    """One row without its padding."""
    ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()][None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def logits(model: AdaptedModel, inputs: Inputs, adapters: object) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs, adapters=adapters).logits


def tiny(config: object, cls: type[PreTrainedModel], seed: int = 0) -> PreTrainedModel:
    """A random model whose every weight matters."""
    torch.manual_seed(seed)
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return model


# Hugging Face PEFT, 1: one adapter per row ------------------------------------------------------------------

PER_ROW = ["prompt", "prefix", "prefix-direct", "p-tuning", "p-tuning-mlp", "p-tuning-v2", "ia3", "houlsby", "bitfit"]


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("method", PER_ROW)
def test_each_row_gets_its_own_adapter(family: str, method: str) -> None:
    model = with_adapters(base(family), a=METHODS[method], b=METHODS[method], c=METHODS[method])
    inputs = batch((6, 6, 6, 6))
    mixed = logits(model, inputs, ["c", "a", None, "b"])
    for row, name in enumerate(["c", "a", None, "b"]):
        close(mixed[row], logits(model, inputs, name)[row])
        others = [logits(model, inputs, other)[row] for other in ("a", "b", "c", None) if other != name]
        assert all((mixed[row] - other).abs().max() > 1e-3 for other in others)


@pytest.mark.parametrize("method", PER_ROW)
def test_a_mixed_batch_trains_each_adapter_as_alone(method: str) -> None:
    """Two adapters learn two tasks in the same batches, exactly as each would by itself."""
    inputs = batch((6, 4, 5, 6))
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)

    def train(adapters: list[str], rows: list[int]) -> AdaptedModel:
        model = with_adapters(base("gpt2"), a=METHODS[method], b=METHODS[method]).train()
        own = [p for name in sorted(set(adapters)) for p in model.parameters_of(name)]
        optimizer = torch.optim.SGD(own, lr=0.05)
        chosen = {k: v[rows] for k, v in inputs.items()}
        for _ in range(3):
            optimizer.zero_grad()
            scores = model(**chosen, adapters=adapters).logits.log_softmax(-1)[:, :-1]
            target = labels[rows][:, 1:]
            picked = scores.gather(-1, target.clamp(min=0)[..., None])[..., 0]
            (-(picked * (target >= 0)).sum()).backward()
            optimizer.step()
        return model

    together = train(["a", "b", "a", "b"], [0, 1, 2, 3])
    for name, rows in (("a", [0, 2]), ("b", [1, 3])):
        by_itself = train([name, name], rows)
        start = with_adapters(base("gpt2"), a=METHODS[method], b=METHODS[method])
        trios = zip(*(m.parameters_of(name) for m in (together, by_itself, start)), strict=True)
        changed = False
        for shared, own, before in trios:
            torch.testing.assert_close(shared, own, atol=1e-4, rtol=1e-3)
            changed |= not torch.equal(shared, before)
        assert changed


# 2: left padding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("method", ["prompt", "prompt-random", "p-tuning", "p-tuning-mlp"])
def test_left_padded_generation_with_prompts_is_one_by_one(family: str, method: str) -> None:
    model = with_adapters(base(family), a=METHODS[method])
    inputs = batch((9, 2, 5), left=True)
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": PAD}
    together = model.generate(**inputs, adapters="a", **options)[:, 9:]
    for row in range(3):
        single = alone(inputs, row)
        one = model.generate(**single, adapters="a", **options)
        assert together[row].tolist() == one[0, single["input_ids"].shape[1] :].tolist()
        own = logits(model, inputs, "a")[row][inputs["attention_mask"][row].bool()]
        close(own, logits(model, single, "a")[0])


# 4: gradient checkpointing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("reparameterize", [False, True])
def test_a_prefix_trains_under_gradient_checkpointing(family: str, reparameterize: bool) -> None:
    plain = base(family, classifier=True)
    plain.gradient_checkpointing_enable()
    model = AdaptedModel(plain).train()
    model.add("a", PrefixTuning(length=4, hidden=8, reparameterize=reparameterize), seed=0)
    before = [p.detach().clone() for p in model.parameters_of("a")]
    optimizer = torch.optim.SGD(model.parameters_of("a"), lr=0.5)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(**batch(), adapters="a", labels=torch.tensor([0, 1, 1, 0])).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert all(not torch.equal(p, q) for p, q in zip(model.parameters_of("a"), before, strict=True))


@pytest.mark.parametrize("options", [{"use_reentrant": True}, {"preserve_rng_state": False}])
@pytest.mark.parametrize("method", ["prefix-direct", "prefix", "lora"])
def test_checkpointing_that_would_train_nothing_is_an_error(method: str, options: dict[str, bool]) -> None:
    plain = base("gpt2")
    plain.gradient_checkpointing_enable(options)
    model = with_adapters(plain, a=METHODS[method]).train()
    with pytest.raises(GraftuneError, match="reentrant") as error:
        model(**batch(), adapters="a")
    assert "what to do: base.gradient_checkpointing_enable" in str(error.value)
    logits(model.eval(), batch(), "a")


# 5: families and sliding windows ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", [PrefixTuning(length=4, hidden=8), PTuningV2(length=4)], ids=["prefix", "v2"])
def test_a_prefix_on_distilbert(method: Method, tmp_path: Path) -> None:
    config = DistilBertConfig(vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=4, hidden_dim=48, pad_token_id=PAD)
    plain = tiny(config, DistilBertForSequenceClassification)
    inputs = batch()
    expected = plain(**inputs).logits
    model = with_adapters(plain, a=method)
    assert model.count("a").stored == 2 * 2 * 4 * 32
    mixed = logits(model, inputs, ["a", None, "a", None])
    for row, name in enumerate(["a", None, "a", None]):
        close(mixed[row], logits(model, alone(inputs, row), name)[0])
    assert (mixed[0] - expected[0]).abs().max() > 1e-3
    model.train()(**inputs, adapters="a", labels=torch.zeros(4, dtype=torch.long)).loss.backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters_of("a"))
    model.remove("a")
    assert torch.equal(plain.eval()(**inputs).logits, expected)


WINDOW = 4


def sliding(family: str) -> PreTrainedModel:
    common = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8, "sliding_window": WINDOW,
        "pad_token_id": PAD, "max_position_embeddings": 128,
    }  # fmt: skip
    if family == "mistral":
        return tiny(MistralConfig(**common), MistralForCausalLM)
    config = Gemma3TextConfig(**common, layer_types=["sliding_attention", "sliding_attention"])
    return tiny(config, Gemma3ForCausalLM)


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_tokens_far_behind_a_sliding_window_still_see_the_prefix(family: str) -> None:
    model = with_adapters(sliding(family), a=PrefixTuning(length=3, reparameterize=False))
    ids = torch.randint(3, VOCABULARY, (1, 20), generator=torch.Generator().manual_seed(0))
    (first, *_) = (p for p in model.adapter("a").modules() if isinstance(p, KeyValueRows))
    output = model(input_ids=ids, adapters="a").logits
    for position in (0, WINDOW, 19):
        (grad,) = torch.autograd.grad(output[0, position].sum(), first.rows, retain_graph=True)
        assert (grad.abs().amax(-1) > 0).all(), f"token {position} does not see every row of the prefix"
    # The window of the text itself is as it was: a token outside it has no effect.
    embedded = model.base.get_input_embeddings()(ids).detach().requires_grad_()
    hidden = model.base.model(inputs_embeds=embedded).last_hidden_state
    (grad,) = torch.autograd.grad(hidden[0, 19].sum(), embedded)
    reach = grad[0].abs().amax(-1) > 0
    assert not reach[: 20 - 2 * WINDOW + 1].any()


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_generation_past_a_sliding_window_is_one_by_one(family: str) -> None:
    model = with_adapters(sliding(family), a=PrefixTuning(length=3, reparameterize=False), b=PTuningV2(length=6))
    inputs = batch((9, 3, 6), left=True)
    options = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False, "pad_token_id": PAD}
    together = model.generate(**inputs, adapters=["a", "b", None], **options)[:, 9:]
    for row, name in enumerate(["a", "b", None]):
        single = alone(inputs, row)
        one = model.generate(**single, adapters=name, **options)[:, single["input_ids"].shape[1] :]
        assert together[row].tolist() == one[0].tolist()


# 6: going on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["prompt", "prefix", "p-tuning", "p-tuning-mlp", "p-tuning-v2", "p-tuning-v2-mlp"])
def test_prompt_learning_resumes_where_it_stopped(method: str, tmp_path: Path) -> None:
    inputs = batch()
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)

    def step(model: AdaptedModel, times: int) -> None:
        model.train()
        optimizer = torch.optim.SGD(model.parameters_of("a"), lr=0.1)
        for _ in range(times):
            optimizer.zero_grad()
            model(**inputs, adapters="a", labels=labels).loss.backward()
            optimizer.step()
        model.eval()

    model = with_adapters(base("gpt2"), a=METHODS[method])
    step(model, 2)
    model.save("a", tmp_path / "a")
    other = AdaptedModel(base("gpt2"))
    other.load("a", tmp_path / "a", trainable=True)
    assert other.count("a") == model.count("a")
    for m in (model, other):
        step(m, 2)
    for mine, resumed in zip(model.parameters_of("a"), other.parameters_of("a"), strict=True):
        close(mine, resumed)


# 7: heads for tokens and spans ------------------------------------------------------------------------------

PROMPTS = {
    "prompt": PromptTuning(4),
    "p-tuning": PTuning(pattern="{P:4}{input}"),
    "prefix": PrefixTuning(length=4, hidden=8),
}


@pytest.mark.parametrize("method", list(PROMPTS))
def test_token_classification_with_prompts(method: str) -> None:
    config = bert_config()
    config.num_labels = 3
    model = with_adapters(tiny(config, BertForTokenClassification), a=PROMPTS[method])
    model.remove("a")
    model.add("a", PROMPTS[method], heads=("classifier",), seed=0)
    inputs = batch()
    labels = (inputs["input_ids"] % 3).masked_fill(inputs["attention_mask"] == 0, -100)
    output = model(**inputs, adapters="a", labels=labels)
    assert output.logits.shape == (*inputs["input_ids"].shape, 3)
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten())
    close(output.loss, expected)
    for row in range(4):
        close(output.logits[row][inputs["attention_mask"][row].bool()], logits(model, alone(inputs, row), "a")[0])
    optimizer = torch.optim.Adam(model.parameters_of("a"), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(**inputs, adapters="a", labels=labels).loss
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.5 * float(output.loss)


@pytest.mark.parametrize("method", list(PROMPTS))
def test_question_answering_positions_mean_the_callers_columns(method: str) -> None:
    plain = tiny(bert_config(), BertForQuestionAnswering)
    model = AdaptedModel(plain)
    model.add("a", PROMPTS[method], heads=("qa_outputs",), seed=0)
    inputs = batch()
    first, last = torch.tensor([2, 1, 3, 0]), torch.tensor([5, 3, 6, 2])
    spans = {"start_positions": first, "end_positions": last}
    output = model(**inputs, adapters="a", **spans)
    assert output.start_logits.shape == output.end_logits.shape == inputs["input_ids"].shape
    # The loss is the one of the caller's positions, whatever stands between the tokens.
    optimizer = torch.optim.Adam(model.parameters_of("a"), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        output = model(**inputs, adapters="a", **spans)
        output.loss.backward()
        optimizer.step()
    assert output.start_logits.argmax(-1).tolist() == first.tolist()
    assert output.end_logits.argmax(-1).tolist() == last.tolist()


@pytest.mark.parametrize("method", ["prompt", "p-tuning"])
def test_positions_outside_the_batch_stay_without_a_loss(method: str) -> None:
    model = with_adapters(tiny(bert_config(), BertForQuestionAnswering), a=PROMPTS[method])
    inputs = batch((9, 9))
    inside, outside = torch.tensor([3, 4]), torch.tensor([3, 9])

    def loss(rows: slice, start: torch.Tensor) -> float:
        chosen = {k: v[rows] for k, v in inputs.items()}
        return float(model(**chosen, adapters="a", start_positions=start, end_positions=start).loss)

    assert loss(slice(0, 2), outside) == pytest.approx(loss(slice(0, 1), inside[:1]), abs=1e-5)


def test_class_scores_as_wide_as_the_batch_are_left_alone() -> None:
    """Nine classes and five tokens with four virtual ones: (B, 9) is not an entry a token."""
    config = bert_config()
    config.num_labels, config.problem_type = 9, "multi_label_classification"
    model = with_adapters(tiny(config, BertForSequenceClassification), a=PromptTuning(4))
    inputs = batch((5, 3))
    found = logits(model, inputs, "a")
    assert found.shape == (2, 9)
    for row in range(2):
        close(found[row], logits(model, alone(inputs, row), "a")[0])
    several = batch((9, 7))
    labels = torch.rand(2, 9).round()
    output = model(**several, adapters="a", labels=labels)
    close(output.loss, torch.nn.functional.binary_cross_entropy_with_logits(output.logits, labels))


# 8: virtual tokens anywhere, encoders once a step -----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "kind"),
    [("p-tuning", PromptLSTM), ("prefix", TableMLP), ("p-tuning-v2-mlp", TableMLP)],
)
def test_an_encoder_runs_once_a_step_and_once_a_generation(method: str, kind: type[torch.nn.Module]) -> None:
    model = with_adapters(base("gpt2"), a=METHODS[method], b=METHODS[method])
    calls: list[str] = []
    for name in ("a", "b"):
        (encoder,) = (m for m in model.adapter(name).modules() if isinstance(m, kind))
        encoder.register_forward_hook(lambda module, args, output, name=name: calls.append(name))
    inputs = batch(left=True)
    model.train()(**inputs, adapters="a").logits.sum().backward()
    assert calls == ["a"]
    calls.clear()
    model.eval()(**inputs, adapters=["a", "b", None, "a"])
    assert sorted(calls) == ["a", "b"]
    calls.clear()
    model.generate(**inputs, adapters=["a", "b", "b", "a"], max_new_tokens=7, pad_token_id=PAD)
    assert sorted(calls) == ["a", "b"]
    calls.clear()
    model(**inputs, adapters=None)
    assert not calls
    model.adapter("a").fold()
    calls.clear()
    model(**inputs, adapters="a")
    assert not calls


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_virtual_tokens_stand_where_the_template_puts_them(family: str) -> None:
    """Ids from the number of embedding rows on are the adapter's rows, in the middle of the text too."""
    plain = base(family)
    model = with_adapters(plain, a=PTuning(pattern="{P:2}{input}{P:3}"))
    v = VOCABULARY
    ids = torch.tensor([[v, v + 1, 20, 21, v + 2, v + 3, 30, v + 4], [40, v, 41, v + 1, v + 2, 42, v + 3, v + 4]])
    found = logits(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, "a")
    (part,) = (p for p in model.adapter("a").modules() if isinstance(p, TokenRows))
    table = torch.cat([plain.get_input_embeddings().weight, part.table().detach()])
    with torch.no_grad():
        expected = plain(inputs_embeds=table[ids], attention_mask=torch.ones_like(ids)).logits
    close(found, expected)


def test_more_virtual_tokens_than_the_adapter_has_are_an_error() -> None:
    model = with_adapters(base("gpt2"), a=PromptTuning(3))
    ids = torch.tensor([[VOCABULARY + 3, 5, 6]])
    with pytest.raises(GraftuneError, match="virtual tokens that its adapter does not have"):
        model(input_ids=ids, adapters="a")
    with pytest.raises(GraftuneError, match="more tokens than the base's embedding has rows"):
        model(input_ids=ids, adapters=None)


# AdapterHub, and serving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_prefixes_of_unequal_length_share_a_batch(family: str, left: bool) -> None:
    prefixes = {f"p{n}": PrefixTuning(length=n, reparameterize=False) for n in (1, 4, 11)}
    model = with_adapters(base(family), **prefixes)
    inputs = batch(left=left)
    names = ["p11", None, "p1", "p4"]
    mixed = logits(model, inputs, names)
    for row, name in enumerate(names):
        close(mixed[row][inputs["attention_mask"][row].bool()], logits(model, alone(inputs, row), name)[0])


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_a_batch_split_between_prompts_of_unequal_length(family: str, left: bool) -> None:
    model = with_adapters(base(family), short=PromptTuning(2), long=PromptTuning(9), tokens=METHODS["p-tuning"])
    inputs = batch(left=left)
    names = ["short", "long", None, "tokens"]
    mixed = logits(model, inputs, names)
    for row, name in enumerate(names):
        close(mixed[row][inputs["attention_mask"][row].bool()], logits(model, alone(inputs, row), name)[0])


def test_a_bottleneck_a_lora_and_a_prefix_share_a_batch() -> None:
    methods = {"b": BottleneckAdapter("pfeiffer", 4), "l": LoRA(rank=2), "p": PrefixTuning(length=3, hidden=4)}
    model = with_adapters(base("bert"), **methods)
    inputs, names = batch(), ["p", "b", "l", "p"]
    mixed = logits(model, inputs, names)
    for row, name in enumerate(names):
        close(mixed[row][inputs["attention_mask"][row].bool()], logits(model, alone(inputs, row), name)[0])


@pytest.mark.parametrize(
    ("name", "option", "meant"),
    [
        ("lora", "rnk", "rank"),
        ("prefix", "lenght", "length"),
        ("houlsby", "bottlneck", "bottleneck"),
        ("ia3", "output", "outputs"),
    ],
)
def test_an_unknown_option_is_an_error_with_a_suggestion(name: str, option: str, meant: str) -> None:
    with pytest.raises(GraftuneError, match=f"did you mean '{meant}'"):
        make(name, **{option: 4})


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize(
    "method",
    [
        LoRA(targets=("q", "nothing")),
        LoRA(targets="transformer.h.9.attn.c_attn"),
        IA3(inputs=("donw",)),
        LoRA(targets=()),
    ],
    ids=["one-of-two", "another-base", "typo", "none"],
)
def test_an_adapter_that_matches_no_site_is_an_error(family: str, method: Method) -> None:
    model = AdaptedModel(base(family))
    with pytest.raises(GraftuneError, match=r"unknown target|fits no site"):
        model.add("a", method)
    assert not model.adapters
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.base.modules())


@pytest.mark.parametrize("method", ["lora", "prefix-direct", "prompt", "houlsby"])
def test_a_reload_under_the_same_name_uses_the_new_weights(method: str, tmp_path: Path) -> None:
    """Nothing computed with the old adapter of this name is used again."""
    model = with_adapters(base("gpt2"), a=METHODS[method], other=METHODS[method])
    inputs = batch(left=True)
    model.save("other", tmp_path / "new")
    expected = logits(model, inputs, "other")
    old = logits(model, inputs, "a")
    model.remove("a")
    model.load("a", tmp_path / "new")
    found = logits(model, inputs, "a")
    real = inputs["attention_mask"].bool()
    close(found[real], expected[real])
    assert (found[real] - old[real]).abs().max() > 1e-2
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": PAD}
    mine = model.generate(**inputs, adapters="a", **options)
    assert torch.equal(mine, model.generate(**inputs, adapters="other", **options))


@pytest.mark.parametrize("method", list(METHODS))
def test_a_removed_adapter_frees_its_memory(method: str) -> None:
    model = with_adapters(base("gpt2"), a=METHODS[method], b=METHODS["lora"])
    inputs = batch()
    model.train()(**inputs, adapters=["a", "b", None, "a"]).logits.sum().backward()
    references = [weakref.ref(p) for p in model.parameters_of("a")]
    model.remove("a")
    gc.collect()
    assert not [r for r in references if r() is not None]
    logits(model, inputs, ["b", None, None, "b"])
    with pytest.raises(GraftuneError, match="unknown adapter 'a'"):
        model(**inputs, adapters="a")
