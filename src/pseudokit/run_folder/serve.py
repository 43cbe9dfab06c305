"""--serve: the review page on a server of this machine, which saves decisions in the run folder as they are made.

It answers who knows the token in its address, and no page of another origin. Images are asked for by the row of their
sample, never by a path.
"""

import json
import os
import secrets
import sys
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path
from threading import Lock

import pandas as pd

from ..config.types import UserError
from ..data.csv_text import escape_formulas, read_csv, unescape_formulas
from ..report import load_run
from ..report.nearest_examples import nearest_examples
from ..report.next_commands import shell_command
from ..report.report import render
from ..report.review import EXAMPLE_PIXELS, copies_of, read_review, thumbnails
from ..system.faults import fault, held
from ..system.files import log, write_csv
from . import corrections
from .folder import run_config

COLUMNS = [*corrections.COLUMNS, "image_sha256"]
CHUNK = 10_000
"""Samples that the page fetches at once: about a megabyte."""
MAX_BODY_BYTES = 1 << 24
"""Of a request: more than decisions on 100,000 samples."""
ORIGINAL = 100_000
"""Pixels, as review_server.js asks for them: no side is longer."""
BROWSER_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp")
JSON = "application/json"
Answer = tuple[str, bytes]
"""Type and content."""


class ReviewServer(ThreadingHTTPServer):
    """Shows the review of one run; decisions on it go to `review.csv`, a corrections file.

    Raises:
        UserError: there is nothing to review, or the port is taken.
    """

    def __init__(self, run: Path, port: int):
        try:
            super().__init__(("127.0.0.1", port), Request)
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port}: {error}; choose another one") from None
        self.prefix = f"/{secrets.token_urlsafe()}/"
        self.run = run
        self.samples, self.content, self.info = read_review(run, sys.maxsize)
        if self.samples.empty:
            raise UserError(f"--run {run} has nothing to review")
        self.content["copies"] = copies_of(run, self.samples.cluster, EXAMPLE_PIXELS)
        self.paths = self.samples.pop("path").tolist()
        self.given_labels = self.samples.given_label.tolist()
        self.row_of = {name: row for row, name in enumerate(self.samples.id.tolist())}
        relabel = {("relabel", name) for name in self.content["classes"]}
        self.meanings = {("", ""), ("drop", ""), ("ambiguous", ""), *relabel}
        self.file = run / "review.csv"
        self.lines: dict[str, list[str]] = {}  # id → its line in the file; empty = taken back
        if self.file.exists():
            table = unescape_formulas(read_csv(self.file)).reindex(columns=COLUMNS, fill_value="")
            self.lines = {line[0]: line for line in table.to_numpy().tolist()}
        self.history = [*self.lines]  # ids, in the order of the decisions
        self.lock = Lock()

    @cached_property
    def decisions(self) -> pd.DataFrame | None:
        """What samples are compared with, read when first asked for: it takes as long as all else."""
        return load_run.read_decisions(self.run, self.info.get("round"))

    def page(self) -> Answer:
        """The page; it asks for all else."""
        own = {
            "key": self.prefix.strip("/"),
            "samples": [],
            "server": len(self.samples),
        }
        page = render("review.html", content=self.content | own)
        return "text/html; charset=utf-8", page.encode()

    def chunk(self, first: int) -> Answer:
        """What is known of the samples from this row on."""
        return JSON, self.samples[first : first + CHUNK].to_json(orient="records").encode()

    def image(self, row: int, pixels: int) -> Answer:
        """The image of a sample, its longer side at most so many pixels; empty where it has gone.

        pixels: ORIGINAL = the file as it is, if browsers can show it.
        """
        path = self.paths[row]
        kind, _ = guess_type(path)
        if pixels == ORIGINAL and kind in BROWSER_TYPES and os.path.isfile(path):
            return kind, Path(path).read_bytes()
        kind, data = load_run.encode_image(path, pixels)
        return f"image/{kind}", data

    def near(self, row: int) -> Answer:
        """Examples of the given and of the predicted class of a sample, as `data:` addresses."""
        sample = self.samples[row : row + 1]
        [near], paths = nearest_examples(self.run, self.info, sample, self.decisions)
        images = dict(zip(paths, thumbnails(paths.values(), EXAMPLE_PIXELS), strict=True))
        near = [[images[number] for number in numbers] for numbers in near]
        return JSON, json.dumps(near).encode()

    def save(self, since: int, decisions: list) -> Answer:
        """Save decisions, all of them or none. The later one of two on a sample wins.

        Args:
            since: the version that the page has seen.
            decisions: (id, action, label); an empty action takes one back.

        Returns:
            The version now, and the lines of what other pages decided in between on other samples.

        Raises:
            ValueError, LookupError, TypeError: they are no decisions on this run.
        """
        changes = {}
        for name, action, label in decisions:
            row = self.row_of[name]
            given = self.given_labels[row]
            if (action, label) not in self.meanings and (action, label) != ("keep", given):
                raise ValueError(action)
            image = load_run.image_hash(self.paths[row])
            changes[name] = action and [name, given, action, label, image]
        with self.lock:
            others = {*self.history[since:]} - {*changes}
            if changes:
                lines = self.lines | changes
                table = pd.DataFrame(filter(None, lines.values()), columns=COLUMNS)
                write_csv(self.file, escape_formulas(table))
                self.lines = lines
                self.history += changes
            told = {name: self.lines[name] for name in others}
            return JSON, json.dumps({"version": len(self.history), "others": told}).encode()

    def handle_error(self, request, client_address) -> None:
        """A line in place of a traceback; none for a page that left early."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            log.info(f"warning: {fault(error) or repr(error)}")


class Request(BaseHTTPRequestHandler):
    """A request of a page, or of somebody else."""

    timeout = 30

    def do_GET(self) -> None:
        """The page, or what it shows."""
        server = self.server
        shown = {
            "": server.page,
            "samples": server.chunk,
            "near": server.near,
            "image": server.image,
        }
        self.answer(lambda name, *numbers: shown[name](*map(int, numbers)))

    def do_POST(self) -> None:
        """Decisions."""
        self.answer(lambda name: self.server.save(**self.body()))

    def body(self) -> dict:
        """What the page sends."""
        length = int(self.headers["Content-Length"])
        if not 0 < length <= MAX_BODY_BYTES:
            raise ValueError(length)
        return json.loads(self.rfile.read(length))

    def answer(self, content: Callable[..., Answer]) -> None:
        """Send content(*parts of the address), or refuse: who has not the token, or comes by another name or origin."""
        host = self.headers["Host"]
        origin = self.headers.get("Origin", f"http://{host}")
        prefix = self.server.prefix
        names = [f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")]
        knows_token = compare_digest(self.path[: len(prefix)].encode(), prefix.encode())
        if host not in names or origin != f"http://{host}" or not knows_token:
            self.send_error(403)
            return
        try:
            kind, data = content(*self.path[len(prefix) :].split("/"))
        except (ValueError, LookupError, TypeError, RecursionError):
            self.send_error(400)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args) -> None:
        """Nothing: addresses hold the token."""


def serve(run: Path, port: int = 0) -> None:
    """Serve the review of a run until Ctrl-C.

    Args:
        run: the run folder.
        port: 0 = any that is free.

    Raises:
        UserError: it is no run folder, has nothing to review or is in use, or the port is taken.
    """
    run_config(run)
    with held(run):
        server = ReviewServer(run, port)
        address = f"http://127.0.0.1:{server.server_port}{server.prefix}"
        log.info(f"{len(server.paths):,} samples at {address} (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt), server:
            # without a display, a browser of text would take the terminal
            if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY"):
                with suppress(Exception):
                    webbrowser.open(address)
            server.serve_forever()
        server.lock.acquire()  # a decision may be being saved
    if server.file.exists():
        words = "--mode", "apply", "--run", run, "--corrections", server.file
        log.info(shell_command("pseudo.py", *words))
