"""Prefix-tuning on encoder-decoders as the paper's: three kinds of attention, each with rows of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from all_families import FAMILIES, output_of, shared
from graftune.methods import LoRA, PrefixTuning, PromptTuning
from graftune.model.adapted import AdaptedModel
from graftune.parts import AttentionSite, KeyValueRows
from methods_under_test import disturb

PAIRS = [name for name, family in FAMILIES.items() if family.kind == "encoder-decoder"]
KINDS = ("encoder", "decoder", "cross")


@pytest.fixture(params=PAIRS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(family: str) -> Iterator[AdaptedModel]:
    """Prefixes of two lengths, a low-rank change and a prompt."""
    with shared(family) as model:
        model.add("long", PrefixTuning(length=6, hidden=16), seed=1)
        model.add("short", PrefixTuning(length=2, reparameterize=False), seed=2)
        model.add("lora", LoRA(rank=2), seed=3)
        model.add("prompt", PromptTuning(length=3), seed=4)
        for name in model.adapters:
            disturb(model, name, size=3.0 if name == "prompt" else 0.1)
        yield model


def kind_of(site: object) -> str:
    assert isinstance(site, AttentionSite)
    if site.kind == "cross":
        return "cross"
    return "encoder" if "encoder." in site.path.replace("decoder.", "") else "decoder"


def test_each_attention_of_unequal_stacks_has_rows(family: str, model: AdaptedModel) -> None:
    config = model.config
    depths = (config.num_layers, config.num_decoder_layers) if family == "t5" else (3, config.decoder_layers)
    assert depths == (3, 2)
    adapter = model.adapter("long")
    kinds = {site.key: kind_of(site) for site in adapter.sites.values()}
    assert Counter(kinds.values()) == {"encoder": 3, "decoder": 2, "cross": 2}
    networks = [{kinds[key] for key in generator.keys} for generator in adapter.generators]
    assert sorted(map(tuple, networks)) == [("cross",), ("decoder",), ("encoder",)]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "recomputed"])
def test_each_kind_of_rows_matters_and_learns_through_its_own_network(
    family: str, model: AdaptedModel, checkpointing: bool
) -> None:
    inputs = FAMILIES[family].inputs()
    adapter = model.adapter("long")
    if checkpointing:
        model.base.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    output = output_of(model, inputs, adapters="long")
    output.pow(2).mean().backward()
    assert len(adapter.generators) == len(KINDS)
    for generator in adapter.generators:
        for name, parameter in generator.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, (generator.keys[0], name)
    model.eval()
    for kind in KINDS:
        handles = [
            part.register_forward_hook(lambda part, args, rows: tuple(0 * row for row in rows))
            for key, part in adapter.parts.items()
            if isinstance(part, KeyValueRows) and kind_of(adapter.sites[key]) == kind
        ]
        with torch.no_grad():
            assert not torch.allclose(output_of(model, inputs, adapters="long"), output, atol=1e-3), kind
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("beams", [1, 3], ids=["greedy", "beams"])
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_a_batch_of_adapters_writes_what_each_writes_alone(
    family: str, model: AdaptedModel, beams: int, left: bool
) -> None:
    kind = FAMILIES[family]
    adapters = ["long", "prompt", None, "lora", "short"]
    inputs = kind.inputs(left=left, lengths=(9, 5, 7, 6, 4))
    del inputs["decoder_input_ids"]
    options = {"max_new_tokens": 7, "min_new_tokens": 7, "do_sample": False, "num_beams": beams}
    together = model.generate(**inputs, adapters=adapters, **options)
    for row, name in enumerate(adapters):
        alone = model.generate(**kind.alone(inputs, row), adapters=name, **options)
        assert together[row].tolist() == alone[0].tolist(), name
    plain = model.generate(**inputs, adapters=None, **options)
    assert (together != plain).any(dim=1).sum() > 1  # most adapters move an arg max
