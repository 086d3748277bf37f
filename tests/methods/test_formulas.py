"""Each method against its formula, written out a second time in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from families import DECODERS, base
from graftune.errors import GraftuneError
from graftune.methods import IA3, BottleneckAdapter, LoRA, PrefixTuning, PromptTuning, PTuning
from graftune.methods.method import Method
from graftune.model.adapted import AdaptedModel
from graftune.model.adapter import Adapter
from graftune.model.anatomy import Anatomy
from graftune.model.context import Context
from graftune.parts import (
    Bottleneck,
    DecomposedLowRank,
    Generator,
    KeyValueRows,
    LowRank,
    ParameterCopy,
    PromptLSTM,
    PromptMLP,
    TableMLP,
    TokenRows,
)
from methods_under_test import disturb

SEEDS = st.integers(0, 2**16)


def exact(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a.double(), b.double(), atol=tolerance, rtol=tolerance)


def ids_of(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(3, 97, (rows, length), generator=torch.Generator().manual_seed(seed))


def adapted(
    family: str, method: Method, *, size: float = 0.1, seed: int = 7, tokenizer: Callable[..., object] | None = None
) -> tuple[AdaptedModel, Adapter]:
    """A float64 base with one adapter, moved away from its start."""
    model = AdaptedModel(base(family).double(), tokenizer)
    adapter = model.add("a", method, seed=seed).double()
    disturb(model, "a", seed=seed, size=size)
    return model, adapter


def logits(model: AdaptedModel, ids: Tensor, adapters: str | None = "a") -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, adapters=adapters).logits


def parts_of(adapter: Adapter, kind: type[nn.Module]) -> dict[str, nn.Module]:
    return {adapter.sites[key].path: part for key, part in adapter.parts.items() if isinstance(part, kind)}


def words(text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
    """A tokenizer of one id a word."""
    return {"input_ids": [3 + sum(map(ord, word)) % 90 for word in text.split()]}


# The bases by hand ------------------------------------------------------------------------------------------

Attend = Callable[[str, Tensor, Tensor, Tensor], Tensor]
After = Callable[[str, str, Tensor, Tensor, Tensor], Tensor]


def causal(path: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q kᵀ/√d + mask) v, (B, H, T, d)."""
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value


def full(path: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1) @ value


def unchanged(path: str, role: str, h: Tensor, x: Tensor, residual: Tensor) -> Tensor:
    return h


def heads(x: Tensor, width: int) -> Tensor:
    return x.unflatten(-1, (-1, width)).transpose(1, 2)  # (B, H, T, width)


@torch.no_grad()
def gpt2(model: PreTrainedModel, ids: Tensor, attend: Attend = causal, after: After = unchanged) -> Tensor:
    """Logits; ``after`` sees each sub-layer's output, its input and the residual stream."""
    trunk = model.transformer
    x = trunk.wte(ids) + trunk.wpe(torch.arange(ids.shape[1]))
    for i, block in enumerate(trunk.h):
        at = f"transformer.h.{i}"
        inner = block.ln_1(x)
        q, k, v = (heads(t, 8) for t in (inner @ block.attn.c_attn.weight + block.attn.c_attn.bias).split(32, -1))
        mixed = attend(f"{at}.attn", q, k, v).transpose(1, 2).flatten(2)
        h = mixed @ block.attn.c_proj.weight + block.attn.c_proj.bias
        x = x + after(at, "attention", h, inner, x)
        inner = block.ln_2(x)
        h = F.gelu(inner @ block.mlp.c_fc.weight + block.mlp.c_fc.bias, approximate="tanh")
        h = h @ block.mlp.c_proj.weight + block.mlp.c_proj.bias
        x = x + after(at, "mlp", h, inner, x)
    return model.lm_head(trunk.ln_f(x))


@torch.no_grad()
def llama(model: PreTrainedModel, ids: Tensor, attend: Attend = causal, after: After = unchanged) -> Tensor:
    trunk = model.model
    x = trunk.embed_tokens(ids)
    turn = trunk.rotary_emb(x, torch.arange(ids.shape[1])[None])
    for i, layer in enumerate(trunk.layers):
        at, self = f"model.layers.{i}", layer.self_attn
        inner = layer.input_layernorm(x)
        q, k, v = (heads(F.linear(inner, m.weight), 8) for m in (self.q_proj, self.k_proj, self.v_proj))
        q, k = apply_rotary_pos_emb(q, k, *turn)
        mixed = attend(f"{at}.self_attn", q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))
        h = F.linear(mixed.transpose(1, 2).flatten(2), self.o_proj.weight)
        x = x + after(at, "attention", h, inner, x)
        inner = layer.post_attention_layernorm(x)
        h = F.silu(F.linear(inner, layer.mlp.gate_proj.weight)) * F.linear(inner, layer.mlp.up_proj.weight)
        x = x + after(at, "mlp", F.linear(h, layer.mlp.down_proj.weight), inner, x)
    return model.lm_head(trunk.norm(x))


