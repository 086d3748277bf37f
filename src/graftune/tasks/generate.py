"""Generation: a causal language model continues the input with the target, or a decoder answers its encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from graftune.datasets.rows import Row, grouped
from graftune.errors import GraftuneError, unknown
from graftune.model.adapted import AdaptedModel
from graftune.tasks import metrics
from graftune.tasks.batches import IGNORED, by_length, inputs, pad
from graftune.tasks.features import Features, Reading, truncation
from graftune.tasks.losses import mean_over
from graftune.tasks.running import Progress, evaluating, first_virtual_id, to_device
from graftune.tasks.task import Evaluation, Task, Trial, need_rows
from graftune.templates.template import Encoded, Template, tokens

TIMED_TOKENS = 24  # written when inference is timed


@dataclass(frozen=True)
class Pair(Features):
    """What an encoder reads (`ids`) and what its decoder has to write (`labels`)."""

    @property
    def length(self) -> int:
        return max(len(self.ids), len(self.labels))


@dataclass
class Generate(Task):
    """The model reads template(input) and `separator`, and writes the target and the end of text.

    An encoder-decoder reads template(input) with its encoder, without `separator`. `tokenize` is sacrebleu's name of
    the BLEU tokenizer: "13a", "zh", "ja-mecab", "char", "intl", ...
    Raises GraftuneError for an option out of its range.
    """

    max_new_tokens: int = 64
    num_beams: int = 1
    separator: str = "\n"
    tokenize: str = "13a"
    pattern: str = "{input}"

    _start: int | None = field(default=None, init=False, repr=False, compare=False)

    name: ClassVar[str] = "generate"
    metric: ClassVar[str] = "bleu"

    def __post_init__(self) -> None:
        for option in ("max_new_tokens", "num_beams"):
            value = getattr(self, option)
            if value < 1:
                raise GraftuneError(
                    f"{option} is too small", received=value, expected="1 or more", do=f"raise {option}"
                )
        if self.tokenize not in ("13a", "auto"):  # the usual ones are not worth the import
            from sacrebleu.metrics import BLEU

            if self.tokenize not in BLEU.TOKENIZERS:
                raise unknown("BLEU tokenizer", self.tokenize, BLEU.TOKENIZERS)

    @property
    def instruction(self) -> str:
        return "Describe this in one sentence."

    @property
    def tokenizer(self) -> str:
        """sacrebleu's name of the tokenizer that BLEU counts with."""
        return self.tokenize

    def auto_class(self, config: Any) -> str:
        return "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"

    def head_names(self, base: Any) -> tuple[str, ...]:
        return ()

    def bind(self, config: Any, processor: Any) -> None:
        """Whether an encoder reads and a decoder writes, and with which token it starts."""
        self._start = config.decoder_start_token_id if config.is_encoder_decoder else None

    @property
    def paired(self) -> bool:
        """Whether an encoder reads and a decoder writes."""
        return self._start is not None

    def prompt(self, row: Row, reading: Reading, reserved: int = 0) -> Encoded:
        """What the model reads before it writes, with room for `reserved` tokens within `max_length`."""
        if self.paired:
            return reading.fit(row)
        separator = tokens(reading.processor, self.separator)
        room = len(separator) + reserved
        found = reading.fit(row, reserved=room, suffix=False)
        return found._replace(ids=found.ids + separator)

    def answer(self, row: Row, tokenizer: Any) -> list[int]:
        """The target and the end of text."""
        return [*tokens(tokenizer, row.target), self.end(tokenizer)]

    def end(self, tokenizer: Any) -> int:
        """The token that ends a text. Raises GraftuneError where the tokenizer has none."""
        return _end(tokenizer)

    def encode(self, row: Row, reading: Reading) -> Features:
        """ids = prompt + target + end of text, labels on the last two only; of an encoder-decoder each by itself."""
        answer = self.answer(row, reading.processor)
        if self.paired:
            prompt = self.prompt(row, reading)
            kept = answer[: reading.max_length]
            return Pair(prompt.ids, kept, prompt.truncated or len(kept) < len(answer))
        prompt = self.prompt(row, reading, len(answer))
        return Features(prompt.ids + answer, [IGNORED] * len(prompt.ids) + answer, prompt.truncated)

    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `labels`, int64 (rows, longest or `width`), padded on the right.

        For an encoder-decoder also `decoder_input_ids`: the labels, one later, behind the token that starts a text.
        """
        if self._start is None:
            batch = inputs([item.ids for item in features], pad_id, width=width)
            batch["labels"] = pad([_per_token(item) for item in features], IGNORED, width=width)
            return batch
        batch = inputs([item.ids for item in features], pad_id)
        batch["labels"] = pad([item.labels for item in features], IGNORED)
        batch["decoder_input_ids"] = pad([[self._start, *item.labels[:-1]] for item in features], pad_id)
        return batch

    def loss(self, outputs: Any, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
        """The mean over all target tokens of the batch."""
        answers = self.answers(batch)
        chosen = answers != IGNORED
        # Only the targets' logits are widened: those of all positions would fill the memory.
        return cross_entropy(outputs.logits[chosen].float(), answers[chosen], label_smoothing=smoothing)

    def answers(self, batch: dict[str, Tensor]) -> Tensor:
        """Each position predicts the label of the next; a decoder's inputs are one later already."""
        if self.paired:
            return batch["labels"]
        return nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)

    def demonstration(self, row: Row) -> str:
        return f"{row.input}{self.separator}{row.target}\n\n"

    def key(self, row: Row) -> Any:
        """What rows have in common that are references of each other: all that the model reads of them."""
        return tuple(row.texts.get(name) for name in Template(self.pattern).columns)

    def scores(
        self, texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[dict[str, float], dict[str, str]]:
        """The scores of texts against the references of each, and how each was computed."""
        return metrics.generation(texts, references, self.tokenizer)

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
        reading = Reading(tokenizer, template, first_virtual_id(model), max_length)
        groups = grouped(rows, self.key)
        with evaluating(model):
            loss = self._mean_loss(model, rows, adapter, reading, batch_size)
            texts, cut = self._texts(model, groups, adapter, reading, batch_size, progress)
        scores, notes = self.scores(texts, [group.references for group in groups])
        predictions = [
            {
                "line": group.line,
                "input": self.shown(group),
                "prediction": text,
                "references": list(group.references),
            }
            for group, text in zip(groups, texts, strict=True)
        ]
        scores |= {"loss": loss, "perplexity": math.exp(loss) if loss < 700 else math.inf}
        return Evaluation(scores, predictions, notes | {"truncated": truncation([[item] for item in cut])})

    def _mean_loss(
        self, model: AdaptedModel, rows: Sequence[Row], adapter: str | None, reading: Reading, batch_size: int
    ) -> float:
        """Over the rows as they were trained on, template, target and all."""
        features = [self.encode(row, reading) for row in rows]
        return mean_over(model, adapter, self, features, self.padding(model, reading.processor), batch_size)

    def trial(self, model: AdaptedModel, processor: Any, rows: Sequence[Row], template: Template) -> Trial:
        """Writes TIMED_TOKENS tokens for each row."""
        room = None if model.positions is None or self.paired else model.positions - TIMED_TOKENS
        reading = Reading(processor, template, first_virtual_id(model), room)
        prompts = [self.prompt(row, reading).ids for row in rows]
        batch = to_device(inputs(prompts, self.padding(model, processor), side="left"), model)
        return lambda adapter: model.generate(
            **batch,
            adapters=adapter,
            max_new_tokens=TIMED_TOKENS,
            min_new_tokens=TIMED_TOKENS,
            do_sample=False,
            pad_token_id=self.padding(model, processor),
        )

    def _texts(
        self,
        model: AdaptedModel,
        groups: Sequence[Row],
        adapter: str | None,
        reading: Reading,
        batch_size: int,
        progress: Progress | None,
    ) -> tuple[list[str], list[Encoded]]:
        """What the model writes for each group, and the prompts."""
        tokenizer = reading.processor
        end, padding = self.end(tokenizer), self.padding(model, tokenizer)
        limit = self._prompt_limit(model, reading.max_length)
        encoded = [self.prompt(row, replace(reading, max_length=limit)) for row in groups]
        prompts = [item.ids for item in encoded]
        texts = [""] * len(groups)
        for indices in by_length([len(prompt) for prompt in prompts], batch_size):
            # Padding stands on the left, so that every row's next token follows its own last one.
            batch = inputs([prompts[i] for i in indices], padding, side="left")
            width = 1 if self.paired else batch["input_ids"].shape[1]
            written = model.generate(
                **to_device(batch, model),
                adapters=adapter,
                max_new_tokens=self.max_new_tokens,
                num_beams=self.num_beams,
                do_sample=False,
                pad_token_id=padding,
                eos_token_id=end,
            )
            for i, ids in zip(indices, written[:, width:].tolist(), strict=True):
                ids = ids[: ids.index(end)] if end in ids else ids
                texts[i] = tokenizer.decode(ids, skip_special_tokens=True).strip()
            if progress is not None:
                progress(sum(len(groups[i].references) for i in indices))
        return texts, encoded

    def _prompt_limit(self, model: AdaptedModel, max_length: int | None) -> int | None:
        """The longest prompt: the maximum length, within the base's positions less the new tokens."""
        positions = model.positions
        if not positions or positions < 1:
            return max_length
        if self.paired:
            return positions if max_length is None else min(max_length, positions)
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


def _end(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise GraftuneError(
            "the tokenizer has no end-of-text token",
            received=f"eos_token_id=None in {type(tokenizer).__name__}",
            expected="a token that ends a generated text",
            do='set tokenizer.eos_token, for example "</s>"',
        )
    return int(tokenizer.eos_token_id)
