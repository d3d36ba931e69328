"""Who answers: the application for tests of workers. Its version is read when it is imported."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

VERSION = os.environ.get("VERSION", "")
HERE = pathlib.Path("version")
if HERE.exists():
    VERSION = HERE.read_text()
if VERSION == "broken":
    raise RuntimeError("this version cannot be imported")
if VERSION == "deadly":
    os._exit(9)
if VERSION == "slow":
    time.sleep(0.5)
while VERSION == "held" and not pathlib.Path("go").exists():
    time.sleep(0.01)


def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    view, _, arg = environ["PATH_INFO"][1:].partition("/")
    text = ""
    if view == "pid":
        text = str(os.getpid())
    elif view == "version":
        text = VERSION
    elif view == "environ":
        text = os.environ.get(arg, "-")
    elif view == "folder":
        text = os.getcwd()
    elif view == "multi":
        text = str(environ["wsgi.multiprocess"])
    elif view == "sleep":
        sys.stderr.write("asleep %d\n" % os.getpid())
        sys.stderr.flush()
        time.sleep(int(arg) / 1000)
        text = str(os.getpid())
    elif view == "die":
        os._exit(int(arg))
    elif view == "kill":
        os.kill(os.getpid(), int(arg))
        time.sleep(60)
    elif view == "orphan":  # a program whose parent ends before it
        subprocess.run(["sh", "-c", "sleep 0.2 &"], check=True)
    elif view == "handler":
        text = "ignored" if signal.getsignal(int(arg)) == signal.SIG_IGN else "not ignored"
    elif view == "child":  # what a program that it starts has for HUP: /proc shows ignored and caught signals
        status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        text = "\n".join(line for line in status.splitlines() if line.startswith("Sig"))
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text.encode()]
