"""Writing at once or not at all, with the permissions that the user's umask leaves."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graftune import files
from graftune.errors import GraftuneError


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def fill(folder: Path, text: str = "new") -> None:
    (folder / "inside").mkdir()
    (folder / "a").write_text(text)
    (folder / "inside" / "b").write_text(text)


def contents(path: Path) -> dict[str, str]:
    return {str(f.relative_to(path)): f.read_text() for f in sorted(path.rglob("*")) if f.is_file()}


def test_permissions_are_what_the_umask_leaves(umask: int, tmp_path: Path) -> None:
    files.write_text(tmp_path / "text", "words")
    files.write_json(tmp_path / "json", {"a": 1})
    files.write_folder(tmp_path / "folder", fill)
    assert mode(tmp_path / "text") == mode(tmp_path / "json") == mode(tmp_path / "folder" / "a") == 0o666 & ~umask
    assert mode(tmp_path / "folder") == 0o777 & ~umask


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", [1, 2])
def test_the_older_folder_is_there_where_a_rename_fails(
    failing: int, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder"
    files.write_folder(path, lambda folder: fill(folder, "old"))
    before, real, count = contents(tmp_path), Path.rename, 0

    def rename(source: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == failing:
            raise error
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises((OSError, GraftuneError, KeyboardInterrupt)):
            files.write_folder(path, fill)
    assert count >= failing
    assert contents(tmp_path) == before
    files.write_folder(path, fill)
    assert contents(path) == {"a": "new", "inside/b": "new"}
    assert [f.name for f in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("older", [None, "file", "folder", "link"])
def test_a_folder_replaces_whatever_stands_there(older: str | None, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "here" / "folder", tmp_path / "elsewhere"
    path.parent.mkdir()
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")
    makers: dict[str | None, Callable[[], object]] = {
        None: lambda: None,
        "file": lambda: path.write_text("old"),
        "folder": lambda: files.write_folder(path, lambda folder: fill(folder, "old")),
        "link": lambda: path.symlink_to(elsewhere),
    }
    makers[older]()
    files.write_folder(path, fill)
    assert contents(path) == {"a": "new", "inside/b": "new"}
    assert [f.name for f in path.parent.iterdir()] == ["folder"]
    assert contents(elsewhere) == {"mine": "mine"}


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        raise ValueError("no")

    for write in (files.write_file, files.write_folder):
        with pytest.raises(ValueError, match="no"):
            write(tmp_path / "x", fail)
    assert not list(tmp_path.iterdir())
