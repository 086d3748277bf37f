"""The engine: trials in processes, many workers, kills, and the rows that are trained on, chosen by and reported."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from transformers import BertForMaskedLM

from graftune.comparison import folder, report
from graftune.comparison.assignment import Assignment
from graftune.comparison.candidates import candidate
from graftune.comparison.compare import compare
from graftune.comparison.estimate import Cost, Estimate, Sizes, estimate
from graftune.comparison.plan import EFFORTS, Plan, Trial
from graftune.comparison.processes import Processes
from graftune.comparison.results import load
from graftune.comparison.splits import FEW, FOLDS, Splits, chosen_by
from graftune.config import recipe as recipes
from graftune.errors import GraftuneError
from training.tiny import classification_rows, write

#: What a trial measures of time, memory and energy: never the same twice.
MEASURED = {
    *("train_seconds", "tokens_per_second", "peak_memory_bytes", "cpu_seconds", "joules", "joules_per_answer"),
    "inference",
}


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(report, "write", lambda folder: [])


@pytest.fixture
def data(toys, tmp_path):
    """Options of a comparison of so many training rows that a trial of the search is one training, not a fold each."""
    rows = classification_rows(FEW)
    train, held = write(tmp_path / "train.jsonl", rows), write(tmp_path / "eval.jsonl", rows[:12])
    return {
        **toys.options("classify", max_steps=3),
        **{"train": train, "eval": held, "effort": "quick", "seeds": 2, "threads": 1},
    }


def lines(out):
    """The lines of results without what is measured, in no order."""
    found = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if key not in MEASURED} for line in found]
    return sorted(kept, key=lambda line: json.dumps(line, sort_keys=True))


def test_processes_and_this_process_and_two_workers_give_the_same_lines(toys, data, tmp_path, undrawn):
    for workers in (0, 1, 2):
        compare(toys.bert, ["lora", "bitfit"], out=tmp_path / str(workers), workers=workers, **data)
    wanted = lines(tmp_path / "0")
    assert {line["stage"] for line in wanted} == {"screen", "report"}
    assert {line["label"] for line in wanted} == {"lora", "bitfit", "head"}
    assert all(line["status"] == "done" for line in wanted)
    assert lines(tmp_path / "1") == lines(tmp_path / "2") == wanted


def test_heads_have_the_rate_that_was_found_for_them_alone(toys, data, tmp_path, undrawn):
    compare(toys.bert, ["lora"], out=tmp_path / "out", workers=0, **data)
    found = load(tmp_path / "out")
    (rate,) = {run.rate for run in found.reported if run.label == "head"}
    assert {run.head_rate for run in found.runs if run.label == "lora"} == {rate}
    assert {run.seed for run in found.runs if run.stage == "screen"}.isdisjoint(found.header.seeds)


KILLED = """
import sys
from graftune.comparison.compare import compare
from graftune.comparison import report
report.write = lambda folder: []
compare(sys.argv[1], ["lora", "bitfit"], out=sys.argv[2], workers={workers}, **{options!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments_it_ends_with_the_lines_of_one_left_alone(toys, data, tmp_path, undrawn, workers):
    alone, out = tmp_path / "alone", tmp_path / "killed"
    compare(toys.bert, ["lora", "bitfit"], out=alone, workers=0, **data)
    script = tmp_path / "script.py"  # without a guard: a process that a trial starts must not run it again
    script.write_text(KILLED.format(workers=workers, options=data))
    chance = random.Random(workers)
    for _ in range(10):
        running = subprocess.Popen(
            [sys.executable, str(script), toys.bert, str(out)], start_new_session=True, stderr=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(4, 14))
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    subprocess.run([sys.executable, str(script), toys.bert, str(out)], check=True)
    assert lines(out) == lines(alone)


def assignment(toys, data, tmp_path, name="lora"):
    recipe = recipes.load(None, {"base": toys.bert, **data})
    return Assignment(recipe, candidate(name, recipe), Trial("report", name, 0), tmp_path / "adapter")


def test_a_process_that_is_killed_is_a_line(toys, data, tmp_path):
    def kill(stage, told=None):
        for process in list(run._running):
            os.kill(process.pid, signal.SIGKILL)

    with Processes() as run:
        line = run(assignment(toys, data, tmp_path), kill)
        assert (line["status"], line["again"]) == ("failed", True) and "SIGKILL" in line["error"]
        assert run(assignment(toys, data, tmp_path))["status"] == "done"


def test_a_script_without_a_guard_is_not_run_again(toys, data, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("print('begun', flush=True)" + KILLED.format(workers=1, options={**data, "effort": "none"}))
    done = subprocess.run(
        [sys.executable, str(script), toys.bert, str(tmp_path / "out")], check=True, capture_output=True, text=True
    )
    assert done.stdout.count("begun") == 1


@pytest.mark.slow
def test_two_ray_workers_give_the_same_lines(toys, data, tmp_path, undrawn, monkeypatch):
    ray = pytest.importorskip("ray")
    compare(toys.bert, ["lora", "bitfit"], out=tmp_path / "alone", workers=0, **data)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        compare(toys.bert, ["lora", "bitfit"], out=tmp_path / "ray", workers="ray", **data)
    finally:
        ray.shutdown()
    assert lines(tmp_path / "ray") == lines(tmp_path / "alone")


# Rows -----------------------------------------------------------------------------------------------------------


def splits_of(toys, tmp_path, count, **options):
    rows = [{**row, "user": f"u{number % 10}"} for number, row in enumerate(classification_rows(count))]
    rows = [{**row, "sentence": f"{row['sentence']} {number}"} for number, row in enumerate(rows)]
    train, held = write(tmp_path / "train.jsonl", rows), write(tmp_path / "eval.jsonl", rows[:20])
    options = {**toys.options("classify", max_steps=3), "train": train, "eval": held, **options}
    return Splits.read(recipes.load(None, {"base": toys.bert, **options}))


@pytest.mark.parametrize("count", [600, 2000])
def test_rows_to_choose_by_are_held_out_of_those_to_train_on(toys, tmp_path, count):
    splits = splits_of(toys, tmp_path, count)
    ((train, held),) = splits.to_choose(5)
    assert len(held.rows) == pytest.approx(chosen_by(count), abs=2)
    assert len(train.rows) + len(held.rows) == count
    assert not {row.line for row in train.rows} & {row.line for row in held.rows}
    again, other = (next(iter(splits.to_choose(seed)))[1] for seed in (5, 6))
    assert [row.line for row in again.rows] == [row.line for row in held.rows] != [row.line for row in other.rows]


def test_of_few_rows_every_one_is_chosen_by_once(toys, tmp_path):
    pairs = list(splits_of(toys, tmp_path, 60).to_choose(3))
    assert len(pairs) == FOLDS
    held = [row.line for _, table in pairs for row in table.rows]
    assert sorted(held) == list(range(1, 61))
    for train, table in pairs:
        assert sorted(row.line for part in (train, table) for row in part.rows) == list(range(1, 61))


def test_some_groups_are_never_trained_on(toys, tmp_path, undrawn):
    splits = splits_of(toys, tmp_path, 100, group="user")
    assert len(splits.unseen) == 2
    assert {row.columns["user"] for row in splits.tables.train.rows} == {f"u{n}" for n in range(10)} - splits.unseen
    out, recipe = tmp_path / "out", splits.recipe.model_dump(exclude={"sections", "compare"}, exclude_none=True)
    keys = ("train", "eval", "task", "max_steps", "batch_size", "input", "target")
    recipe = {key: recipe[key] for key in keys if key in recipe}
    compare(toys.bert, ["lora"], out=out, effort="none", workers=0, group="user", **recipe)
    (run,) = load(out).reported
    parts = run.metrics["accuracy seen"], run.metrics["accuracy unseen"]
    assert run.metrics["accuracy"] == pytest.approx((16 * parts[0] + 4 * parts[1]) / 20)
    with pytest.raises(GraftuneError, match="column of groups"):
        splits_of(toys, tmp_path, 100, group="usr")


def test_curves_over_rows_and_one_more_file(toys, data, tmp_path, undrawn):
    out, test = tmp_path / "out", write(tmp_path / "test.jsonl", classification_rows(7))
    compare(toys.bert, ["lora"], out=out, workers=0, rows=[20, "all"], test=test, **{**data, "effort": "none"})
    found = [(run.rows, run.seed) for run in load(out).runs]
    assert found == [(20, 0), (None, 0), (20, 1), (None, 1)]
    assert len(load(out).reported) == 2
    assert all("test accuracy" in run.metrics for run in load(out).runs)
    assert {path.name for path in (out / "adapters").iterdir()} == {
        *("lora-seed0", "lora-seed1", "lora-seed0-rows20", "lora-seed1-rows20"),
    }


def test_a_known_rate_is_taken(toys, data, tmp_path, undrawn):
    compare(toys.bert, ["lora", "bitfit"], out=tmp_path / "out", workers=0, known={"lora": 0.02}, **data)
    found = load(tmp_path / "out")
    assert {run.rate for run in found.runs if run.label == "lora"} == {0.02}
    assert {run.stage for run in found.runs if run.label == "lora"} == {"report"}
    with pytest.raises(GraftuneError, match="did you mean 'lora'"):
        compare(toys.bert, ["lora"], out=tmp_path / "x", known={"loro": 1e-3}, **data)


def test_one_comparison_at_a_time_writes_into_a_folder(toys, data, tmp_path):
    with folder.locked(tmp_path / "out"), pytest.raises(GraftuneError, match="another comparison is writing into"):
        compare(toys.bert, ["lora"], out=tmp_path / "out", **data)


def test_it_does_not_go_on_with_other_weights(toys, data, tmp_path, undrawn):
    base, out = shutil.copytree(toys.bert, tmp_path / "base"), tmp_path / "out"
    options = {**data, "effort": "none", "workers": 0}
    compare(str(base), ["bitfit"], out=out, **options)
    assert load(out).header.finished == 2
    (line, _) = (out / "results.jsonl").read_text().splitlines(keepends=True)
    (out / "results.jsonl").write_text(line)
    model = BertForMaskedLM.from_pretrained(base)
    model.get_parameter("bert.encoder.layer.0.output.dense.weight").data += 1
    model.save_pretrained(base)
    with pytest.raises(GraftuneError, match="the base has changed"):
        compare(str(base), ["bitfit"], out=out, **options)
    assert (out / "results.jsonl").read_text() == line


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rows": [0]}, "from 2 to 500"),
        ({"rows": [20, 501]}, "rows: 501"),
        ({"known": {"lora": float("inf")}}, "bad value for 'compare.known.lora'"),
        ({"lr": float("inf")}, "bad value for 'lr'"),
        ({"trials": 5}, "trials: 5"),
        ({"seeds": 2.5}, "number of seeds"),
        ({"search": "optuna", "space": {"lora.lr": [1e-3, 1e-2]}}, "the rate is always searched"),
        ({"methods": []}, "compare needs methods"),
        ({"methods": [3]}, "received: 3"),
        ({"methods": "lora,lora(rank=8)"}, "two candidates are the same"),
        ({"base": None}, "this is no base"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(toys, data, tmp_path, wrong, said):
    options = {"base": toys.bert, "methods": ["lora"], **data, **wrong}
    with pytest.raises(GraftuneError, match=said):
        compare(out=tmp_path / "out", **options)
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_what_a_comparison_takes_is_said_before_and_is_the_sum_of_its_trials(toys, data, tmp_path, undrawn):
    said = []
    compare(toys.bert, ["lora", "bitfit"], out=tmp_path / "out", workers=0, say=said.append, **data)
    (expected,) = [one for one in said if one.startswith("this will take")]
    assert "about 15 trials" in expected and "above the base" in expected
    kept = json.loads((tmp_path / "out" / "estimate.json").read_text())
    assert kept["trials"] == 3 * (3 + 2) and kept["seconds"] > 0 and kept["joules"] > 0


def test_an_estimate_counts_every_trial_of_the_plan():
    plan = Plan({"a": 1e-3, "b": None}, [0, 1, 2], 9, EFFORTS["normal"])
    cost = Cost(begin=2.0, step=0.5, choose_row=0.25, report_row=0.125, finish=3.0, memory=7.0, joules=10.0)
    sizes = Sizes(
        short_steps=4, steps=16, choose_rows=8, curve_rows=2, short_points=3, points=4, report_rows=40, folds=2
    )
    found = estimate(plan, {"a": cost, "b": cost}, sizes, workers=2)
    search = 2 * (7 * (2 + 8 * 0.25) + (5 * 3 + 2 * 4) * 2 * 0.25 + (5 * 4 + 2 * 16) * 0.5)
    reported = 3 * (2 + 4 * 2 * 0.25 + 16 * 0.5 + 40 * 0.125 + 3)
    assert found == Estimate((search + 2 * reported) / 2, 7.0, 10 * (search + 2 * reported), 7 + 6)


@pytest.mark.parametrize(("length", "steps"), [({"max_steps": 400}, 100), ({"max_steps": 60}, 40), ({"epochs": 3}, 15)])
def test_a_short_run_has_its_share_of_the_steps_but_enough_to_tell_rates_apart(toys, tmp_path, length, steps):
    recipe = recipes.load(None, {"base": toys.bert, "task": "classify", "batch_size": 16, **length})
    trial = Trial("screen", "lora", 0, 1e-3, 0.25)
    given = Assignment(recipe, candidate("lora", recipe), trial, tmp_path)
    assert given.shortened(given.own_recipe, 80).max_steps == steps
    whole = Assignment(recipe, candidate("lora", recipe), Trial("confirm", "lora", 0, 1e-3), tmp_path)
    assert whole.shortened(whole.own_recipe, 80) == whole.own_recipe
