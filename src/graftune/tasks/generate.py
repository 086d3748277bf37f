"""Generation: a causal language model continues the input with the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from graftune.errors import GraftuneError, unknown
from graftune.model.adapted import AdaptedModel
from graftune.tasks import metrics
from graftune.tasks.batches import IGNORED, by_length, inputs, pad
from graftune.tasks.data import Row, grouped
from graftune.tasks.losses import mean_over
from graftune.tasks.task import (
    Evaluation,
    Features,
    Progress,
    Task,
    evaluating,
    first_virtual_id,
    fit,
    need_rows,
    pad_id,
    to_device,
    truncation,
)
from graftune.tasks.template import Template, tokens


@dataclass
class Generate(Task):
    """The model reads template(input) and `separator`, and writes the target and the end of text.

    `tokenize` is sacrebleu's name of the BLEU tokenizer: "13a", "zh", "ja-mecab", "char", "intl", ...
    Raises GraftuneError for an option out of its range.
    """

    max_new_tokens: int = 64
    num_beams: int = 1
    separator: str = "\n"
    tokenize: str = "13a"

    name: ClassVar[str] = "generate"
    metric: ClassVar[str] = "bleu"

    def __post_init__(self) -> None:
        for option in ("max_new_tokens", "num_beams"):
            value = getattr(self, option)
            if value < 1:
                raise GraftuneError(
                    f"{option} is too small", received=value, expected="1 or more", do=f"raise {option}"
                )
        if self.tokenize != "13a":  # the usual one is not worth the import
            from sacrebleu.metrics import BLEU

            if self.tokenize not in BLEU.TOKENIZERS:
                raise unknown("BLEU tokenizer", self.tokenize, BLEU.TOKENIZERS)

    @property
    def instruction(self) -> str:
        return "Describe this in one sentence."

    @property
    def auto_class(self) -> str:
        return "AutoModelForCausalLM"

    def head_names(self, base: Any) -> tuple[str, ...]:
        return ()

    def encode(
        self,
        row: Row,
        tokenizer: Any,
        template: Template,
        first_virtual_id: int,
        max_length: int | None = None,
    ) -> Features:
        """ids = template(input) + separator + target + end of text; labels on the last two only."""
        separator = tokens(tokenizer, self.separator)
        target = [*tokens(tokenizer, row.target), _end(tokenizer)]
        reserved = len(separator) + len(target)
        prompt = fit(template, row, tokenizer, first_virtual_id, max_length, reserved=reserved, suffix=False)
        before = prompt.ids + separator
        return Features(before + target, [IGNORED] * len(before) + target, prompt.truncated)

    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `labels`, int64 (rows, longest or `width`), padded on the right."""
        batch = inputs([item.ids for item in features], pad_id, width=width)
        batch["labels"] = pad([_per_token(item) for item in features], IGNORED, width=width)
        return batch

    def loss(self, outputs: Any, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
        """The mean over all target tokens of the batch."""
        answers = self.answers(batch)
        chosen = answers != IGNORED
        # Only the targets' logits are widened: those of all positions would fill the memory.
        return cross_entropy(outputs.logits[chosen].float(), answers[chosen], label_smoothing=smoothing)

    def answers(self, batch: dict[str, Tensor]) -> Tensor:
        """Each position predicts the label of the next."""
        return nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)

    def demonstration(self, row: Row) -> str:
        return f"{row.input}{self.separator}{row.target}\n\n"

    def evaluate(
        self,
        model: AdaptedModel,
        tokenizer: Any,
        rows: Sequence[Row],
        adapter: str | None,
        template: Template,
        *,
        batch_size: int = 16,
        max_length: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Loss over every row; texts, BLEU, chrF and ROUGE-L over rows grouped by their input.

        `progress` counts rows as their texts are written. Prompts are cut to `max_length` and to
        what the base's positions leave beside `max_new_tokens`.
        """
        need_rows(rows)
        groups = grouped(rows)
        with evaluating(model):
            loss = self._mean_loss(model, tokenizer, rows, adapter, template, batch_size, max_length)
            texts, cut = self._texts(
                model, tokenizer, groups, _counts(rows), adapter, template, batch_size, max_length, progress
            )
        scores, notes = metrics.generation(texts, [group.references for group in groups], self.tokenize)
        predictions = [
            {
                "line": group.line,
                "input": group.input,
                "prediction": text,
                "references": list(group.references),
            }
            for group, text in zip(groups, texts, strict=True)
        ]
        scores |= {"loss": loss, "perplexity": math.exp(loss) if loss < 700 else math.inf}
        return Evaluation(scores, predictions, notes | {"truncated": truncation(cut, len(groups))})

    def _mean_loss(
        self,
        model: AdaptedModel,
        tokenizer: Any,
        rows: Sequence[Row],
        adapter: str | None,
        template: Template,
        batch_size: int,
        max_length: int | None,
    ) -> float:
        """Over the rows as they were trained on, template, target and all."""
        virtual = first_virtual_id(model)
        features = [self.encode(row, tokenizer, template, virtual, max_length) for row in rows]
        return mean_over(model, adapter, self, features, pad_id(tokenizer), batch_size)

    def _texts(
        self,
        model: AdaptedModel,
        tokenizer: Any,
        groups: Sequence[Row],
        counts: dict[str, int],
        adapter: str | None,
        template: Template,
        batch_size: int,
        max_length: int | None,
        progress: Progress | None,
    ) -> tuple[list[str], int]:
        """What the model writes for each group, and how many inputs were cut."""
        end, virtual = _end(tokenizer), first_virtual_id(model)
        separator = tokens(tokenizer, self.separator)
        limit = self._prompt_limit(model, max_length)
        encoded = [
            fit(template, row, tokenizer, virtual, limit, reserved=len(separator), suffix=False) for row in groups
        ]
        prompts = [item.ids + separator for item in encoded]
        texts = [""] * len(groups)
        for indices in by_length([len(prompt) for prompt in prompts], batch_size):
            # Padding stands on the left, so that every row's next token follows its own last one.
            batch = inputs([prompts[i] for i in indices], pad_id(tokenizer), side="left")
            width = batch["input_ids"].shape[1]
            written = model.generate(
                **to_device(batch, model),
                adapters=adapter,
                max_new_tokens=self.max_new_tokens,
                num_beams=self.num_beams,
                do_sample=False,
                pad_token_id=pad_id(tokenizer),
                eos_token_id=end,
            )
            for i, ids in zip(indices, written[:, width:].tolist(), strict=True):
                ids = ids[: ids.index(end)] if end in ids else ids
                texts[i] = tokenizer.decode(ids, skip_special_tokens=True).strip()
            if progress is not None:
                progress(sum(counts[groups[i].input] for i in indices))
        return texts, sum(item.truncated for item in encoded)

    def _prompt_limit(self, model: AdaptedModel, max_length: int | None) -> int | None:
        """The longest prompt: the maximum length, within the base's positions less the new tokens."""
        positions = model.positions
        if not positions or positions < 1:
            return max_length
        if positions <= self.max_new_tokens:
            raise GraftuneError(
                "max_new_tokens leaves no room for a prompt",
                received=self.max_new_tokens,
                expected=f"less than the {positions} positions of the base",
                do="lower max_new_tokens",
            )
        room = positions - self.max_new_tokens
        return room if max_length is None else min(max_length, room)


def _per_token(item: Features) -> list[int]:
    if isinstance(item.labels, int):
        raise TypeError("generation needs a label per token")
    return item.labels


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.input] = counts.get(row.input, 0) + 1
    return counts


def _end(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise GraftuneError(
            "the tokenizer has no end-of-text token",
            received=f"eos_token_id=None in {type(tokenizer).__name__}",
            expected="a token that ends a generated text",
            do='set tokenizer.eos_token, for example "</s>"',
        )
    return int(tokenizer.eos_token_id)
