"""The commands as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from graftune.model.adapted import AdaptedModel
from training.tiny import generation_rows, write


@pytest.fixture(scope="module")
def run(toys, tmp_path_factory):
    out = tmp_path_factory.mktemp("commands") / "run"
    toys.train(out)
    return out


def test_train_prints_the_result_and_nothing_else(toys, graftune, tmp_path):
    train, dev = toys.data["generate"]
    done = graftune(
        *("train", "--base", toys.llama, "--train", train, "--eval", dev, "--max-steps", 2),
        *(
            "--out",
            tmp_path / "out",
            "--set",
            "generate.max_new_tokens=2",
            "--method",
            "prefix",
            "--set",
            "method.length=2",
        ),
    )
    assert done.code == 0
    assert [line.split(":")[0].split(" ")[0] for line in done.out.splitlines()] == ["prefix", "trained", "adapter"]
    assert "guessed; name them with --input and --target" in done.err
    assert "step 2/2" in done.err
    card = json.loads((tmp_path / "out" / "adapter" / "adapter.json").read_text())
    assert card["options"]["length"] == 2


def test_a_recipe_of_a_run_is_a_recipe(toys, graftune, run, tmp_path):
    assert graftune("train", "--recipe", run / "recipe.yaml", "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "recipe.yaml").read_text() == (run / "recipe.yaml").read_text()
    first, second = (json.loads((folder / "run.json").read_text()) for folder in (run, tmp_path / "out"))
    assert first["metrics"] == second["metrics"]


def test_evaluate_repeats_the_metrics_of_the_run(toys, graftune, run, tmp_path):
    result = tmp_path / "result.json"
    done = graftune("evaluate", "--adapter", run / "adapter", "--eval", toys.data["generate"][1], "--out", result)
    assert done.code == 0
    data = json.loads(result.read_text())
    metrics = json.loads((run / "run.json").read_text())["metrics"]
    assert data["metrics"] == pytest.approx(metrics, rel=1e-5)
    assert len(data["predictions"]) == 3


def test_evaluate_the_plain_base(toys, graftune):
    done = graftune("evaluate", "--base", toys.llama, "--eval", toys.data["generate"][1])
    assert done.code == 0
    assert "bleu" in done.out
    # yes and no are words the base can say, so that no head is needed
    done = graftune("evaluate", "--base", toys.llama, "--eval", toys.data["classify"][1], "--task", "classify")
    assert done.code == 0
    assert "accuracy" in done.out


def test_generate_answers_texts_and_files_alike(toys, graftune, run, tmp_path):
    spoken = graftune("generate", "--adapter", run / "adapter", "--text", "n0", "--text", "n1")
    assert spoken.code == 0
    answers = [json.loads(line) for line in spoken.out.splitlines()]
    assert [answer["input"] for answer in answers] == ["n0", "n1"]
    inputs = write(tmp_path / "inputs.jsonl", [{"id": "a", "table": "n0"}, {"id": "b", "table": "n1"}])
    for source in (inputs, write(tmp_path / "both.jsonl", generation_rows(2))):
        assert graftune("generate", "--adapter", run / "adapter", "--eval", source).out == spoken.out
    only = write(tmp_path / "only.jsonl", [{"words": "n0"}, {"words": "n1"}])
    result = tmp_path / "answers.json"
    assert graftune("generate", "--adapter", run / "adapter", "--eval", only, "--out", result).out == spoken.out
    assert json.loads(result.read_text())["outputs"] == answers


def test_generate_names_the_bad_lines_of_a_file(toys, graftune, run, tmp_path):
    file = write(tmp_path / "bad.jsonl", [{"a": "n0", "b": "x"}, {"a": ""}, "{"])
    for arguments, words in [
        ([], "cannot guess which column holds the input"),
        (["--input", "aa"], "did you mean 'a'?"),
        (["--input", "a"], "line 2: 'a' is empty"),
        (["--input", "a"], "line 3: broken JSON"),
    ]:
        done = graftune("generate", "--adapter", run / "adapter", "--eval", file, *arguments)
        assert done.code == 2
        assert words in done.err


def test_settings_reach_generation(toys, graftune, run, monkeypatch):
    asked = []
    original = AdaptedModel.generate

    def generate(self, **options):
        asked.append(options["max_new_tokens"])
        return original(self, **options)

    monkeypatch.setattr(AdaptedModel, "generate", generate)
    arguments = ("generate", "--adapter", run / "adapter", "--text", "n0")
    graftune(*arguments)
    graftune(*arguments, "--set", "generate.max_new_tokens=1")
    assert asked[1] == 1 < asked[0]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_inspect(toys, graftune, family):
    task = "classify" if family == "bert" else "generate"
    done = graftune("inspect", "--base", getattr(toys, family), "--task", task)
    assert done.code == 0
    assert "layer 0" in done.out
    assert "p-tuning-v2" in done.out


def test_help_is_quick_and_says_what_there_is():
    code = (
        "import sys; sys.argv = ['graftune', '--help']\n"
        "from graftune.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "assert code == 0 and 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("train", "compare", "evaluate", "generate", "inspect"):
        assert command in done.stdout
