"""Prefix-tuning: K ← [P_k; K], V ← [P_v; V] in every attention. Li & Liang 2021, arXiv:2101.00190, section 4."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.methods.method import Build, Method
from graftune.methods.rates import Kind, rates
from graftune.parts import AttentionSite, Generator, KeyValueRows, TableMLP

if TYPE_CHECKING:
    from graftune.model.context import Context


def key_value_grafts(
    context: Context,
    length: int,
    *,
    hidden: int | None,
    text: str | None,
    std: float,
    dropout: float,
) -> Build:
    """Key/value rows for every attention; made by one MLP per kind of attention where ``hidden`` is given.

    With ``text`` the rows start as the frozen base's own keys and values of these words.
    """
    words = {} if text is None else context.key_values(text)
    if words:
        length = next(iter(words.values())).shape[0]
    build = Build()
    groups: dict[str, list[AttentionSite]] = defaultdict(list)
    for site in context.anatomy.attentions:
        part = KeyValueRows(
            length,
            site.heads,
            site.key_width,
            site.value_width,
            words.get(site.key),
            generated=hidden is not None,
            dropout=dropout,
        )
        if part.rows is not None and not words:
            part.rows.data.mul_(std)
        build.grafts.append((site, part))
        # Encoder, decoder and cross-attention have a network of their own (as the authors' BART code).
        stack = re.split(r"\.\d+\.", site.path)[0]
        groups[f"{stack}-{site.kind}" if context.is_encoder_decoder else ""].append(site)
    if hidden is not None:
        for sites in groups.values():
            widths = [site.heads * (site.key_width + site.value_width) for site in sites]
            encoder = TableMLP(length, context.width, hidden, sum(widths))
            generator = Generator(encoder, [site.key for site in sites], widths)
            if words:
                generator.fit(words)
            build.generators.append(generator)
    return build


@dataclass(frozen=True)
class PrefixTuning(Method):
    """``length`` trained key/value rows per attention: 2·L·length·d_kv parameters stored.

    ``reparameterize`` makes them by Linear(d, hidden) → Tanh → Linear(hidden, 2Ld) of an embedding table while
    training (section 4.3) and folds that away on export. ``text`` starts the rows from real words, whose
    number then sets the length (section 7.4). ``shift_positions`` counts the rows as positions, as the paper
    does on GPT-2.
    """

    length: int = 20
    reparameterize: bool = True
    hidden: int = 512
    text: str | None = None
    dropout: float = 0.0
    shift_positions: bool = False

    presets: ClassVar[dict[str, dict[str, Any]]] = {"prefix": {}}
    learning_rates: ClassVar[Mapping[Kind, float]] = rates(1e-3)
    falls_with_width: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._at_least(1, "length", "hidden")
        self._at_least(0, "dropout")

    @property
    def shifts(self) -> bool:
        return self.shift_positions

    def build(self, context: Context) -> Build:
        hidden = self.hidden if self.reparameterize else None
        return key_value_grafts(context, self.length, hidden=hidden, text=self.text, std=1.0, dropout=self.dropout)
