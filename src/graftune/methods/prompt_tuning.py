"""Prompt tuning: input = [P; E(x)], P trained. Lester et al. 2021, arXiv:2104.08691, section 2.

On images the rows join the patches: X ← [x_0; P; x_1; …] at the input of the first layer or of every one, with x_0 the
class token and x_1, … patches with their positions. Jia et al. 2022, arXiv:2203.12119, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from graftune.errors import GraftuneError
from graftune.methods.method import Build, Method
from graftune.methods.rates import WIDE, Kind, rates
from graftune.parts import HiddenRows, TokenRows

if TYPE_CHECKING:
    from torch import Tensor

    from graftune.model.context import Context

INITS = ("vocabulary", "random", "text", "labels")


@dataclass(frozen=True)
class PromptTuning(Method):
    """``length`` trained embedding rows before the input: length·d parameters.

    ``init`` (section 3.2.2): "random" uniform in [-0.5, 0.5]; "vocabulary" embeddings of tokens drawn without
    replacement from the 5,000 most common; "text" the embeddings of ``text``, repeated or cut to ``length``;
    "labels" one row per class label (mean of its tokens), the remaining rows from the vocabulary. Images have no
    vocabulary, so that their default is uniform in [-v, v], v = √(6/(3·p² + d)) for patches of p × p in three
    colours: Xavier's bound for the map from a patch to its row.

    ``deep``, for images, gives every layer rows of its own: length·L·d parameters.
    """

    length: int = 20
    init: str = "vocabulary"
    text: str | None = None
    deep: bool = False

    presets: ClassVar[dict[str, dict[str, Any]]] = {"prompt": {}}
    learning_rates: ClassVar[Mapping[Kind, float]] = rates(1e-2, encoder_decoder=0.1)
    falls_with_width: ClassVar[bool] = False
    spacing: ClassVar[float] = WIDE

    def __post_init__(self) -> None:
        self._at_least(1, "length")
        self._one_of("init", INITS)
        if (self.init == "text") != (self.text is not None):
            raise GraftuneError(
                "PromptTuning: text and init belong together",
                received=f"init={self.init!r}, text={self.text!r}",
                expected='init="text" with a text, or another init without one',
                do='set both init="text" and text="…"',
            )

    def build(self, context: Context) -> Build:
        if not context.has_tokens:
            return self._among_patches(context)
        if self.deep:
            raise GraftuneError(
                "PromptTuning: deep prompts are for images",
                received="deep=True on a base that reads tokens",
                expected="a vision transformer, or deep=False",
                do="on text, give every layer rows by PTuningV2",
            )
        site = context.anatomy.embedding
        return Build([(site, TokenRows(self.length, site.width, self._start(context)))])

    def _among_patches(self, context: Context) -> Build:
        """Rows for an image base, at the input of its first layer or of all."""
        if self.init in ("text", "labels"):
            raise GraftuneError(
                "PromptTuning: there are no words for prompts among image patches",
                received=f"init={self.init!r}",
                expected='the default init, or "random"',
                do="leave init out",
            )
        sites = context.layer_inputs()
        build = Build()
        for site in sites if self.deep else sites[:1]:
            bound = 0.5 if self.init == "random" else (6 / (context.patch + site.width)) ** 0.5
            rows = torch.empty(self.length, site.width).uniform_(-bound, bound)
            build.grafts.append((site, HiddenRows(self.length, site.width, rows)))
        return build

    def _start(self, context: Context) -> Tensor:
        """The rows at the start, (length, d)."""
        if self.init == "random":
            return torch.rand(self.length, context.anatomy.embedding.width) - 0.5
        table = context.embeddings  # (V, d)
        if self.init == "text":
            ids = context.tokens(self.text or "")
            repeated = (ids * (self.length // len(ids) + 1))[: self.length]
            return table[torch.tensor(repeated)]
        # Byte-pair and word-piece vocabularies list tokens by frequency, so the first ids are the common ones.
        special = context.special_ids
        common = torch.tensor([i for i in range(table.shape[0]) if i not in special][:5000])
        labels = [table[torch.tensor(context.tokens(label))].mean(0) for label in self._labels(context)]
        missing = self.length - len(labels)
        drawn = torch.randperm(len(common))
        # A prompt longer than the vocabulary has to take tokens twice.
        drawn = drawn.repeat(missing // len(common) + 1)[: max(missing, 0)]
        rows = [*labels[: self.length], *table[common[drawn]]]
        return torch.stack(rows)

    def _labels(self, context: Context) -> tuple[str, ...]:
        if self.init != "labels":
            return ()
        if not context.labels:
            raise GraftuneError(
                'PromptTuning: init="labels" needs class labels',
                received="a task without labels",
                expected="a classification task",
                do='use init="vocabulary"',
            )
        return context.labels
