"""Detection: boxes as the base's own processor makes them, and figures of predictions that are known."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers import YolosConfig, YolosImageProcessor

from graftune.datasets import Row
from graftune.tasks import Detect
from graftune.tasks.features import PromptEncoder

OBJECTS = (("cell", (4.0, 2.0, 12.0, 10.0)), ("dot", (0.0, 0.0, 3.0, 5.0)))


@pytest.fixture
def row(tmp_path) -> Row:
    Image.new("RGB", (20, 10), (9, 99, 200)).save(tmp_path / "x.png")
    return Row(tmp_path / "x.png", OBJECTS, 1)


@pytest.fixture
def task(row: Row):
    return Detect().fit([row]).bind(YolosConfig(), YolosImageProcessor(size={"height": 16, "width": 32}))


def test_boxes_are_those_of_the_bases_own_processor(task, row):
    (found,) = task.encode(row, PromptEncoder(task.processor))
    annotations = [
        {"bbox": [x, y, right - x, bottom - y], "category_id": number, "area": 1.0, "iscrowd": 0}
        for number, (_, (x, y, right, bottom)) in enumerate(OBJECTS)
    ]
    theirs = task.processor(
        images=Image.open(row.input).convert("RGB"),
        annotations={"image_id": 0, "annotations": annotations},
        return_tensors="pt",
    )
    assert torch.equal(found.pixels, theirs["pixel_values"][0])
    torch.testing.assert_close(found.labels["boxes"], theirs["labels"][0]["boxes"])
    assert found.labels["class_labels"].tolist() == theirs["labels"][0]["class_labels"].tolist()


def test_right_predictions_are_perfect_and_shown_as_counts(task, row):
    edges = torch.tensor([box for _, box in OBJECTS]) / torch.tensor([20.0, 10.0, 20.0, 10.0])
    right = (torch.tensor([0.9, 0.2]), torch.tensor([0, 1]), edges)
    result = task.score([row], [[]], [[right]])
    assert result.metrics["map"] == pytest.approx(1.0)
    assert set(result.metrics) == {"map", "map50", "map75", "map cell", "map dot"}
    assert result.predictions[0]["prediction"] == "cell 4 2 12 10"  # the dot is less likely than not
    assert result.predictions[0]["shown"] == {"target": "1 cell, 1 dot", "prediction": "1 cell"}


def test_nothing_found_is_no_figure_but_zero(task, row):
    nothing = (torch.empty(0), torch.empty(0).long(), torch.empty(0, 4))
    result = task.score([row], [[]], [[nothing]])
    assert result.metrics["map"] == 0.0
    assert result.predictions[0]["shown"]["prediction"] == "nothing"
