"""Results to table and report: read whole, averaged right, ordered, escaped and self-contained."""

from __future__ import annotations

import io
import json
import math
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from graftune.comparison import plots, rate_plots, report, results, row_plots, summary, table, units
from graftune.comparison import sentences as words
from graftune.comparison.verdict import judge
from graftune.errors import GraftuneError

HEADER: dict[str, Any] = {
    "task": "generate",
    "base": "small-base",
    "base_parameters": 30_000_000,
    "base_bytes": 120_000_000,
    "train": "train.jsonl",
    "eval": "dev.jsonl",
    "train_rows": 2000,
    "eval_rows": 180,
    "metric": "bleu",
    "budget": "3 epochs",
    "seeds": [0, 1, 2],
    "versions": {"torch": "2.13.0"},
    "machine": "8 cores",
    "created": "2026-01-02T03:04:05+00:00",
}


def run(label: str, bleu: float, seed: int = 0, stored: int = 1000, **more: Any) -> dict[str, Any]:
    return {
        "method": label.split()[0].lower(),
        "label": label,
        "seed": seed,
        "status": "done",
        "error": None,
        "metrics": {"bleu": bleu, "chrf": bleu + 20},
        "parameters_trained": stored,
        "parameters_stored": stored,
        "bytes_stored": 4 * stored,
        "train_seconds": 100.0 + seed,
        "tokens_per_second": 5000.0,
        "peak_memory_bytes": 3 * 2**28,
        "inference": [
            {"batch": 1, "adapter": 0.06, "base": 0.05, "merged": 0.0505},
            {"batch": 32, "adapter": 0.022, "base": 0.02, "merged": 0.02},
        ],
        "train_loss": 1.0,
        "curve": [{"step": s, "loss": 3 - s / 50, "eval_loss": 3.1 - s / 60} for s in (0, 50, 100)],
        "examples": [{"input": "name : X", "prediction": f"{label} says X.", "references": ["X it is."]}],
        "untrained": False,
        **more,
    }


def failed(label: str, seed: int = 0, error: str = "out of memory\ntraceback") -> dict[str, Any]:
    return {"method": label.lower(), "label": label, "seed": seed, "status": "failed", "error": error}


def folder(tmp_path: Path, runs: list[dict[str, Any]], tail: str = "", **header: Any) -> Path:
    (tmp_path / "comparison.json").write_text(json.dumps(HEADER | header))
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in runs) + tail)
    return tmp_path


def comparison(*runs: dict[str, Any], **header: Any) -> results.Comparison:
    return results.Comparison.model_validate({"header": HEADER | header, "runs": runs})


def sentences(*runs: dict[str, Any], **header: Any) -> str:
    return " ".join(words.verdict(comparison(*runs, **header)))


def judged(tmp_path: Path, right: dict[str, list[float]], rows: int = 400, **header: Any) -> results.Comparison:
    """A comparison in a folder: for each label the share of right answers by seed, over the same rows."""
    runs = []
    random = np.random.default_rng(3)
    hardness = random.random(rows)
    for place, (label, shares) in enumerate(right.items()):
        for seed, share in enumerate(shares):
            more = {"metrics": {"accuracy": share}, "bytes_stored": 4000 * 10**place}
            runs.append(run(label, 0, seed, stored=1000 * 10**place, **more))
            figures = {"formula": "mean", "scale": 1.0, "rows": [[float(h < share), 1.0] for h in hardness]}
            file = results.figures_of(tmp_path, label, seed)
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(figures))
    seeds = list(range(len(next(iter(right.values())))))
    return results.load(folder(tmp_path, runs, metric="accuracy", seeds=seeds, **header))


# --- reading ---


def test_a_broken_last_line_is_ignored(tmp_path: Path) -> None:
    loaded = results.load(folder(tmp_path, [run("LoRA", 30)], tail='{"method": "ia3", "la'))
    assert [r.label for r in loaded.runs] == ["LoRA"]