@torch.no_grad()
def bert(model: PreTrainedModel, ids: Tensor, attend: Attend = full, after: After = unchanged) -> Tensor:
    x = model.bert.embeddings(ids)
    for i, layer in enumerate(model.bert.encoder.layer):
        at, self = f"bert.encoder.layer.{i}", layer.attention.self
        q, k, v = (heads(F.linear(x, m.weight, m.bias), 8) for m in (self.query, self.key, self.value))
        mixed = attend(f"{at}.attention.self", q, k, v).transpose(1, 2).flatten(2)
        out = layer.attention.output
        h = F.linear(mixed, out.dense.weight, out.dense.bias)
        x = out.LayerNorm(after(at, "attention", h, x, x) + x)
        h = F.gelu(F.linear(x, layer.intermediate.dense.weight, layer.intermediate.dense.bias))
        h = F.linear(h, layer.output.dense.weight, layer.output.dense.bias)
        x = layer.output.LayerNorm(after(at, "mlp", h, x, x) + x)
    return model.cls(x)


BY_HAND = {"gpt2": gpt2, "llama": llama, "bert": bert}
OUTPUTS = {  # where each sub-layer's output is changed: its last linear map, or the dropout after it
    "gpt2": {"attention": "attn.", "mlp": "mlp."},
    "llama": {"attention": "self_attn.", "mlp": "mlp."},
    "bert": {"attention": "attention.output.", "mlp": "output."},
}


@pytest.mark.parametrize("family", list(BY_HAND))
def test_the_hand_written_bases_are_right(family: str) -> None:
    plain, ids = base(family).double(), ids_of(2, 6)
    exact(BY_HAND[family](plain, ids), plain(input_ids=ids).logits)


