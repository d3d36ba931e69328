"""An application behind a policy: it tells what it was told, holds on command, and notes each run.

The file named by RAN gets a line for each run. /…/hold/NAME writes NAME.in into the folder named by HOLD and goes on
when NAME.go is there, or its client has left (unless NAME begins with "deaf").
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def note(path: str) -> None:
    if name := os.environ.get("RAN"):
        fd = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(fd, f"{path}\n".encode())
        finally:
            os.close(fd)


def hold(environ: dict[str, Any], name: str) -> None:
    folder = Path(os.environ["HOLD"])
    (folder / f"{name}.in").write_text(str(os.getpid()))
    until = time.monotonic() + 60
    while not (folder / f"{name}.go").exists() and time.monotonic() < until:
        if not name.startswith("deaf") and environ["weir.client_disconnected"]():
            return
        time.sleep(0.005)


def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    note(path)
    before, _, name = path.rpartition("/")
    if before.endswith("/hold"):
        hold(environ, name)
    told = {k: v for k, v in environ.items() if k.startswith(("weir.user", "weir.tier", "weir.claims"))}
    odd = sorted(k for k in environ if "WEIR" in k.upper() and not k.startswith(("weir.", "HTTP_")))
    body = json.dumps({"told": told, "odd": odd, "pid": os.getpid(), "path": path}).encode()
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    if name == "own-cors":
        fields.append(("Access-Control-Allow-Origin", "https://own.example"))
    start("200 OK", fields)
    return [body]
