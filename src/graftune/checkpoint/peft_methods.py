"""PEFT's methods: for each peft_type a reader of its options and tensors."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn.functional import pad

from graftune.errors import GraftuneError
from graftune.methods.ia3 import IA3
from graftune.methods.lora import LoRA
from graftune.methods.method import Method
from graftune.methods.p_tuning import PTuning
from graftune.methods.prefix_tuning import PrefixTuning
from graftune.methods.prompt_tuning import PromptTuning
from graftune.model.adapter import escape
from graftune.model.anatomy import layer_index
from graftune.model.layers import is_linear
from graftune.parts import LinearSite

if TYPE_CHECKING:
    from graftune.model.keeper import AdapterKeeper

Config = dict[str, Any]
Tensors = dict[str, Tensor]

_TARGETS = {"target_modules", "exclude_modules", "modules_to_save"}
_LORA = {
    "r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
    "init_lora_weights", "layers_to_transform",
}  # fmt: skip
_PROMPT = {
    "modules_to_save", "num_attention_heads", "num_layers", "num_transformer_submodules",
    "num_virtual_tokens", "token_dim",
}  # fmt: skip
#: Starts that leave the base as it is; the others train beside a changed base.
_STARTS = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Found:
    """A file read: the method that reproduces it, its tensors by our names, and what is left (heads)."""

    method: Method
    tensors: Tensors
    rest: Tensors


def _lora(model: AdapterKeeper, config: Config, stored: Tensors) -> Found:
    """A (r, d_in), B (d_out, r) and DoRA's magnitude (d_out,) at each map.

    Maps of a smaller rank than the largest are padded with zeros, which stay zero in training, and a map
    with an α of its own has the difference folded into B: the function is the same.
    """
    if config.get("bias", "none") != "none":
        raise unsupported(f"bias={config['bias']!r}", "bias='none'")
    if config.get("init_lora_weights", True) not in _STARTS:
        start = config["init_lora_weights"]
        raise unsupported(
            f"init_lora_weights={start!r}, which trains beside a changed base",
            "an adapter of the plain base",
            do="convert it in PEFT: save_pretrained(…, path_initial_model_for_weight_conversion=…)",
        )
    dora = bool(config.get("use_dora"))
    wanted = {"lora_A.weight", "lora_B.weight", *(["lora_magnitude_vector"] if dora else [])}
    maps, rest = _by_module(stored, wanted)
    sites = _sites(model, config, maps, wanted)
    rank = max(t["lora_A.weight"].shape[0] for t in maps.values())
    alpha, patterns = config.get("lora_alpha", 8), config.get("alpha_pattern") or {}
    dropout, rslora = float(config.get("lora_dropout", 0.0)), bool(config.get("use_rslora"))
    method = LoRA(rank, float(alpha), _targets(model, sites), dropout, rslora=rslora, dora=dora)
    own: Tensors = {}
    for path, tensors in maps.items():
        a, b = tensors["lora_A.weight"], tensors["lora_B.weight"]
        _expect(f"{path}.lora_A", a, (a.shape[0], sites[path].inputs))
        _expect(f"{path}.lora_B", b, (sites[path].outputs, a.shape[0]))
        mine = next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", path)), alpha)
        scale = LoRA(a.shape[0], float(mine), rslora=rslora).scale
        if scale != method.scale:
            b = b.float() * (scale / method.scale)
        missing = rank - a.shape[0]
        own[f"parts.{escape(path)}.A"] = pad(a, (0, 0, 0, missing))
        own[f"parts.{escape(path)}.B"] = pad(b, (0, missing))
        if dora:
            own[f"parts.{escape(path)}.magnitude"] = tensors["lora_magnitude_vector"].flatten()
    return Found(method, own, rest)


def _ia3(model: AdapterKeeper, config: Config, stored: Tensors) -> Found:
    """l (d_out, 1) on a map's output, or (1, d_in) on the input of a feed-forward map."""
    maps, rest = _by_module(stored, {"ia3_l"})
    sites = _sites(model, config, maps, {"ia3_l"})
    forward = _matching(sites, config.get("feedforward_modules"))
    own: Tensors = {}
    for path, site in sites.items():
        vector = maps[path]["ia3_l"]
        _expect(f"{path}.ia3_l", vector, (1, site.inputs) if path in forward else (site.outputs, 1))
        own[f"parts.{escape(path)}.scale"] = vector.flatten()
    outputs = {path: site for path, site in sites.items() if path not in forward}
    inputs = {path: site for path, site in sites.items() if path in forward}
    return Found(IA3(_targets(model, outputs), _targets(model, inputs)), own, rest)