def test_a_line_cut_inside_a_character_is_ignored_at_the_end(tmp_path: Path) -> None:
    folder(tmp_path, [run("LoRA", 30)])
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write('{"label": "é'.encode()[:-1])
    assert len(results.load(tmp_path).runs) == 1


def test_a_broken_line_elsewhere_is_an_error_with_its_number(tmp_path: Path) -> None:
    tail = '{"method": "ia3", "la\n' + json.dumps(run("BitFit", 20)) + "\n"
    with pytest.raises(GraftuneError, match="line 2"):
        results.load(folder(tmp_path, [run("LoRA", 30)], tail=tail))


def test_a_whole_line_of_the_wrong_shape_is_an_error_even_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(GraftuneError, match=r"line 2[\s\S]*seed"):
        results.load(folder(tmp_path, [run("LoRA", 30)], tail='{"method": "x", "label": "x", "status": "done"}\n'))


def test_a_repeated_run_counts_once_by_its_last_line(tmp_path: Path) -> None:
    loaded = results.load(folder(tmp_path, [failed("LoRA"), run("LoRA", 31)]))
    (row,) = summary.rows(loaded)
    assert row.quality == summary.Stat(31)
    assert not row.failed


def test_other_folders_and_unknown_metrics_are_errors(tmp_path: Path) -> None:
    with pytest.raises(GraftuneError, match="not a comparison folder"):
        results.load(tmp_path)
    with pytest.raises(GraftuneError, match="did you mean 'bleu'"):
        results.load(folder(tmp_path, [run("LoRA", 30)], metric="blue"))


def test_nothing_finished_yet_is_a_report_too(tmp_path: Path) -> None:
    folder(tmp_path, [])
    (tmp_path / "results.jsonl").unlink()
    report.write(tmp_path)
    assert "No method has finished" in (tmp_path / "report.html").read_text()
    assert "No method has finished" in (tmp_path / "table.md").read_text()


# --- averaging and order ---


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6))
def test_seeds_are_averaged_with_the_sample_deviation(values: list[float]) -> None:
    (row,) = summary.rows(comparison(*(run("LoRA", value, seed) for seed, value in enumerate(values))))
    assert row.quality is not None
    assert row.quality.spread is not None
    assert math.isclose(row.quality.mean, np.mean(values), rel_tol=1e-9, abs_tol=1e-6)
    assert math.isclose(row.quality.spread, np.std(values, ddof=1), rel_tol=1e-6, abs_tol=1e-6)
    assert row.train_seconds == summary.Stat(
        statistics.fmean(100.0 + s for s in range(len(values))),
        statistics.stdev(100.0 + s for s in range(len(values))),
    )


def test_one_seed_shows_no_spread() -> None:
    made = comparison(run("LoRA", 30), seeds=[0])
    assert summary.rows(made)[0].quality == summary.Stat(30.0, None)
    assert "±" not in table.markdown(made)


def test_best_first_and_those_without_a_result_last() -> None:
    runs = [run("A", 10), failed("F"), run("B", 30), run("D", math.nan), run("C", 20)]
    made = summary.rows(comparison(*runs))
    assert [row.label for row in made] == ["B", "C", "A", "F", "D"]
    assert made[3].note == "failed: out of memory"
    assert "not a number" in made[4].note


def test_a_loss_is_ranked_upside_down() -> None:
    runs = [run("A", 0, metrics={"loss": 2.0}), run("B", 0, metrics={"loss": 1.0})]
    assert [row.label for row in summary.rows(comparison(*runs, metric="loss"))] == ["B", "A"]


def test_a_method_with_some_failed_seeds_keeps_its_place_and_says_so() -> None:
    first, second = summary.rows(comparison(run("A", 30), failed("A", 1), run("B", 10)))
    assert (first.label, second.label) == ("A", "B")
    assert first.note == "1 of 2 seeds failed: out of memory"


