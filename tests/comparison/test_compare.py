"""Comparisons: what they leave behind, going on after a kill, and that runs do not disturb each other."""

from __future__ import annotations

import copy
import json
import shutil
import sys

import pytest
import torch

from graftune.bases.loading import load_base, load_config, load_processor
from graftune.cli import main
from graftune.comparison import report, summary
from graftune.comparison.compare import compare
from graftune.comparison.results import load
from graftune.datasets.rows import read
from graftune.errors import GraftuneError
from graftune.inference.predictor import Predictor
from graftune.tasks import registry
from tasks.conftest import byte_level
from training.tiny import classification_rows, generation_rows, same, small, tensors, write

METHODS = [small("hard-prompt"), small("lora"), small("prompt", init="labels"), small("prefix")]


@pytest.fixture
def undrawn(monkeypatch):
    """No report after every run: drawing takes longer than the runs."""
    monkeypatch.setattr(report, "write", lambda folder: [])


def run(toys, out, methods=METHODS, task="generate", **options):
    usual = {**toys.options(task, max_steps=2), "effort": "none", "workers": 0}
    return compare(options.pop("base", toys.llama), methods, out=out, **{**usual, **options})


def lines(out):
    return (out / "results.jsonl").read_text().splitlines()


def results(out):
    return [json.loads(line) for line in lines(out)]


@pytest.fixture(scope="module")
def done(toys, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "out"
    said = []
    run(toys, out, watch=said.append)
    return out, said


def test_everything_is_written(done):
    out, said = done
    assert {file.name for file in out.iterdir()} == {
        *(".lock", "adapters", "comparison.json", "figures", "recipe.yaml", "report.html", "results.jsonl", "table.md"),
    }
    found = {line["method"]: line for line in results(out)}
    assert list(found) == ["hard-prompt", "lora", "prompt", "prefix"]
    assert [line["status"] for line in found.values()] == ["done", "done", "failed", "done"]
    assert "needs class labels" in found["prompt"]["error"]
    assert found["hard-prompt"]["untrained"]
    assert found["hard-prompt"]["peak_memory_bytes"] is None
    lora = found["lora"]
    assert len(lora["curve"]) == 2
    alone, many = lora["inference"]
    assert (alone["batch"], many["batch"]) == (1, 32)
    assert all(speed[name] > 0 for speed in (alone, many) for name in ("adapter", "base", "merged"))
    assert lora["bytes_stored"] > 0
    text, page = (out / "table.md").read_text(), (out / "report.html").read_text()
    for name in found:
        assert name in text
        assert name in page
    assert {(event.method, event.finished, event.total) for event in said} >= {("lora", 1, 4), ("prefix", 4, 4)}
    header = json.loads((out / "comparison.json").read_text())
    assert header["budget"].startswith("2 steps of 4 rows")


def test_the_adapters_can_be_used(done, toys):
    out, _ = done
    rows = read(toys.data["generate"][1])
    for line in results(out):
        folder = out / "adapters" / f"{line['method']}-seed0"
        assert folder.exists() == (line["status"] == "done")
        if folder.exists():
            assert Predictor.load(folder).evaluate(rows, 8).metrics == line["metrics"]


def test_an_adapter_is_that_of_a_single_run(done, toys, tmp_path):
    out, _ = done
    toys.train(tmp_path / "run", small("prefix"), max_steps=2)
    alone = {name: t for name, t in tensors(tmp_path / "run").items() if name.startswith("adapter:")}
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "adapter").symlink_to(out / "adapters" / "prefix-seed0")
    compared = {name: t for name, t in tensors(tmp_path / "compared").items() if name.startswith("adapter:")}
    assert same(alone, compared)


def test_killed_and_started_again_it_goes_on(toys, tmp_path, undrawn):
    out = tmp_path / "out"

    class Killed(BaseException):
        """As Ctrl-C is."""

    def kill(event):
        if event.finished == 2:
            raise Killed

    methods = [small("hard-prompt"), small("lora"), small("bitfit"), small("prefix")]
    with pytest.raises(Killed):
        run(toys, out, methods, watch=kill)
    kept = lines(out)
    assert len(kept) == 2
    (out / "results.jsonl").write_text("\n".join([*kept, '{"method": "bitf']))  # a line cut short
    said = []
    run(toys, out, methods, watch=said.append)
    assert lines(out)[:2] == kept
    assert [line["method"] for line in results(out)] == ["hard-prompt", "lora", "bitfit", "prefix"]
    assert {event.method for event in said} == {"bitfit", "prefix"}
    before = lines(out)
    run(toys, out, methods, watch=lambda event: pytest.fail("nothing was left to do"))
    assert lines(out) == before


