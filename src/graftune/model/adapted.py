"""AdaptedModel: one frozen base and any number of adapters, chosen per row of a batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from graftune.errors import GraftuneError
from graftune.model import generation
from graftune.model.head import Head
from graftune.model.keeper import AdapterKeeper
from graftune.model.layout import Arranged, restore
from graftune.model.merge import unhooked
from graftune.model.recompute import RecomputeWithoutDropout, checkpointed, refuse_reentrant
from graftune.model.routing import InUse, Names
from graftune.model.trainer_support import signed_by_base
from graftune.parts import Rows


class AdaptedModel(AdapterKeeper):
    """A Transformers model with adapters beside it; the base itself is never changed.

    ``base`` is any ``PreTrainedModel``; its parameters are frozen. ``tokenizer`` is only needed by methods
    that start from words. While training, the base runs without dropout unless ``base_dropout`` is set.
    After ``use(name)`` it trains in ``transformers.Trainer`` and ``trl.SFTTrainer`` as it is.
    """

    @signed_by_base
    def forward(self, *, adapters: Names | InUse = InUse.ADAPTERS, labels: Any = None, **inputs: Any) -> Any:
        """Run the base with an adapter per row.

        ``adapters``: one name or None per row, or one for all; left out, what ``use`` chose. Other arguments are
        the base's own; ids at or above the number of embedding rows are virtual tokens. Per-token outputs have
        the caller's columns.
        """
        if labels is not None:  # named because Trainer reads the names of labels from the class
            inputs["labels"] = labels
        layers = [layer for layer in checkpointed(self.base) if self.training and layer.training]
        if layers:
            refuse_reentrant(layers)
            if self._caches:
                inputs.setdefault("use_cache", False)  # recomputing a layer would fill its cache twice
        plain = inputs.get("return_dict", self.config.return_dict) is False
        with self._routed(adapters, inputs) as (ready, arranged):
            if plain and arranged is not None:
                ready["return_dict"] = True  # by whose names the output is restored
            output = self.base(**ready)
        if arranged is None:
            return self._visual.given(output)
        output = restore(output, arranged, len(self._routing.names))
        return output.to_tuple() if plain else output

    def hidden(self, *, adapters: Names | InUse = InUse.ADAPTERS, **inputs: Any) -> Tensor:
        """The hidden states (B, T, d) that the base's head would read: ``forward`` without its logits."""
        states: Tensor = self.base_model(adapters=adapters, **inputs).last_hidden_state
        return states

    def score(self, hidden: Tensor) -> Tensor:
        """Logits (n, V) of chosen hidden states (n, d), for the adapter of the last call.

        Raises GraftuneError where that call used several adapters of which one changes the head.
        """
        if len(set(self._routing.names)) > 1:
            path = self.anatomy.paths[id(self.head.module)]
            for name in self._routing.active:
                if self.adapter(name).at(path):
                    raise GraftuneError(
                        "hidden states of several adapters cannot share a head that one of them changes",
                        received=f"a part of {name!r} at {path}",
                        expected="one adapter for all rows",
                        do="score the rows of each adapter after a call of their own, or use forward",
                    )
        with self._routing.run():  # some heads are run through the base
            return self.head(hidden)

    @cached_property
    def head(self) -> Head:
        """The base's output head. Raises GraftuneError where it has none."""
        self._routing.set(None, 1, ())  # the base is run once as it is
        head = Head(self.base)
        self.train(self.training)  # that run has put the layers that recompute to sleep
        return head

    @torch.no_grad()
    def generate(self, *args: Any, adapters: Names | InUse = InUse.ADAPTERS, **options: Any) -> Any:
        """``base.generate`` with an adapter per row; returns the given ids and the new tokens after them.

        Arguments are those of ``base.generate``. Without any input it starts from the base's first token (bos).
        """
        names = self._in_use if isinstance(adapters, InUse) else adapters
        rows = 1 if names is None or isinstance(names, str) else len(names)
        inputs = generation.named(self.base, args, options, rows)
        with self._routed(adapters, inputs) as (ready, arranged):
            output = self.base.generate(**generation.fitted(self.base, ready, arranged))
        given = inputs.get("input_ids")
        if arranged is None or given is None or self.base.config.is_encoder_decoder:
            return output
        return generation.with_given(output, given, arranged)

    def train(self, mode: bool = True) -> AdaptedModel:
        """Training mode of the adapters; the base keeps its dropout off unless ``base_dropout`` is set."""
        super().train(mode)
        while self._recomputing:
            self._recomputing.pop().remove()
        if mode and not self.base_dropout:
            self.base.eval()
            self._recomputing += [RecomputeWithoutDropout(layer) for layer in checkpointed(self.base)]
            for module in self.base.modules():
                if hasattr(module, "neftune_noise_alpha"):
                    module.training = True  # Trainer's NEFTune adds its noise only in training mode
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A model with a copy of the base and of each adapter, that shares nothing with this one."""
        made = type(self)(unhooked(self.base), self.tokenizer, base_dropout=self.base_dropout)
        for name in self.adapters:
            adapter = self.adapter(name)
            for part in adapter.parts.values():
                if isinstance(part, Rows):
                    part.generated = None  # of the last call; the next one makes them again
            made.attach(name, copy.deepcopy(adapter, memo))
        made._in_use = copy.copy(self._in_use)
        made.train(self.training)
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise GraftuneError(
            "an adapted model cannot be pickled",
            received="pickle or torch.save of the model",
            expected="its adapters, each as a folder",
            do="save what was trained: model.save(name, folder), and load it beside the base",
        )

    @contextmanager
    def _routed(
        self, adapters: Names | InUse, inputs: dict[str, Any]
    ) -> Iterator[tuple[dict[str, Any], Arranged | None]]:
        """Set the routing, put virtual tokens in place and shift positions for one call of the base."""
        known = ("input_ids", self.base.main_input_name, "inputs_embeds", "encoder_outputs")
        main = next((inputs[name] for name in known if inputs.get(name) is not None), None)
        if main is None:
            raise GraftuneError(
                "the batch has no input",
                received=", ".join(inputs) or "nothing",
                expected=f"input_ids or {self.base.main_input_name}",
            )
        if not isinstance(main, Tensor):  # what an encoder gave
            main = main[0]
        names = self._in_use if isinstance(adapters, InUse) else adapters
        self._routing.set(names, main.shape[0], list(self.adapters))
        again = self.training and torch.is_grad_enabled()
        self._routing.runs_again = again and any(layer.training for layer in checkpointed(self.base))
        for name in self._routing.active:
            self.adapter(name).refresh()
        with self._routing.run(), self._inputs.placed(inputs) as placed:
            yield placed
