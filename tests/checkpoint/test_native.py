"""Graftune's own folders: whole or not at all, and every way they can be wrong has its message."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from families import base, batch
from graftune.checkpoint import native
from graftune.errors import GraftuneError
from graftune.methods import LoRA, PrefixTuning
from graftune.model.adapted import AdaptedModel
from methods_under_test import METHODS, disturb


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved prefix with its generator beside it."""
    model = AdaptedModel(base("gpt2"))
    model.add("a", PrefixTuning(length=3, hidden=8), seed=0)
    return model.save("a", tmp_path / "a")


def refused(path: Path, match: str, *, model: AdaptedModel | None = None, trainable: bool = False) -> str:
    """Loading fails with a message, and leaves no adapter and no hook behind."""
    model = model or AdaptedModel(base("gpt2"))
    with pytest.raises(GraftuneError, match=match) as error:
        model.load("b", path, trainable=trainable)
    assert "b" not in model.adapters
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.base.modules())
    return str(error.value)


def test_the_folder_holds_json_and_safetensors_and_no_pickle(folder: Path) -> None:
    assert sorted(f.name for f in folder.iterdir()) == sorted([native.CARD, native.TENSORS, native.GENERATOR])
    for file in folder.iterdir():
        assert file.read_bytes()[:2] not in (b"PK", b"\x80\x02", b"\x80\x04"), file
    assert native.size(folder) < sum(f.stat().st_size for f in folder.iterdir())


@pytest.mark.parametrize("method", ["lora", "prefix", "ia3", "bitfit"])
def test_no_method_writes_anything_else(method: str, tmp_path: Path) -> None:
    model = AdaptedModel(base("llama"))
    model.add("a", METHODS[method])
    model.save("a", tmp_path / "a")
    assert [f.name for f in tmp_path.iterdir()] == ["a"]
    assert {f.name for f in (tmp_path / "a").iterdir()} <= {native.CARD, native.TENSORS, native.GENERATOR}


# Damage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 7, 200, -1])
@pytest.mark.parametrize("name", [native.TENSORS, native.GENERATOR])
def test_a_cut_file_is_refused(folder: Path, name: str, size: int) -> None:
    file = folder / name
    file.write_bytes(file.read_bytes()[:size])
    message = refused(folder, "is damaged", trainable=True)
    assert "expected: sha256" in message
    assert "what to do:" in message


@pytest.mark.parametrize("position", [0, 9, 500, -1])
def test_an_altered_byte_is_refused(folder: Path, position: int) -> None:
    file = folder / native.TENSORS
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)
    refused(folder, "is damaged")


@pytest.mark.parametrize("name", [native.TENSORS, native.GENERATOR])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert "copy the whole folder" in refused(folder, "is missing", trainable=True)


def test_the_generator_is_not_needed_to_run(folder: Path) -> None:
    (folder / native.GENERATOR).unlink()
    AdaptedModel(base("gpt2")).load("b", folder)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "nowhere", "no adapter in")
    assert "a folder without them" in refused(tmp_path, "no adapter in")


@pytest.mark.parametrize("text", [b"", b"{", b'{"format": 1', b"\xff\xfe"])
def test_a_broken_card_is_refused(folder: Path, text: bytes) -> None:
    (folder / native.CARD).write_bytes(text)
    assert "expected: JSON" in refused(folder, "adapter.json is broken")


@pytest.mark.parametrize("text", ["[]", "null", "3"])
def test_a_card_that_is_no_object_is_refused(folder: Path, text: str) -> None:
    (folder / native.CARD).write_text(text)
    refused(folder, "adapter.json")


@pytest.mark.parametrize("key", list(native.NEEDED))
def test_a_card_without_what_is_needed_is_refused(folder: Path, key: str) -> None:
    card = json.loads((folder / native.CARD).read_text())
    del card[key]
    (folder / native.CARD).write_text(json.dumps(card))
    assert key in refused(folder, "adapter.json is broken")


def test_an_unknown_format_is_refused(folder: Path) -> None:
    card = json.loads((folder / native.CARD).read_text())
    (folder / native.CARD).write_text(json.dumps({**card, "format": 99}))
    message = refused(folder, "unknown format")
    assert "format 99" in message
    assert "version of graftune" in message


def test_an_unknown_method_or_option_is_refused(folder: Path) -> None:
    card = json.loads((folder / native.CARD).read_text())
    (folder / native.CARD).write_text(json.dumps({**card, "method": "prefx"}))
    assert "did you mean 'prefix'?" in refused(folder, "unknown method")
    card["options"]["lenght"] = 3
    (folder / native.CARD).write_text(json.dumps(card))
    assert "did you mean 'length'?" in refused(folder, "unknown option")


