"""The command line: weir, python -m weir, weir waitress-serve, and weir gunicorn (more in _gunicorn)."""

from __future__ import annotations

import os
import sys

import weir
from weir._process import Process

# A supervisor stays small: nothing is imported here that only a worker needs.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from weir._core import Config
    from weir._hooks import Hooks

    Loader = Callable[[Config], Any]

# Exit code of a start that failed for another reason than wrong usage: as all peers have it.
FAILED = 1
# As a shell shows a program that SIGINT has ended.
INTERRUPTED = 130


def main_entry() -> None:
    """For the console script."""
    sys.exit(main(sys.argv))


def main(argv: list[str]) -> int:
    """Run a command line; argv[0] is the program. Returns the exit code."""
    process = Process()
    try:
        core = weir._extension()
    except weir.UnsupportedPython as error:
        return fail(str(error))
    if argv[1:2] == ["healthcheck"]:
        return healthcheck(core, argv[2:])
    if argv[1:2] in (["status"], ["stacks"]):
        from weir import _status

        return _status.main(core, argv[1], argv[2:])
    core.signals_early()
    if argv[1:2] == ["gunicorn"]:
        from weir import _gunicorn

        return _gunicorn.main(core, process, argv[2:])
    dialect, argv = split(argv)
    parsed = core.parse(argv, dialect, dict(os.environ))
    sys.stderr.write(parsed["message"])
    sys.stderr.flush()
    sys.stdout.write(parsed["output"])
    sys.stdout.flush()
    if parsed["action"] in ("exit", "print"):
        return parsed["status"]
    check_only = parsed["action"] == "check"
    if parsed["config"].workers and not check_only:
        from weir import _hooks

        hooks = _hooks.Hooks(core, argv, dialect)
        return supervise(core, process, parsed["config"], parsed["environ"], hooks)
    os.environ.update(parsed["environ"])
    status = run(core, process, parsed["config"], check_only)
    process.end(core, status)
    return status


def supervise(
    core: Any, process: Process, config: Config, environ: dict[str, str], hooks: Hooks
) -> int:
    """Serve with workers. This process is the supervisor; it returns in each worker, too."""
    from weir import _supervisor

    supervisor = _supervisor.Supervisor(core, process, config, environ, hooks)
    try:
        status = supervisor.serve()
    except _supervisor.StartError as error:
        status = fail(str(error), error.details)
    except (OSError, ValueError) as error:
        status = fail(error.args[-1] if error.args else repr(error))
    except KeyboardInterrupt:  # once it runs it handles the signal itself
        status = INTERRUPTED
    if supervisor.worker:
        return _supervisor.work(supervisor, supervisor.worker)
    process.end(core, status)
    return status


def run(core: Any, process: Process, config: Config, check_only: bool) -> int:
    """Check, or serve in this process; what is wrong is said in one line."""
    from weir import _load

    try:
        if check_only:
            return check(core, config)
        process.begin(core, config, False)
        return start(core, process, config)
    except _load.LoadError as error:
        return fail(str(error), error.details)
    except (OSError, ValueError) as error:
        return fail(error.args[-1] if error.args else repr(error))
    except KeyboardInterrupt:
        # While the application is imported; a running server handles the signal itself.
        return INTERRUPTED


def split(argv: list[str]) -> tuple[str, list[str]]:
    """Whose command line it is, and its arguments under the name of that program."""
    if argv[1:2] == ["waitress-serve"]:
        return "waitress", ["weir waitress-serve", *argv[2:]]
    return "weir", ["weir", *argv[1:]]


def load(config: Config) -> Any:
    """The application, imported from its folder."""
    from weir import _load

    enter_folder(config)
    option = "--call" if config.dialect == "waitress" else "--factory"
    return _load.load(config.app, config.factory, option)


def enter_folder(config: Config) -> None:
    from weir import _load

    if config.chdir:
        change_folder(config.chdir)
    _load.prepare_path(config.pythonpath)


def check(core: Any, config: Config, load: Loader = load) -> int:
    if core.signals_late():
        return 0
    server = core.Server(load(config), config)
    try:
        server.check()
    finally:
        server.close()
    print("weir: the configuration is fine and %s can be imported" % (config.app or "the application"))
    return 0


def start(core: Any, process: Process, config: Config, load: Loader = load) -> int:
    """Load the application and serve it."""
    from weir import _load

    if core.signals_late():  # from now on they are the application's, until the server runs
        return 0
    with _load.collecting_seldom():
        app = load(config)
    server = core.Server(app, config)
    server.listen()
    if config.dialect == "waitress":
        for url in server.addresses:
            server.report("Serving on " + url)
    process.ready(core)
    status = server.run(True) or 0
    if server.left:
        process.end(core, FAILED)
        # Threads are still inside the application: ending the interpreter under them is not safe.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(FAILED)
    return status


def healthcheck(core: Any, arguments: list[str]) -> int:
    """Ask a running server whether it answers."""
    environ = ["%s=%s" % item for item in os.environ.items()]
    status, out, message = core.healthcheck(["weir healthcheck", *arguments], environ)
    sys.stdout.write(out)
    sys.stderr.write(message)
    return status


def change_folder(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise OSError("cannot change to the folder '%s': %s" % (folder, error.strerror)) from None


def fail(line: str, details: str = "") -> int:
    """Say what is wrong, and how it came about below."""
    text = "weir: %s\n" % line.rstrip("\n")
    sys.stderr.write(text + details)
    sys.stderr.flush()
    return FAILED
