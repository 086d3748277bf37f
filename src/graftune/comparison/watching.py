"""The report of a comparison while it runs: one page on this machine that follows its results."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from graftune.comparison import report, results
from graftune.comparison.engine import Event
from graftune.errors import GraftuneError

HOST: Final = "127.0.0.1"
BEGINNING: Final = """<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="3">
<title>Graftune comparison</title><style>p { margin: 3em; font-family: sans-serif }</style>
<p>The comparison is being prepared.</p>"""


class Page:
    """The page, and how far the comparison is. It is told by `event`, and served by `served`."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._lock = threading.Lock()
        self._state: dict[str, object] = {"finished": 0, "total": 0, "running": []}
        self._running: dict[object, str] = {}

    def event(self, event: Event) -> None:
        """Take note of what a trial does; several threads may tell."""
        one = event.trial
        with self._lock:
            if event.is_over:
                self._running.pop(one, None)
            else:
                step = "" if event.report is None else f", step {event.report.step} of {event.report.steps}"
                self._running[one] = f"{event.method}: {one.stage}, {event.stage}{step}"
            running = sorted(self._running.values())
            self._state = {"finished": event.finished, "total": event.total, "running": running}

    @property
    def state(self) -> str:
        """As JSON: how many trials have finished, of about how many, and what is running."""
        with self._lock:
            return json.dumps(self._state)

    @property
    def html(self) -> str:
        """The report of what there is so far."""
        try:
            return report.html(results.load(self.out), live=True)
        except GraftuneError:
            return BEGINNING


@contextmanager
def served(page: Page) -> Iterator[str]:
    """Serve the page to this machine within the block, on a port that is free; its address."""

    class Handler(BaseHTTPRequestHandler):
        """Answers with the page and its state, and nothing else."""

        def do_GET(self) -> None:
            """The one page, or how far it is."""
            found = {"/": ("text/html", lambda: page.html), "/state": ("application/json", lambda: page.state)}
            if self.path not in found:
                self.send_error(404)
                return
            kind, content = found[self.path]
            body = content().encode()
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the terminal shows the progress."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
