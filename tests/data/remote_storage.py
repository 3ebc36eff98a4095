"""Storage on loopback for tests: a plain HTTP server of a folder, and a proxy that drops, delays and truncates what passes it."""

import contextlib
import functools
import http.client
import http.server
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


class Answers(http.server.BaseHTTPRequestHandler):
    """A web server's answers, of which a test writes `do_GET`."""

    def do_HEAD(self) -> None:
        self.do_GET()  # type: ignore[attr-defined]

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: object) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)  # type: ignore[arg-type]
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def http_folder(root: Path) -> contextlib.AbstractContextManager[str]:
    return serving(functools.partial(_Quiet, directory=str(root)))


class Faults:
    """What the proxy does to answers: shares of requests, drawn from a seed, and how often it did each.

    Args:
        drop: the connection is closed without an answer.
        delay: the answer comes `seconds` later.
        cut: the connection is closed after half of the content.
        refuse: the answer is 503.
    """

    def __init__(
        self,
        drop: float = 0.0,
        delay: float = 0.0,
        cut: float = 0.0,
        refuse: float = 0.0,
        seconds: float = 0.2,
        seed: int = 0,
    ):
        self.seconds = seconds
        self.shares = {"drop": drop, "delay": delay, "cut": cut, "refuse": refuse}
        self.counts: Counter[str] = Counter()
        self._random, self._lock = random.Random(seed), threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            number, chosen = self._random.random(), "pass"
            for kind, share in self.shares.items():
                if 0 <= number < share:
                    chosen = kind
                number -= share
            self.counts[chosen] += 1
            return chosen


def faulty_proxy(target: str, faults: Faults) -> contextlib.AbstractContextManager[str]:
    host = target.removeprefix("http://")

    class Proxy(_Quiet):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            kind = faults()
            if kind == "drop":
                self._drop()
                return
            if kind == "delay":
                time.sleep(faults.seconds)
            if kind == "refuse":
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            there = http.client.HTTPConnection(host, timeout=30)
            there.request(self.command, self.path, body, dict(self.headers))
            answer = there.getresponse()
            content = answer.read()
            self.send_response_only(answer.status, answer.reason)
            for key, value in answer.getheaders():
                if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(key, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if kind == "cut" and len(content) > 1:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self._drop()
                return
            self.wfile.write(content)

        def _drop(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().handle()

    return serving(Proxy)
