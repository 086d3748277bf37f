"""Files as they came: unpacked, in UTF-8, and what is in them."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from graftune.errors import GraftuneError

#: How packed files end, and what they begin with.
PACKED: Final[dict[str, bytes]] = {
    ".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\0", ".zst": b"\x28\xb5\x2f\xfd", ".zip": b"PK\x03\x04",
}  # fmt: skip


class Plain(NamedTuple):
    """A file that can be read as it is, and the temporary folder that it lies in, if any."""

    path: Path
    held: tempfile.TemporaryDirectory[str] | None


def plain(path: Path) -> Plain:
    """The file itself, or an unpacked copy in UTF-8. Raises GraftuneError where it cannot be unpacked."""
    held = None
    kind = next((end for end, magic in PACKED.items() if _start(path).startswith(magic)), None)
    name = path.name
    if kind:
        held = tempfile.TemporaryDirectory(prefix="graftune-")
        name = _inner_name(path) if kind == ".zip" else path.stem if path.suffix.lower() in PACKED else path.name
        path = _unpacked(path, kind, Path(held.name) / name)
    encoding = _encoding(_start(path))
    if encoding:
        held, before = tempfile.TemporaryDirectory(prefix="graftune-"), held
        path = _in_utf8(path, encoding, Path(held.name) / name)
        if before:
            before.cleanup()
    return Plain(path, held)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise GraftuneError(f"{path}: cannot be read", received=str(error), do="check the file") from error


def _unpacked(path: Path, kind: str, target: Path) -> Path:
    try:
        with _opener(kind)(path) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file, 2**20)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:  # a password
        raise GraftuneError(
            f"{path}: cannot be unpacked", received=str(error) or type(error).__name__, do="copy the file again"
        ) from error
    return target


def _opener(kind: str) -> Callable[[Path], IO[bytes]]:
    return {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstandard, ".zip": _zipped}[kind]  # type: ignore[return-value]


def _inner_name(path: Path) -> str:
    """The name of the one file in a .zip. Raises GraftuneError for several, and for Excel's files, which are .zip."""
    if path.suffix.lower() in (".xlsx", ".xlsm", ".ods"):
        raise GraftuneError(
            f"{path}: a workbook, not a table", received=path.suffix, expected="CSV", do="save the sheet as CSV (UTF-8)"
        )
    try:
        with zipfile.ZipFile(path) as packed:
            names = [one.filename for one in packed.infolist() if not one.is_dir() and not _aside(one.filename)]
    except (OSError, zipfile.BadZipFile) as error:
        raise GraftuneError(f"{path}: cannot be unpacked", received=str(error), do="copy the file again") from error
    if len(names) != 1:
        raise GraftuneError(
            f"{path}: a .zip with {len(names)} files",
            received=", ".join(names[:5]) or "nothing",
            expected="one file",
            do="unpack it, and name a file or a folder of it",
        )
    return Path(names[0]).name


def _aside(name: str) -> bool:
    """What a computer adds by itself (__MACOSX, .DS_Store)."""
    return any(part.startswith((".", "__MACOSX")) for part in Path(name).parts)


def _zipped(path: Path) -> IO[bytes]:
    packed = zipfile.ZipFile(path)
    return packed.open(next(name for name in packed.namelist() if not name.endswith("/") and not _aside(name)))


def _zstandard(path: Path) -> Any:
    import pyarrow  # type: ignore[import-untyped]

    # pyarrow's reader, for it says where a file ends too soon
    return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path), "rb"), "zstd")


def _encoding(start: bytes) -> str | None:
    """UTF-16 or UTF-32 by the byte-order mark; UTF-8 needs none."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else None


def _in_utf8(path: Path, encoding: str, target: Path) -> Path:
    try:
        with path.open(encoding=encoding, newline="") as file, target.open("w", encoding="utf-8", newline="") as copy:
            shutil.copyfileobj(file, copy, 2**20)
    except (UnicodeError, OSError) as error:
        raise GraftuneError(
            f"{path}: not {encoding.upper()} text, as its byte-order mark says",
            received=str(error),
            expected="UTF-8, or UTF-16 with a byte-order mark",
            do="convert the file to UTF-8",
        ) from error
    return target