def test_the_ratio_of_latencies_is_taken_within_each_run() -> None:
    (row,) = summary.rows(comparison(run("A", 1)))
    assert row.latency_ratio is not None
    assert math.isclose(row.latency_ratio.mean, 1.2)


# --- the verdict ---


def test_better_is_said_of_the_better(tmp_path: Path) -> None:
    said = words.verdict(judged(tmp_path, {"LoRA": [0.9, 0.91, 0.9], "Full": [0.6, 0.61, 0.62]}))
    assert re.fullmatch(
        r"Best: LoRA, with accuracy 0\.9\d\d \(0\.8\d\d to 0\.9\d\d\), better than all others\.", said[0]
    )


def test_equals_are_called_practically_equal_and_the_smallest_is_named(tmp_path: Path) -> None:
    said = words.verdict(judged(tmp_path, {"Prompt": [0.9, 0.9, 0.9], "Full": [0.901, 0.901, 0.901]}, rows=20_000))
    assert "Practically equal to it, within 0.01: Prompt." in said[0] and said[0].startswith("Best: Full, with")
    assert any(one.startswith("Smallest within 0.01 of it: Prompt, with 0.900") for one in said)


def test_what_is_open_is_said_with_what_would_settle_it(tmp_path: Path) -> None:
    comparison = judged(tmp_path, {"A": [0.80, 0.84, 0.88], "B": [0.86, 0.78, 0.84]}, rows=200)
    said = words.verdict(comparison)
    assert (
        said[0].startswith("Best on average: A, with accuracy") and "Not enough evidence to tell it from B" in said[0]
    )
    assert "settle it" in said[1] or "be seen" in said[1]
    assert any(one.startswith("Chance of being the best: A ") for one in said)


def test_the_best_within_a_limit_is_named(tmp_path: Path) -> None:
    right = {"Small": [0.7] * 3, "Large": [0.9] * 3}
    said = " ".join(words.verdict(judged(tmp_path, right, limits={"stored": 5000, "ms": 0.001})))
    assert "Best with at most 4.88 KiB stored: Small, with 0.700" in said and "None has at most 1 ms an answer." in said


def test_figures_that_are_missing_leave_the_means(tmp_path: Path) -> None:
    comparison = judged(tmp_path, {"A": [0.8] * 3, "B": [0.7] * 3})
    results.figures_of(tmp_path, "A", 1).unlink()
    said = words.verdict(results.load(comparison.folder))
    assert said[0] == "Highest mean: A, with accuracy 0.800 ± 0.000." and said[1].startswith("How sure that is cannot")


def test_a_seed_that_failed_is_left_out_of_all_and_said(tmp_path: Path) -> None:
    """It gives the victory to nobody."""
    comparison = judged(tmp_path, {"A": [0.5] * 3, "B": [0.9] * 3, "C": [0.4] * 3}, effort="normal")
    runs = [run.model_dump() for run in comparison.runs if (run.label, run.seed) != ("B", 2)]
    found = results.load(folder(tmp_path, [*runs, failed("B", 2)], metric="accuracy", seeds=[0, 1, 2]))
    assert words.verdict(found)[0].startswith("Best: B, with accuracy 0.9")
    assert "All are judged by 2 of 3 seeds, as the others are missing of B." in words.warnings(found)


def test_of_equals_the_smaller_is_first_and_nothing_is_better_than_it(tmp_path: Path) -> None:
    right = {"head": [0.5], "LoRA": [0.5], "Full": [0.5]}
    said = words.verdict(judged(tmp_path, right, rows=30))
    assert said[0].startswith("Best on average: head, with accuracy 0.5") and "LoRA, Full" in said[0]
    assert any(one == "No better than the head alone (head): LoRA, Full." for one in said)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.98, 1.0])
def test_an_interval_does_not_leave_the_range_of_the_metric(tmp_path: Path, share: float) -> None:
    found = judge(judged(tmp_path, {"A": [share], "B": [0.5]}, rows=20))
    assert found is not None
    assert all(0 <= one.low <= one.mean <= one.high <= 1 for one in found.scores.values())


