"""Numbers of parameters: closed formulas on tiny bases, and the published numbers on bases of full size.

A base of full size is built on the meta device: it has shapes but no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)

import families
from all_families import FAMILIES
from graftune.methods import (
    IA3,
    BitFit,
    BottleneckAdapter,
    Freeze,
    FullFineTuning,
    LoRA,
    PrefixTuning,
    PromptTuning,
    PTuning,
    PTuningV2,
)
from graftune.methods.method import Method
from graftune.model.adapted import AdaptedModel

# Formulas ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """What the formulas of the papers are made of."""

    d: int  # hidden states
    kv: int  # keys of all heads: below d with grouped queries
    ff: int  # inner size of the FFN
    layers: int
    up: tuple[int, ...]  # inner sizes of the FFN's first maps: two where it is gated, one where they are fused
    norms: int  # parameters of all norms

    @property
    def maps(self) -> list[tuple[int, int]]:
        """Inputs and outputs of q, k, v, o and the FFN's maps."""
        up = [(self.d, size) for size in self.up]
        return [(self.d, self.d), (self.d, self.kv), (self.d, self.kv), (self.d, self.d), *up, (self.ff, self.d)]


#: The four, and others whose blocks are one of theirs.
COUNTED = (*families.FAMILIES, "mistral", "opt", "roberta", "distilbert")
WITHOUT_BIASES = (*families.WITHOUT_BIASES, "mistral")


@cache
def sizes(family: str) -> Sizes:
    config = model(family).config
    d, layers = config.hidden_size, config.num_hidden_layers
    if family == "gpt2":
        return Sizes(d, d, 4 * d, layers, (4 * d,), 2 * d * (2 * layers + 1))
    ff = next(getattr(config, name) for name in ("intermediate_size", "ffn_dim", "hidden_dim") if hasattr(config, name))
    if family == "opt":
        return Sizes(d, d, ff, layers, (ff,), 2 * d * (2 * layers + 1))
    if family in ("llama", "mistral"):
        kv = d // config.num_attention_heads * config.num_key_value_heads
        return Sizes(d, kv, ff, layers, (ff, ff), d * (2 * layers + 1))
    if family == "modernbert":  # no norm before the first attention; one behind the embeddings and in the head
        return Sizes(d, d, ff, layers, (2 * ff,), d * (2 * layers + 2))
    # The masked-language-model head has a norm too; so do the embeddings.
    return Sizes(d, d, ff, layers, (ff,), 2 * d * (2 * layers + 2))


@cache
def model(family: str) -> AdaptedModel:
    return AdaptedModel(FAMILIES[family].base())


def counted(family: str, method: Method) -> tuple[int, int]:
    """Trained and stored parameters."""
    adapted = model(family)
    adapted.add("a", method)
    count = adapted.count("a")
    adapted.remove("a")
    return count.trained, count.stored


every = pytest.mark.parametrize("family", COUNTED)


@every
@pytest.mark.parametrize("length", [1, 5, 30])
def test_prompt_tuning(family: str, length: int) -> None:
    stored = length * sizes(family).d
    assert counted(family, PromptTuning(length)) == (stored, stored)


@every
@pytest.mark.parametrize("length", [1, 6])
@pytest.mark.parametrize("hidden", [4, 16])
def test_prefix_tuning(family: str, length: int, hidden: int) -> None:
    s = sizes(family)
    width = 2 * s.layers * s.kv
    stored = length * width
    trained = length * s.d + s.d * hidden + hidden + width * hidden + width
    assert counted(family, PrefixTuning(length=length, hidden=hidden)) == (trained, stored)
    assert counted(family, PrefixTuning(length=length, reparameterize=False)) == (stored, stored)
    assert counted(family, PTuningV2(length=length)) == (stored, stored)
    assert counted(family, PTuningV2(length=length, reparameterize=True, hidden=hidden)) == (trained, stored)


