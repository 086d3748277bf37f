"""An adapted model trains in ``transformers.Trainer`` and ``trl.SFTTrainer`` as it is."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from datasets import Dataset
from families import VOCABULARY, base
from graftune.errors import GraftuneError
from graftune.methods.method import make
from graftune.model.adapted import AdaptedModel
from methods_under_test import METHODS, disturb
from tasks.conftest import byte_level
from training.tiny import same, small

#: Rates at which each method's loss falls within a few steps.
RATES = {"lora": 1e-2, "prefix": 1e-2, "p-tuning": 1e-2, "houlsby": 1e-2, "freeze": 1e-2, "bitfit": 3e-2}
ANSWER = 3  # where a row's answer starts: what comes before is not learnt


def adapted(method: str, *, seed: int = 0, family: str = "gpt2", moved: bool = False) -> AdaptedModel:
    """A random base with one adapter in use, moved away from its start where asked."""
    model = AdaptedModel(base(family))
    model.add("a", METHODS[method], seed=seed)
    model.use("a")
    if moved:
        disturb(model, "a")
    return model


def rows(count: int = 8) -> Dataset:
    """Rows to continue, of which a growing part counts, with a column that no base takes."""
    made = []
    for i in range(count):
        ids = [3 + (7 * i + j) % 11 for j in range(9)]
        labels = [-100] * (ANSWER + i % 4) + ids[ANSWER + i % 4 :]
        made.append({"input_ids": ids, "labels": labels, "comment": f"row {i}"})
    return Dataset.from_list(made)


def batch_of(data: Dataset, count: int) -> dict[str, Tensor]:
    """The first rows as tensors."""
    return {name: torch.tensor(data[name][:count]) for name in ("input_ids", "labels")}


class Gradients(TrainerCallback):
    """Keeps the gradients that the first step is made from."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.kept:
            self.kept = gradients(kwargs["model"])


def gradients(model: AdaptedModel) -> list[Tensor]:
    """The gradients of the adapter's parameters."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters_of("a")]


def trainer_of(model: AdaptedModel, out: Path, **options: Any) -> Trainer:
    """A Trainer over the rows, with short runs and nothing written unless asked for."""
    data = options.pop("data", None) or rows()
    kind = {k: options.pop(k) for k in ("callbacks", "data_collator") if k in options}
    usual = {"max_steps": 6, "per_device_train_batch_size": 4, "logging_steps": 1, "save_strategy": "no"}
    quiet = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "max_grad_norm": 0}
    arguments = TrainingArguments(str(out), **{**usual, **quiet, **options})
    return Trainer(model, arguments, train_dataset=data, eval_dataset=data, **kind)


def losses(trainer: Trainer) -> list[float]:
    """The loss of each step."""
    return [point["loss"] for point in trainer.state.log_history if "loss" in point]


def stored(model: AdaptedModel) -> dict[str, Tensor]:
    """The state as it is now, not as it will be."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# transformers.Trainer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", RATES)
def test_trainer_trains_the_adapter_and_nothing_else(method: str, tmp_path: Path) -> None:
    model = adapted(method)
    before, start = copy.deepcopy(model.base.state_dict()), stored(model)
    trainer = trainer_of(model, tmp_path, learning_rate=RATES[method], max_steps=16, per_device_train_batch_size=8)
    trained = [p for group in trainer.create_optimizer().param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in model.parameters_of("a")}
    trainer.train()
    curve = losses(trainer)
    assert curve[-1] < 0.9 * curve[0]
    assert same(before, model.base.state_dict())
    assert all(not p.requires_grad for p in model.base.parameters())
    assert not same(start, model.state_dict())