def _rows(method: Callable[[Config, int], Method]) -> Callable[[AdapterKeeper, Config, Tensors], Found]:
    """A reader of n rows (n, d) that stand in front of the text."""

    def read(model: AdapterKeeper, config: Config, stored: Tensors) -> Found:
        rows, rest = _prompt(model, config, stored)
        if not model.anatomy.attentions[0].causal:
            raise unsupported(
                "a prompt in front of an encoder's first token",
                "prompts on a decoder; here an encoder's virtual tokens stand behind its first token",
                do="train the prompt again, or use prefix-tuning",
            )
        site = model.anatomy.embedding
        _expect("prompt_embeddings", rows, (rows.shape[0], site.width))
        return Found(method(config, rows.shape[0]), {f"parts.{escape(site.key)}.rows": rows}, rest)

    return read


def _p_tuning(config: Config, length: int) -> Method:
    encoder = str(config.get("encoder_reparameterization_type", "MLP")).lower()
    return PTuning(pattern=f"{{P:{length}}}{{input}}", encoder=encoder)


def _prefix(model: AdapterKeeper, config: Config, stored: Tensors) -> Found:
    """Rows (n, 2·L·heads·d_k): of each layer the keys of every head, then the values of every head.

    PEFT counts the rows as positions, so those of the text are shifted by n.
    """
    rows, rest = _prompt(model, config, stored)
    sites = model.anatomy.attentions
    widths = [site.heads * (site.key_width + site.value_width) for site in sites]
    _expect("prompt_embeddings", rows, (rows.shape[0], sum(widths)))
    heads = config.get("num_attention_heads")
    if heads is not None and any(site.heads != heads for site in sites):
        raise GraftuneError(
            "this prefix belongs to another base",
            received=f"rows for {heads} key/value heads",
            expected=f"{sites[0].heads} key/value heads",
            do="load the base that the adapter was trained on",
        )
    method = PrefixTuning(length=rows.shape[0], reparameterize=False, shift_positions=True)
    parts = zip(sites, rows.split(widths, dim=1), strict=True)
    return Found(method, {f"parts.{escape(site.key)}.rows": part for site, part in parts}, rest)


#: peft_type -> (options that are understood, reader)
READERS: dict[str, tuple[set[str], Callable[[AdapterKeeper, Config, Tensors], Found]]] = {
    "LORA": (_TARGETS | _LORA, _lora),
    "IA3": (_TARGETS | {"feedforward_modules"}, _ia3),
    "PROMPT_TUNING": (_PROMPT, _rows(lambda config, length: PromptTuning(length, init="random"))),
    "P_TUNING": (_PROMPT | {"encoder_reparameterization_type"}, _rows(_p_tuning)),
    "PREFIX_TUNING": (_PROMPT, _prefix),
}


def _by_module(stored: Tensors, kinds: set[str]) -> tuple[dict[str, Tensors], Tensors]:
    """Tensors by the module they belong to and by kind; and those of no kind, by their name in the base."""
    maps: dict[str, Tensors] = defaultdict(dict)
    rest: Tensors = {}
    for key, tensor in stored.items():
        name = key.removeprefix("base_model.model.")
        kind = next((k for k in kinds if name.endswith(f".{k}")), None)
        if kind is None:
            rest[name] = tensor
        else:
            maps[name.removesuffix(f".{kind}")][kind] = tensor
    return dict(maps), rest