# Prefixes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", DECODERS)
@given(length=st.integers(1, 7), tokens=st.integers(1, 8), size=st.floats(0.01, 3), seed=SEEDS)
def test_a_prefix_is_a_gated_attention_beside_the_own_one(
    family: str, length: int, tokens: int, size: float, seed: int
) -> None:
    """Attn(q, [P_k; K], [P_v; V]) = (1 − λ) Attn(q, K, V) + λ softmax(q P_kᵀ) P_v (He et al. 2021, eq. 7)."""
    model, adapter = adapted(family, PrefixTuning(length=length, reparameterize=False), size=size, seed=seed)
    rows = parts_of(adapter, KeyValueRows)

    def gated(path: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        own_key, own_value = (t.detach()[None].repeat_interleave(4 // t.shape[0], 1) for t in rows[path]())
        scale = query.shape[-1] ** 0.5
        of_rows = query @ own_key.transpose(-1, -2) / scale
        of_text = query @ key.transpose(-1, -2) / scale
        hidden = torch.ones(of_text.shape[-2:], dtype=torch.bool).triu(1)
        of_text = of_text.masked_fill(hidden, -torch.inf)
        gate = torch.sigmoid(of_rows.logsumexp(-1, keepdim=True) - of_text.logsumexp(-1, keepdim=True))
        return (1 - gate) * causal(path, query, key, value) + gate * (of_rows.softmax(-1) @ own_value)

    ids = ids_of(2, tokens, seed)
    exact(logits(model, ids), BY_HAND[family](model.base, ids, gated))


@pytest.mark.parametrize("family", DECODERS)
@given(length=st.integers(1, 6), tokens=st.integers(1, 7), seed=SEEDS)
def test_a_prompt_is_the_prefix_of_having_read_it(family: str, length: int, tokens: int, seed: int) -> None:
    """In a causal base, rows at positions 0 … l−1 act through their keys and values only."""
    model, adapter = adapted(family, PromptTuning(length, init="random"), seed=seed)
    (rows,) = parts_of(adapter, TokenRows).values()
    with torch.no_grad():
        read = model.base(inputs_embeds=rows.table()[None], use_cache=True).past_key_values
    prefix = model.add("prefix", PrefixTuning(length=length, reparameterize=False, shift_positions=True)).double()
    for layer, part in zip(read.layers, prefix.parts.values(), strict=True):
        flat = [t[0].transpose(0, 1).flatten(1) for t in (layer.keys, layer.values)]
        part.rows.data = torch.cat(flat, dim=-1)
    ids = ids_of(2, tokens, seed)
    exact(logits(model, ids, "prefix"), logits(model, ids))


@pytest.mark.parametrize("family", DECODERS)
def test_a_prefix_from_words_is_the_base_that_read_them(family: str) -> None:
    text = "a table of words"
    method = PrefixTuning(text=text, reparameterize=False, shift_positions=True)
    model, _ = adapted(family, method, size=0, tokenizer=words)
    ids = ids_of(3, 5)
    read = torch.tensor([words(text)["input_ids"]]).expand(3, -1)
    with torch.no_grad():
        expected = model.base(input_ids=torch.cat([read, ids], dim=1)).logits[:, read.shape[1] :]
    exact(logits(model, ids), expected, 1e-5)  # the rows start as float32


def test_a_prefix_from_words_in_an_encoder_is_its_own_keys_and_values() -> None:
    text = "three more words"
    model, adapter = adapted("bert", PrefixTuning(text=text, reparameterize=False), size=0, tokenizer=words)
    rows = parts_of(adapter, KeyValueRows)
    seen = {}

    def watch(path: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        seen[path] = (key[0], value[0])
        return full(path, query, key, value)

    bert(model.base, torch.tensor([words(text)["input_ids"]]), watch)
    assert rows.keys() == seen.keys()
    for path, part in rows.items():
        for mine, own in zip(part(), seen[path], strict=True):
            exact(mine, own, 1e-5)


def test_words_without_a_tokenizer_say_what_is_missing() -> None:
    with pytest.raises(GraftuneError, match="needs the base's tokenizer"):
        AdaptedModel(base("gpt2")).add("a", PrefixTuning(text="some words"))


# Bottleneck adapters ----------------------------------------------------------------------------------------

ACTIVATION = {"houlsby": F.gelu, "pfeiffer": F.relu, "parallel": F.relu}


@pytest.mark.parametrize("family", list(BY_HAND))
@pytest.mark.parametrize("style", list(ACTIVATION))
@given(bottleneck=st.integers(1, 9), tokens=st.integers(1, 7), seed=SEEDS)
def test_bottleneck_adapters(family: str, style: str, bottleneck: int, tokens: int, seed: int) -> None:
    """Houlsby h + f(h); Pfeiffer h + f(LN(h + x)), without the norm in pre-norm bases; parallel h + 4 f(x)."""
    model, adapter = adapted(family, BottleneckAdapter(style, bottleneck), seed=seed)
    parts = parts_of(adapter, Bottleneck)
    reference = base(family).double()
    for path, copies in parts_of(adapter, ParameterCopy).items():  # Houlsby trains the norms too
        for name, value in copies().items():
            reference.get_submodule(path)._parameters[name].data = value.data
    used = []

    def after(at: str, role: str, h: Tensor, x: Tensor, residual: Tensor) -> Tensor:
        found = [path for path in parts if path.startswith(f"{at}.{OUTPUTS[family][role]}")]
        if not found:
            return h
        used.extend(found)
        part = parts[found[0]]
        read = {"houlsby": h, "parallel": x, "pfeiffer": h + residual}[style]
        if style == "pfeiffer" and family == "bert":
            read = reference.get_submodule(f"{at}.output.LayerNorm")(read)
        inner = ACTIVATION[style](F.linear(read, part.down.weight, part.down.bias))
        return h + (4.0 if style == "parallel" else 1.0) * F.linear(inner, part.up.weight, part.up.bias)

    ids = ids_of(2, tokens, seed)
    exact(logits(model, ids), BY_HAND[family](reference, ids, after=after))
    assert sorted(used) == sorted(parts)
    assert len(parts) == (6 if style == "houlsby" else 3)


# Weights ----------------------------------------------------------------------------------------------------


@given(r=st.integers(1, 6), inputs=st.integers(1, 9), outputs=st.integers(1, 9), scale=st.floats(0.1, 4), seed=SEEDS)
def test_lora_and_dora_are_their_explicit_weights(r: int, inputs: int, outputs: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    weight, bias, x = torch.randn(outputs, inputs), torch.randn(outputs), torch.randn(2, 3, inputs)
    weight, bias, x = weight.double(), bias.double(), x.double()
    y = F.linear(x, weight, bias)
    plain = LowRank(inputs, outputs, r, scale).double()
    dora = DecomposedLowRank(inputs, outputs, r, scale, weight=weight).double()
    exact(plain(x, y, weight, bias), y)
    exact(dora(x, y, weight, bias), y, 1e-5)  # m starts as float32
    for part in (plain, dora):
        part.B.data.normal_()
    changed = weight + scale * plain.B @ plain.A
    exact(plain(x, y, weight, bias), F.linear(x, changed, bias))
    exact(plain.merged(weight), changed)
    dora.magnitude.data.uniform_(0.5, 2)
    direction = weight + scale * dora.B @ dora.A
    changed = dora.magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)
    exact(dora(x, y, weight, bias), F.linear(x, changed, bias))
    exact(dora(x, F.linear(x, weight), weight, None), F.linear(x, changed))
    exact(dora.merged(weight), changed)


def test_doras_norm_is_constant_in_the_backward() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(5, 4).double(), torch.randn(3, 4).double()
    dora = DecomposedLowRank(4, 5, 2, 1.5, weight=weight).double()
    dora.B.data.normal_()
    dora(x, F.linear(x, weight), weight, None).square().sum().backward()
    a, b = dora.A.detach().clone().requires_grad_(), dora.B.detach().clone().requires_grad_()
    direction = weight + 1.5 * b @ a
    frozen = direction.norm(dim=1, keepdim=True).detach()
    F.linear(x, dora.magnitude.detach()[:, None] * direction / frozen).square().sum().backward()
    exact(dora.A.grad, a.grad)
    exact(dora.B.grad, b.grad)


@pytest.mark.parametrize(("rslora", "scale"), [(False, 12 / 4), (True, 12 / 2)])
def test_the_scale_of_lora(rslora: bool, scale: float) -> None:
    assert LoRA(rank=4, alpha=12, rslora=rslora).scale == scale
    assert LoRA(rank=4, alpha=None).scale == 1


@pytest.mark.parametrize(
    "method", [LoRA(rank=2), LoRA(rank=2, dora=True), IA3(("q", "v"), ())], ids=["lora", "dora", "ia3"]
)
def test_only_the_chosen_columns_of_a_fused_map_change(method: Method) -> None:
    model, _ = adapted("gpt2", method, size=0.3)
    outputs: list[Tensor] = []
    first = model.base.transformer.h[0].attn.c_attn
    first.register_forward_hook(lambda module, args, output: outputs.append(output))
    for name in (None, "a"):
        logits(model, ids_of(2, 5), name)
    before, after = (t.split(32, dim=-1) for t in outputs)
    assert torch.equal(before[1], after[1])
    for i in (0, 2):
        assert (before[i] != after[i]).float().mean() > 0.9


@pytest.mark.parametrize("family", list(BY_HAND))
def test_ia3_is_three_diagonal_matrices(family: str) -> None:
    model, adapter = adapted(family, IA3(), size=0.3)
    reference = base(family).double()
    scales = {key.replace("/", "."): part.scale.detach() for key, part in adapter.parts.items()}
    used = set()

    def scaled(linear: nn.Module, key: str, on: str) -> None:
        used.add(key)
        if on == "input":
            linear.weight.data = linear.weight @ scales[key].diag()
        else:
            linear.weight.data = scales[key].diag() @ linear.weight
            if linear.bias is not None:
                linear.bias.data *= scales[key]

    for i in range(3):
        if family == "gpt2":
            block, at = reference.transformer.h[i], f"transformer.h.{i}"
            for role, span in (("k", slice(32, 64)), ("v", slice(64, 96))):
                key = f"{at}.attn.c_attn[{role}]"
                block.attn.c_attn.weight.data[:, span] *= scales[key]
                block.attn.c_attn.bias.data[span] *= scales[key]
                used.add(key)
            block.mlp.c_proj.weight.data = scales[f"{at}.mlp.c_proj"].diag() @ block.mlp.c_proj.weight
            used.add(f"{at}.mlp.c_proj")
        elif family == "llama":
            at = f"model.layers.{i}"
            for name, on in (
                ("self_attn.k_proj", "output"),
                ("self_attn.v_proj", "output"),
                ("mlp.down_proj", "input"),
            ):
                scaled(reference.get_submodule(f"{at}.{name}"), f"{at}.{name}", on)
        else:
            at = f"bert.encoder.layer.{i}"
            for name, on in (
                ("attention.self.key", "output"),
                ("attention.self.value", "output"),
                ("output.dense", "input"),
            ):
                scaled(reference.get_submodule(f"{at}.{name}"), f"{at}.{name}", on)
    assert used == set(scales)
    ids = ids_of(2, 6)
    exact(logits(model, ids), BY_HAND[family](reference, ids))


def test_two_scales_at_one_map_are_refused() -> None:
    with pytest.raises(GraftuneError, match="two parts"):
        AdaptedModel(base("llama")).add("a", IA3(outputs=("down",), inputs=("down",)))


# Generators -------------------------------------------------------------------------------------------------


@given(length=st.integers(1, 6), inner=st.integers(1, 6), hidden=st.integers(1, 6), width=st.integers(1, 9), seed=SEEDS)
def test_table_mlp(length: int, inner: int, hidden: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    net = TableMLP(length, inner, hidden, width).double()
    first, _, second = net.mlp
    expected = torch.tanh(net.table @ first.weight.T + first.bias) @ second.weight.T + second.bias
    exact(net(), expected)
    assert net().shape == (length, width)


@given(length=st.integers(1, 6), width=st.integers(1, 8), seed=SEEDS)
def test_prompt_mlp(length: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    net = PromptMLP(length, width).double()
    first, _, second = net.mlp
    exact(net(), torch.relu(net.table @ first.weight.T + first.bias) @ second.weight.T + second.bias)


@given(length=st.integers(1, 5), width=st.integers(2, 8), hidden=st.none() | st.integers(1, 5), seed=SEEDS)
def test_prompt_lstm(length: int, width: int, hidden: int | None, seed: int) -> None:
    """i, f, o = σ(·), g = tanh(·); c ← f c + i g; h = o tanh(c), both ways, two layers, then the MLP."""
    torch.manual_seed(seed)
    net = PromptLSTM(length, width, hidden).double()
    half = hidden or width // 2

    def run(x: Tensor, layer: int, back: bool) -> Tensor:
        tail = f"l{layer}{'_reverse' if back else ''}"
        w_ih, w_hh, b_ih, b_hh = (
            getattr(net.lstm, f"{kind}_{tail}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = c = torch.zeros(half).double()
        out = []
        for e in x.flip(0) if back else x:
            i, f, g, o = (w_ih @ e + b_ih + w_hh @ h + b_hh).chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            out.append(h)
        stacked = torch.stack(out)
        return stacked.flip(0) if back else stacked

    x = net.table
    for layer in range(2):
        x = torch.cat([run(x, layer, False), run(x, layer, True)], dim=-1)
    first, _, second = net.mlp
    exact(net(), torch.relu(x @ first.weight.T + first.bias) @ second.weight.T + second.bias)


@pytest.mark.parametrize(
    "method",
    [
        PrefixTuning(length=4, hidden=8),
        PTuning(pattern="{P:2}{P:2}{input}"),
        PTuning(pattern="{P:3}{input}", encoder="mlp"),
    ],
    ids=["prefix", "p-tuning-lstm", "p-tuning-mlp"],
)
@pytest.mark.parametrize("family", DECODERS)
def test_a_folded_generator_is_the_live_one(family: str, method: Method) -> None:
    model, adapter = adapted(family, method)
    ids = ids_of(2, 5)
    live, stored, trained = logits(model, ids), adapter.stored(), adapter.count()
    adapter.fold()
    assert torch.equal(logits(model, ids), live)
    assert adapter.stored().keys() == stored.keys()
    assert all(torch.equal(value, stored[key]) for key, value in adapter.stored().items())
    assert adapter.count().stored == adapter.count().trained == trained.stored < trained.trained


def test_a_generator_deals_out_its_columns_in_order() -> None:
    net = TableMLP(3, 4, 5, 9)
    dealt = Generator(net, ["a", "b", "c"], [2, 3, 4])()
    assert [t.shape[1] for t in dealt.values()] == [2, 3, 4]
    assert torch.equal(torch.cat([dealt[key] for key in "abc"], dim=-1), net())


@given(length=st.integers(1, 6), seed=SEEDS)
def test_fitting_comes_closer(length: int, seed: int) -> None:
    torch.manual_seed(seed)
    generator = Generator(TableMLP(length, 8, 16, 12), ["a", "b"], [5, 7])
    goal = {"a": torch.randn(length, 5), "b": torch.randn(length, 7)}

    @torch.no_grad()
    def distance() -> float:
        made = generator()
        return sum(float((made[key] - goal[key]).square().sum()) for key in goal)

    before = distance()
    generator.fit(goal, steps=60, lr=1e-2)
    assert distance() < 0.5 * before
    assert all(p.grad is None for p in generator.parameters())


def test_a_reparameterized_prefix_starts_close_to_the_words() -> None:
    text = "a table of words"
    plain = base("gpt2")
    goal = Context(plain, Anatomy(plain), words).key_values(text)

    def distance(method: Method) -> float:
        model = AdaptedModel(base("gpt2"), words)
        stored = model.add("a", method, seed=0).stored()
        keys = [f"parts.{path.replace('.', '/')}.rows" for path in goal]
        return sum(float(F.mse_loss(stored[key], rows)) for key, rows in zip(keys, goal.values(), strict=True))

    # 500 small steps, as the authors take, go part of the way.
    assert distance(PrefixTuning(text=text, hidden=256)) < 0.5 * distance(PrefixTuning(length=4, hidden=256))


# Starts of prompts ------------------------------------------------------------------------------------------


def start(method: PromptTuning, labels: tuple[str, ...] = (), seed: int = 0) -> tuple[Tensor, Tensor]:
    """The rows of a new prompt, and the base's table of embeddings."""
    model = AdaptedModel(base("gpt2"), words)
    adapter = model.add("a", method, labels=labels, seed=seed)
    (part,) = parts_of(adapter, TokenRows).values()
    return part.table().detach(), model.base.get_input_embeddings().weight.detach()


def places(rows: Tensor, table: Tensor) -> list[int]:
    """Which row of the table each row is."""
    found = (rows[:, None] == table[None]).all(-1)
    assert found.any(-1).all(), "a row that is not in the table"
    return found.int().argmax(-1).tolist()


@given(length=st.integers(1, 97), seed=SEEDS)
def test_vocabulary_rows_are_distinct_rows_of_the_table(length: int, seed: int) -> None:
    found = places(*start(PromptTuning(length), seed=seed))
    assert len(set(found)) == length


def test_a_prompt_longer_than_the_vocabulary_takes_tokens_twice() -> None:
    found = places(*start(PromptTuning(200)))
    assert len(found) == 200
    assert len(set(found)) == 97


def test_special_tokens_are_not_drawn() -> None:
    class Tokenizer:
        all_special_ids = (0, 1, 2, 50)

    model = AdaptedModel(base("gpt2"), Tokenizer())
    adapter = model.add("a", PromptTuning(93), seed=0)
    (part,) = parts_of(adapter, TokenRows).values()
    assert not {0, 1, 2, 50} & set(places(part.table().detach(), model.base.transformer.wte.weight))


@pytest.mark.parametrize("length", [1, 3, 4, 11])
def test_text_rows_repeat_or_cut_the_text(length: int) -> None:
    text = "one two three four"
    ids = words(text)["input_ids"]
    assert places(*start(PromptTuning(length, init="text", text=text))) == [ids[i % 4] for i in range(length)]


def test_label_rows_are_means_of_their_tokens() -> None:
    rows, table = start(PromptTuning(5, init="labels"), labels=("very good", "bad", "not at all"))
    for row, label in zip(rows, ("very good", "bad", "not at all"), strict=False):
        exact(row, table[words(label)["input_ids"]].mean(0), 1e-6)
    assert len(set(places(rows[3:], table))) == 2
    rows, _ = start(PromptTuning(2, init="labels"), labels=("very good", "bad", "not at all"))
    assert len(rows) == 2


@given(seed=SEEDS)
def test_random_rows_are_uniform_in_half_a_unit(seed: int) -> None:
    rows, _ = start(PromptTuning(20, init="random"), seed=seed)
    assert rows.abs().max() <= 0.5
    assert 0.2 < rows.abs().mean() < 0.3
    again, _ = start(PromptTuning(20, init="random"), seed=seed)
    assert torch.equal(rows, again)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"init": "text"}, "belong together"),
        ({"text": "words"}, "belong together"),
        ({"init": "vocab"}, "did you mean 'vocabulary'"),
        ({"length": 0}, "at least 1"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], match: str) -> None:
    with pytest.raises(GraftuneError, match=match):
        PromptTuning(**options)


def test_labels_need_a_task_that_has_them() -> None:
    with pytest.raises(GraftuneError, match="needs class labels"):
        start(PromptTuning(5, init="labels"))
