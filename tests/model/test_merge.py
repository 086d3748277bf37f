"""Merging where modules share a weight: what was tied comes apart, is said in the config, and survives a save."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
import torch
import transformers as t
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from all_families import FAMILIES, IMAGE, T5, TEXT, output_of
from families import batch, randomised
from graftune.errors import GraftuneError
from graftune.methods import IA3, Freeze, FullFineTuning, LoRA
from graftune.methods.method import Build, Method
from graftune.model.adapted import AdaptedModel
from graftune.model.context import Context
from graftune.parts import DecomposedLowRank, LowRank, Scale
from methods_under_test import disturb

#: Family -> the output head that is tied to the embedding.
HEADS = {
    "gpt2": "lm_head",
    "opt": "lm_head",
    "gemma3": "lm_head",
    "bert": "decoder",
    "roberta": "decoder",
    "electra": "generator_lm_head",
    "bart": "lm_head",
    "mbart": "lm_head",
    "marian": "lm_head",
}
PARTS: dict[str, Callable[[str], Method]] = {
    "lora": lambda head: LoRA(rank=2, targets=(head,)),
    "dora": lambda head: LoRA(rank=2, targets=(head,), dora=True),
    "scale-output": lambda head: IA3(outputs=(head,), inputs=()),
    "scale-input": lambda head: IA3(outputs=(), inputs=(head,)),
    "copies": lambda head: Freeze(names=("shared|embed_tokens|wte|word_embeddings",), last=0),
    "full": lambda head: FullFineTuning(),
}


@cache
def base_of(family: str) -> AdaptedModel:
    base = FAMILIES[family].base()
    if family == "marian":  # its tables of sines are made and not stored
        for table in (base.model.encoder.embed_positions, base.model.decoder.embed_positions):
            with torch.no_grad():
                table.weight.copy_(table.create_weight())
    return AdaptedModel(base)


@contextmanager
def shared(family: str) -> Iterator[AdaptedModel]:
    """A family's model, without adapters before and behind the block."""
    model = base_of(family)
    try:
        yield model
    finally:
        model.close()


def of(model: Callable[..., object], family: str, **options: object) -> Tensor:
    with torch.no_grad():
        return output_of(model, FAMILIES[family].inputs(), **options)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


def reread(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder).eval()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("family", HEADS)
def test_a_part_at_a_tied_head_is_merged_and_saved(family: str, part: str, tmp_path: Path) -> None:
    with shared(family) as model:
        assert model.base.get_output_embeddings().weight is model.base.get_input_embeddings().weight
        before = copy.deepcopy(model.base.state_dict())
        model.add("a", PARTS[part](HEADS[family]), seed=0)
        disturb(model, "a")
        live = of(model, family, adapters="a")
        assert not torch.allclose(live, of(model, family, adapters=None), atol=1e-3)
        merged = model.merge("a")
        close(of(merged, family), live)
        assert merged.config.get_text_config().tie_word_embeddings is (part in ("copies", "full"))
        again = reread(merged, tmp_path / "merged")
        close(of(again, family), live)
        assert again.config.tie_word_embeddings == merged.config.tie_word_embeddings
        assert model.base.config.tie_word_embeddings
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.base.state_dict().items())
        model.save("a", tmp_path / "adapter")
        model.load("b", tmp_path / "adapter")
        assert torch.equal(of(model, family, adapters="b"), live)
        mixed = of(model, family, adapters=["a", None, "b", None])
        close(mixed[0], live[0])
        close(mixed[1], of(model, family, adapters=None)[1])


def test_the_config_of_the_text_model_says_it_too(tmp_path: Path) -> None:
    vision = t.CLIPVisionConfig(**IMAGE, projection_dim=16)
    text = t.LlamaConfig(**TEXT, num_key_value_heads=2, tie_word_embeddings=True)
    config = t.LlavaConfig(vision_config=vision, text_config=text, image_token_index=3, tie_word_embeddings=True)
    base = randomised(t.LlavaForConditionalGeneration, config)
    model = AdaptedModel(base)
    model.add("a", LoRA(rank=2, targets=("lm_head",)), seed=0)
    disturb(model, "a")
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    with torch.no_grad():
        live = model(**inputs, adapters="a").logits
        merged = model.merge("a")
        assert not merged.config.tie_word_embeddings
        assert not merged.config.text_config.tie_word_embeddings
        close(merged(**inputs).logits, live)
        close(reread(merged, tmp_path)(**inputs).logits, live)