def test_one_method_may_stand_there_with_other_options(toys, tmp_path, undrawn):
    out = tmp_path / "out"
    names = ["lora(rank=1)", "lora(rank=3, targets=[q, v], lr=0.5)", "bitfit"]
    run(toys, out, names)
    found = {line["label"]: line for line in results(out)}
    assert list(found) == names
    assert {line["method"] for line in found.values()} == {"lora", "bitfit"}
    assert found[names[1]]["parameters_trained"] == 3 * found[names[0]]["parameters_trained"]
    assert max(point["step"] for point in found[names[1]]["curve"]) > 0
    assert {path.name for path in (out / "adapters").iterdir()} == {
        "lora_rank=1-seed0", "lora_rank=3,_targets=_q,_v_,_lr=0.5-seed0", "bitfit-seed0",
    }  # fmt: skip
    run(toys, out, names, watch=lambda event: pytest.fail("nothing was left to do"))
    given = [small("lora", rank=1), small("lora", rank=2), small("bitfit")]
    run(toys, tmp_path / "objects", given)
    assert [line["label"] for line in results(tmp_path / "objects")] == ["lora(rank=1)", "lora(rank=2)", "bitfit"]


def test_whatever_ends_a_run_the_others_go_on(toys, tmp_path, undrawn, monkeypatch):
    def broken(self, context):
        raise IndexError("list index out of range")

    monkeypatch.setattr("graftune.methods.bitfit.BitFit.build", broken)
    run(toys, tmp_path, ["bitfit", "lora"])
    first, second = results(tmp_path)
    assert (first["label"], first["status"]) == ("bitfit", "failed")
    assert first["error"].startswith("IndexError: list index out of range (test_compare.py, line ")
    assert second["status"] == "done"


def test_other_data_are_refused(toys, tmp_path, undrawn):
    train = write(tmp_path / "train.jsonl", generation_rows(8))
    options = {**toys.options(max_steps=2), "train": train, "effort": "none", "workers": 0}
    compare(toys.llama, ["lora"], out=tmp_path / "out", **options)
    write(tmp_path / "train.jsonl", [*generation_rows(7), {"table": "n9", "text": "nine"}])
    with pytest.raises(GraftuneError, match="the data have changed") as caught:
        compare(toys.llama, ["lora"], out=tmp_path / "out", **options)
    assert "other rows to train on" in str(caught.value)


def test_a_failed_run_is_tried_again(done, toys):
    out, _ = done
    said = []
    run(toys, out, watch=said.append)
    assert {event.method for event in said} == {"prompt"}
    assert len(load(out).runs) == 4


@pytest.mark.parametrize("changed", [{"seed": 5}, {"batch_size": 2}, {"methods": METHODS[:2]}, {"seeds": 2}])
def test_other_options_are_refused(done, toys, changed):
    out, _ = done
    before = lines(out)
    methods = changed.pop("methods", METHODS)
    with pytest.raises(GraftuneError, match=r"holds another comparison[\s\S]*choose another --out"):
        compare(toys.llama, methods, out=out, **{**toys.options(max_steps=2), "effort": "none", **changed})
    assert lines(out) == before


def test_other_options_of_a_method_are_refused(done, toys):
    out, _ = done
    with pytest.raises(GraftuneError, match="holds another comparison"):
        run(toys, out, [*METHODS[:1], small("lora", rank=3), *METHODS[2:]])


def test_the_base_is_as_it_was(toys, tmp_path, undrawn):
    task = registry.make("generate")
    tokenizer = load_processor(toys.llama)
    base = load_base(toys.llama, task.head(load_config(toys.llama)), tokenizer)
    before = copy.deepcopy(base.state_dict())
    methods = ["few-shot", "prompt", "full", "houlsby", "freeze", "p-tuning"]
    run(toys, tmp_path, [small(name) for name in methods], base=base, tokenizer=tokenizer)
    assert [line["status"] for line in results(tmp_path)] == ["done"] * len(methods)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


