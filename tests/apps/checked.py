"""The application that tests/tools/checker.py checks: every answer names its request."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from typing import Callable, Iterable

seen: Counter[str] = Counter()
lock = threading.Lock()


def app(environ: dict, start_response: Callable) -> Iterable[bytes]:
    path, token = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/seen":
        body = json.dumps({"doubled": [t for t, n in seen.items() if n > 1]}).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    with lock:
        seen[token] += 1
    if path.startswith("/stream/"):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream(int(path[8:]))
    if path.startswith("/sleep/"):
        time.sleep(int(path[7:]) / 1000)
    elif path.startswith("/burn/"):
        until = time.monotonic() + int(path[6:]) / 1000
        while time.monotonic() < until:
            pass
    body = environ["wsgi.input"].read() if path == "/echo" else token.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def stream(n: int) -> Iterable[bytes]:
    for i in range(n):
        yield f"event {i}\n".encode()
        if i % 4 == 3:
            time.sleep(0.002)
