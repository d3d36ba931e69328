"""The process that was started: how it goes to the background, what it was handed, and its end.

    process = Process()                        first of all
    process.begin(core, config, supervises)    before addresses and log files are opened
    process.ready(core)                        it serves
    process.end(core, status)                  whatever happened
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from weir._core import Config
    from weir._daemon import Daemon

# What a process before this one hands over (src/proc/upgrade.h). Not for the application.
HANDED = ("WEIR_UPGRADE", "GUNICORN_PID", "GUNICORN_FD")


class Process:
    def __init__(self) -> None:
        # For a binary upgrade: the command line, where and in which environment it was given.
        self.arguments = list(sys.orig_argv)
        self.folder = start_folder()
        self.handed = {name: os.environ.pop(name, None) for name in HANDED}
        self.environ = dict(os.environ)
        self.daemon: Daemon | None = None

    def begin(self, core: Any, config: Config, supervises: bool) -> None:
        """Go to the background if that is wanted; pid file, title and the rest. OSError says what is wrong."""
        # What takes the place of a daemon is in the background already.
        if config.daemon and not any(self.handed.values()):
            from weir import _daemon

            if core.signals_late():  # the foreground, that waits, is ended by them
                sys.exit(0)
            self.daemon = _daemon.Daemon()
            core.signals_early()
        core.process_begin(config, supervises, self.handed)

    def ready(self, core: Any) -> None:
        if self.daemon:
            self.daemon.ready(core)

    def end(self, core: Any, status: int) -> None:
        core.process_end()
        if self.daemon:
            self.daemon.failed(status)


def start_folder() -> str:
    """The current folder as the shell names it: behind a link that a deployment moves, the link."""
    folder = os.getcwd()
    named = os.environ.get("PWD", "")
    try:
        return named if named and os.path.samefile(named, folder) else folder
    except OSError:
        return folder
