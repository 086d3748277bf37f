"""One base in every precision, and another base in none."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from all_families import FAMILIES
from families import base
from graftune.checkpoint import fingerprint, native
from graftune.errors import GraftuneError
from graftune.methods import LoRA
from graftune.model.adapted import AdaptedModel

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
#: How a checkpoint may have come to the precision it is in.
WAYS = [(), (BF16,), (F16,), (F16, BF16), (BF16, F16), (F16, F32), (BF16, F32), (F16, BF16, F32)]


def through(way: tuple[torch.dtype, ...], family: str = "gpt2", seed: int = 0) -> PreTrainedModel:
    """A base that was saved in each of these precisions, one after the other."""
    made = FAMILIES[family].base() if seed == 0 else base(family, seed=seed)
    for dtype in way:
        made = made.to(dtype)
    return made


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5", "qwen2-moe"])
def test_every_precision_matches_every_other(family: str) -> None:
    bases = {way: through(way, family) for way in WAYS}
    described = {way: fingerprint.describe(made) for way, made in bases.items()}
    for first, second in itertools.product(WAYS, WAYS):
        assert fingerprint.difference(bases[first], described[second]) is None, (first, second)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_another_training_matches_in_no_precision(family: str) -> None:
    others = [through(way, family, seed=9) for way in WAYS]
    for way in WAYS:
        described = fingerprint.describe(through(way, family))
        assert not any(fingerprint.matches(other, described) for other in others)


def noise(module: torch.nn.Module) -> None:
    """A training of small steps."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.add_(2e-3 * torch.randn(parameter.shape, generator=generator))


CHANGES = {
    "one layer": lambda m: m.transformer.h[1].mlp.c_fc.weight.mul_(1.1),
    "one layer by little": lambda m: m.transformer.h[1].mlp.c_fc.weight.mul_(1.02),
    "everything by little": noise,
    "a sign": lambda m: m.transformer.h[0].attn.c_attn.weight.neg_(),
    "one bias": lambda m: m.transformer.h[0].mlp.c_fc.bias.add_(0.05),
}


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_base_is_another_one(change: str, way: tuple[torch.dtype, ...]) -> None:
    changed = through(())
    with torch.no_grad():
        CHANGES[change](changed)
    for dtype in way:
        changed = changed.to(dtype)
    for other in WAYS:
        assert not fingerprint.matches(changed, fingerprint.describe(through(other))), other


def test_another_shape_or_family_is_another_one() -> None:
    described = fingerprint.describe(through((F16,), "gpt2"))
    for family in ("llama", "bert", "opt"):
        assert not fingerprint.matches(through((), family), described)


def test_numbers_that_float16_cannot_hold_do_not_matter() -> None:
    plain = through(())
    with torch.no_grad():
        plain.transformer.h[0].mlp.c_fc.weight[0] = 1e5
        plain.transformer.h[0].mlp.c_fc.weight[1] = 3e-8
        described = fingerprint.describe(plain)
        half = through(())
        half.load_state_dict(plain.state_dict())
    assert fingerprint.matches(half.to(F16), described)


@pytest.mark.parametrize("first", [F32, F16, BF16])
@pytest.mark.parametrize("second", [F32, F16, BF16])
def test_an_adapter_loads_beside_its_base_in_any_precision(
    first: torch.dtype, second: torch.dtype, tmp_path: Path
) -> None:
    model = AdaptedModel(through((first,)))
    model.add("a", LoRA())
    AdaptedModel(through((second,))).load("a", model.save("a", tmp_path / "a"))
    with pytest.raises(GraftuneError, match="belongs to another base"):
        AdaptedModel(through((second,), seed=9)).load("a", tmp_path / "a")


@pytest.mark.parametrize("values", [None, 3, "", "AAAA", "no base64 ***"])
def test_an_adapter_with_a_hash_alone_loads_where_the_hash_is_equal(values: object, tmp_path: Path) -> None:
    """As written before values were kept; values that cannot be read count as none."""
    model = AdaptedModel(through(()))
    model.add("a", LoRA())
    file = model.save("a", tmp_path / "a") / native.CARD
    card = json.loads(file.read_text())
    own = card["base"]
    own["values"] = values
    if values is None:
        del own["values"], own["shapes"]
    file.write_text(json.dumps(card))
    for dtype in (F32, BF16):
        AdaptedModel(through((dtype,))).load("a", tmp_path / "a")
    with pytest.raises(GraftuneError, match="belongs to another base"):
        AdaptedModel(through((F16,))).load("a", tmp_path / "a")


def test_the_hash_is_the_one_that_older_adapters_hold() -> None:
    """Computed as format 1 has it since the first release."""
    import hashlib

    made = through(())
    digest = hashlib.sha256(made.config.model_type.encode())
    for name, parameter in made.base_model.named_parameters():
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 64)][:64].to(BF16).float()
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    assert fingerprint.of_base(made) == digest.hexdigest()[:16]


@pytest.mark.parametrize(
    ("family", "setting", "value"),
    [
        ("llama", "rms_norm_eps", 1e-2),
        ("llama", "rope_parameters", {"rope_type": "default", "rope_theta": 500.0}),
        ("llama", "num_attention_heads", 2),
        ("bert", "hidden_act", "relu"),
        ("bert", "layer_norm_eps", 1e-3),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("t5", "layer_norm_epsilon", 1e-3),
    ],
)
def test_settings_that_change_what_is_computed_are_another_base(family: str, setting: str, value: object) -> None:
    described = json.loads(json.dumps(fingerprint.describe(through((), family))))
    other = through((), family)
    assert fingerprint.difference(other, described) is None
    setattr(other.config, setting, value)
    assert setting in str(fingerprint.difference(other, described))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("use_cache", False),
        ("pad_token_id", 3),
        ("id2label", {0: "a"}),
        ("name_or_path", "elsewhere"),
        ("initializer_range", 0.5),
        ("attention_dropout", 0.5),
    ],
)
def test_settings_that_change_nothing_are_no_other_base(setting: str, value: object) -> None:
    described = fingerprint.describe(through((), "llama"))
    other = through((), "llama")
    setattr(other.config, setting, value)
    assert fingerprint.difference(other, described) is None


def test_another_output_head_is_another_base_unless_the_adapter_has_its_own() -> None:
    described = json.loads(json.dumps(fingerprint.describe(through((), "llama"))))
    for way in WAYS:
        other = through(way, "llama")
        assert fingerprint.difference(other, described) is None
        with torch.no_grad():
            other.get_output_embeddings().weight.mul_(1.5)
        assert "output head" in str(fingerprint.difference(other, described))
        assert fingerprint.difference(other, described, head=False) is None
    old = {name: value for name, value in described.items() if name in ("fingerprint", "shapes", "values")}
    assert fingerprint.difference(other, old) is None
