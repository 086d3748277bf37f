"""What `graftune inspect` shows: the tree of sites, and which methods fit."""

from __future__ import annotations

from collections import defaultdict

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from graftune import methods  # noqa: F401 - fills the table of presets
from graftune.bases.saved import load_saved
from graftune.errors import GraftuneError
from graftune.methods.method import PRESETS, make
from graftune.model.adapted import AdaptedModel
from graftune.model.anatomy import Anatomy
from graftune.model.layers import Layer
from graftune.parts.sites import LinearSite, SubLayerSite


def show(base: str, task: str | None = None) -> None:
    """Print the anatomy of a base and a line per method.

    ``task`` loads the base as this task would, with its head; without one it is what it was saved as.
    """
    model, heads = (AdaptedModel(load_saved(base)), ()) if task is None else _for_task(base, task)
    console = Console()
    console.print(_tree(base, model.anatomy))
    console.print(_methods(model, heads))


def _for_task(base: str, task: str) -> tuple[AdaptedModel, tuple[str, ...]]:
    """The base as a task loads it, and the names of the modules that every method trains for it."""
    from graftune.bases.loading import load_base, load_config, load_processor
    from graftune.tasks import registry

    options = {"labels": ("no", "yes")} if "labels" in registry.options_of(registry.named(task)) else {}
    chosen = registry.make(task, **options)  # what the labels are is not shown
    processor = load_processor(base, chosen.processor)
    head = chosen.head(load_config(base))
    loaded = load_base(base, head, processor)
    return AdaptedModel(loaded, processor), head.modules(loaded)


def _tree(base: str, anatomy: Anatomy) -> Tree:
    model = anatomy.base
    total = sum(p.numel() for p in model.parameters())
    tree = Tree(f"{base}: {type(model).__name__}, {total:,} parameters, {len(anatomy.layers)} layers")
    try:
        embedding = anatomy.embedding
        tree.add(f"embedding  {embedding.path}  {embedding.rows} × {embedding.width}")
    except GraftuneError:
        tree.add(f"input  {model.main_input_name}, no table of tokens")
    for path, layers in _stacks(anatomy).items():
        stack = tree.add(f"{path}  {len(layers)} layers" if layers[1:] else f"{path}  1 layer")
        for layer in (layers[0], layers[-1]) if layers[1:] else layers:
            _add(stack, layer)
    for path in anatomy.final_norms:
        tree.add(f"final norm  {path}")
    for path in anatomy.heads:
        tree.add(f"head  {path}")
    return tree


def _stacks(anatomy: Anatomy) -> dict[str, list[Layer]]:
    """Layers by what holds them: an encoder and a decoder, or the stages of a pyramid."""
    stacks: dict[str, list[Layer]] = defaultdict(list)
    for layer in anatomy.layers:
        stacks[layer.path.rpartition(".")[0]].append(layer)
    return stacks


def _add(tree: Tree, layer: Layer) -> None:
    """A layer: each attention with its maps and its output, then the rest."""
    branch = tree.add(f"layer {layer.index}  {layer.path}")
    linears = list(layer.linears)
    outputs = {role: [sub for sub in layer.sublayers if sub.role == role] for role in ("attention", "mlp")}
    for attention in layer.attentions:
        heads = f"{attention.heads} key/value heads of {attention.key_width}"
        inside = branch.add(f"{attention.kind} attention  {attention.path}  {heads}")
        mine = next((n for n, linear in enumerate(linears, 1) if linear.role == "o"), 0)
        for linear in linears[:mine]:
            inside.add(_linear(linear))
        del linears[:mine]
        if mine and outputs["attention"]:
            inside.add(_output(outputs["attention"].pop(0)))
    inside = branch.add("mlp") if outputs["mlp"] else branch
    for linear in linears:
        inside.add(_linear(linear))
    for sub in (*outputs["attention"], *outputs["mlp"]):
        inside.add(_output(sub))


def _linear(site: LinearSite) -> str:
    columns = "" if site.start is None else f"  columns {site.start}:{site.stop}"
    columns += "" if site.every is None else f" of every {site.every}"
    return f"{site.role or 'linear':6} {site.path}  {site.inputs} → {site.outputs}{columns}"


def _output(site: SubLayerSite) -> str:
    return f"output {site.path}  {site.width}"


def _methods(model: AdaptedModel, heads: tuple[str, ...]) -> Table:
    table = Table("method", "trained", "stored", "fits", title="methods at their defaults")
    for name in sorted(PRESETS):
        method = make(name)
        try:
            if not method.trainable:  # it is made of words
                _ = model.anatomy.embedding
            model.add(name, method, heads=heads if method.trainable else (), seed=0)
        except GraftuneError as error:
            problem, received, *_ = [*str(error).splitlines(), ""]
            table.add_row(name, "", "", f"no: {problem} ({received.strip()})")
            continue
        count = model.count(name)
        model.remove(name)
        table.add_row(name, f"{count.trained:,}", f"{count.stored:,}", "yes")
    return table
