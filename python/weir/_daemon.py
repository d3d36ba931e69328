"""Going to the background (--daemon).

The process forks twice and leaves its session, so that it has no terminal and its parent is process 1. What
was started in the terminal waits until the daemon says that it serves, or ends: its exit code tells how
the start went. Until then standard output and standard error stay, so a start that fails says why;
afterwards they lead to /dev/null.

    daemon = Daemon()           returns in the background; the foreground ends inside
    daemon.ready(core)          the supervisor, or the only process: the start has succeeded
    daemon.quiet(core)          each other process, once it serves
    daemon.failed(status)       the start has not succeeded

What is lost without a log file: lines for "-" go nowhere once the start is over.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # a supervisor stays small
if TYPE_CHECKING:
    from typing import Any

# What the foreground ends with when the daemon ended without a word.
LOST = 1


class Daemon:
    def __init__(self) -> None:
        """Go to the background. OSError when a process cannot be made."""
        sys.stdout.flush()
        sys.stderr.flush()
        waits, self._tells = os.pipe()
        if os.fork():
            os.close(self._tells)
            os._exit(self._wait(waits))
        os.close(waits)
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        if null > 2:
            os.close(null)
        # A process that outlives a failed start must not keep the terminal waiting.
        os.register_at_fork(after_in_child=self._forget)

    @staticmethod
    def _wait(waits: int) -> int:
        """In the foreground: the exit code that the daemon tells."""
        os.wait()  # the process between, which ends at once
        told = os.read(waits, 1)
        if told:
            return told[0]
        sys.stderr.write("weir: the daemon ended before it was ready; the error log may tell why\n")
        sys.stderr.flush()
        return LOST

    def _tell(self, status: int) -> None:
        if self._tells >= 0:
            try:
                os.write(self._tells, bytes((status & 255,)))
            except OSError:
                pass  # nobody waits any more
        self._forget()

    def _forget(self) -> None:
        if self._tells >= 0:
            os.close(self._tells)
        self._tells = -1

    def ready(self, core: Any) -> None:
        self.quiet(core)
        self._tell(0)

    def failed(self, status: int) -> None:
        """The start failed and has said so. Without effect once `ready` was called."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._tell(status or LOST)

    @staticmethod
    def quiet(core: Any) -> None:
        """Let go of the terminal."""
        sys.stdout.flush()
        sys.stderr.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):
            os.dup2(null, descriptor)
        if null > 2:
            os.close(null)
        core.log_lent_changed()
