"""Cells: what one value of a column has to be, and what is wrong with one that is not.

Every reader takes the value and the folder that relative paths start from, and raises `InvalidValue` with a few words.
"""

from typing import Final

from graftune.datasets.values.chat import answered, asked, conversation, prompt, tools
from graftune.datasets.values.classes import label, labels
from graftune.datasets.values.pictures import CORNER_AND_SIZE, EDGES, LABEL_KEYS, image, objects, opened, size
from graftune.datasets.values.scalars import InvalidValue, Reader, number, numbers, text, words
from graftune.datasets.values.spans import PLACES, Answer, located_answers

#: Columns that hold the boxes of an image, and those with their labels beside them.
BOXES: Final[dict[str, tuple[str, ...]]] = dict.fromkeys((*CORNER_AND_SIZE, *EDGES), LABEL_KEYS)

__all__ = [
    "BOXES",
    "PLACES",
    "Answer",
    "InvalidValue",
    "Reader",
    "answered",
    "asked",
    "conversation",
    "image",
    "label",
    "labels",
    "located_answers",
    "number",
    "numbers",
    "objects",
    "opened",
    "prompt",
    "size",
    "text",
    "tools",
    "words",
]
