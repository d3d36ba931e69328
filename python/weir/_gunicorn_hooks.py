"""Hooks of Gunicorn's configuration file, and what they find on `server` and `worker`."""

from __future__ import annotations

import os

from weir._gunicorn_cfg import ConfigError
from weir._hooks import ConfigError as ReloadError
from weir._hooks import Hooks
from weir._supervisor import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from weir._core import Config
    from weir._gunicorn import Loaded, Loader
    from weir._gunicorn_requests import StatsD
    from weir._supervisor import Supervisor, Worker


class GunicornHooks(Hooks):
    def __init__(self, core: Any, loader: Loader, loaded: Loaded) -> None:
        super().__init__(core, loader.argv, "gunicorn")
        self.loader = loader
        self.known = [loaded]  # the newest last; workers of the one before may still be there
        self.worker: Worker | None = None  # in a worker
        self.application: Any = None  # once it is loaded, without what stands around it
        self.statsd: StatsD | None = None

    def load_config(self, environ: dict[str, str]) -> tuple[Config, dict[str, str]]:
        try:
            loaded = self.loader.load(environ)
        except ConfigError as error:
            raise ReloadError(str(error) + ("\n" + error.details if error.details else "")) from None
        if loaded is None or loaded.action != "run":
            raise ReloadError("there is nothing to run in the configuration")
        self.known = [*self.known[-1:], loaded]
        return loaded.config, loaded.environ

    def find(self, config: Config) -> Loaded:
        return next(known for known in self.known if known.config is config)

    def settings(self, config: Config) -> Any:
        return self.find(config).cfg

    def load_app(self, config: Config) -> Any:
        from weir import _gunicorn_log, _gunicorn_requests

        loaded = self.find(config)
        _gunicorn_log.for_application(self.core, loaded.cfg)
        self.application = loaded.load_app()
        # With preload_app that is before there is a worker.
        return _gunicorn_requests.around(self.application, loaded.cfg, lambda: self.worker)

    # ---- in the supervisor ----

    def on_starting(self, supervisor: Supervisor) -> None:
        prepare_server(self.core, supervisor)
        supervisor.cfg.on_starting(supervisor)

    def when_ready(self, supervisor: Supervisor) -> None:
        supervisor.cfg.when_ready(supervisor)

    def on_reload(self, supervisor: Supervisor) -> None:
        supervisor.address = supervisor.cfg.address
        supervisor.timeout = supervisor.cfg.timeout
        self.statsd = None
        supervisor.cfg.on_reload(supervisor)

    def nworkers_changed(self, supervisor: Supervisor, new: int, old: int | None) -> None:
        cfg = supervisor.cfg
        if cfg.statsd_host:
            from weir import _gunicorn_requests

            if self.statsd is None:
                self.statsd = _gunicorn_requests.StatsD(
                    cfg.statsd_host, cfg.statsd_prefix, cfg.dogstatsd_tags
                )
            self.statsd.workers(new)
        cfg.nworkers_changed(supervisor, new, old)

    def pre_fork(self, supervisor: Supervisor, worker: Worker) -> None:
        prepare_worker(supervisor, worker)
        worker.cfg.pre_fork(supervisor, worker)

    def child_exit(self, supervisor: Supervisor, worker: Worker) -> None:
        worker.cfg.child_exit(supervisor, worker)

    def pre_exec(self, supervisor: Supervisor) -> None:
        supervisor.cfg.pre_exec(supervisor)

    def on_exit(self, supervisor: Supervisor) -> None:
        supervisor.cfg.on_exit(supervisor)

    # ---- in a worker ----

    def post_fork(self, supervisor: Supervisor, worker: Worker) -> None:
        self.worker = worker
        if not hasattr(worker, "nr"):  # with preload_app pre_fork is called in another process
            prepare_worker(supervisor, worker)
        worker.cfg.post_fork(supervisor, worker)

    def post_worker_init(self, worker: Worker) -> None:
        told: Any = worker
        told.wsgi = told.app.callable = self.application
        worker.cfg.post_worker_init(worker)

    def worker_int(self, worker: Worker) -> None:
        worker.alive = False
        worker.cfg.worker_int(worker)

    def worker_abort(self, worker: Worker) -> None:
        worker.alive = False
        worker.cfg.worker_abort(worker)

    def worker_exit(self, supervisor: Supervisor, worker: Worker) -> None:
        worker.alive = False
        worker.cfg.worker_exit(supervisor, worker)


# ---- what hooks look at ----


class App:
    """What hooks know as server.app and worker.app."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.callable: Any = None  # in a worker, once it is loaded

    def wsgi(self) -> Any:
        return self.callable


class GunicornLog(Log):
    """With the two loggers of Python that Gunicorn's has."""

    loglevel = 20

    def __init__(self, core: Any) -> None:
        super().__init__(core)
        self._core = core

    @property
    def error_log(self) -> Any:
        from weir import _gunicorn_log

        return _gunicorn_log.error_logger(self._core)

    @property
    def access_log(self) -> Any:
        import logging

        return logging.getLogger("gunicorn.access")


class Beat:
    """In place of the file by which Gunicorn's workers tell that they live."""

    def notify(self) -> None:
        pass


def prepare_server(core: Any, supervisor: Supervisor) -> None:
    import weir

    server: Any = supervisor
    server.log = GunicornLog(core)
    server.master_pid = 0
    server.version = "weir/" + weir.__version__
    server.address = server.cfg.address
    server.timeout = server.cfg.timeout
    server.proc_name = server.cfg.proc_name
    server.app = App(server.cfg)
    server.worker_age = 0

    def kill_worker(pid: int, number: int) -> None:
        if pid in server.WORKERS:
            os.kill(pid, number)

    def kill_workers(number: int) -> None:
        for pid in list(server.WORKERS):
            os.kill(pid, number)

    server.kill_worker = kill_worker
    server.kill_workers = kill_workers


def prepare_worker(supervisor: Supervisor, worker: Worker) -> None:
    server: Any = supervisor
    told: Any = worker
    server.worker_age = told.age
    told.nr = 0  # requests so far, where hooks of requests or StatsD count them
    told.alive = True
    told.timeout = told.cfg.timeout
    told.max_requests = told.cfg.max_requests
    told.app = App(told.cfg)
    told.wsgi = None
    told.tmp = Beat()
    told.notify = told.tmp.notify
    told.sockets = []
