"""The same file gives the same logits in Hugging Face PEFT and in Graftune."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from families import base, batch
from graftune.errors import GraftuneError
from graftune.methods import PrefixTuning
from graftune.model.adapted import AdaptedModel

EXACT = 1e-5
ROWS = 5


def lora(family: str, **options: Any) -> peft.LoraConfig:
    targets = ["c_attn"] if family == "gpt2" else ["q_proj", "v_proj"]
    return peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": targets, "task_type": "CAUSAL_LM", **options})


def patterned(family: str) -> peft.LoraConfig:
    wide = "c_fc" if family == "gpt2" else "up_proj"
    patterns = {"rank_pattern": {wide: 2}, "alpha_pattern": {wide: 3}}
    return lora(family, target_modules="all-linear", use_rslora=True, **patterns)


def prompt(kind: type[peft.PeftConfig], **options: Any) -> peft.PeftConfig:
    return kind(**{"num_virtual_tokens": ROWS, "task_type": "CAUSAL_LM", **options})


CONFIGS: dict[str, Callable[[str], peft.PeftConfig]] = {
    "lora": lora,
    "lora-rslora": lambda family: lora(family, use_rslora=True),
    "lora-dora": lambda family: lora(family, use_dora=True),
    "lora-all": lambda family: lora(family, target_modules="all-linear"),
    "lora-one-layer": lambda family: lora(family, layers_to_transform=[1]),
    "lora-regex": lambda family: lora(family, target_modules=r".*\.1\.mlp\.(c_proj|down_proj)"),
    "lora-patterns": patterned,
    "lora-patterns-dora": lambda family: lora(family, use_dora=True, rank_pattern={"0.*(c_attn|q_proj)": 7}),
    "ia3": lambda family: peft.IA3Config(task_type="CAUSAL_LM"),
    "prefix": lambda family: prompt(peft.PrefixTuningConfig),
    "prefix-mlp": lambda family: prompt(peft.PrefixTuningConfig, prefix_projection=True, encoder_hidden_size=16),
    "prompt": lambda family: prompt(peft.PromptTuningConfig),
    "p-tuning-mlp": lambda family: prompt(peft.PromptEncoderConfig, encoder_hidden_size=16),
    "p-tuning-lstm": lambda family: prompt(
        peft.PromptEncoderConfig, encoder_hidden_size=16, encoder_reparameterization_type="LSTM"
    ),
}
CELLS = [pytest.param(f, c, id=f"{f}-{c}") for f in ("gpt2", "llama") for c in CONFIGS]


def trained(plain: PreTrainedModel, config: peft.PeftConfig, path: Path) -> peft.PeftModel:
    """A PEFT model on a copy of the base, moved away from its start and saved."""
    model = peft.get_peft_model(copy.deepcopy(plain), config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.eval().save_pretrained(path)
    return model


def logits(model: torch.nn.Module, inputs: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
    """The logits of the caller's tokens; PEFT returns those of a prompt's rows too."""
    with torch.no_grad():
        found = model(**inputs, **options).logits
    return found[:, -inputs["input_ids"].shape[1] :] if found.dim() == 3 else found


def close(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> None:
    torch.testing.assert_close(a[mask.bool()], b[mask.bool()], atol=EXACT, rtol=EXACT)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "config"), CELLS)
def test_same_file_same_logits(family: str, config: str, tmp_path: Path) -> None:
    plain = base(family)
    theirs = trained(plain, CONFIGS[config](family), tmp_path / "peft")
    model = AdaptedModel(plain)
    model.load("a", tmp_path / "peft")
    for inputs in (batch(), batch((7, 7))):
        expected = logits(theirs, inputs)
        close(logits(model, inputs, adapters="a"), expected, inputs["attention_mask"])
        assert not torch.allclose(logits(model, inputs, adapters=None), expected, atol=1e-3)
    # An ordinary adapter: saved natively and loaded back, it is the same.
    model.save("a", tmp_path / "native")
    other = AdaptedModel(base(family))
    other.load("b", tmp_path / "native")
    assert torch.equal(logits(other, batch(), adapters="b"), logits(model, batch(), adapters="a"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", ["lora", "lora-dora", "ia3", "prefix", "prompt", "p-tuning-lstm"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_same_file_same_generation(family: str, config: str, tmp_path: Path) -> None:
    plain = base(family)
    theirs = trained(plain, CONFIGS[config](family), tmp_path)
    model = AdaptedModel(plain)
    model.load("a", tmp_path)
    # PEFT is wrong with left padding for prompts, so rows of one length.
    inputs = batch((6, 6))
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 1}
    expected = theirs.generate(**inputs, **options)
    assert torch.equal(model.generate(**inputs, adapters="a", **options), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "config"),
    [
        *[(family, config) for family in ("gpt2", "llama") for config in ("lora", "ia3", "prefix", "prompt")],
        *[("bert", config) for config in ("lora", "ia3", "prefix")],
    ],
)
def test_a_classifier_brings_its_head(family: str, config: str, tmp_path: Path) -> None:
    plain = base(family, classifier=True)
    options = {"target_modules": ["query", "value"]} if (family, config) == ("bert", "lora") else {}
    made = CONFIGS[config](family)
    for key, value in {**options, "task_type": "SEQ_CLS"}.items():
        setattr(made, key, value)
    theirs = trained(plain, made, tmp_path / "peft")
    model = AdaptedModel(plain)
    adapter = model.load("a", tmp_path / "peft")
    assert adapter.heads == (("classifier",) if family == "bert" else ("score",))
    # Rows of one length: given a prompt, PEFT classifies on the last column, which may be padding.
    inputs = batch((7, 7))
    torch.testing.assert_close(logits(model, inputs, adapters="a"), logits(theirs, inputs), atol=EXACT, rtol=EXACT)
    model.save("a", tmp_path / "native")
    other = AdaptedModel(base(family, classifier=True))
    other.load("b", tmp_path / "native")
    assert torch.equal(logits(other, inputs, adapters="b"), logits(model, inputs, adapters="a"))


def roberta() -> PreTrainedModel:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64, pad_token_id=1,
    )  # fmt: skip
    model = RobertaForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


@pytest.mark.filterwarnings("ignore")
def test_positions_counted_from_the_ids_are_shifted_too(tmp_path: Path) -> None:
    plain = roberta()
    theirs = trained(plain, prompt(peft.PrefixTuningConfig, task_type="SEQ_CLS"), tmp_path)
    model = AdaptedModel(plain)
    model.load("a", tmp_path)
    inputs = batch()
    torch.testing.assert_close(logits(model, inputs, adapters="a"), logits(theirs, inputs), atol=EXACT, rtol=EXACT)


def test_a_shift_that_a_base_cannot_make_is_refused() -> None:
    config = T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    model = AdaptedModel(T5ForConditionalGeneration(config).eval())
    with pytest.raises(GraftuneError, match="does not let its positions be shifted"):
        model.add("a", PrefixTuning(length=3, reparameterize=False, shift_positions=True))
    assert not model.adapters


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Write a PEFT folder for GPT-2, then change its config or its tensors."""

    def make(
        config: str = "lora",
        edit: Callable[[dict[str, torch.Tensor]], object] | None = None,
        **options: Any,
    ) -> Path:
        trained(base("gpt2"), CONFIGS[config]("gpt2"), tmp_path)
        card = tmp_path / "adapter_config.json"
        card.write_text(json.dumps({**json.loads(card.read_text()), **options}))
        if edit is not None:
            tensors = load_file(tmp_path / "adapter_model.safetensors")
            edit(tensors)
            save_file(tensors, tmp_path / "adapter_model.safetensors")
        return tmp_path

    return make