def test_few_rows_and_rows_that_are_trained_on_are_warned_of(tmp_path: Path) -> None:
    said = " ".join(words.warnings(judged(tmp_path, {"A": [0.5], "B": [0.6]}, rows=12, copies=1)))
    assert re.search(r"Few reported rows: by 12 rows the best score is known to ±0\.[23]", said)
    assert "1 of 180 reported rows have an input that is trained on." in said
    assert "Few" not in " ".join(words.warnings(judged(tmp_path, {"A": [0.5], "B": [0.6]}, rows=4000)))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    def said(finished: int | None, *runs: dict[str, Any]) -> str:
        return " ".join(words.warnings(results.load(folder(tmp_path, list(runs), finished=finished))))

    killed = {**failed("B"), "stage": "screen", "rate": 1e-3, "again": True}
    assert "Not finished: 1 trials so far." in said(0, run("A", 1))
    assert "2 of 3 lines of results are missing." in said(3, run("A", 1))
    assert "1 trial was ended from outside" in said(2, run("A", 1), killed) and "diverged" not in said(2, killed)
    assert "missing" not in said(1, run("A", 1)) and "Not finished" not in said(None, run("A", 1))


@pytest.mark.parametrize("text", ["{", "[]", '{"formula": "mean", "scale": 1, "rows": [[1, 1], [1]]}'])
def test_damaged_figures_are_an_error_with_their_file(tmp_path: Path, text: str) -> None:
    comparison = judged(tmp_path, {"A": [0.5], "B": [0.6]}, rows=12)
    file = results.figures_of(tmp_path, "A", 0)
    file.write_text(text)
    with pytest.raises(GraftuneError, match=re.escape(file.name)):
        words.verdict(comparison)


def test_seeds_are_warned_of() -> None:
    def said(seeds: int) -> str:
        return " ".join(words.warnings(comparison(run("A", 1), seeds=list(range(seeds)), effort="normal")))

    assert "One seed" in said(1) and "Two seeds" in said(2) and "seed" not in said(3)


def test_short_runs_edges_and_diverged_rates_are_warned_of() -> None:
    def searched(scores: dict[float, float | None]) -> str:
        runs = [
            {**run("A", 1), "stage": "screen", "rate": rate, "score": score}
            if score is not None
            else {**failed("A"), "stage": "screen", "rate": rate}
            for rate, score in scores.items()
        ]
        header = {"effort": "normal", "centres": {"A": 1e-3}, "batch_size": 10}
        return " ".join(words.warnings(comparison(*runs, run("A", 1, steps=20), **header)))

    assert "edge" in searched({1e-4: 1, 1e-3: 2, 1e-2: 3}) and "edge" not in searched({1e-4: 1, 1e-3: 3, 1e-2: 2})
    assert "diverged: A" in searched({1e-4: 1, 1e-3: None, 1e-2: None})
    assert "Less than one epoch: each run has seen 10% of the training rows." in searched({})
    assert "No rate was searched" in " ".join(words.warnings(comparison(run("A", 1))))


def test_overfitting_needs_more_than_five_percent_above_the_minimum() -> None:
    def curve(last: float) -> list[dict[str, Any]]:
        return [{"step": i, "loss": 1, "eval_loss": e} for i, e in enumerate((2.0, 1.0, None, last))]

    assert "Overfitting" in sentences(run("A", 1, curve=curve(1.06)))
    assert "Overfitting" not in sentences(run("A", 1, curve=curve(1.04)))


def test_methods_below_an_untrained_one_are_named() -> None:
    said = sentences(run("LoRA", 30), run("Few-shot", 20, stored=0, untrained=True), run("Prompt", 10))
    assert "No better than Few-shot, which needs no training: Prompt." in said


