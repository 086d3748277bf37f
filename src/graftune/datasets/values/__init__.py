"""Cells: what one value of a column has to be, and what is wrong with one that is not.

Every reader takes the value and the folder that relative paths start from, and raises `InvalidValue` with a few words.
"""

from graftune.datasets.values.chat import conversation, messages, prompt
from graftune.datasets.values.classes import label, labels
from graftune.datasets.values.pictures import image, objects
from graftune.datasets.values.scalars import InvalidValue, Reader, number, numbers, text, words
from graftune.datasets.values.spans import Answer, answers, located_answers

__all__ = [
    "Answer",
    "InvalidValue",
    "Reader",
    "answers",
    "conversation",
    "image",
    "label",
    "labels",
    "located_answers",
    "messages",
    "number",
    "numbers",
    "objects",
    "prompt",
    "text",
    "words",
]