def refused(path: Path, match: str, plain: PreTrainedModel | None = None) -> None:
    """Loading fails with a message, and leaves the model as it was."""
    model = AdaptedModel(plain or base("gpt2"))
    with pytest.raises(GraftuneError, match=match) as error:
        model.load("a", path)
    assert "expected:" in str(error.value)
    assert not model.adapters
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.base.modules())


LAYER = "base_model.model.transformer.h.1.attn.c_attn"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"peft_type": "ADALORA"}, "unknown peft_type 'ADALORA'"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"init_lora_weights": "pissa"}, "changed base"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"an_option_of_tomorrow": 1}, "an_option_of_tomorrow=1"),
        ({"target_modules": ["c_attn", "c_fc"]}, "no tensors for a module it names"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_compute_something_else_are_refused(
    saved: Callable[..., Path], options: dict[str, Any], match: str
) -> None:
    refused(saved(**options), match)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda t: t.update({"base_model.model.lm_tail.weight": torch.ones(2)}), "nothing here can take"),
        (lambda t: t.update({"base_model.model.transformer.wte.lora_embedding_A": torch.ones(2)}), "nothing here"),
        (lambda t: t.update({"base_model.model.x.lora_A.weight": torch.ones(2)}), "another base"),
        (lambda t: t.pop(f"{LAYER}.lora_B.weight"), "no tensors for a module"),
        (lambda t: t.update({f"{LAYER}.lora_B.weight": torch.ones(7, 4)}), "does not fit this base"),
        (lambda t: t.update({f"{LAYER}.lora_B.bias": torch.ones(96)}), "nothing here"),
        (lambda t: t.clear(), "another base"),
    ],
)
def test_tensors_without_a_place_and_places_without_tensors_are_refused(
    saved: Callable[..., Path], edit: Callable[[dict[str, torch.Tensor]], object], match: str
) -> None:
    refused(saved(edit=edit), match)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", ["lora", "ia3", "prefix", "prompt", "p-tuning-mlp"])
