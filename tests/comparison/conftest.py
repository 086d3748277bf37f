from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from training.tiny import Toys


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    return Toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="session", autouse=True)
def frozen() -> Iterator[None]:
    """What is there before the first trial is not looked through again before each one's peak of memory."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
