"""Frozen baseline: two hops through Kafka and two calls over HTTP, as a tutorial would write them. Not to be made faster.

    first topic ─ consumer ─ POST /first ─ its answer ─ second topic ─ consumer ─ POST /second

`python -m tests.benchmarks.plain_relay HOST:PORT` prints `ready`, and then, for each record, its value and the time at
which the second call reached the server, in seconds since the epoch. It ends with its standard input.
"""

from __future__ import annotations

import sys
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from subprocess import PIPE, Popen

from tests.events.library import KafkaConsumer, KafkaProducer, TopicPartition

FIRST, SECOND = "plain.first", "plain.second"


class Functions(BaseHTTPRequestHandler):
    """Answers /first with what it was sent, and tells when /second is called."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        now = time.time()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/second":
            print(body.decode(), now, flush=True)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve() -> None:
    """Serve the two functions on a free port, which is the first line printed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Functions)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


def relay(kafka: str, port: int) -> None:
    """Read both topics, each on a thread of its own, and call."""
    producer = KafkaProducer(bootstrap_servers=kafka, acks="all")

    def read(topic: str, path: str) -> None:
        consumer = KafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
        consumer.assign([TopicPartition(topic, 0)])
        connection = HTTPConnection("127.0.0.1", port)
        for record in consumer:
            connection.request("POST", path, record.value)
            answer = connection.getresponse().read()
            if path == "/first":
                producer.send(SECOND, answer)

    for topic, path in ((FIRST, "/first"), (SECOND, "/second")):
        threading.Thread(target=read, args=(topic, path), daemon=True).start()


def main() -> None:
    """Start the server in a process of its own, relay to it, and pass on what it says."""
    if sys.argv[1] == "--serve":
        serve()
        return
    with Popen([sys.executable, "-m", __spec__.name, "--serve"], stdin=PIPE, stdout=PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        relay(sys.argv[1], int(server.stdout.readline()))
        threading.Thread(
            target=lambda: [print(line, end="", flush=True) for line in server.stdout], daemon=True
        ).start()
        print("ready", flush=True)
        sys.stdin.read()
        server.stdin.close()


if __name__ == "__main__":
    main()
