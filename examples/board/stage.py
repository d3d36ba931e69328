"""What `run` and `demo` share: children that end with their parent, addresses, waiting.

Every child is a session of its own, so that Ctrl-C reaches the script alone and the script ends
its children in order; and every child gets SIGTERM from the kernel should the script be killed.
Linux and the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import http.client
import ipaddress
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

PR_SET_PDEATHSIG = 1


class StageError(Exception):
    """Something a person must put right; the text names cause and cure."""


# --- children ------------------------------------------------------------------------------------


def spawn(command: list[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a child that does not outlive this process. Options are Popen's."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the line above
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    try:
        return subprocess.Popen(command, start_new_session=True, preexec_fn=in_child, **options)
    except OSError as error:
        raise StageError(f"cannot start {command[0]}: {error.strerror}") from None


def end(child: subprocess.Popen[Any] | None, grace: float = 40.0) -> bool:
    """Ask a child to end and wait; after `grace` seconds its whole session is killed.

    True when it ended by itself.
    """
    if child is None or child.poll() is not None:
        return True
    child.terminate()
    try:
        child.wait(grace)
        return True
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return False


# --- addresses -----------------------------------------------------------------------------------


def is_loopback(host: str) -> bool:
    """Does this name or address stay on the machine?"""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_host(host: str) -> str:
    """The host as it stands in a URL from which this machine reaches it."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{reachable}]" if ":" in reachable else reachable


def claim_port(host: str, port: int) -> int:
    """Check that `port` of `host` is free, or find a free one for 0. Raises StageError."""
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise StageError(f"HOST={host} is not an address of this machine") from None
    family, kind, protocol, _, address = places[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StageError(
                    f"{host}:{port} is in use by another program; choose another port, "
                    f"such as PORT={port + 10 if port < 65500 else 5000}"
                ) from None
            raise StageError(f"cannot listen on {host}:{port}: {error.strerror}") from None
        return int(probe.getsockname()[1])


# --- waiting -------------------------------------------------------------------------------------


def get_json(host: str, port: int, path: str, timeout: float = 5.0) -> Any:
    """GET a JSON document from this machine, no proxy between. Raises OSError or ValueError."""
    connection = http.client.HTTPConnection(host.strip("[]"), port, timeout=timeout)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return json.loads(reply.read(1 << 20))
    except http.client.HTTPException as error:
        raise ValueError(f"not an HTTP answer: {error!r}") from None
    finally:
        connection.close()


def until(
    what: str,
    seconds: float,
    ready: Callable[[], Any],
    pause: Callable[[float], Any] = time.sleep,
) -> Any:
    """Call `ready` until it returns something true, and return that.

    `pause` is given the seconds between two tries. Raises StageError when time is up.
    """
    deadline = time.monotonic() + seconds
    while True:
        result = ready()
        if result:
            return result
        if time.monotonic() > deadline:
            raise StageError(f"{what} did not come within {seconds:g} s")
        pause(0.05)