def _sites(model: AdapterKeeper, config: Config, maps: dict[str, Tensors], kinds: set[str]) -> dict[str, LinearSite]:
    """The linear map of each module with tensors. Raises GraftuneError for either without the other."""
    anatomy = model.anatomy
    linears = [path for path, module in anatomy.modules.items() if is_linear(module)]
    strange = sorted(maps.keys() - set(linears))
    if strange or not maps:
        raise GraftuneError(
            "this adapter belongs to another base",
            received=f"tensors for {strange[0]!r}" if strange else "no tensors for any linear map",
            expected=f"linear maps of {type(model.base).__name__}, such as {linears[0]!r}",
            do="load the base, with the head, that the adapter was trained on",
        )
    targeted = _matching(linears, config.get("target_modules"))
    targeted -= _matching(linears, config.get("exclude_modules"))
    layers = config.get("layers_to_transform")
    if layers is not None:
        chosen = [layers] if isinstance(layers, int) else layers
        targeted = {path for path in targeted if layer_index(anatomy, path) in chosen}
    bare = sorted(targeted - maps.keys()) + [path for path, found in maps.items() if found.keys() != kinds]
    if bare:
        raise GraftuneError(
            "this adapter has no tensors for a module it names, or not all of them",
            received=f"{', '.join(sorted(maps.get(bare[0], {}))) or 'nothing'} for {bare[0]!r}",
            expected=", ".join(sorted(kinds)),
            do="load the base that the adapter was trained on, or copy the folder again",
        )
    return {path: anatomy.linears((path,))[0] for path in linears if path in maps}


def _matching(paths: Iterable[str], targets: str | list[str] | None) -> set[str]:
    """The paths that PEFT's target list (names or their last parts) or regular expression means."""
    if isinstance(targets, str):
        return {path for path in paths if re.fullmatch(targets, path)}
    return {path for path in paths if any(path == t or path.endswith(f".{t}") for t in targets or ())}


def _targets(model: AdapterKeeper, sites: dict[str, LinearSite]) -> tuple[str, ...]:
    """Short module names where they mean exactly these sites, full ones otherwise."""
    short = tuple(sorted({path.rpartition(".")[2] for path in sites}))
    means = {site.key for site in model.anatomy.linears(short)} if short else set()
    return short if means == sites.keys() else tuple(sites)


def _prompt(model: AdapterKeeper, config: Config, stored: Tensors) -> tuple[Tensor, Tensors]:
    """The one table of prompt learning, and the heads by their name in the base."""
    if model.base.config.is_encoder_decoder or config.get("num_transformer_submodules", 1) != 1:
        raise unsupported("prompt learning of an encoder-decoder", "a decoder or an encoder")
    rest = {key.removeprefix("base_model."): tensor for key, tensor in stored.items()}
    rows = rest.pop("prompt_embeddings", None)
    if rows is None or rows.dim() != 2 or len(rows) != config.get("num_virtual_tokens", len(rows)):
        raise GraftuneError(
            "the prompt's rows are missing or of another number",
            received="no prompt_embeddings" if rows is None else f"prompt_embeddings {tuple(rows.shape)}",
            expected=f"prompt_embeddings of {config.get('num_virtual_tokens')} rows",
            do="copy the folder again",
        )
    return rows, rest


def _expect(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise GraftuneError(
            f"{what} does not fit this base",
            received=tuple(tensor.shape),
            expected=shape,
            do="load the base that the adapter was trained on",
        )


def unsupported(received: str, expected: str, *, do: str = "train it again with graftune") -> GraftuneError:
    """The error for what would compute something else here than in PEFT."""
    return GraftuneError("this PEFT adapter cannot be read", received=received, expected=expected, do=do)
