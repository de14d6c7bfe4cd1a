"""A small OpenAI-compatible server on this machine: a real one, over HTTP, with the rule-based teacher behind it.

Faults of real services can be asked of it, each with a probability that follows from the request and the number of
times it was sent, so that two runs meet the same faults however their requests interleave: 429, an answer with
placeholders, an answer cut off, no answer at all.
"""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pydantic import Field

from qwenlab.core.params import Params
from qwenlab.thinkseg import rules_teacher


class Faults(Params):
    """Shares of requests that go wrong, and how long an answer takes."""

    too_many: float = Field(0.0, ge=0, le=1, description="429, with Retry-After")
    placeholder: float = Field(0.0, ge=0, le=1, description="an answer with [color] in it")
    truncated: float = Field(0.0, ge=0, le=1, description="an answer cut off, finish_reason length")
    hang: float = Field(0.0, ge=0, le=1, description="no answer")
    latency_s: float = Field(0.0, ge=0, description="of a good answer")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the default of 5 refuses what a burst of workers sends

    def __init__(self, faults: Faults, key: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults, self.key, self.lock = faults, key, threading.Lock()
        self.sent: Counter[str] = Counter()  # request -> times it arrived
        self.answered: Counter[int] = Counter()  # status -> answers
        self.closing = threading.Event()

    def handle_error(self, request, client_address) -> None:
        """A client that gave up closed its connection: no news."""

    def fault(self, body: bytes) -> str | None:
        """Which fault meets this request, this time."""
        identity = hashlib.sha256(body).hexdigest()
        with self.lock:
            self.sent[identity] += 1
            turn = self.sent[identity]
        draw = int(hashlib.sha256(f"{identity} {turn}".encode()).hexdigest()[:12], 16) / 16**12
        for name in ("too_many", "placeholder", "truncated", "hang"):
            draw -= getattr(self.faults, name)
            if draw < 0:
                return name
        return None


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        """Quiet: the client reports what matters."""

    def _send(self, status: int, value: dict, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        with self.server.lock:
            self.server.answered[status] += 1
        self.send_response(status)
        for name, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.rstrip("/") != "/v1/chat/completions":
            return self._send(404, {"error": {"message": f"no such path: {self.path}"}})
        if self.headers.get("Authorization") != f"Bearer {self.server.key}":
            return self._send(401, {"error": {"message": f"wrong key: {self.headers.get('Authorization')}"}})
        try:
            request = json.loads(body)
            chat = request["messages"]
            text = rules_teacher.answer(chat)
        except (ValueError, KeyError, TypeError) as error:
            return self._send(400, {"error": {"message": f"bad request: {error}"}})
        fault, finish = self.server.fault(body), "stop"
        if fault == "too_many":
            return self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": "0"})
        if fault == "hang":
            self.server.closing.wait(60)
            self.close_connection = True
            return None
        if fault == "placeholder":
            text = re.sub(r'"appearance":"[^"]*"', '"appearance":"[size] [color]"', text, count=1)
        if fault == "truncated":
            text, finish = text[: len(text) // 2], "length"
        time.sleep(self.server.faults.latency_s)
        prompt, completion = sum(len(one["content"]) for one in chat) // 4, len(text) // 4
        return self._send(200, {
            "id": "chatcmpl-local", "object": "chat.completion", "created": 0, "model": request.get("model", ""),
            "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
            "usage": {
                "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            },
        })  # fmt: skip


@contextmanager
def serve(faults: Faults, key: str = "local") -> Iterator[_Server]:
    """Serve on a free port of 127.0.0.1 until the block ends; its address is `http://127.0.0.1:{server.server_port}/v1`."""
    server = _Server(faults, key)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
