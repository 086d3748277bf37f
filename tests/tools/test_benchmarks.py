"""The programs in benchmarks/ that read results: orders side by side, and the claims of the papers."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from graftune.comparison.candidates import candidates
from graftune.config import recipe as recipes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("sides", "orders", "paper_claims")]:
        del sys.modules[name]


def written(file, scores, rates):
    with file.open("w", newline="") as out:
        lines = csv.writer(out)
        lines.writerow(["stage", "label", "rate", "rows", "status", "accuracy"])
        for label, values in scores.items():
            lines.writerow(["screen", label, rates[label], "", "done", 0.0])
            for value in values:
                lines.writerow(["report", label, rates[label], "", "done", value])


def test_orders_are_put_side_by_side(benchmarks, tmp_path):
    import orders

    best, usual = {"a": [0.9, 0.8], "b": [0.7, 0.7], "c": [0.5, 0.5]}, {"a": [0.8], "b": [0.69], "c": [0.2]}
    written(tmp_path / "x.csv", best, {"a": 1e-3, "b": 1e-2, "c": 0.1})
    written(tmp_path / "x-usual.csv", usual, {"a": 3e-3, "b": 1e-2, "c": 1.0})
    (tmp_path / "x-before.csv").write_text("method,seed,status,accuracy\na,0,done,0.1\nb,0,done,0.6\nc,0,done,0.7\n")
    orders.main("x", "accuracy", tmp_path)
    text = (tmp_path / "x-orders.md").read_text()
    assert "| 1. a | 0.850 ± 0.071 | 0.001 | 0.800 | 0.003 | 5.0 | 3. 0.100 |" in text
    assert "median 5.0 points, largest 30.0 (c)" in text
    assert "Below half of its best at the usual rate: c." in text
    clear = "of them by more than a point there too."
    assert f"Of 3 pairs of methods more than a point apart, 3 have this order by the usual rates, 3 {clear}" in text
    assert f"Of 3 pairs of methods more than a point apart, 0 have this order by the old rates, 0 {clear}" in text


def test_candidates_of_claims_can_be_made(benchmarks):
    import paper_claims

    for claim in paper_claims.CLAIMS.values():
        labels = {one.label for one in candidates(list(claim.candidates), recipes.load(None, dict(claim.keys)))}
        assert all({first, second} <= labels for first, _, second in claim.expected)
