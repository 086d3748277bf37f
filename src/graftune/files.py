"""Writing so that a reader never sees half of anything."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from graftune.errors import GraftuneError

UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT),
    *(errno.ENAMETOOLONG, errno.EINVAL),
)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a message a user can act on."""
    try:
        yield
    except SafetensorError as error:  # the Rust writer's own words for a failed write
        raise GraftuneError(
            f"cannot write {path}",
            received=str(error),
            expected="free space on a disk you may write to",
            do="free some space, or choose another --out; what was finished before is kept",
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GraftuneError(
                f"no space left to write {path}",
                received=os.strerror(error.errno),
                expected="free space on the disk",
                do="free some space, or choose another --out; what was finished before is kept",
            ) from error
        if error.errno in UNWRITABLE:
            raise GraftuneError(
                f"cannot write {path}",
                received=os.strerror(error.errno),
                expected="a folder you may write to",
                do="choose another --out",
            ) from error
        raise


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it, and rename it into place."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        temporary.touch(exist_ok=False)
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Raise GraftuneError where no file can be written to ``path``: before the work, not after it."""
    with disk_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        temporary.touch(exist_ok=False)
        temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file at once or not at all."""
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Write data as indented JSON at once or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary folder beside ``path``, then put it in the place of any older one.

    Where that fails, the older one is at its place again.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        temporary.mkdir()
        try:
            write(temporary)
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as opened:
                        os.fsync(opened.fileno())
            _replace_folder(path, temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(path: Path, fresh: Path) -> None:
    """Rename ``fresh`` to ``path``; an older folder or file there is deleted once that is done, and not before."""
    if not (path.exists() or path.is_symlink()):
        fresh.rename(path)
        return
    old = fresh.with_name(fresh.name + ".old")
    path.rename(old)
    try:
        fresh.rename(path)
    except BaseException:
        old.rename(path)
        raise
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A hidden name beside ``path``. What is made there has the mode that the umask leaves; tempfile's has not."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")