def test_a_failed_method_is_named() -> None:
    assert "Without a result: IA3." in sentences(run("A", 1), failed("IA3"))


# --- showing ---


def test_numbers_are_written_as_people_write_them() -> None:
    assert [units.count(v) for v in (0, 999, 7680, 294_912, 999_999, 30_100_000, 7e9)] == [
        "0", "999", "7.68k", "295k", "1M", "30.1M", "7B",
    ]  # fmt: skip
    assert [units.size_in_bytes(v) for v in (0, 900, 1536, 2**20)] == ["0 B", "900 B", "1.5 KiB", "1 MiB"]
    assert [units.duration(v) for v in (0.25, 8.3, 59.96, 125, 4320)] == [
        "0.25 s", "8.3 s", "1 min 00 s", "2 min 05 s", "1 h 12 min",
    ]  # fmt: skip
    assert [units.percent(v) for v in (0.0024, 0.12, 1)] == ["0.24 %", "12 %", "100 %"]


def test_the_metric_on_other_rows_has_columns_of_its_own() -> None:
    metrics = {"bleu": 9.0, "test bleu": 8.0, "bleu seen": 7.5, "bleu unseen": 6.0}
    text = table.markdown(comparison(run("A", 9, metrics=metrics), failed("B")))
    assert "| method | bleu | test bleu | bleu seen | bleu unseen | rate |" in text
    assert re.search(r"\| A \| 9\.0 \| 8\.0 \| 7\.5 \| 6\.0 \|", text)


def test_every_markdown_row_has_as_many_cells_as_the_heading() -> None:
    evil = run("a|b `c` *d* <e>", 30), failed("f|g", error="x | y\nz"), run("h", 3), failed("h", 1, "p|q")
    lines = [line for line in table.markdown(comparison(*evil)).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_the_terminal_table_reads_no_markup_in_labels_or_errors() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table.terminal(comparison(run("LoRA [bold]", 30), failed("IA3", error="bad [/red] shape"))))
    shown = console.export_text()
    assert "LoRA [bold]" in shown
    assert "bad [/red] shape" in shown


