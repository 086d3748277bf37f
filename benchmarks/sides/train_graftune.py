"""Graftune on a whole task: RECIPE, the keys of a recipe as JSON, with a section for LoRA."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import graftune as gt
from graftune.training.loop import Report
from sides.figures import Clock, report
from sides.recipes import method_of, parsed


def main(text: str) -> None:
    """Train and evaluate by ``gt.train``; a step that ends with an evaluation is not timed."""
    recipe, clock = parsed(text), Clock()

    def watch(step: Report) -> None:
        if step.eval_loss is None:
            clock.tick()

    with tempfile.TemporaryDirectory() as place:
        run = gt.train(recipe.base, method_of(recipe), recipe=recipe, out=Path(place) / "run", watch=watch)
    report(seconds=clock.seconds, losses=[point["loss"] for point in run.progress.curve], metrics=run.metrics)


if __name__ == "__main__":
    main(*sys.argv[1:])
