"""What a server calls at the turning points of its life; here nothing but reading the configuration.

A dialect with hooks of its own (Gunicorn's configuration file) makes a subclass. `supervisor` and `worker`
are the objects of weir._supervisor. Where a method is called:

    on_starting, when_ready        in the supervisor; an exception ends the start
    post_fork, post_worker_init    in the new worker; an exception ends the worker (exit code 3)
    everything else                an exception is logged
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from weir._core import Config
    from weir._supervisor import Supervisor, Worker


class ConfigError(Exception):
    """The configuration is wrong; the text says what and where, and is one or more whole lines."""


class Hooks:
    """One command line, and what follows from it."""

    def __init__(self, core: Any, argv: list[str], dialect: str) -> None:
        self.core = core
        self.argv = argv
        self.dialect = dialect

    # ---- the configuration and the application ----

    def load_config(self, environ: dict[str, str]) -> tuple[Config, dict[str, str]]:
        """Read the configuration again (HUP), in the folder and with the environment of the start.

        Returns the settings, and what they add to the environment. Raises ConfigError.
        """
        parsed = self.core.parse(self.argv, self.dialect, environ)
        if parsed["config"] is None or parsed["status"]:
            raise ConfigError(parsed["message"])
        return parsed["config"], parsed["environ"]

    def settings(self, config: Config) -> Any:
        """What hooks see as `cfg`."""
        return config

    def load_app(self, config: Config) -> Any:
        """The application, in a worker. Raises weir._load.LoadError."""
        from weir import _load

        _load.prepare_path(config.pythonpath)
        option = "--call" if config.dialect == "waitress" else "--factory"
        return _load.load(config.app, config.factory, option)

    # ---- in the supervisor ----

    def on_starting(self, supervisor: Supervisor) -> None:
        """Before the addresses are opened."""

    def when_ready(self, supervisor: Supervisor) -> None:
        """All workers serve, for the first time."""

    def on_reload(self, supervisor: Supervisor) -> None:
        """HUP: the configuration was read again; workers are about to be started."""

    def nworkers_changed(self, supervisor: Supervisor, new: int, old: int | None) -> None:
        """The number of workers is another one; `old` is None at the start."""

    def pre_fork(self, supervisor: Supervisor, worker: Worker) -> None:
        """A worker is about to be forked."""

    def child_exit(self, supervisor: Supervisor, worker: Worker) -> None:
        """A worker has ended; `worker.status` tells how."""

    def pre_exec(self, supervisor: Supervisor) -> None:
        """USR2: a new supervisor is about to be started."""

    def on_exit(self, supervisor: Supervisor) -> None:
        """All workers have ended; so will the supervisor."""

    # ---- in a worker ----

    def post_fork(self, supervisor: Supervisor, worker: Worker) -> None:
        """Right after the fork, before the application is imported."""

    def post_worker_init(self, worker: Worker) -> None:
        """The application is imported."""

    def worker_int(self, worker: Worker) -> None:
        """It got INT or QUIT."""

    def worker_abort(self, worker: Worker) -> None:
        """It got ABRT: the supervisor has not seen a sign of life for worker-timeout."""

    def worker_exit(self, supervisor: Supervisor, worker: Worker) -> None:
        """It has stopped serving and is about to end."""
