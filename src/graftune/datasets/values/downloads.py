"""Files with an address, each downloaded once."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import urllib.request
from pathlib import Path

from graftune.datasets.values.scalars import InvalidValue, short
from graftune.files import write_file

PATIENCE = 30  # seconds without an answer
AGENT = {"User-Agent": "graftune"}  # some servers refuse Python's own


def folder() -> Path:
    """Where downloads are kept: beside the models of the Hub, so that HF_HOME moves both."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "graftune" / "downloads"


def downloaded(address: str) -> Path:
    """The file at an address (http, https). Raises InvalidValue where it cannot be had."""
    kept = folder() / hashlib.sha256(address.encode("utf-8", "replace")).hexdigest()
    if kept.exists():
        return kept
    try:
        request = urllib.request.Request(address, headers=AGENT)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            write_file(kept, lambda path: _copy(answer, path))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InvalidValue(f"could not be downloaded ({address}: {error})") from error
    return kept


def fetched(address: str) -> bytes:
    """What lies at any other address, such as zip://a.png::images.zip or hf://…. Raises InvalidValue as above."""
    import fsspec  # type: ignore[import-untyped]

    try:
        with fsspec.open(address, "rb") as file:
            return file.read()
    except Exception as error:  # every kind of address has errors of its own
        raise InvalidValue(f"could not be read ({short(address)}: {type(error).__name__}: {error})") from error


def _copy(answer: http.client.HTTPResponse, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(answer, file)
    if answer.length:  # bytes that were announced and did not come
        raise http.client.IncompleteRead(b"", answer.length)
