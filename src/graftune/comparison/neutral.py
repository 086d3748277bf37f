"""Neutral passages: texts that belong to no task, and which of their tokens a base is scored on.

A decoder is scored on all of a passage's tokens, from the first on, behind the token that starts a text. An
encoder-decoder is scored on the second half, which its decoder writes when its encoder has read the first. A masked
language model is scored on masked tokens, whose bytes are the passage's times their share of its tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from graftune.comparison.sides import Reading, Sides
from graftune.errors import GraftuneError
from graftune.inference.running import encoder_for
from graftune.tasks.features import PromptEncoder
from graftune.tasks.writing import BoundWriting
from graftune.templates.template import Encoded, NoRoom, Template, special_tokens, text_ids
from graftune.training.trained import TrainedAdapter

LONGEST: Final = 512  # tokens of a passage; the rest is cut
MASKED: Final = 0.15  # of a passage's tokens, as BERT was trained with: Devlin et al. 2019, arXiv:1810.04805


@cache
def passages(file: str | None = None) -> tuple[str, ...]:
    """The passages of a text file, or of the package: English and Chinese prose on many subjects.

    Raises GraftuneError for a file that cannot be read, or has none.
    """
    path = Path(__file__).parent / "neutral.txt" if file is None else Path(file)
    try:
        found = split(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise GraftuneError(
            "the neutral passages cannot be read",
            received=f"{path}: {error}",
            expected="a text file in UTF-8, with a blank line between passages",
            do="name another file, or leave --neutral out to take the passages of the package",
        ) from error
    if not found:
        raise GraftuneError(
            "there are no neutral passages",
            received=f"{path}, without any text",
            expected="passages of plain text, with a blank line between them",
            do="name another file, or leave --neutral out to take the passages of the package",
        )
    return found


def split(text: str) -> tuple[str, ...]:
    """The passages of a file, between blank lines, each as one line."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip():
            found[-1].append(line.strip())
        elif found[-1]:
            found.append([])
    return tuple(" ".join(lines) for lines in found if lines)


def readings(sides: Sides, trained: TrainedAdapter, texts: Sequence[str]) -> list[Reading]:
    """The passages as the adapter's method has a text read, without those that the base cannot read as they are.

    These hold unknown tokens, or do not fit at all.
    """
    own = Template(trained.model.adapter(trained.name).method.template)
    if own.columns != ("input",) or own.has_mask:  # a passage has no other columns
        own = Template(f"{{P:{own.virtual_tokens}}}{{input}}" if own.virtual_tokens else "{input}")
    encoder = encoder_for(sides.model, trained.task.processor, own, trained.name, LONGEST)
    if sides.model.config.is_encoder_decoder:
        read: Callable[[Sides, PromptEncoder, int, str], Reading | None] = _continued
    else:
        read = _masked if sides.fills_gaps else _written
    found = []
    for number, text in enumerate(texts):
        tokens = text_ids(encoder.processor, text)
        if encoder.processor.unk_token_id in tokens or any(map(sides.is_virtual, tokens)):
            continue
        try:
            reading = read(sides, encoder, number, text)
        except NoRoom:
            continue
        if reading is not None and reading.places:
            found.append(reading)
    return found


def _written(sides: Sides, encoder: PromptEncoder, number: int, text: str) -> Reading | None:
    """All tokens, each predicted by what stands before it; None where no token starts a text."""
    opening, _ = special_tokens(encoder.processor)
    starts = [getattr(encoder.processor, f"{name}_token_id", None) for name in ("bos", "eos")]
    start = [] if opening else [token for token in starts if token is not None][:1]
    if not opening and not start:
        return None
    text, found = _fitting(encoder, text, reserved=len(start), suffix=False)
    ids = start + found.ids
    first, count = found.places["input"]
    places = range(len(start) + first, len(start) + first + count)
    return Reading(number, ids, places, len(text.encode()), wanted=[ids[i] for i in places], ahead=1)


def _masked(sides: Sides, encoder: PromptEncoder, number: int, text: str) -> Reading | None:
    """15 % of the tokens, the same at each call; None where the tokenizer has no token that hides one."""
    hidden = encoder.processor.mask_token_id
    if hidden is None:
        return None
    text, found = _fitting(encoder, text)
    first, count = found.places["input"]
    if not count:
        return None
    chosen = random.Random(f"masked-{number}").sample(range(count), max(1, round(MASKED * count)))
    places = sorted(first + place for place in chosen)
    ids = [hidden if i in places else token for i, token in enumerate(found.ids)]
    amount = len(text.encode()) * len(places) / count
    return Reading(number, ids, places, amount, [found.ids[i] for i in places], type_ids=found.type_ids)


def _continued(sides: Sides, encoder: PromptEncoder, number: int, text: str) -> Reading | None:
    """The second half, from the first space behind the middle on, or from the middle where there is none."""
    task = sides.task
    if not isinstance(task, BoundWriting) or task.targets is None:
        return None
    middle = len(text) // 2
    at = max(text.find(" ", middle), middle)
    before, after = text[:at], text[at:].strip()
    labels = task.target(after)
    while encoder.target_length is not None and len(labels) > encoder.target_length and after:
        after = after[: len(after) * encoder.target_length // len(labels)]
        labels = task.target(after)
    places = range(len(task.targets.opening), len(labels) - (len(task.targets.closing) or 1))
    return Reading(
        number,
        _encoded(encoder, before).ids,
        places,
        len(after.encode()),
        wanted=[labels[i] for i in places],
        decoder_ids=task.targets.decoder_inputs(labels),
    )


def _fitting(encoder: PromptEncoder, text: str, *, reserved: int = 0, suffix: bool = True) -> tuple[str, Encoded]:
    """As much of the start of a text as fits, and how it is read: so that its bytes are those of its tokens."""
    while True:
        found = _encoded(encoder, text, reserved, suffix)
        if not found.truncated:
            return text, found
        _, count = found.places["input"]
        text = text[: len(text) * count // len(text_ids(encoder.processor, text))]


def _encoded(encoder: PromptEncoder, text: str, reserved: int = 0, suffix: bool = True) -> Encoded:
    """The text in the encoder's template, its tokens' places known. Raises NoRoom where none of them fits."""
    limit = None if encoder.max_length is None else encoder.max_length - reserved
    values = {"input": text_ids(encoder.processor, text)}
    return encoder.template.encode(encoder.processor, values, encoder.first_virtual_id, limit, suffix=suffix)
