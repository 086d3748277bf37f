"""What `graftune inspect` shows: the tree of sites, and which methods fit."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from graftune import methods  # noqa: F401 - fills the table of presets
from graftune.bases.loading import load_base, load_tokenizer
from graftune.errors import GraftuneError
from graftune.methods.method import PRESETS, make
from graftune.model.adapted import AdaptedModel
from graftune.model.anatomy import Anatomy
from graftune.tasks import registry
from graftune.tasks.data import Row
from graftune.tasks.task import Task


def show(base: str, task: str) -> None:
    """Print the anatomy of a base and a line per method."""
    tokenizer = load_tokenizer(base)
    chosen = registry.make(task)
    chosen.prepare([Row("", label, line) for line, label in enumerate(("no", "yes"), 1)])
    model = AdaptedModel(load_base(base, chosen, tokenizer), tokenizer)
    console = Console()
    console.print(_tree(base, model.anatomy))
    console.print(_methods(model, chosen))


def _tree(base: str, anatomy: Anatomy) -> Tree:
    model = anatomy.base
    total = sum(p.numel() for p in model.parameters())
    tree = Tree(f"{base}: {type(model).__name__}, {total:,} parameters, {len(anatomy.layers)} layers")
    embedding = anatomy.embedding
    tree.add(f"embedding  {embedding.path}  {embedding.rows} × {embedding.width}")
    for layer in (anatomy.layers[0], anatomy.layers[-1]) if len(anatomy.layers) > 1 else anatomy.layers:
        branch = tree.add(f"layer {layer.index}  {layer.path}")
        for linear in layer.linears:
            columns = "" if linear.start is None else f"  columns {linear.start}:{linear.stop}"
            columns += "" if linear.every is None else f" of every {linear.every}"
            branch.add(f"{linear.role or 'linear':5} {linear.path}  {linear.inputs} → {linear.outputs}{columns}")
        for attention in layer.attentions:
            heads = f"{attention.heads} key/value heads of {attention.key_width}"
            branch.add(f"attention ({attention.kind})  {attention.path}  {heads}")
        for sub in layer.sublayers:
            branch.add(f"{sub.role} output  {sub.path}  {sub.width}")
    for path in anatomy.final_norms:
        tree.add(f"final norm  {path}")
    for path in anatomy.heads:
        tree.add(f"head  {path}")
    return tree


def _methods(model: AdaptedModel, task: Task) -> Table:
    table = Table("method", "trained", "stored", "fits", title="methods at their defaults")
    for name in sorted(PRESETS):
        method = make(name)
        heads = task.head_names(model.base) if method.trainable else ()
        try:
            model.add(name, method, heads=heads, seed=0)
        except GraftuneError as error:
            table.add_row(name, "", "", str(error).splitlines()[0])
            continue
        count = model.count(name)
        model.remove(name)
        table.add_row(name, f"{count.trained:,}", f"{count.stored:,}", "yes")
    return table
