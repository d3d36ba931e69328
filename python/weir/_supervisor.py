"""The process that starts the workers, and the beginning and end of a worker.

The supervisor imports no application and as little else as it can: it stays small however large the
application is. What loops and waits is weir._core.Supervisor, which calls the methods of Supervisor
below the line "called by weir._core".
"""

from __future__ import annotations

import os
import sys

from weir._hooks import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from weir._core import Config
    from weir._hooks import Hooks
    from weir._process import Process

# Exit codes of a worker that could not start, as Gunicorn has them.
BOOT_FAILED = 3
APP_FAILED = 4


class StartError(Exception):
    """A start failed, here or in a worker: one line for a human; `details` is the traceback below it."""

    def __init__(self, line: str, details: str = "", status: int = BOOT_FAILED) -> None:
        super().__init__(line)
        self.details = details
        self.status = status  # exit code of a worker


class Log:
    """Lines for the error log, with the methods of a logger."""

    LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 4}

    def __init__(self, core: Any) -> None:
        self._write = core.log

    def log(self, level: int, text: object, *args: object) -> None:
        """`level` counts as logging's do: 10 debug to 50 critical."""
        self._entry(min(max(level // 10 - 1, 0), 4), text, args)

    def debug(self, text: object, *args: object, **_: object) -> None:
        self._entry(0, text, args)

    def info(self, text: object, *args: object, **_: object) -> None:
        self._entry(1, text, args)

    def warning(self, text: object, *args: object, **_: object) -> None:
        self._entry(2, text, args)

    warn = warning

    def error(self, text: object, *args: object, **_: object) -> None:
        self._entry(3, text, args)

    def critical(self, text: object, *args: object, **_: object) -> None:
        self._entry(4, text, args)

    def exception(self, text: object, *args: object, **_: object) -> None:
        """With the traceback of the exception that is being handled."""
        import traceback

        line = str(text) % args if args else str(text)
        self._entry(3, line + "\n" + traceback.format_exc().rstrip("\n"), ())

    def _entry(self, level: int, text: object, args: tuple[object, ...]) -> None:
        line = str(text) % args if args else str(text)
        self._write(level, line.encode("utf-8", "replace").decode().replace("\0", "?"))


class State:
    """One configuration, and what goes with it into the process."""

    def __init__(self, config: Config, environ: dict[str, str]) -> None:
        self.config = config
        self.environ = environ


class Worker:
    """A worker as hooks see it. Hooks may give it attributes of their own."""

    def __init__(self, age: int, ppid: int, cfg: Any, log: Log) -> None:
        self.age = age  # counts all workers since the start, from 1
        self.ppid = ppid
        self.pid: int | None = None  # not before the fork
        self.cfg = cfg
        self.log = log
        self.booted = False  # in the worker: the application is imported
        self.aborted = False  # in the worker: got ABRT
        self.status: int | None = None  # in the supervisor, once it has ended: as os.waitpid tells

    def __str__(self) -> str:
        return "<Worker %s>" % self.pid


class Supervisor:
    """The supervisor as hooks see it, and what weir._core calls."""

    def __init__(
        self, core: Any, process: Process, config: Config, environ: dict[str, str], hooks: Hooks
    ) -> None:
        self.core = core
        self.process = process
        self.hooks = hooks
        self.log = Log(core)
        self.serving = State(config, environ)  # what the workers serve with
        self.pending: State | None = None  # while a reload has not succeeded
        self.added: list[str] = []  # names in the environment that came from the configuration
        self.workers: dict[int, Worker] = {}  # by process id
        self.worker: Worker | None = None  # in a worker: itself
        self.preloaded: Any = None  # in a template and its workers: the application
        self.num_workers = config.workers
        self.cfg = hooks.settings(config)

    WORKERS = property(lambda self: self.workers)

    @property
    def config(self) -> Config:
        return (self.pending or self.serving).config

    def serve(self) -> int:
        """Start, and return the exit code at the end; in a worker right after its fork."""
        self.apply(self.serving)
        self.process.begin(self.core, self.config, True)
        self.pid = os.getpid()  # not before: it may have gone to the background
        must_return(self.hooks.on_starting, self)
        self.c = self.core.Supervisor(self.serving.config, self)
        self.c.listen()
        if self.serving.config.dialect == "waitress":
            for url in self.c.addresses:
                self.log.info("Serving on " + url)
        self.guard(self.hooks.nworkers_changed, self, self.num_workers, None)
        status = self.c.run()
        if status is None:
            self.worker = template(self) if self.c.is_template else self.c.worker
            return 0
        self.guard(self.hooks.on_exit, self)
        return status

    def apply(self, state: State) -> None:
        """Environment and folder as this configuration wants them."""
        for name in self.added:  # only these: a configuration file may have set others itself
            if name in self.process.environ:
                os.environ[name] = self.process.environ[name]
            else:
                os.environ.pop(name, None)
        os.environ.update(state.environ)
        self.added = list(state.environ)
        os.chdir(self.process.folder)
        if state.config.chdir:
            change_folder(state.config.chdir)
        self.cfg = self.hooks.settings(state.config)

    def guard(self, hook: Any, *args: Any) -> bool:
        """Call a hook; what it raises is logged. Did it return?"""
        try:
            hook(*args)
        except Exception:
            self.log.exception("the hook %s failed:", hook.__name__)
            return False
        return True

    # ---- called by weir._core, in the supervisor ----

    def spawning(self, age: int) -> Worker:
        worker = Worker(age, self.pid, self.cfg, self.log)
        self.guard(self.hooks.pre_fork, self, worker)
        flush()  # what waits there must not be written twice
        return worker

    def spawned(self, worker: Worker, pid: int) -> None:
        worker.pid = pid
        self.workers[pid] = worker

    def exited(self, worker: Worker, status: int) -> None:
        worker.status = status
        self.workers.pop(worker.pid or 0, None)
        self.guard(self.hooks.child_exit, self, worker)

    def ready(self) -> bool:
        return self.guard(self.hooks.when_ready, self)

    def started(self) -> None:
        self.process.ready(self.core)

    def counted(self, now: int, before: int) -> None:
        self.num_workers = now
        self.guard(self.hooks.nworkers_changed, self, now, before)

    def reload(self) -> Config | None:
        """Read the configuration again; None: it is wrong, and that has been said."""
        try:
            os.chdir(self.process.folder)
            self.pending = State(*self.hooks.load_config(dict(self.process.environ)))
            self.apply(self.pending)
        except (ConfigError, OSError) as error:
            text = str(error).strip().removeprefix("weir: ")
            self.log.error("not reloaded: %s; all goes on as before", text)
        except (Exception, SystemExit):  # a configuration file is a program, too
            self.log.exception("not reloaded: the configuration cannot be read; all goes on as before")
        else:
            self.guard(self.hooks.on_reload, self)
            return self.pending.config
        self.reloaded(False)
        return None

    def reloaded(self, ok: bool) -> None:
        if ok and self.pending:
            self.serving = self.pending
        self.pending = None
        if not ok:
            try:
                self.apply(self.serving)
            except OSError as error:
                self.log.error("cannot go back to the settings in use: %s", error)

    def upgrade(self) -> None:
        """USR2: start the command line again, beside this process and with its sockets."""
        try:
            handed = self.c.upgrade_begin()
        except OSError as error:
            self.log.warning("USR2 has no effect: %s", error)
            return
        flush()
        try:
            pid = os.fork()
        except OSError as error:
            self.c.upgrade_started(0)
            self.log.error("USR2: no process can be made: %s", error.strerror)
            return
        if not pid:
            self.become_successor(handed)
        self.c.upgrade_started(pid)

    def become_successor(self, handed: str) -> None:
        """In the new process; does not return."""
        try:
            self.c.upgrade_pass()
            self.hooks.pre_exec(self)
            environ = {**self.process.environ, "WEIR_UPGRADE": handed}
            for name in ("LISTEN_PID", "WATCHDOG_PID"):  # what was meant for us is meant for it
                if environ.get(name) == str(self.pid):
                    environ[name] = str(os.getpid())
            os.chdir(self.process.folder)
            os.execvpe(self.process.arguments[0], self.process.arguments, environ)
        except OSError as error:
            self.log.error("USR2: cannot start %s: %s", self.process.arguments[0], error)
        except BaseException:
            self.log.exception("USR2: the hook pre_exec failed:")
        finally:
            flush()
            os._exit(1)

    # ---- called by weir._core, in a template ----

    def all_forked(self) -> None:
        """The workers of the start are made."""
        if self.process.daemon:
            self.process.daemon.quiet(self.core)

    # ---- called by weir._core, in a worker ----

    def interrupted(self) -> None:
        self.guard(self.hooks.worker_int, self.worker)

    def aborted(self) -> None:
        if self.worker:
            self.worker.aborted = True
        self.guard(self.hooks.worker_abort, self.worker)


def work(supervisor: Supervisor, worker: Worker) -> int:
    """The life of a worker, from its fork. Returns its exit code."""
    worker.pid = os.getpid()
    worker.cfg = supervisor.cfg  # one that is replaced while a reload is not over has the settings in use
    try:
        if not supervisor.c.begin():
            return 0
        server = boot(supervisor, worker)
        if supervisor.process.daemon:
            supervisor.process.daemon.quiet(supervisor.core)
        status = server.run(True) or 0
    except KeyboardInterrupt:
        return 130
    except (StartError, OSError) as error:  # OSError: the user cannot be changed, no thread can be made
        if supervisor.c.may_complain():
            complain(str(error), getattr(error, "details", ""))
        return getattr(error, "status", BOOT_FAILED)
    supervisor.guard(supervisor.hooks.worker_exit, supervisor, worker)
    if server.left:
        # Threads are still inside the application: ending the interpreter under them is not safe.
        flush()
        os._exit(status)
    tell_of_children(supervisor.log)
    return status


def tell_of_children(log: Log) -> None:
    """Python joins them at the end of this process, for as long as they run."""
    process = sys.modules.get("multiprocessing.process")
    if not process:
        return
    own = [c for c in process.active_children() if not c.daemon and getattr(c, "_parent_pid", 0) == os.getpid()]
    if own:
        log.warning(
            "this worker has finished, but waits for processes of multiprocessing that it has started (%s); when its "
            "grace is over it is killed, and they go on without it: start them with daemon=True, or end them in the "
            "application", ", ".join(str(c.pid) for c in own))


def template(supervisor: Supervisor) -> Worker:
    """The life of the process that imports the application and forks the workers (--preload). It returns
    in the workers only."""
    from weir import _load

    if not supervisor.c.template_begin():
        os._exit(0)
    status = 0
    try:
        with _load.collecting_seldom():
            supervisor.preloaded = supervisor.hooks.load_app(supervisor.config)
        warn_of_threads(supervisor.log)
        import gc

        gc.collect()
        gc.freeze()  # so that collections in the workers do not write to what they share
        age = supervisor.c.template_next()
        if age is not None:
            return Worker(age, supervisor.pid, supervisor.cfg, supervisor.log)
    except _load.LoadError as error:
        if supervisor.c.may_complain():
            complain(str(error), error.details)
        status = APP_FAILED
    except OSError as error:
        if supervisor.c.may_complain():
            complain(str(error))
        status = BOOT_FAILED
    except KeyboardInterrupt:
        status = 130
    flush()
    os._exit(status)


def warn_of_threads(log: Log) -> None:
    """Threads do not survive a fork: what they did, or held locked, is missing in the workers."""
    import threading

    names = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    more = len(os.listdir("/proc/self/task")) - 1 - len(names)
    if more > 0:
        names.append("%d not of Python" % more)
    if names:
        log.warning(
            "preload: the application has started threads (%s); they do not run in the workers: start them "
            "in post_fork or with the first request, or leave --preload out", ", ".join(names))


def boot(supervisor: Supervisor, worker: Worker) -> Any:
    """A server that is ready to run. Raises StartError."""
    from weir import _load

    hooks, config = supervisor.hooks, supervisor.config
    must_return(hooks.post_fork, supervisor, worker)
    reloader = reload_in(supervisor) if config.reload else None
    try:
        app = supervisor.preloaded
        if app is None:
            app = load(supervisor, worker, reloader)
        server = supervisor.core.Server(app, config, supervisor.c)
        server.listen()
    except _load.LoadError as error:
        raise StartError(str(error), error.details, APP_FAILED) from None
    except (OSError, ValueError) as error:  # of a setting: the file of a log, a list of addresses
        raise StartError(str(error.args[-1]) if error.args else repr(error)) from None
    worker.booted = True
    must_return(hooks.post_worker_init, worker)
    if reloader:
        reloader.start(server)
    return server


def reload_in(supervisor: Supervisor) -> Any:
    """What watches the files of this worker, before it imports any."""
    from weir import _reload

    # Paths of the command line are relative to the folder of the start, not to that of --chdir.
    named = {supervisor.config.config, supervisor.cfg.config, *supervisor.config.env_file}
    if not supervisor.config.config:  # it may come later
        named.add(os.path.join(supervisor.config.chdir, "weir.yaml"))
    settings = [os.path.join(supervisor.process.folder, path) for path in named if path]
    reloader = _reload.Reloader(supervisor.core, supervisor.config, settings, supervisor.log, supervisor.pid)
    reloader.prepare()
    return reloader


def load(supervisor: Supervisor, worker: Worker, reloader: Any) -> Any:
    """The application; with --reload something that says why it cannot be loaded. Raises LoadError."""
    from weir import _load

    config = supervisor.config
    try:
        with _load.collecting_seldom():
            return supervisor.hooks.load_app(config)
    except _load.LoadError as error:
        # Nothing of the application was run: then its name is wrong, which no change of a file cures.
        wrong_name = not error.details and worker.age <= config.workers
        if reloader is None or wrong_name:
            raise
        return reloader.failed(error, config.expose_tracebacks)


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # there is none, nobody reads it, it is closed


def must_return(hook: Any, *args: Any) -> None:
    """Call a hook without which there is no start. Raises StartError."""
    try:
        hook(*args)
    except SystemExit as error:
        raise StartError("the hook %s ended the program (exit code %s)" % (hook.__name__, error.code)) from None
    except Exception:
        import traceback

        raise StartError("the hook %s failed" % hook.__name__, traceback.format_exc()) from None


def complain(line: str, details: str = "") -> None:
    """What is wrong, and how it came about below, at once: workers share the stream."""
    sys.stderr.write("weir: %s\n%s" % (line.rstrip("\n"), details))
    sys.stderr.flush()


def change_folder(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise OSError("cannot change to the folder '%s': %s" % (folder, error.strerror)) from None
