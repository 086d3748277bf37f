"""Visual prompts: rows among the patches of vision transformers, in the first layer or in all of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from torch import Tensor, nn
from transformers import PreTrainedModel

import graftune as gt
from families import base as text_base
from families import randomised
from graftune.errors import GraftuneError
from graftune.methods.method import Method
from graftune.model.adapted import AdaptedModel
from graftune.model.kernels import fast
from methods_under_test import disturb

LAYERS, WIDTH = 3, 32
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
}
YOLOS = SIZES | {"image_size": [8, 8], "num_detection_tokens": 5}
Make = Callable[[], PreTrainedModel]


def made(model: type[PreTrainedModel], config: type[t.PretrainedConfig], **options: Any) -> Make:
    return lambda: randomised(model, config(**SIZES | options))


#: YOLOS may add positions between its layers, and DINOv3 turns its queries by them.
BASES: dict[str, Make] = {
    "vit": made(t.ViTForImageClassification, t.ViTConfig),
    "deit": made(t.DeiTForImageClassification, t.DeiTConfig),
    "dinov2": made(t.Dinov2ForImageClassification, t.Dinov2Config, mlp_ratio=2),
    "dinov3": made(t.DINOv3ViTModel, t.DINOv3ViTConfig, num_register_tokens=2),
    "clip": made(t.CLIPVisionModelWithProjection, t.CLIPVisionConfig, projection_dim=16),
    "yolos": made(t.YolosForObjectDetection, t.YolosConfig, **YOLOS),
    "yolos-plain": made(t.YolosForObjectDetection, t.YolosConfig, **YOLOS, use_mid_position_embeddings=False),
}
SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 2}
STACKS = {
    f"{stack}_{name}": n
    for stack in ("encoder", "decoder")
    for name, n in {"layers": 2, "attention_heads": 4, "ffn_dim": 32}.items()
}
RESNET = {"num_channels": 1, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "out_features": ["stage2"]}


def detr() -> PreTrainedModel:
    backbone = t.ResNetConfig(**RESNET)
    config = t.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, d_model=32, num_queries=5, num_channels=1, **STACKS
    )
    return randomised(t.DetrForObjectDetection, config)


#: Windows; a bias for each pair of columns; convolutions in front of an encoder and a decoder.
UNFIT: dict[str, Make] = {
    "swin": lambda: randomised(t.SwinForImageClassification, t.SwinConfig(num_channels=1, **SWIN)),
    "beit": made(t.BeitForImageClassification, t.BeitConfig, use_relative_position_bias=True),
    "detr": detr,
}
EVERY = pytest.mark.parametrize("name", BASES)
DEPTH = pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])


def images(rows: int) -> Tensor:
    return torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def outputs(model: nn.Module, pixels: Tensor, **options: Any) -> Tensor:
    """Everything that a base says of an image, (B, …)."""
    output = model(pixel_values=pixels, **options)
    if "image_embeds" in output:
        found: Tensor = output.image_embeds
    elif "pred_boxes" in output:
        found = torch.cat([output.logits, output.pred_boxes], dim=-1)
    else:
        found = output.logits if "logits" in output else output.last_hidden_state
    return found


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def prompted(base: PreTrainedModel, *, deep: bool, length: int = 4) -> AdaptedModel:
    model = AdaptedModel(base)
    model.add("a", gt.PromptTuning(length=length, deep=deep), seed=0)
    disturb(model, "a", size=1.0)
    return model


def tables(model: AdaptedModel, name: str = "a") -> list[Tensor]:
    return model.parameters_of(name)


# What is computed --------------------------------------------------------------------------------------------


@DEPTH
def test_a_vit_computes_what_it_does_by_hand(deep: bool) -> None:
    base = BASES["vit"]()
    model = prompted(base, deep=deep)
    pixels, rows = images(3), tables(model)
    with torch.no_grad():
        adapted = outputs(model, pixels, adapters="a")
        model.close()
        states = base.vit.embeddings(pixels)  # (3, 1 + 4, d)
        for index, layer in enumerate(base.vit.layers):
            if index == 0:
                states = torch.cat([states[:, :1], rows[0].expand(3, -1, -1), states[:, 1:]], dim=1)
            elif deep:
                states = torch.cat([states[:, :1], rows[index].expand(3, -1, -1), states[:, 5:]], dim=1)
            states = layer(states)
        close(adapted, base.classifier(base.vit.layernorm(states)[:, 0]))
    assert not torch.allclose(adapted, outputs(base, pixels), atol=1e-3)


def test_yolos_adds_its_positions_to_its_own_columns_only() -> None:
    base, pixels = BASES["yolos"](), images(2)
    model = prompted(base, deep=False)
    found: list[Tensor] = []
    hook = base.vit.encoder.interpolation.register_forward_hook(lambda module, args, out: found.append(out))
    with torch.no_grad():
        adapted = model(pixel_values=pixels, adapters="a").logits
        hook.remove()
        rows = tables(model)[0].expand(2, -1, -1)
        model.close()
        states = base.vit.embeddings(pixels)
        for index, layer in enumerate(base.vit.encoder.layer):
            wide = layer(torch.cat([states[:, :1], rows, states[:, 1:]], dim=1))
            states, rows = torch.cat([wide[:, :1], wide[:, 5:]], dim=1), wide[:, 1:5]
            if index < LAYERS - 1:
                states = states + found[0][index]
        close(adapted, base.class_labels_classifier(base.vit.layernorm(states)[:, -5:]))


@DEPTH
@EVERY
def test_the_counts_are_those_of_the_paper(name: str, deep: bool) -> None:
    model = prompted(BASES[name](), deep=deep, length=6)
    expected = 6 * WIDTH * (LAYERS if deep else 1)
    assert model.count("a").trained == model.count("a").stored == expected


# The laws ----------------------------------------------------------------------------------------------------


@DEPTH
@EVERY
def test_the_base_is_as_it_was_once_the_prompt_is_gone(name: str, deep: bool) -> None:
    base = BASES[name]()
    pixels = images(2)
    with torch.no_grad():
        outputs(base, pixels, output_hidden_states=True)  # Transformers' own hooks are in place
        before, weights, hooks = outputs(base, pixels), copy.deepcopy(base.state_dict()), _hooks(base)
        model = prompted(base, deep=deep)
        assert torch.equal(outputs(model, pixels, adapters=None), before)
        assert not torch.allclose(outputs(model, pixels, adapters="a"), before, atol=1e-4)
        model.remove("a")
        assert torch.equal(outputs(base, pixels), before)
    assert _hooks(base) == hooks
    assert base.config._attn_implementation == "sdpa"
    assert all(torch.equal(value, weights[key]) for key, value in base.state_dict().items())


def _hooks(base: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in base.modules())


MIXED: dict[str, Method] = {
    "short": gt.PromptTuning(length=2),
    "long": gt.PromptTuning(length=5),
    "deep": gt.PromptTuning(length=3, deep=True),
    "lora": gt.LoRA(rank=2),
    "prefix": gt.PTuningV2(length=4),
    "bias": gt.BitFit(),
}
ROWS = ("short", None, "deep", "prefix", "long", "lora", "bias", "short")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("first", ["short", "prefix"])
@EVERY
def test_a_row_is_as_if_alone_beside_other_prompts_and_methods(name: str, first: str, attention: str) -> None:
    base = BASES[name]()
    base.set_attn_implementation(attention)
    model = AdaptedModel(base)
    for seed, key in enumerate(sorted(MIXED, key=lambda key: key != first)):
        model.add(key, MIXED[key], seed=seed)
        disturb(model, key, seed=seed, size=0.5)
    pixels = images(len(ROWS))
    with torch.no_grad():
        together = outputs(model, pixels, adapters=ROWS)
        with fast(base):
            kernels = outputs(model, pixels, adapters=ROWS)
        # The rest in float64, since rounding to float32 alone reaches the tolerance on some processors.
        model.double()
        pixels = pixels.double()
        exact = outputs(model, pixels, adapters=ROWS)
        apart = (together - exact).abs().max().item()
        assert apart < 5e-5
        assert (kernels - exact).abs().max().item() <= 2 * max(apart, 1e-5), "kernels are less exact than torch's own"
        for row, adapter in enumerate(ROWS):
            close(exact[row], outputs(model, pixels[row : row + 1], adapters=adapter)[0])


def test_a_row_gets_its_own_gradient() -> None:
    model = AdaptedModel(BASES["vit"]())
    for key in ("short", "long", "deep"):
        model.add(key, MIXED[key], seed=1)
    pixels = images(4)
    adapters = ["short", "deep", None, "long"]
    outputs(model, pixels, adapters=adapters).pow(2).sum().backward()
    together = {key: [p.grad.clone() for p in tables(model, key)] for key in ("short", "long", "deep")}
    for row, key in enumerate(adapters):
        if key is None:
            continue
        model.adapter(key).zero_grad()
        outputs(model, pixels[row : row + 1], adapters=key).pow(2).sum().backward()
        for parameter, gradient in zip(tables(model, key), together[key], strict=True):
            close(parameter.grad, gradient)


@DEPTH
@EVERY
def test_every_prompt_row_gets_a_gradient_that_checkpointing_keeps(name: str, deep: bool) -> None:
    gradients = []
    for checkpointing in (False, True):
        base = BASES[name]()
        if checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        model = prompted(base, deep=deep)
        model.base_dropout = True  # there is none here, and no layer is woken and put to sleep
        model.train()
        model.add("b", gt.PromptTuning(length=6), seed=1)
        outputs(model, images(3), adapters=["a", None, "b"]).pow(2).mean().backward()
        gradients.append([p.grad for key in "ab" for p in tables(model, key)])
    for plain, recomputed in zip(*gradients, strict=True):
        assert (plain.abs().amax(dim=1) > 0).all()
        close(plain, recomputed)


@DEPTH
@EVERY
def test_saved_and_loaded_is_exactly_the_same(name: str, deep: bool, tmp_path: Path) -> None:
    base, pixels = BASES[name](), images(2)
    model = prompted(base, deep=deep)
    model.save("a", tmp_path / "a")
    with torch.no_grad():
        expected = outputs(model, pixels, adapters="a")
        model.close()
        loaded = AdaptedModel(base)
        loaded.load("b", tmp_path / "a")
        assert torch.equal(outputs(loaded, pixels, adapters="b"), expected)
    assert loaded.adapter("b").method == gt.PromptTuning(length=4, deep=deep)


# What others see ---------------------------------------------------------------------------------------------


@DEPTH
@EVERY
def test_hidden_states_have_the_columns_of_the_image(name: str, deep: bool) -> None:
    base, pixels = BASES[name](), images(2)
    with torch.no_grad():
        plain = base(pixel_values=pixels, output_hidden_states=True).hidden_states
        model = prompted(base, deep=deep)
        adapted = model(pixel_values=pixels, output_hidden_states=True, adapters="a").hidden_states
    assert [state.shape for state in adapted] == [state.shape for state in plain]
    assert torch.equal(adapted[0], plain[0])
    assert not torch.allclose(adapted[1], plain[1], atol=1e-4)


def test_a_batch_without_prompts_is_left_as_it_is() -> None:
    base = BASES["vit"]()
    model = prompted(base, deep=True)
    model.add("lora", gt.LoRA(rank=2), seed=0)
    columns: list[int] = []
    base.vit.layers[1].register_forward_pre_hook(lambda module, args: columns.append(args[0].shape[1]))
    with torch.no_grad():
        for adapters in ("a", None, ["lora", None], ["lora", "a"]):
            outputs(model, images(2), adapters=adapters)
    assert columns == [9, 5, 5, 9]


def test_a_mask_of_patches_goes_around_the_prompt() -> None:
    base = BASES["vit"]()
    model = prompted(base, deep=False)
    model.add("b", gt.PromptTuning(length=2), seed=1)
    pixels, mask = images(3), torch.tensor([[1, 1, 0, 1, 1], [1, 1, 1, 1, 0], [1, 0, 1, 1, 1]])
    changed = pixels.clone()
    changed[0, :, :4, 4:] = changed[1, :, 4:, 4:] = changed[2, :, :4, :4] = 9.0  # what the mask hides
    with torch.no_grad():
        for attention in ("sdpa", "eager"):
            base.set_attn_implementation("graftune_" + attention)
            seen = outputs(model, pixels, attention_mask=mask, adapters=["a", "b", None])
            close(outputs(model, changed, attention_mask=mask, adapters=["a", "b", None]), seen)
            for row, adapter in enumerate(["a", "b", None]):
                own = {"attention_mask": mask[row : row + 1], "adapters": adapter}
                close(outputs(model, pixels[row : row + 1], **own)[0], seen[row])
            assert not torch.allclose(outputs(model, pixels, adapters=["a", "b", None]), seen, atol=1e-3)


def test_eager_attention_hides_the_padding_of_prefixes() -> None:
    base = BASES["vit"]()
    base.set_attn_implementation("eager")
    model = AdaptedModel(base)
    for name, length in (("a", 3), ("b", 6)):
        model.add(name, gt.PTuningV2(length=length), seed=0)
        disturb(model, name, size=1.0)
    with torch.no_grad():
        together = outputs(model, images(2), adapters=["a", "b"])
        close(together[0], outputs(model, images(2)[:1], adapters="a")[0])


def test_prompts_leave_no_graph_behind() -> None:
    model = prompted(BASES["vit"](), deep=False)
    outputs(model, images(2), adapters="a")
    assert not model._visual.carried


# Starts and refusals -----------------------------------------------------------------------------------------


def test_prompts_on_images_start_as_in_the_paper() -> None:
    base = randomised(t.ViTForImageClassification, t.ViTConfig(**SIZES | {"num_channels": 3}))
    model = AdaptedModel(base)
    bound = math.sqrt(6 / (3 * 4 * 4 + WIDTH))
    for deep in (False, True):
        model.add(f"deep={deep}", gt.PromptTuning(length=200, deep=deep), seed=0)
        for table in tables(model, f"deep={deep}"):
            assert 0.98 * bound < table.abs().max() <= bound
            assert abs(table.mean()) < 0.05 * bound
    model.add("random", gt.PromptTuning(length=200, init="random"), seed=0)
    assert 0.49 < tables(model, "random")[0].abs().max() <= 0.5


@pytest.mark.parametrize(("init", "text"), [("text", "a photo"), ("labels", None)])
def test_words_are_no_start_for_images(init: str, text: str | None) -> None:
    model = AdaptedModel(BASES["vit"]())
    with pytest.raises(GraftuneError, match="no words for prompts among image patches"):
        model.add("a", gt.PromptTuning(init=init, text=text), labels=("cat", "dog"))


@DEPTH
@pytest.mark.parametrize("name", UNFIT)
def test_bases_whose_layers_take_no_more_columns_are_refused(name: str, deep: bool) -> None:
    base = UNFIT[name]()
    hooks = _hooks(base)
    model = AdaptedModel(base)
    with pytest.raises(GraftuneError, match="no sequence of patches that prompts can join") as raised:
        model.add("a", gt.PromptTuning(deep=deep))
    assert "PTuningV2" in str(raised.value)
    assert _hooks(base) == hooks
    assert not model.adapters


@pytest.mark.parametrize("name", ["vit", "swin", "detr"])
def test_templates_need_text(name: str) -> None:
    with pytest.raises(GraftuneError, match="no table of token embeddings"):
        AdaptedModel((BASES | UNFIT)[name]()).add("a", gt.PTuning())


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_deep_prompts_are_for_images(family: str) -> None:
    with pytest.raises(GraftuneError, match="PTuningV2"):
        AdaptedModel(text_base(family)).add("a", gt.PromptTuning(deep=True))


def test_a_prompt_can_be_added_between_calls() -> None:
    model = prompted(BASES["vit"](), deep=False)
    with torch.no_grad():
        expected = outputs(model, images(4), adapters="a")
        model.add("b", gt.PromptTuning(length=3), seed=1)  # tries the base while the routing still has four rows
        assert torch.equal(outputs(model, images(4), adapters="a"), expected)
