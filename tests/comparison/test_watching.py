"""The report of a comparison while it runs."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from comparison.test_report import folder, run
from graftune.comparison.engine import ENDED, Event
from graftune.comparison.plan import Trial
from graftune.comparison.watching import Page, served
from graftune.training.loop import Report

TRIAL = Trial("screen", "lora", 1000, 1e-3)


def get(address):
    with urllib.request.urlopen(address, timeout=5) as answer:
        return answer.read().decode()


def test_the_page_follows_the_results(tmp_path):
    page = Page(tmp_path)
    with served(page) as address:
        assert address.startswith("http://127.0.0.1:")
        assert "being prepared" in get(address)
        folder(tmp_path, [run("LoRA", 30)])
        assert "LoRA" in get(address) and "This comparison is running" in get(address)
        assert "IA3" not in get(address)
        folder(tmp_path, [run("LoRA", 30), run("IA3", 20)])
        assert "IA3" in get(address)
    with pytest.raises(urllib.error.URLError):
        get(address)


def test_the_state_says_what_is_running_and_what_has_finished(tmp_path):
    page = Page(tmp_path)
    with served(page) as address:
        page.event(Event(TRIAL, 3, 20, "training", Report(5, 40, 1.0, 1e-3, 10.0)))
        assert json.loads(get(address + "/state")) == {
            "finished": 3, "total": 20, "running": ["lora: screen, training, step 5 of 40"],
        }  # fmt: skip
        page.event(Event(TRIAL, 4, 20, ENDED))
        assert json.loads(get(address + "/state")) == {"finished": 4, "total": 20, "running": []}


def test_nothing_else_is_served(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    with served(Page(tmp_path)) as address:
        for path in ("/secret.txt", "/../secret.txt", "/results.jsonl"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(address + path)


def test_the_kept_report_asks_nobody(tmp_path):
    from graftune.comparison import report

    report.write(folder(tmp_path, [run("LoRA", 30)]))
    text = (tmp_path / "report.html").read_text()
    assert "fetch(" not in text and "This comparison is running" not in text