@pytest.mark.parametrize("checkpointed", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("method", RATES)
def test_a_step_has_the_gradients_of_a_plain_call(method: str, family: str, checkpointed: bool, tmp_path: Path) -> None:
    if (method, family) == ("bitfit", "llama"):
        pytest.skip("no biases")
    model = adapted(method, family=family, moved=True)
    data = rows(4)
    model.train()
    model(**batch_of(data, 4)).loss.backward()
    expected = gradients(model)
    assert any(g.abs().max() > 1e-4 for g in expected)
    model.zero_grad()
    seen = Gradients()
    trainer_of(model, tmp_path, data=data, max_steps=1, callbacks=[seen], gradient_checkpointing=checkpointed).train()
    torch.testing.assert_close(seen.kept, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", ["lora", "prefix", "p-tuning"])
def test_accumulated_steps_weigh_every_token_alike(method: str, tmp_path: Path) -> None:
    kept = {}
    for size in (4, 1):
        model, seen = adapted(method, moved=True), Gradients()
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        trainer = trainer_of(model, tmp_path, data=rows(4), max_steps=1, callbacks=[seen], **options)
        trainer.train()
        kept[size] = seen.kept, losses(trainer)
    torch.testing.assert_close(kept[1], kept[4], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", [*RATES, "full"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(method: str, tmp_path: Path) -> None:
    options = {"learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 3}
    whole = adapted(method)
    trainer_of(whole, tmp_path, **options).train()
    resumed = adapted(method, seed=5)
    trainer_of(resumed, tmp_path, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert same(stored(whole), stored(resumed))


@pytest.mark.parametrize("method", METHODS)
def test_checkpoints_hold_the_adapter_and_nothing_of_the_base(method: str, tmp_path: Path) -> None:
    model = adapted(method, moved=True)
    trainer_of(model, tmp_path).save_model()
    written = load_file(tmp_path / "model.safetensors")
    assert same(written, stored(model))
    assert {name.removeprefix("adapters.a.") for name in written} == dict(model.adapter("a").named_parameters()).keys()
    assert sum(t.numel() for t in written.values()) == model.count("a").trained
    other = adapted(method, seed=5)
    other.load_state_dict(written)
    inputs = batch_of(rows(2), 2)
    assert torch.equal(other(**inputs).logits, model(**inputs).logits)


def test_the_best_checkpoint_is_found_by_its_evaluation_loss(tmp_path: Path) -> None:
    model = adapted("lora")
    options = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    trainer = trainer_of(model, tmp_path, learning_rate=1.0, load_best_model_at_end=True, **options)
    trainer.train()
    measured = {p["step"]: p["eval_loss"] for p in trainer.state.log_history if "eval_loss" in p}
    assert trainer.state.best_metric == min(measured.values())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(measured.values()), rel=1e-5)


def test_classification_trains_with_its_head(tmp_path: Path) -> None:
    model = AdaptedModel(base("bert", classifier=True))
    model.add("a", METHODS["lora"], heads=("classifier",), seed=0)
    model.use("a")
    data = Dataset.from_list([{"input_ids": [3 + i % 2] * 5, "label": i % 2} for i in range(8)])
    trainer = trainer_of(model, tmp_path, data=data, max_steps=12, learning_rate=1e-2, per_device_train_batch_size=8)
    trainer.train()
    assert losses(trainer)[-1] < 0.5 * losses(trainer)[0]
    predicted = trainer.predict(data)
    assert (predicted.predictions.argmax(-1) == predicted.label_ids).all()


def test_label_smoothing_shifts_as_for_the_base(tmp_path: Path) -> None:
    data = rows(4)
    plain = base("gpt2")
    smoothed = [
        trainer_of(model, tmp_path, data=data, label_smoothing_factor=0.2).evaluate()["eval_loss"]
        for model in (plain, AdaptedModel(plain))
    ]
    assert smoothed[1] == pytest.approx(smoothed[0], rel=1e-6)


def test_noise_on_the_embeddings_is_not_lost(tmp_path: Path) -> None:
    first = [
        losses(trainer)[0]
        for noise in (None, 20.0)
        for trainer in [trainer_of(adapted("lora"), tmp_path, max_steps=1, neftune_noise_alpha=noise)]
        if trainer.train()
    ]
    assert abs(first[1] - first[0]) > 1e-3


def test_mixed_precision_wraps_the_forward_and_can_be_taken_off(tmp_path: Path) -> None:
    model = adapted("lora", moved=True)
    inputs = batch_of(rows(2), 2)
    expected = model(**inputs).logits
    assert inspect.ismethod(model.forward) and model.forward == model.forward
    trainer = trainer_of(model, tmp_path, max_steps=1, learning_rate=0.0, bf16=True)
    seen = set()
    hook = model.base.transformer.h[0].mlp.c_fc.register_forward_hook(lambda m, a, output: seen.add(output.dtype))
    trainer.train()
    hook.remove()
    assert seen == {torch.bfloat16}
    bare = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    torch.testing.assert_close(bare(**inputs).logits, expected, atol=1e-6, rtol=1e-6)


def test_reentrant_checkpointing_is_refused(tmp_path: Path) -> None:
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(GraftuneError, match="reentrant"):
        trainer_of(adapted("lora"), tmp_path, **options).train()


def test_a_column_of_names_routes_each_row(tmp_path: Path) -> None:
    model = adapted("lora")
    model.add("b", METHODS["prefix"], seed=0)
    before = stored(model)
    data = rows().add_column("adapters", ["a", "b"] * 4)

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        names = [feature.pop("adapters") for feature in features]
        return {"adapters": names, **{k: torch.tensor([f[k] for f in features]) for k in features[0]}}

    trainer_of(model, tmp_path, data=data, max_steps=2, data_collator=collate).train()
    changed = {name.split(".")[1] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"a", "b"}


# What trainers rely on -----------------------------------------------------------------------------------------


def test_the_state_is_the_adapters_alone() -> None:
    model = adapted("p-tuning")
    model.add("b", METHODS["lora"], seed=1)
    names = {n for a in "ab" for n in (f"adapters.{a}.{p}" for p, _ in model.adapter(a).named_parameters())}
    assert model.state_dict().keys() == names
    assert any("generators.0.encoder.lstm" in name for name in names)
    assert model.state_dict(prefix="module.").keys() == {f"module.{name}" for name in names}
    assert not any("adapters" in name for name in model.base.state_dict())
    assert {id(p) for p in model.parameters()} > {id(p) for p in model.base.parameters()}


def test_tensors_that_do_not_fit_are_refused_and_the_base_is_not_reached() -> None:
    model = adapted("lora")
    before = copy.deepcopy(model.base.state_dict())
    name = next(iter(before))
    state = {**model.state_dict(), f"base.{name}": torch.zeros_like(before[name])}
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict(state)
    assert model.load_state_dict(state, strict=False).unexpected_keys == [f"base.{name}"]
    assert same(before, model.base.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({})


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_the_signature_is_the_bases(family: str) -> None:
    model = adapted("lora", family=family)
    own, theirs = (inspect.signature(m.forward).parameters for m in (model, model.base))
    positional = [name for name, p in theirs.items() if p.kind == p.POSITIONAL_OR_KEYWORD]
    assert list(own) == [*positional, "adapters", *list(theirs)[len(positional) :]]
    assert model.accepts_loss_kwargs == any(p.kind == p.VAR_KEYWORD for p in theirs.values())
    model.base.accepts_loss_kwargs = False
    assert not model.accepts_loss_kwargs


def test_the_model_says_what_the_base_would_and_no_more() -> None:
    model = adapted("lora", family="llama")
    assert model.generation_config is model.base.generation_config
    assert model.get_input_embeddings() is model.base.get_input_embeddings()
    assert model.loss_type == "ForCausalLM"
    assert not hasattr(model, "hf_device_map")
    assert not hasattr(model, "save_pretrained"), "it would write the base without the adapter"
    model.add_model_tags("sft")
    model.add_model_tags(["sft", "trl"])
    assert model.model_tags == ["sft", "trl"]
    assert model.base.model_tags is None


def calls(model: AdaptedModel) -> dict[str, Callable[..., Tensor]]:
    """Every way to run the model, each giving one tensor."""
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])}
    return {
        "forward": lambda **a: model(**inputs, **a).logits,
        "hidden": lambda **a: model.hidden(**inputs, **a),
        "generate": lambda **a: model.generate(
            **inputs, **a, max_new_tokens=3, return_dict_in_generate=True, output_logits=True
        ).logits[-1],
    }


@pytest.mark.parametrize("way", ["forward", "hidden", "generate"])
@torch.no_grad()
def test_use_stands_for_the_adapters_that_a_call_leaves_out(way: str) -> None:
    model = AdaptedModel(base("gpt2"))
    for name, method in (("a", "lora"), ("b", "prefix")):
        model.add(name, METHODS[method], seed=0)
        disturb(model, name)
    call = calls(model)[way]
    plain = call(adapters=None)
    assert torch.equal(call(), plain)
    for names in ("a", ["b", None], None):
        model.use(names)
        assert torch.equal(call(), call(adapters=names))
        assert torch.equal(call(adapters=None), plain), "None stays the plain base"
    model.use("a")
    assert not torch.equal(call(), plain)
    assert torch.equal(call(adapters="b"), call(adapters=["b", "b"]))


@pytest.mark.parametrize("names", ["a", ["b", "a"]], ids=str)
def test_removing_an_adapter_in_use_goes_back_to_the_base(names: str | list[str]) -> None:
    model = adapted("lora", moved=True)
    model.add("b", METHODS["lora"], seed=1)
    inputs = batch_of(rows(2), 2)
    model.use(names)
    model.remove("a")
    assert torch.equal(model(**inputs).logits, model.base(**inputs).logits)
    model.use("b")
    model.add("a", METHODS["lora"], seed=1)
    model.remove("a")
    assert torch.equal(model(**inputs).logits, model(**inputs, adapters="b").logits)


@pytest.mark.parametrize("names", ["alise", ["alice", "alise"]], ids=str)
def test_an_unknown_name_is_not_used(names: str | list[str]) -> None:
    model = AdaptedModel(base("gpt2"))
    model.add("alice", METHODS["lora"], seed=0)
    model.use("alice")
    with pytest.raises(GraftuneError, match="did you mean 'alice'"):
        model.use(names)
    inputs = batch_of(rows(2), 2)
    assert torch.equal(model(**inputs).logits, model(**inputs, adapters="alice").logits)


def test_virtual_tokens_find_no_room_among_given_positions() -> None:
    model = adapted("prompt-random")
    ids = torch.randint(3, VOCABULARY, (1, 6))
    with pytest.raises(GraftuneError, match="packing"):
        model(input_ids=ids, position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]))