@every
@pytest.mark.parametrize("tokens", [1, 9])
def test_p_tuning(family: str, tokens: int) -> None:
    d = sizes(family).d
    pattern = f"{{P:{tokens}}}{{input}}"
    assert counted(family, PTuning(pattern=pattern)) == (14 * d**2 + 18 * d + tokens * d, tokens * d)
    assert counted(family, PTuning(pattern=pattern, encoder="mlp")) == (2 * d**2 + 2 * d + tokens * d, tokens * d)


@every
@pytest.mark.parametrize("rank", [1, 4])
def test_lora(family: str, rank: int) -> None:
    s = sizes(family)
    for targets, chosen in (
        (("q", "v"), [s.maps[0], s.maps[2]]),
        (("q", "k", "v", "o"), s.maps[:4]),
        (("down",), s.maps[-1:]),
    ):
        low = s.layers * sum(rank * (i + o) for i, o in chosen)
        assert counted(family, LoRA(rank=rank, targets=targets)) == (low, low)
        more = low + s.layers * sum(o for _, o in chosen)
        assert counted(family, LoRA(rank=rank, targets=targets, dora=True)) == (more, more)
    # A fused q, k, v is one map.
    maps = [(s.d, 3 * s.d), *s.maps[3:]] if family in ("gpt2", "modernbert") else s.maps
    total = s.layers * sum(rank * (i + o) for i, o in maps)
    assert counted(family, LoRA(rank=rank, targets="all")) == (total, total)


@every
def test_ia3(family: str) -> None:
    s = sizes(family)
    assert counted(family, IA3()) == (s.layers * (2 * s.kv + s.ff),) * 2


@every
@pytest.mark.parametrize("m", [1, 7])
def test_bottleneck_adapters(family: str, m: int) -> None:
    s = sizes(family)
    one = 2 * m * s.d + m + s.d
    assert counted(family, BottleneckAdapter("houlsby", m, norms=False))[1] == s.layers * 2 * one
    assert counted(family, BottleneckAdapter("houlsby", m))[1] == s.layers * 2 * one + s.norms
    assert counted(family, BottleneckAdapter("pfeiffer", m))[1] == s.layers * one
    assert counted(family, BottleneckAdapter("parallel", m))[1] == s.layers * one


@every
def test_bitfit(family: str) -> None:
    s, adapted = sizes(family), model(family)
    if family in WITHOUT_BIASES:  # one is added to every map
        assert counted(family, BitFit())[1] == s.layers * sum(o for _, o in s.maps)
        return
    names = [n for n, _ in adapted.base.base_model.named_parameters() if n.endswith("bias")]
    assert counted(family, BitFit())[1] == sum(adapted.base.base_model.get_parameter(n).numel() for n in names)


@every
@pytest.mark.parametrize("last", [1, 2, 3])
def test_freeze(family: str, last: int) -> None:
    s = sizes(family)
    biases = 0 if family in WITHOUT_BIASES else sum(o for _, o in s.maps)
    norms = 2 * s.d if family in WITHOUT_BIASES else 4 * s.d
    final = {"gpt2": 2 * s.d, "opt": 2 * s.d, "llama": s.d, "mistral": s.d, "modernbert": s.d}.get(family, 0)
    if family == "modernbert" and last == s.layers:
        final -= s.d  # no norm before the first attention
    block = sum(i * o for i, o in s.maps) + biases + norms
    if family == "gpt2":
        assert block == 12 * s.d**2 + 13 * s.d
    assert counted(family, Freeze(last=last))[1] == last * block + final


@every
def test_full_fine_tuning(family: str) -> None:
    assert counted(family, FullFineTuning())[1] == model(family).base.num_parameters()


# Published numbers ------------------------------------------------------------------------------------------

GPT2 = {"M": {"n_embd": 1024, "n_layer": 24, "n_head": 16}, "L": {"n_embd": 1280, "n_layer": 36, "n_head": 20}}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
T5 = {"d_kv": 64, "feed_forward_proj": "gated-gelu"}