class Page(HTMLParser):
    """Collects the tags, their addresses and the ids of a page, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "link", "img"}:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(*runs: dict[str, Any], **header: Any) -> tuple[str, Page]:
    text = report.html(comparison(*runs, **header))
    return text, Page(text)


def test_the_page_is_self_contained_and_well_formed() -> None:
    text, parsed = page(run("LoRA", 30), run("Prompt", 20, stored=10), failed("IA3"))
    assert parsed.open == []
    assert all(address.startswith("#") for address in parsed.addresses)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {address[1:] for address in parsed.addresses} <= set(parsed.ids)
    assert parsed.tags.count("svg") == 3 + 2
    assert not re.search(r"#0[0-9]0[0-9]0[0-9]|#0a0b0", text), "a stand-in colour was left in a plot"


def test_everything_from_outside_is_escaped() -> None:
    evil = "<script>alert('x')</script>"
    example = {"input": evil, "prediction": evil, "references": [evil]}
    runs = (
        run(f"LoRA {evil}", 30, examples=[example]),
        run("B $x_1$ & co", 20),
        failed(f"F{evil}", error=evil),
    )
    text, parsed = page(*runs, task=evil, base=evil, budget=evil, machine=evil, versions={evil: evil})
    assert parsed.tags.count("script") == 1
    assert "<script>alert" not in text
    assert "B $x_1$ &amp; co" in text


def test_the_page_shows_examples_reasons_and_other_metrics() -> None:
    text, _ = page(run("LoRA", 30), failed("IA3"))
    for shown in ("LoRA says X.", "X it is.", "failed: out of memory", "chrf", "torch 2.13.0", "8 cores"):
        assert shown in text


@pytest.mark.parametrize(
    "more",
    [
        {"untrained": True, "curve": [], "peak_memory_bytes": None, "parameters_stored": 0},
        {"curve": [{"step": 0, "loss": math.nan, "eval_loss": None}], "tokens_per_second": None},
        {"metrics": {"bleu": 0.0}, "examples": [{"input": "", "prediction": " ", "references": []}]},
    ],
)
def test_sparse_results_make_a_page(more: dict[str, Any]) -> None:
    _, parsed = page(run("LoRA", 30, **more), run("B", 20, 0, **more), seeds=[0])
    assert parsed.open == []


def test_the_same_results_make_the_same_page() -> None:
    assert page(run("LoRA", 30))[0] == page(run("LoRA", 30))[0]


def test_labels_of_points_do_not_cover_each_other_much() -> None:
    every = summary.rows(comparison(*(run(f"method {i}", 30 + i % 3, stored=1000 + 10 * i) for i in range(12))))
    figure = plots.Figure(figsize=(4.6, 4.4), dpi=72)
    axes = figure.add_subplot()
    axes.set(xlim=(900, 1300), ylim=(29, 33))
    xs = [row.parameters_stored.mean for row in every if row.parameters_stored]
    ys = [row.quality.mean for row in every if row.quality]
    plots._label(figure, axes, [row.label for row in every], xs, ys, [0.0] * 12)
    renderer = plots.FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
    area = sum(box.width * box.height for box in boxes)
    covered = sum(plots._overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert len(boxes) == 12
    assert covered < 0.02 * area


def test_write_leaves_only_the_two_files(tmp_path: Path) -> None:
    paths = report.write(folder(tmp_path, [run("LoRA", 30)]))
    assert [p.name for p in paths] == ["table.md", "report.html"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "comparison.json", "report.html", "results.jsonl", "table.md",
    ]  # fmt: skip


def test_curves_over_rows_are_means_over_seeds(tmp_path: Path) -> None:
    runs = [run("LoRA", 30, seed) for seed in (0, 1)]
    runs += [{**run("LoRA", bleu, seed), "rows": 50} for seed, bleu in ((0, 10), (1, 20))]
    made = results.load(folder(tmp_path, runs))
    assert row_plots.by_rows(made) == {"LoRA": {50: 15.0, 2000: 30.0}}
    assert "How much data it takes" in report.html(made)
    assert "How much data it takes" not in report.html(comparison(run("LoRA", 30)))


def test_what_an_answer_costs_stands_beside_the_base_and_merged() -> None:
    shape = {
        column.heading: column.text for column in table.columns(comparison(run("LoRA", 30, joules_per_answer=0.5)))
    }
    (row,) = summary.rows(comparison(run("LoRA", 30, joules_per_answer=0.5, joules=90.0)))
    assert shape["ms alone (of base)"](row) == "60 (1.20×, merged 1.01×)"
    assert shape["ms in 32 (of base)"](row) == "22 (1.10×)"
    assert shape["energy (1,000 answers)"](row) == "90 J (500 J)"


def test_each_trial_of_a_search_is_drawn_against_what_it_changed() -> None:
    def tried(label: str, rate: float, score: float, change: float, stage: str = "screen") -> dict[str, Any]:
        return run(label, 0, 1000, stage=stage, rate=rate, score=score, forgetting={"kl_task": change})

    runs = [tried("lora", 1e-3, -2.0, 0.1), tried("lora", 3e-3, -1.5, 0.4), tried("ia3", 1e-2, -1.8, 0.2)]
    runs.append(tried("ia3", 1e-2, -1.2, 0.3, "confirm"))
    runs.append(tried("lora", 1e-1, math.nan, 9.0))  # it diverged
    plots_of = rate_plots.changes(comparison(*runs), "kl_task")
    assert [plot["label"] for plot in plots_of] == ["lora", "ia3"]
    assert rate_plots.changes(comparison(*runs), "drift") == []
    assert "Learning against forgetting" in page(*runs, run("lora", 30))[0]
    assert "Learning against forgetting" not in page(run("lora", 30))[0]