def test_an_adapter_of_another_base_is_refused(saved: Callable[..., Path], config: str) -> None:
    wide = base("gpt2").config
    wide.n_embd = 48
    other = type(base("gpt2"))(wide)
    refused(saved(config), "fit this base|another base", other)
    if "prompt" not in config and "tuning" not in config:  # rows of one width fit both
        refused(saved(config), "another base|fit this base", base("llama"))


@pytest.mark.filterwarnings("ignore")
def test_a_prefix_of_other_heads_or_rows_is_refused(saved: Callable[..., Path]) -> None:
    refused(saved("prefix", num_attention_heads=8), "another base")
    refused(saved("prefix", num_virtual_tokens=9), "of another number")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_cut_file_is_refused(saved: Callable[..., Path], size: int) -> None:
    file = saved() / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    refused(file.parent, "is damaged")


@pytest.mark.filterwarnings("ignore")
def test_pickle_is_never_read(saved: Callable[..., Path]) -> None:
    path = saved()
    weights = path / "adapter_model.safetensors"
    weights.rename(path / "adapter_model.bin")
    refused(path, "a pickle")
    (path / "adapter_model.bin").unlink()
    refused(path, "is missing")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_broken_config_is_refused(saved: Callable[..., Path], text: str) -> None:
    path = saved()
    (path / "adapter_config.json").write_bytes(text.encode("latin-1"))
    refused(path, "adapter_config.json is broken")


@pytest.mark.filterwarnings("ignore")
def test_a_prompt_on_an_encoder_is_refused(tmp_path: Path) -> None:
    plain = base("bert", classifier=True)
    trained(plain, prompt(peft.PromptTuningConfig, task_type="SEQ_CLS"), tmp_path)
    refused(tmp_path, "in front of an encoder's first token", plain)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [peft.PromptTuningConfig, peft.PrefixTuningConfig, peft.PromptEncoderConfig])
def test_prompt_learning_of_an_encoder_decoder_is_refused(tmp_path: Path, kind: type[peft.PeftConfig]) -> None:
    config = T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)
    plain = T5ForConditionalGeneration(config).eval()
    trained(plain, prompt(kind, task_type="SEQ_2_SEQ_LM", encoder_hidden_size=16)
            if kind is peft.PromptEncoderConfig else prompt(kind, task_type="SEQ_2_SEQ_LM"), tmp_path)  # fmt: skip
    refused(tmp_path, "encoder-decoder", plain)


@pytest.mark.filterwarnings("ignore")
def test_lora_on_an_encoder_decoder(tmp_path: Path) -> None:
    config = T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)
    plain = T5ForConditionalGeneration(config).eval()
    theirs = trained(plain, lora("t5", target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM"), tmp_path)
    model = AdaptedModel(plain)
    model.load("a", tmp_path)
    inputs = {**batch(), "decoder_input_ids": batch(seed=2)["input_ids"]}
    torch.testing.assert_close(logits(model, inputs, adapters="a"), logits(theirs, inputs), atol=EXACT, rtol=EXACT)
