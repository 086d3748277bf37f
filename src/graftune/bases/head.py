"""What loading a base for a task needs to know: which class, and which head is new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graftune.errors import GraftuneError

#: Heads of detectors, which lie beside a body that is not all of the rest.
DETECTION_HEADS = ("class_labels_classifier", "bbox_predictor", "class_embed", "bbox_embed")


@dataclass(frozen=True)
class Head:
    """The head that a task needs.

    ``auto_class`` is the Transformers Auto class; a ``new`` head is initialised afresh and trained by every method;
    ``labels`` are its classes; ``arguments`` are further ones for ``from_pretrained``.
    """

    task: str
    auto_class: str
    new: bool = True
    labels: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pads: bool = False
    """Whether the head finds the last token of a row by the padding token, as those of decoders do."""
    float32: bool = False
    """Whether the base has to compute in float32, since its own loss does."""

    @property
    def loading(self) -> dict[str, Any]:
        """Keyword arguments for ``from_pretrained`` that make a head for the labels."""
        if not self.labels:
            return dict(self.arguments)
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
            **self.arguments,
        }

    def is_of(self, base: Any, saved: Any) -> bool:
        """Whether a checkpoint, by its config as saved, brings this head along, for the same labels."""
        same = not self.labels or dict(saved.id2label) == dict(enumerate(self.labels))
        return same and type(base).__name__ in (saved.architectures or ())

    def modules(self, base: Any) -> tuple[str, ...]:
        """Names of the new modules: those with parameters beside the base's body, without its pooler.

        Raises GraftuneError for a base that has a language model's head instead, or none.
        """
        if not self.new:
            return ()
        children = dict(base.named_children())
        if found := tuple(name for name in children if name in DETECTION_HEADS):
            return found
        body = base.base_model
        names = tuple(
            name
            for name, module in children.items()
            if module is not body and name != "pooler" and any(True for _ in module.parameters())
        )
        if body is base or not names or base.get_output_embeddings() is not None:
            raise GraftuneError(
                "the base has no classification head",
                received=type(base).__name__,
                expected=f"a base from {self.auto_class}",
                do=f"load it with {self.auto_class}, or answer in words: task cloze",
            )
        return names