def bases() -> dict[str, tuple[type[PreTrainedModel], PretrainedConfig]]:
    """Bases of the papers' sizes."""
    return {
        "gpt2-medium": (GPT2LMHeadModel, GPT2Config(**GPT2["M"])),
        "gpt2-large": (GPT2LMHeadModel, GPT2Config(**GPT2["L"])),
        "bert-base": (BertModel, BertConfig()),
        "bert-large": (BertModel, BertConfig(**LARGE)),
        "roberta-base": (RobertaModel, RobertaConfig()),
        "roberta-large": (RobertaModel, RobertaConfig(**LARGE)),
        "bart-large": (BartForConditionalGeneration, BartConfig()),
        "t0-3b": (
            T5ForConditionalGeneration,
            T5Config(d_model=2048, d_ff=5120, num_layers=24, num_heads=32, **T5),
        ),
        "t5-small": (T5ForConditionalGeneration, T5Config(d_model=512, d_ff=1024, num_layers=8, num_heads=6, **T5)),
        "llama-3.2-3b": (
            LlamaForCausalLM,
            LlamaConfig(
                hidden_size=3072, num_hidden_layers=28, num_attention_heads=24, num_key_value_heads=8, head_dim=128
            ),
        ),
    }


@cache
def shape_of(name: str) -> AdaptedModel:
    cls, config = bases()[name]
    config._attn_implementation = "eager"  # the other one looks at the values of masks
    with torch.device("meta"):
        return AdaptedModel(cls(config).eval())


PUBLISHED: list[tuple[str, Method, int | None, int | None]] = [
    # base, method, trained, stored
    ("gpt2-medium", PrefixTuning(length=5, hidden=512), 25_744_896, 245_760),
    ("gpt2-medium", PrefixTuning(length=10, hidden=512), None, 491_520),
    ("gpt2-medium", LoRA(rank=4), 393_216, 393_216),
    ("gpt2-large", LoRA(rank=4), 737_280, 737_280),
    ("gpt2-medium", Freeze(last=2), 2 * 12_596_224 + 2048, 2 * 12_596_224 + 2048),
    ("bert-base", BottleneckAdapter("houlsby", 64, norms=False), 2_379_264, 2_379_264),
    ("bert-base", BottleneckAdapter("houlsby", 64), 2_379_264 + 38_400, 2_379_264 + 38_400),
    ("bert-base", BottleneckAdapter("pfeiffer", 48), 894_528, 894_528),
    ("bert-base", BitFit(), 102_912, 102_912),
    ("bert-large", BottleneckAdapter("houlsby", 64, norms=False), 6_343_680, 6_343_680),
    ("bert-large", BottleneckAdapter("houlsby", 64), 6_343_680 + 100_352, 6_343_680 + 100_352),
    ("bert-large", BitFit(), 272_384, 272_384),
    ("roberta-base", LoRA(rank=8), 294_912, 294_912),
    ("roberta-large", LoRA(rank=8), 786_432, 786_432),
    ("bart-large", PrefixTuning(length=5, hidden=800), None, 368_640),
    ("bart-large", PrefixTuning(length=100, hidden=800), None, 7_372_800),
    ("bart-large", PrefixTuning(length=200, hidden=800), 62_130_528, 14_745_600),
    ("t0-3b", IA3(), 540_672, 540_672),
    ("t5-small", PromptTuning(100, init="random"), 51_200, 51_200),
    ("llama-3.2-3b", PrefixTuning(length=50, reparameterize=False), 2_867_200, 2_867_200),
]


@pytest.mark.parametrize(
    ("name", "method", "trained", "stored"),
    [pytest.param(*row, id=f"{row[0]}-{row[1].preset}-{row[3]}") for row in PUBLISHED],
)
def test_published_number(name: str, method: Method, trained: int | None, stored: int | None) -> None:
    adapted = shape_of(name)
    with torch.device("meta"):
        adapted.add("a", method)
    count = adapted.count("a")
    adapted.remove("a")
    assert count.stored == stored
    assert trained in (None, count.trained)
