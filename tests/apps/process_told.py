"""Tells what the process is that answers, for the options about processes."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

IMPORTED_BY = os.getpid()
GREETING = os.environ.get("GREETING", "")
logging.getLogger("gunicorn.error").debug("imported")
print("printed while imported", flush=True)


def told() -> dict:
    return {
        "pid": os.getpid(), "ppid": os.getppid(), "imported_by": IMPORTED_BY, "greeting": GREETING,
        "cwd": os.getcwd(), "path": sys.path, "uid": os.geteuid(), "gid": os.getegid(),
        "groups": os.getgroups(), "environ": dict(os.environ),
        "title": Path("/proc/self/cmdline").read_bytes().decode().replace("\0", " ").strip(),
        "threads": threading.active_count(),
    }


def app(environ: dict, start: Callable) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path.startswith("/sleep/"):
        time.sleep(int(path.rpartition("/")[2]) / 1000)
    if path.startswith("/log/"):
        logger = logging.getLogger("gunicorn.error")
        logger.warning("the application says %s", path.rpartition("/")[2])
        print("printed for a request", flush=True)
    if path == "/raise":
        raise ValueError("raised on purpose")
    if path == "/file":
        start("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](open(environ["QUERY_STRING"], "rb"))
    data = json.dumps({**told(), "multiprocess": environ["wsgi.multiprocess"],
                       "multithread": environ["wsgi.multithread"],
                       "query": environ["QUERY_STRING"]}).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


application = app


def make(*words: str, **named: object) -> Callable:
    """An application that answers with what it was made from."""

    def made(environ: dict, start: Callable) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps([words, named]).encode()]

    return made