def test_two_seeds(toys, tmp_path, undrawn):
    run(toys, tmp_path, [small("lora"), small("bitfit")], seeds=2)
    found = [(line["method"], line["seed"]) for line in results(tmp_path)]
    assert found == [("lora", 0), ("bitfit", 0), ("lora", 1), ("bitfit", 1)]
    first, second = ((tmp_path / "adapters" / f"lora-seed{seed}") for seed in (0, 1))
    assert (first / "adapter.safetensors").read_bytes() != (second / "adapter.safetensors").read_bytes()
    assert all(len(row.done) == 2 for row in summary.rows(load(tmp_path)))


def test_untrained_methods_classify_by_words(toys, tmp_path, undrawn):
    run(toys, tmp_path, [small("few-shot"), small("lora")], task="classify")
    untrained, trained = results(tmp_path)
    assert untrained["status"] == trained["status"] == "done"
    card = json.loads((tmp_path / "adapters" / "few-shot-seed0" / "adapter.json").read_text())
    assert card["use"]["task"]["task"] == "cloze"
    assert card["heads"] == []
    card = json.loads((tmp_path / "adapters" / "lora-seed0" / "adapter.json").read_text())
    assert card["use"]["task"]["task"] == "classify"
    assert card["heads"] == ["score"]


def test_an_encoder_finds_the_hidden_word_without_training(toys, tmp_path, undrawn):
    run(toys, tmp_path, [small("hard-prompt"), small("few-shot"), small("lora")], task="classify", base=toys.bert)
    assert [line["status"] for line in results(tmp_path)] == ["done"] * 3
    card = json.loads((tmp_path / "adapters" / "few-shot-seed0" / "adapter.json").read_text())
    assert card["use"]["template"].endswith("\n{input} {mask}")


def test_a_base_without_words_fails_its_untrained_methods_alone(toys, tmp_path, undrawn):
    tokenizer = byte_level(wrap=("[CLS]", "[SEP]"))  # no token for a hidden word
    shutil.copytree(toys.bert, tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = str(tmp_path / "base")
    run(toys, tmp_path / "out", [small("hard-prompt"), small("lora")], task="classify", base=base)
    untrained, trained = results(tmp_path / "out")
    assert (untrained["status"], trained["status"]) == ("failed", "done")
    assert "no token for {mask}" in untrained["error"]


def test_when_every_run_fails_so_does_the_comparison(toys, tmp_path, undrawn):
    with pytest.raises(GraftuneError, match=r"every run failed[\s\S]*needs class labels"):
        run(toys, tmp_path, [small("prompt", init="labels")])


def test_nothing_is_written_for_a_base_that_is_not_there(toys, tmp_path):
    with pytest.raises(GraftuneError, match="no base at"):
        run(toys, tmp_path / "out", base=str(tmp_path / "none"))
    assert not (tmp_path / "out").exists()


def test_a_label_of_the_evaluation_data_alone_stops_before_anything_runs(toys, tmp_path):
    file = write(tmp_path / "x.jsonl", [*classification_rows(2), {"sentence": "good", "label": "maybe"}])
    with pytest.raises(GraftuneError, match="unknown label 'maybe'"):
        compare(toys.llama, METHODS, out=tmp_path / "out", **{**toys.options("classify"), "eval": file})
    assert not (tmp_path / "out").exists()


def test_the_command_uses_the_embedded_data(toys, tmp_path, monkeypatch, capsys):
    arguments = ["--methods", "lora", "--max-steps", 2, "--set", "eval_rows=2", "--base", toys.long]
    arguments += ["--set", "generate.max_new_tokens=4", "--batch-size", 2, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["graftune", "compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    found = [(line["stage"], line["status"]) for line in results(tmp_path / "out")]
    assert found == [("screen", "done")] * (len(found) - 1) + [("report", "done")] and 4 <= len(found) <= 6
    header = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert header["train"] == header["eval"] == "embedded table-to-text"
    assert header["eval_rows"] == 6  # two inputs with three references each
    printed = capsys.readouterr()
    assert "lora" in printed.out
    assert "report.html" in printed.out
    assert "embedded" in printed.err
