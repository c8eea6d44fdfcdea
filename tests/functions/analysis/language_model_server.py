"""A server on loopback that speaks OpenAI's chat protocol, as each test tells it to: well, badly, slowly, or obediently."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SOON = {"retry-after-ms": "1"}
"""What a server may ask of a client that comes again; spares the tests the usual half second."""

Request = Mapping[str, Any]


@dataclass
class Reply:
    """One answer: bytes, after a while, each byte after another while, or a connection that breaks."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0
    pause: float = 0.0
    breaks: bool = False


@dataclass
class Endpoint:
    """The server: `replies` are given in turn, the last one for ever; `seen` is what it was asked."""

    url: str
    replies: list[Reply | Callable[[Request], Reply]] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)

    def will(self, *replies: Reply | Callable[[Request], Reply]) -> None:
        self.replies, self.seen = list(replies), []

    def reply(self, request: Request) -> Reply:
        self.seen.append(request)
        chosen = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return chosen if isinstance(chosen, Reply) else chosen(request)


def completion(content: str | None, finish_reason: str = "stop", refusal: str | None = None) -> Reply:
    """Return an answer as the API gives it."""
    message = {"role": "assistant", "content": content, "refusal": refusal, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 900, "completion_tokens": 90, "total_tokens": 990}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return Reply(body=json.dumps({**body, "usage": usage}).encode(), headers={"content-type": "application/json"})


def texts(**by_language: str) -> Reply:
    """Return an answer with these texts, in the fields that were asked for."""
    return completion(json.dumps(by_language, ensure_ascii=False))


def error(status: int, message: str = "no", headers: Mapping[str, str] = SOON) -> Reply:
    """Return an error as the API gives it."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": None}}
    return Reply(status, json.dumps(body).encode(), {"content-type": "application/json", **headers})


def prompt(request: Request) -> str:
    """Return all that the model was told, in one text."""
    return "\n".join(one["content"] for one in request["body"]["messages"])


@contextmanager
def serving() -> Iterator[Endpoint]:
    """Serve on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = {"path": self.path, "headers": headers, "body": json.loads(body)}
            self._answer(endpoint.reply(request))

        def _answer(self, reply: Reply) -> None:
            self.close_connection = True
            time.sleep(reply.after)
            if reply.breaks:
                return
            self.send_response(reply.status)
            for name, value in {**reply.headers, "content-length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            pieces = [reply.body[at : at + 1] for at in range(len(reply.body))] if reply.pause else [reply.body]
            try:
                for piece in pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()
                    time.sleep(reply.pause)
            except OSError:
                pass  # the client has had enough

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