def test_an_option_that_does_not_fit_the_tensors_is_refused(folder: Path) -> None:
    card = json.loads((folder / native.CARD).read_text())
    card["options"]["length"] = 4
    (folder / native.CARD).write_text(json.dumps(card))
    refused(folder, "has another shape")


# Bases and names --------------------------------------------------------------------------------------------


def test_another_base_is_refused(folder: Path) -> None:
    for other in (base("gpt2", seed=9), base("llama"), base("bert")):
        message = refused(folder, "belongs to another base", model=AdaptedModel(other))
        assert "GPT2LMHeadModel" in message
        assert "what to do: load the base" in message


def test_one_changed_layer_is_another_base(folder: Path) -> None:
    plain = base("gpt2")
    with torch.no_grad():
        plain.transformer.h[1].mlp.c_fc.weight.mul_(1.1)
    refused(folder, "belongs to another base", model=AdaptedModel(plain))


def test_the_same_base_in_another_precision_is_the_same_base(tmp_path: Path) -> None:
    model = AdaptedModel(base("gpt2").to(torch.bfloat16))
    model.add("a", LoRA())
    AdaptedModel(base("gpt2").to(torch.bfloat16)).load("a", model.save("a", tmp_path / "a"))
    AdaptedModel(base("gpt2")).load("a", tmp_path / "a")


def test_a_name_in_use_is_refused_and_the_adapter_stays(folder: Path) -> None:
    model = AdaptedModel(base("gpt2"))
    mine = model.add("b", LoRA())
    with pytest.raises(GraftuneError, match="name cannot be used") as error:
        model.load("b", folder)
    assert "remove 'b' first" in str(error.value)
    assert model.adapter("b") is mine


def test_an_unknown_name_suggests_a_known_one() -> None:
    model = AdaptedModel(base("gpt2"))
    model.add("alice", LoRA())
    for act in (model.adapter, model.remove, model.count, model.merge, model.parameters_of):
        with pytest.raises(GraftuneError, match="did you mean 'alice'"):
            act("alcie")
    with pytest.raises(GraftuneError, match="did you mean 'alice'"):
        model(**batch(), adapters="alcie")


# Writing ----------------------------------------------------------------------------------------------------


def _no_fsync(patch: pytest.MonkeyPatch, code: int) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    patch.setattr(os, "fsync", fail)


def _no_tensors(patch: pytest.MonkeyPatch, code: int) -> None:
    def fail(tensors: object, path: Path, metadata: object = None) -> None:
        path.write_bytes(b"half of it")
        raise OSError(code, os.strerror(code))

    patch.setattr(native, "save_file", fail)


def _no_card(patch: pytest.MonkeyPatch, code: int) -> None:
    def fail(path: Path, text: str, **options: object) -> int:
        raise OSError(code, os.strerror(code))

    patch.setattr(Path, "write_text", fail)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("breaks", [_no_fsync, _no_tensors, _no_card])
@pytest.mark.parametrize("older", [False, True], ids=["new", "over-an-older-one"])
def test_a_full_disk_leaves_no_half_and_keeps_the_older_one(
    breaks: Callable[[pytest.MonkeyPatch, int], None],
    code: int,
    older: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = AdaptedModel(base("gpt2"))
    model.add("a", LoRA(rank=2))
    if older:
        model.save("a", tmp_path / "a")
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    disturb(model, "a")
    with monkeypatch.context() as patch:
        breaks(patch, code)
        with pytest.raises(GraftuneError, match="no space left") as error:
            model.save("a", tmp_path / "a")
    for part in ("received:", "expected: free space", "what to do:"):
        assert part in str(error.value)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before
    assert [f.name for f in tmp_path.iterdir()] == (["a"] if older else [])
    if older:
        AdaptedModel(base("gpt2")).load("a", tmp_path / "a")


def test_saving_again_replaces_the_older_one(tmp_path: Path) -> None:
    model = AdaptedModel(base("gpt2"))
    model.add("a", PrefixTuning(length=3, hidden=8))
    model.save("a", tmp_path / "a")
    model.remove("a")
    model.add("a", LoRA(rank=2))
    disturb(model, "a")
    model.save("a", tmp_path / "a")
    assert [f.name for f in tmp_path.iterdir()] == ["a"]
    other = AdaptedModel(base("gpt2"))
    other.load("b", tmp_path / "a")
    inputs = batch()
    with torch.no_grad():
        assert torch.equal(other(**inputs, adapters="b").logits, model(**inputs, adapters="a").logits)


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    model = AdaptedModel(base("gpt2"))
    model.add("a", LoRA())
    with pytest.raises(GraftuneError, match="cannot write"):
        model.save("a", tmp_path / "file" / "a")
