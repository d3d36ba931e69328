"""Weir's lines to Python's logging: one process for all workers reads them from two pipes.

So handlers that rotate files are used by one process alone, requests do not wait for Python, and the supervisor
does not import logging. The process ends when nobody holds the writing ends any more: it outlives every
worker. A reload replaces it by one with the new configuration; lines wait in the pipes meanwhile, as they
do when somebody kills it.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from weir._gunicorn_cfg import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from weir._gunicorn_cfg import Config

# How long the old one may take to come to the end of a line.
STOP_SECONDS = 1.0


class Writer:
    def __init__(self, core: Any) -> None:
        self.core = core
        self.pid = 0
        self.cfg: Config | None = None  # what it writes by
        self.reads = self.writes = (-1, -1)  # of the error log and of the access log

    def start(self, cfg: Config) -> None:
        """Raises ConfigError when logging cannot be set up so; all is as before then."""
        if self.cfg is None:
            errors, accesses = os.pipe(), os.pipe()
            self.reads, self.writes = (errors[0], accesses[0]), (errors[1], accesses[1])
            for fd in self.writes:
                os.fchmod(fd, 0o622)  # workers of another user open it by its path
        else:
            self.stop()
        wrong = self.fork(cfg)
        if wrong:
            if self.cfg is not None:
                self.fork(self.cfg)
            raise ConfigError(wrong)
        self.cfg = cfg

    def fork(self, cfg: Config) -> str:
        """What is wrong, or ""."""
        answers, tells = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self.live(cfg, tells)
        os.close(tells)
        with open(answers, "rb") as stream:
            return stream.read().decode()

    def live(self, cfg: Config, tells: int) -> None:
        """The process, from its fork to its end."""
        status = 1
        try:
            from weir import _gunicorn_log

            self.core.gunicorn_title("logs", cfg.settings["proc_name"].value or "")
            _gunicorn_log.write_for(cfg, self.reads, tells)
            status = 0
        finally:
            os._exit(status)

    def stop(self) -> None:
        try:
            os.kill(self.pid, signal.SIGTERM)
            until = time.monotonic() + STOP_SECONDS
            while time.monotonic() < until:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.002)
        except (ProcessLookupError, ChildProcessError):
            pass  # it went by itself, or is no child of this process (a daemon)

    def lead(self, config: Any, cfg: Config) -> None:
        """Have Weir write to the pipes."""
        core = self.core
        core.gunicorn_lead(config, "error-log", "/proc/self/fd/%d" % self.writes[0])
        core.gunicorn_lead(config, "log-format", "json")
        if cfg.errorlog == "-":
            core.gunicorn_lead(config, "capture-output", "no")
        configured = cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json
        if configured or (cfg.syslog and not cfg.disable_redirect_access_to_syslog):
            core.gunicorn_lead(config, "access-log", "/proc/self/fd/%d" % self.writes[1])
