"""docs/support.md says what the tests see."""

from __future__ import annotations

import pytest

from support import PAGE, page, without_versions


def test_the_support_page_is_what_this_run_saw(request: pytest.FixtureRequest) -> None:
    seen = page()
    if request.config.getoption("--write-support"):
        PAGE.write_text(seen, encoding="utf-8")
    written = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    assert without_versions(written) == without_versions(seen), (
        "stale: run pytest tests/test_support.py --write-support"
    )
