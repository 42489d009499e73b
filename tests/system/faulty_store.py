"""An S3 server (moto's) behind a proxy that fails as told: busy, cut, slow, expired."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from megarc.rank_environment import free_port

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


@dataclass
class Store:
    """Faults are counted down: ``{"busy": 2}`` fails the next two requests for a key that ``where`` ends with."""

    endpoint: str
    where: str = ""
    faults: Counter = field(default_factory=Counter)
    requests: Counter = field(default_factory=Counter)

    def next_fault(self, path: str) -> str:
        if not path.split("?")[0].endswith(self.where):
            return ""
        for fault, count in self.faults.items():
            if count > 0:
                self.faults[fault] -= 1
                return fault
        return ""


@contextmanager
def faulty_store():
    """A ``Store`` that answers at ``endpoint`` until the block ends."""
    port = free_port()
    moto = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    store = Store("")
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(store, port))
    store.endpoint = f"http://127.0.0.1:{proxy.server_port}"
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        _wait_for(port)
        yield store
    finally:
        proxy.shutdown()
        moto.kill()
        moto.wait()


def _handler(store: Store, port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            store.requests[self.path.split("?")[0]] += 1
            fault = store.next_fault(self.path)
            if fault in ("busy", "expired"):
                self.reply(503 if fault == "busy" else 400, {}, BUSY if fault == "busy" else EXPIRED)
                return
            if fault == "slow":
                time.sleep(2)
            behind = http.client.HTTPConnection("127.0.0.1", port)
            behind.request(self.command, self.path, body, dict(self.headers))
            answer = behind.getresponse()
            self.reply(answer.status, dict(answer.getheaders()), answer.read(), cut=fault == "cut")

        def reply(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in (
                    "content-length",
                    "transfer-encoding",
                    "connection",
                    "date",
                    "server",
                ):
                    self.send_header(name, value)
            size = headers.get("Content-Length", str(len(body))) if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", size)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.wfile.flush()
                self.connection.shutdown(2)
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/moto-api/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("moto's server did not start")
