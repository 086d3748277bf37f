"""Generation: a causal language model continues the input with the target, or a decoder answers its encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from graftune.datasets.rows import Row
from graftune.errors import unknown
from graftune.tasks import metrics
from graftune.tasks.bound import BoundTask
from graftune.tasks.features import Features, PromptEncoder
from graftune.tasks.targets import with_languages
from graftune.tasks.writing import EXAMPLES_END, BoundWriting, WritingTask
from graftune.templates.template import Encoded, Template
from graftune.templates.tokens import tokens


@dataclass(frozen=True)
class Generate(WritingTask):
    """The model reads template(input) and `separator`, and writes the target and the end of text.

    An encoder-decoder reads template(input) with its encoder, without `separator`. `tokenize` is sacrebleu's name of
    the BLEU tokenizer: "13a", "zh", "ja-mecab", "char", "intl", ... `generation` are further settings for
    Transformers' `generate`, such as `{"min_length": 0, "no_repeat_ngram_size": 3}`; they go before the checkpoint's.
    `src_lang` and `tgt_lang` are codes of tokenizers that know languages (mBART, NLLB, M2M100).
    Raises GraftuneError for an option out of its range.
    """

    max_new_tokens: int = 64
    num_beams: int = 1
    separator: str = "\n"
    tokenize: str = "13a"
    pattern: str = "{input}"
    generation: Mapping[str, Any] = field(default_factory=dict)
    src_lang: str | None = None
    tgt_lang: str | None = None

    name: ClassVar[str] = "generate"
    metric: ClassVar[str] = "bleu"

    def __post_init__(self) -> None:
        self.check_lengths()
        check_bleu_tokenizer(self.tokenize)

    @property
    def instruction(self) -> str:
        return "Describe this in one sentence."

    def bind(self, config: Any, processor: Any) -> BoundTask:
        if config.is_encoder_decoder or self.src_lang or self.tgt_lang:
            processor = with_languages(processor, self.src_lang, self.tgt_lang)
        return BoundGenerate(self, config, processor)

    def demonstration(self, row: Row) -> str:
        return f"{row.input}{self.separator}{row.target}{EXAMPLES_END}"

    def scores(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> metrics.Scores:
        """The scores of texts against the references of each."""
        return metrics.generation(texts, references, self.tokenize)


def check_bleu_tokenizer(name: str) -> None:
    """Raise GraftuneError for a tokenizer that sacrebleu does not know."""
    if name in ("13a", "auto"):  # the usual ones are not worth the import
        return
    from sacrebleu.metrics import BLEU

    if name not in BLEU.TOKENIZERS:
        raise unknown("BLEU tokenizer", name, BLEU.TOKENIZERS)


class BoundGenerate(BoundWriting):
    """Generation on one base."""

    task: Generate

    def prompt(self, row: Row, encoder: PromptEncoder, reserved: int = 0) -> Encoded:
        """What the model reads before it writes, with room for `reserved` tokens within the maximum length."""
        return self.prompts([row], encoder, [reserved])[0]

    def prompts(self, rows: Sequence[Row], encoder: PromptEncoder, reserved: Sequence[int]) -> list[Encoded]:
        """As `prompt` for each row."""
        if self.is_encoder_decoder:
            return encoder.fit_many(rows)
        separator = tokens(self.processor, self.task.separator)
        room = [len(separator) + more for more in reserved]
        found = encoder.fit_many(rows, reserved=room, suffix=False)
        return [prompt._replace(ids=prompt.ids + separator) for prompt in found]

    def encode_many(self, rows: Sequence[Row], encoder: PromptEncoder) -> list[Sequence[Features]]:
        answers = self.many_targets([row.target for row in rows])
        prompts = self.prompts(rows, encoder, [len(answer) for answer in answers])
        return [[self.joined(prompt, answer, encoder)] for prompt, answer in zip(prompts, answers, strict=True)]

    def answer(self, row: Row) -> list[int]:
        """The target and the end of text."""
        return self.target(row.target)

    def group_key(self, row: Row) -> Any:
        """All that the model reads of a row: rows that have it in common are references of each other."""
        return tuple(row.texts.get(name) for name in Template(self.task.template).columns)
