"""The embedded classification set: the texts of the table-to-text set, labelled by what is served."""

from __future__ import annotations

from collections import Counter

import pytest
from sample_data import boats, table_to_text, text_to_label

from graftune.datasets import samples
from graftune.errors import GraftuneError


@pytest.mark.parametrize("split", ["train", "dev"])
def test_labels_say_what_the_table_says(split: str) -> None:
    for row, labelled in zip(table_to_text(split), text_to_label(split), strict=True):
        dish = boats.parse(row["table"]).get("serves")
        assert labelled["text"] == row["text"]
        assert (labelled["label"] == "nothing") == (dish is None)
        if dish is not None:
            assert (labelled["label"] == "drink") == (dish in ("hot tea", "black coffee", "red wine", "ginger beer"))


def test_no_label_is_rare() -> None:
    counts = Counter(row["label"] for row in text_to_label("train"))
    assert set(counts) == {"drink", "food", "nothing"}
    assert min(counts.values()) > 250


def test_each_task_has_its_set() -> None:
    assert samples.path("dev", "classify") != samples.path("dev", "generate") == samples.path("dev")
    assert len(samples.path("dev", "classify").read_text().splitlines()) == 180
    assert (samples.name("generate"), samples.name("classify")) == ("table-to-text", "text-to-label")
    with pytest.raises(GraftuneError, match="no sample data for the task 'clasify'"):
        samples.path("dev", "clasify")