# trl.SFTTrainer ------------------------------------------------------------------------------------------------


@pytest.fixture
def sft(toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes an SFTTrainer over an adapter on a tiny Llama; skips where TRL is not installed."""
    trl = pytest.importorskip("trl")
    monkeypatch.setenv("CI", "1")  # no telemetry

    def build(method: str, *, family: str = "llama", text: bool = False, seed: int = 0, **options: Any) -> Any:
        from transformers import AutoModelForCausalLM

        model = AdaptedModel(AutoModelForCausalLM.from_pretrained(getattr(toys, family)))
        chosen = {"pattern": "{P:3}{input}"} if method == "p-tuning" else {}
        model.add("a", small(method, **chosen), seed=seed)
        model.use("a")
        pairs = [(f"n{i % 3} ", ("zero", "one", "two")[i % 3]) for i in range(12)]
        made = [{"text": a + b} if text else {"prompt": a, "completion": b} for a, b in pairs]
        usual = {"max_steps": 6, "per_device_train_batch_size": 4, "logging_steps": 1, "save_strategy": "no"}
        short = {"learning_rate": 1e-2, "bf16": False, "use_cpu": True, "report_to": [], "disable_tqdm": True}
        arguments = trl.SFTConfig(str(tmp_path), **{**usual, **short, **options})
        return trl.SFTTrainer(model, arguments, train_dataset=Dataset.from_list(made), processing_class=byte_level())

    return build


@pytest.mark.parametrize("text", [False, True], ids=["completion", "text"])
@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_sft_trains_the_adapter_and_nothing_else(sft: Callable[..., Any], method: str, text: bool) -> None:
    trainer = sft(method, text=text, max_steps=12, per_device_train_batch_size=12)
    model = trainer.model
    before = copy.deepcopy(model.base.state_dict())
    trainer.train()
    assert losses(trainer)[-1] < 0.95 * losses(trainer)[0]
    assert same(before, model.base.state_dict())
    assert model.base.model_tags is None


@pytest.mark.parametrize("method", ["lora", "prefix", "p-tuning", "prompt", "houlsby", "freeze", "ia3", "full"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_sft_has_the_loss_and_the_gradients_of_the_model_itself(
    sft: Callable[..., Any], method: str, family: str
) -> None:
    trainer = sft(method, family=family)
    model = trainer.model
    disturb(model, "a")
    model.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    found = []
    for loss in (trainer.compute_loss(model, dict(batch)), model(**batch).loss):
        loss.backward()
        found.append((loss.detach(), gradients(model)))
        model.zero_grad()
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_sft_goes_on_where_it_stopped_with_checkpoints_of_the_adapter(sft: Callable[..., Any], tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 3}
    whole = sft("prefix", **options)
    whole.train()
    place = tmp_path / "checkpoint-3"
    assert all(name.startswith("adapters.a.") for name in load_file(place / "model.safetensors"))
    resumed = sft("prefix", seed=5, **options)
    resumed.train(resume_from_checkpoint=str(place))
    assert same(stored(whole.model), stored(resumed.model))


def test_sft_packs_what_has_no_virtual_tokens(sft: Callable[..., Any]) -> None:
    options = {"packing": True, "max_length": 32, "max_steps": 2}
    trainer = sft("prefix", **options)
    trainer.train()
    assert losses(trainer)[1] < losses(trainer)[0]
    with pytest.raises(GraftuneError, match="packing"):
        sft("prompt", **options).train()


def test_a_head_that_is_more_than_a_weight_is_said_to_trl() -> None:
    model = AdaptedModel(base("llama"))
    model.add("a", make("freeze", names=("lm_head",), last=0), seed=0)
    inputs = batch_of(rows(2), 2)
    assert model.get_output_embeddings() is model.base.get_output_embeddings()
    model(**inputs, adapters="a")
    assert torch.equal(model.get_output_embeddings().weight, model.parameters_of("a")[0])
    model(**inputs, adapters=["a", None])
    with pytest.raises(GraftuneError, match="head"):
        model.get_output_embeddings()