@pytest.mark.parametrize("head", ["lm_head"])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: FAMILIES["t5"].base(), id="t5"),
        pytest.param(
            lambda: randomised(t.UMT5ForConditionalGeneration, t.UMT5Config(**T5, decoder_start_token_id=1)), id="umt5"
        ),
    ],
)
def test_a_config_that_cannot_untie_is_refused(make: Callable[[], PreTrainedModel], head: str) -> None:
    """T5's config ties again when it is read; UMT5 scales its logits by whether they are tied."""
    model = AdaptedModel(make())
    if not model.base.config.tie_word_embeddings:
        model.base.config.tie_word_embeddings = True
        model.base.tie_weights()
    model.add("a", LoRA(rank=2, targets=(head,)), seed=0)
    disturb(model, "a")
    with pytest.raises(GraftuneError, match=r"cannot be merged: it changes a weight that the base ties"):
        model.merge("a")
    assert model.base.config.tie_word_embeddings
    model.remove("a")
    model.add("a", LoRA(rank=2), seed=0)  # elsewhere nothing is tied
    disturb(model, "a")
    model.merge("a")


def test_weights_that_layers_share_come_apart(tmp_path: Path) -> None:
    """Shared by the caller, and in no config."""
    base = FAMILIES["llama"].base()
    layers = base.model.layers
    layers[1].self_attn.q_proj.weight = layers[0].self_attn.q_proj.weight
    model = AdaptedModel(base)
    model.add("a", LoRA(rank=2, targets=("q",)), seed=0)
    disturb(model, "a")
    live = of(model, "llama", adapters="a")
    merged = model.merge("a")
    close(of(merged, "llama"), live)
    close(of(reread(merged, tmp_path), "llama"), live)


# Any parts together --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn(Method):
    """What was drawn: a part at the head, one at q of each layer, copies of parameters."""

    head: str = "lm_head"
    at_head: str | None = None
    at_q: str | None = None
    names: tuple[str, ...] = ()
    copies_first: bool = False

    def build(self, context: Context) -> Build:
        makers: dict[str, Callable[..., nn.Module]] = {
            "lora": lambda s: LowRank(s.inputs, s.outputs, 2, 1.5),
            "dora": lambda s: DecomposedLowRank(s.inputs, s.outputs, 2, 1.5, weight=context.weight(s)),
            "input": lambda s: Scale(s.inputs, "input"),
            "output": lambda s: Scale(s.outputs, "output"),
        }
        grafts = []
        for kind, target in ((self.at_head, self.head), (self.at_q, "q")):
            if kind is not None:
                sites = [s for s in context.anatomy.linears((target,)) if kind != "input" or s.start is None]
                grafts += [(site, makers[kind](site)) for site in sites]
        copies = context.copies([n for n in context.parameters if any(part in n for part in self.names)])
        return Build(copies + grafts if self.copies_first else grafts + copies)


KINDS = st.sampled_from([None, "lora", "dora", "input", "output"])
NAMES = {"gpt2": ("wte", "c_attn", "ln_f"), "bart": ("shared", "q_proj", "fc1"), "bert": ("word_emb", "query", "bias")}


@pytest.mark.parametrize("family", NAMES)
def test_any_parts_together_are_merged_and_share_batches(family: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    @settings(max_examples=12, deadline=None)
    @given(KINDS, KINDS, st.sets(st.sampled_from(NAMES[family])), st.booleans())
    def holds(at_head: str | None, at_q: str | None, names: set[str], copies_first: bool) -> None:
        method = Drawn(HEADS[family], at_head, at_q, tuple(sorted(names)), copies_first)
        with shared(family) as model:
            build = method.build(Context(model.base, model.anatomy))
            if not build.grafts:
                return
            model.add("a", method, seed=0)
            disturb(model, "a")
            live = of(model, family, adapters="a")
            merged = model.merge("a")
            close(of(merged, family), live)
            close(of(reread(merged, tmp_path_factory.mktemp("merged")), family), live)
            mixed = of(model, family, adapters=["a", None, "a", None])
            close(mixed[0], live[0])
            close(mixed[1], of(model, family, adapters=None)[1])

    holds()


def test_a_merged_model_writes_what_the_adapter_writes() -> None:
    with shared("gpt2") as model:
        model.add("a", LoRA(rank=2, targets=("lm_head", "q")), seed=0)
        disturb(model, "a")
        write = partial(model.merge("a").generate, **batch(), max_new_tokens=5, do_sample=False, pad_token_id=1)
        expected = model.generate(**batch(), adapters="a", max_new_tokens=5, do_sample=False, pad_token_id=1)
        assert torch.equal(write(), expected)
