"""Whatever is wrong: exit code 2, a short message with what to do, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertForTokenClassification

from graftune.training import prepare, run
from training.tiny import POSITIONS, classification_rows, generation_rows, log, same, tensors, write

#: The command of a shell, with Ctrl-C on even where the tests run in the background.
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from graftune.cli import main; main()"
)


def flags(toys, task="generate", /, **changed):
    """The flags of a short run; None leaves one out."""
    train, dev = toys.data[task]
    usual = {"base": toys.llama, "task": task, "train": train, "eval": dev, "max_steps": 2, "batch_size": 4}
    named = {**usual, **changed}
    return [part for key, value in named.items() if value is not None for part in (f"--{key.replace('_', '-')}", value)]


def refused(done, *words):
    """Exit code 2, all of these words, and no traceback; typer draws boxes, whose lines are joined."""
    text = " ".join(done.err.replace("│", " ").split())
    assert done.code == 2, done.err
    for word in words:
        assert word in text, done.err
    assert "Traceback" not in text
    assert "internal error" not in text
    assert len(done.err.splitlines()) < 12
    return text


def shaped(text):
    """A message of ours says what was received, what was expected and, where that is not plain, what to do."""
    for part in ("error:", "received:", "expected:", "what to do:"):
        assert part in text, text


@pytest.fixture
def no_base(monkeypatch):
    """Fails the test when a base is loaded."""

    def load(*args, **options):
        pytest.fail("the base was loaded before the data was checked")

    monkeypatch.setattr(prepare, "load_base", load)


# Data: found before the base is loaded ------------------------------------------------------------------


def test_wrong_column(toys, graftune, tmp_path, no_base):
    out = tmp_path / "out"
    text = refused(
        graftune("train", "--out", out, *flags(toys, input="tabel")), "unknown column 'tabel'", "did you mean 'table'?"
    )
    shaped(text)
    assert not out.exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"table": "n", "text": ', "line 3: broken JSON"),
        ('["n", "zero"]', "line 3: a JSON list"),
        ('{"table": "n"}', "line 3: no 'text'"),
        ('{"table": " ", "text": "zero"}', "line 3: 'table' is empty"),
        ('{"table": {"a": 1}, "text": "zero"}', "line 3: 'table' is a dict, not text"),
    ],
)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_bad_line_is_named(toys, graftune, tmp_path, no_base, split, line, words):
    rows = generation_rows(4)
    file = write(tmp_path / "bad.jsonl", [*rows[:2], line, *rows[2:]])
    out = tmp_path / "out"
    shaped(refused(graftune("train", "--out", out, *flags(toys, **{split: file})), "bad.jsonl: 1 bad line", words))
    assert not out.exists()


def test_many_bad_lines_are_counted(toys, graftune, tmp_path, no_base):
    file = write(tmp_path / "bad.jsonl", [*generation_rows(1), *["{"] * 9])
    refused(graftune("train", "--out", tmp_path / "out", *flags(toys, train=file)), "9 bad lines", "and 4 more")


def test_an_unknown_label_in_the_evaluation_data(toys, graftune, tmp_path, no_base):
    file = write(tmp_path / "bad.jsonl", [*classification_rows(2), {"sentence": "good", "label": "maybe"}])
    for command in ("train", "compare"):
        out = tmp_path / command
        text = refused(
            graftune(command, "--out", out, *flags(toys, "classify", eval=file)),
            "line 3: unknown label 'maybe' (known: 'no', 'yes')",
        )
        shaped(text)
        assert not out.exists()


def test_one_label_is_none(toys, graftune, tmp_path, no_base):
    file = write(tmp_path / "one.jsonl", classification_rows(1))
    shaped(
        refused(graftune("train", "--out", tmp_path / "out", *flags(toys, "classify", train=file)), "needs two labels")
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.jsonl", None, "no such file"),
        ("x.txt", "a", "cannot guess which columns"),
        ("x.odd", "a", "unknown file extension"),
        ("x.jsonl", "", "no rows"),
        ("x.jsonl", b"\xff", "not UTF-8"),
        ("x.csv", 'table,text\n"n,zero\n', "broken CSV in the record that starts on line 2"),
        ("x.csv", "a,b\n1,2\n", "cannot guess which columns"),
        ("x.parquet", "not parquet", "not a readable Parquet file"),
    ],
)
def test_unreadable_files(toys, graftune, tmp_path, no_base, name, content, words):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(graftune("train", "--out", tmp_path / "out", *flags(toys, train=file)), words)
    assert not (tmp_path / "out").exists()


def test_evaluation_data_alone(toys, graftune, tmp_path, no_base):
    shaped(
        refused(
            graftune("train", "--out", tmp_path / "out", *flags(toys, train=None)),
            "nothing to train on",
            "--train FILE",
        )
    )


@pytest.mark.parametrize("share", ["0", "1", "1.5", "-0.1", "nan"])
def test_a_share_that_leaves_one_side_empty(toys, graftune, tmp_path, no_base, share):
    shaped(refused(graftune("train", "--out", tmp_path / "out", *flags(toys, eval=share)), "bad share", "--eval 0.1"))


def test_without_evaluation_data_some_rows_are_split_off(toys, graftune, tmp_path):
    train = write(tmp_path / "t.jsonl", [{"table": f"n{i}", "text": "x", "note": "y"} for i in range(20)])
    for eval, words in ((None, "2 of its rows (10%)"), ("0.25", "5 of its rows (25%)")):
        done = graftune("train", "--out", tmp_path / str(eval), *flags(toys, train=train, eval=eval))
        assert done.code == 0, done.err
        assert words in done.err
        assert "columns not read: note" in done.err


def test_copies_in_the_evaluation_data_are_said(toys, graftune, tmp_path):
    done = graftune("train", "--out", tmp_path / "out", *flags(toys))
    assert "4 of 4 evaluation rows have an input that is trained on" in done.err


def test_a_sequence_that_is_too_long(toys, graftune, tmp_path):
    file = write(tmp_path / "long.jsonl", [*generation_rows(1), {"table": "n", "text": "x" * (POSITIONS + 1)}])
    out = tmp_path / "out"
    text = refused(
        graftune("train", "--out", out, *flags(toys, train=file)), "line 2", "too long", f"at most {POSITIONS} tokens"
    )
    shaped(text)
    assert not out.exists()


# Options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "loar"], "did you mean 'lora'?"),
        (["--task", "generat"], "did you mean 'generate'?"),
        (["--set", "bathc_size=3"], "did you mean 'batch_size'?"),
        (["--set", "lora.rnak=3"], "did you mean 'rank'?"),
        (["--set", "lora.rank=x"], "bad value for 'lora.rank'"),
        (["--set", "lora.rank=0"], "bad value for 'rank'"),
        (["--set", "lora.lr=-1"], "bad value for 'lora.lr'"),
        (["--method", "lora", "--set", "prefix.length=3"], "--method prefix?"),
        (["--method", "dora", "--set", "dora.dora=false"], "what makes the method 'dora'"),
        (["--lr", "-1"], "greater than 0"),
        (["--set", "seed=-1"], "greater than or equal to 0"),
        (["--seed", str(2**70)], "less than 4294967296"),
        (["--eval", ""], "no data is named"),
        (["--train", " "], "no data is named"),
        (["--epochs", "0"], "greater than 0"),
        (["--epochs", "2"], "max_steps and epochs exclude each other"),
        (["--precision", "fp8"], "'fp32', 'bf16' or 'auto'"),
        (["--recipe", "missing.yaml"], "cannot read the recipe missing.yaml"),
    ],
)
def test_bad_options(toys, graftune, tmp_path, no_base, arguments, words):
    out = tmp_path / "out"
    shaped(refused(graftune("train", "--out", out, *flags(toys), *arguments), words))
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch-size", "0"], ("--batch-size", "1")),
        (["--max-steps", "0"], ("--max-steps", "1")),
        (["--lr", "fast"], ("--lr", "valid")),
        (["--bath-size", "3"], ("No such option: --bath-size", "--batch-size")),
    ],
)
def test_bad_flags(toys, graftune, tmp_path, no_base, arguments, words):
    refused(graftune("train", "--out", tmp_path / "out", *flags(toys), *arguments), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [1", "is not YAML"),
        ("\t- x", "is not YAML"),
        (b"\xff\xff", "is not YAML"),
        ("- a", "holds no recipe"),
        ("bathc_size: 3", "did you mean 'batch_size'?"),
        ("lora: 3", "must hold options"),
        ("lora:\n  rnak: 3", "did you mean 'rank'?"),
        ("1: 2", "unknown recipe key '1'"),
        ("method: loar", "did you mean 'lora'?"),
        ("warmup: 2", "less than 1"),
    ],
)
def test_bad_recipes(toys, graftune, tmp_path, no_base, content, words):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    shaped(refused(graftune("train", "--out", tmp_path / "out", *flags(toys), "--recipe", file), words))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("methods", ["lora,loar", "lora,,", "lora,lora"])
def test_bad_lists_of_methods(toys, graftune, tmp_path, no_base, methods):
    shaped(refused(graftune("compare", "--out", tmp_path / "out", *flags(toys), "--methods", methods), "method"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["--text", "a", "--eval", "x.jsonl"], ["--text", " "]])
def test_generate_needs_inputs(toys, graftune, arguments):
    refused(graftune("generate", "--base", toys.llama, *arguments), "input")


# Bases and adapters -------------------------------------------------------------------------------------


def test_bad_bases(toys, graftune, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    empty, cut, headless = (tmp_path / name for name in ("empty", "cut", "headless"))
    empty.mkdir()
    shutil.copytree(toys.llama, cut)
    with (cut / "model.safetensors").open("rb+") as file:
        file.truncate(3000)
    shutil.copytree(toys.llama, headless)
    config = json.loads((headless / "config.json").read_text())
    (headless / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    for base, words in [
        (empty, "a folder without config.json"),
        (tmp_path / "none", "no such folder"),
        ("tiny-decodr", "did you mean 'tiny-decoder'?"),
        ("nobody/nothing", "unknown base 'nobody/nothing'"),
        (cut, "cannot load the weights"),
        (headless, "lacks weights"),
        (toys.bert, "does not write text from left to right"),
        ("tiny-encoder", "does not write text from left to right"),
    ]:
        shaped(refused(graftune("train", "--out", tmp_path / "out", *flags(toys, base=base)), words))
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def adapter(toys, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapter") / "run"
    toys.train(out, max_steps=1)
    return out / "adapter"


def test_bad_adapters(toys, graftune, tmp_path, adapter):
    def copy(name):
        return Path(shutil.copytree(adapter, tmp_path / name))

    cut, altered, reshaped, cardless, broken = map(copy, ("cut", "altered", "reshaped", "cardless", "broken"))
    stored = (adapter / "adapter.safetensors").read_bytes()
    (cut / "adapter.safetensors").write_bytes(stored[:-9])
    (altered / "adapter.safetensors").write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    card = json.loads((adapter / "adapter.json").read_text())
    (reshaped / "adapter.json").write_text(json.dumps({**card, "options": {**card["options"], "rank": 3}}))
    (cardless / "adapter.json").unlink()
    (broken / "adapter.json").write_text('{"format": 1')
    _, dev = toys.data["generate"]
    for folder, words in [
        (tmp_path / "none", "no such folder"),
        (adapter.parent.parent, "no adapter in"),
        (cut, "adapter.safetensors is damaged"),
        (altered, "adapter.safetensors is damaged"),
        (reshaped, "another shape"),
        (cardless, "no adapter in"),
        (broken, "adapter.json is broken"),
    ]:
        refused(graftune("evaluate", "--eval", dev, "--adapter", folder, "--base", toys.llama), words)
        refused(graftune("generate", "--text", "n0", "--adapter", folder, "--base", toys.llama), words)
    refused(graftune("generate", "--text", "n0", "--adapter", adapter, "--base", toys.gpt2), "belongs to another base")


def test_results_that_cannot_be_written(toys, graftune, tmp_path, adapter, monkeypatch):
    monkeypatch.setattr("graftune.inference.predictor.Predictor.load", lambda *_, **__: pytest.fail("loaded too early"))
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "x.json", "/proc/x.json", tmp_path / ("x" * 300)):
        for command in (["evaluate", "--eval", toys.data["generate"][1]], ["generate", "--text", "n0"]):
            shaped(refused(graftune(*command, "--adapter", adapter, "--out", out), "cannot write", "another --out"))
    shaped(refused(graftune("train", "--out", "/proc/x", *flags(toys)), "cannot write"))


def test_an_adapter_of_another_task(toys, graftune, adapter):
    train, _ = toys.data["classify"]
    words = ("nothing is trained for the task 'classify'", "an adapter that has no head for it", "train it")
    shaped(refused(graftune("evaluate", "--task", "classify", "--eval", train, "--adapter", adapter), *words))


def test_a_head_that_nobody_trained(toys, graftune, tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": ["O", "B-X"]}]
    file = write(tmp_path / "tags.jsonl", rows)
    command = ("evaluate", "--task", "tag", "--eval", file, "--base")
    shaped(refused(graftune(*command, toys.bert), "nothing is trained for the task 'tag'", "the plain base"))
    names = {"id2label": {0: "B-X", 1: "O"}, "label2id": {"B-X": 0, "O": 1}}
    BertForTokenClassification.from_pretrained(toys.bert, **names).save_pretrained(tmp_path / "trained")
    AutoTokenizer.from_pretrained(toys.bert).save_pretrained(tmp_path / "trained")
    done = graftune(*command, tmp_path / "trained")
    assert done.code == 0, done.err
    assert "accuracy" in done.out


def test_a_folder_that_already_holds_a_run(toys, graftune, adapter):
    before = tensors(adapter.parent)
    shaped(refused(graftune("train", "--out", adapter.parent, *flags(toys)), "already holds a run", "--resume"))
    assert same(tensors(adapter.parent), before)


def test_out_is_a_file(toys, graftune, tmp_path):
    (tmp_path / "out").write_text("mine")
    refused(graftune("train", "--out", tmp_path / "out", *flags(toys)), "cannot write")
    assert (tmp_path / "out").read_text() == "mine"


# A full disk, Ctrl-C, and faults of ours ----------------------------------------------------------------


def test_no_space_left(toys, graftune, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    shaped(refused(graftune("train", "--out", tmp_path / "out", *flags(toys)), "no space left"))
    assert list((tmp_path / "out").iterdir()) == []


def test_no_space_left_for_the_adapter(toys, graftune, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real = run.native.save

    def save(*args):
        monkeypatch.setattr(os, "fsync", full)
        return real(*args)

    monkeypatch.setattr(run.native, "save", save)
    refused(graftune("train", "--out", tmp_path / "out", *flags(toys)), "no space left")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        *("checkpoints", "data.json", "log.jsonl", "recipe.yaml")
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_disk_that_is_really_full(toys, graftune, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        done = graftune("train", "--out", disk / "out", "--method", "full", *flags(toys))
        refused(done, "cannot write", "No space left")
        assert not (disk / "out" / "adapter").exists()
        assert not [file for file in (disk / "out").iterdir() if file.name.startswith(".")]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_fault_of_ours_is_told_from_the_users(toys, graftune, tmp_path, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("oops")

    monkeypatch.setattr(run, "train_adapter", broken)
    done = graftune("train", "--out", tmp_path / "out", *flags(toys))
    assert done.code == 1
    assert "internal error: RuntimeError: oops" in done.err
    assert "Traceback" not in done.err
    monkeypatch.setenv("GRAFTUNE_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="oops"):
        graftune("train", "--out", tmp_path / "out", *flags(toys))


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_errors_of_a_real_process(toys, tmp_path):
    for arguments, words in [
        (["train", "--method", "loar", "--out", tmp_path / "out"], "did you mean 'lora'?"),
        (["train", "--bath-size", "3"], "No such option"),
    ]:
        process = start(*arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert words in err
        assert "Traceback" not in err
        assert out == ""


def test_ctrl_c_in_training(toys, graftune, tmp_path):
    """Stopped by a real signal, it leaves a checkpoint that gives the very adapter of an undisturbed run."""
    options = [*flags(toys, max_steps=150, precision="fp32"), "--set", "generate.max_new_tokens=2"]
    process = start("train", "--out", tmp_path / "cut", *options)
    log_file = tmp_path / "cut" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log_file.exists() and log_file.stat().st_size > 200) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "Ctrl-C" in err
    assert "--resume" in err
    assert "Traceback" not in err
    stopped = max(int(f.name.removeprefix("step-")) for f in (tmp_path / "cut" / "checkpoints").iterdir())
    assert 0 < stopped < 150
    assert len(log(tmp_path / "cut")) == stopped
    assert not (tmp_path / "cut" / "adapter").exists()
    assert graftune("train", "--out", tmp_path / "cut", *options, "--resume").code == 0
    assert graftune("train", "--out", tmp_path / "whole", *options).code == 0
    assert same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))
    assert log(tmp_path / "cut") == log(tmp_path / "whole")


def test_options_of_a_comparison_that_are_not_there_are_named(graftune, tmp_path):
    out = ("--out", tmp_path / "out")
    refused(graftune("compare", "--set", "compare.efort=quick", *out), "did you mean 'effort'")
    refused(graftune("compare", "--methods", "lora(rnk=3)", *out), "did you mean 'rank'")
    refused(graftune("compare", "--methods", "lorra(rank=3)", *out), "did you mean 'lora'")
    assert not (tmp_path / "out").exists()


def test_candidates_with_options_are_taken(toys, graftune, tmp_path):
    more = ("--effort", "none", "--workers", "0", "--out", tmp_path / "out")
    options = [one for one in flags(toys) if not str(one).startswith("method")]
    done = graftune("compare", "--methods", "lora(rank=1),lora(rank=2)", *options, *more)
    assert done.code == 0, done.err
    found = [json.loads(line)["label"] for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert found == ["lora(rank=1)", "lora(rank=2)"]


def test_a_text_is_answered_whatever_data_the_recipe_evaluates_on(toys, graftune, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("eval: dev.jsonl\ngenerate: {max_new_tokens: 2}\n")
    assert graftune("generate", "--base", toys.llama, "--recipe", recipe, "--text", "a b").code == 0
