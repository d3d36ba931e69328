"""Tells what it was asked and who asked; waits where a test wants it to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import parse_qs

TOLD = ("REQUEST_METHOD", "PATH_INFO", "SCRIPT_NAME", "weir.user", "weir.user_by", "weir.tier")


def app(environ: dict, start: Callable) -> Iterable[bytes]:
    query = parse_qs(environ["QUERY_STRING"])
    for here in query.get("here", ()):  # the request has arrived
        with open(here, "a", encoding="utf-8") as f:
            f.write("x")
    for ms in query.get("ms", ()):
        time.sleep(int(ms) / 1000)
    for path in query.get("pid", ()):
        Path(path).write_text(str(os.getpid()), encoding="utf-8")
    for until in query.get("until", ()):  # and waits for this file
        while not Path(until).exists():
            time.sleep(0.005)
    body = environ["wsgi.input"].read()
    told = {name: environ[name] for name in TOLD if name in environ}
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({**told, "body": len(body)}).encode()]
