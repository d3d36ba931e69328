"""Weir: a production WSGI server, written in C.

    from weir import serve

    serve(app, host="0.0.0.0", port=5000, threads=8)

`serve` and `create_server` take every keyword of Waitress' functions of the same names, with its
defaults, and every setting of Weir by its name with underscores.
"""

from __future__ import annotations

import sys

# typing is not imported: a supervisor stays small.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Callable

    from _typeshed.wsgi import WSGIApplication
    from typing_extensions import Unpack

    from weir._core import DeadlineExceeded
    from weir._options import Options

__all__ = ["DeadlineExceeded", "Server", "create_server", "profile", "serve", "serve_paste"]
__version__ = "0.2.0"


class UnsupportedPython(ImportError):
    """This Python cannot run Weir; the text says why and what to use."""


def _is_free_threaded() -> bool:
    import sysconfig  # not before it is needed: it is large

    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def _extension() -> ModuleType:
    """The extension module, imported when it is first needed."""
    if sys.version_info < (3, 10):
        raise UnsupportedPython(
            "Weir needs Python 3.10 or newer; this is Python %d.%d (%s)"
            % (sys.version_info[0], sys.version_info[1], sys.executable)
        )
    if sys.implementation.name != "cpython":
        raise UnsupportedPython(
            "Weir needs CPython; this is %s (%s)" % (sys.implementation.name, sys.executable)
        )
    if sys.version_info >= (3, 13) and _is_free_threaded():
        raise UnsupportedPython(
            "Weir does not support free-threaded builds of Python; use an ordinary build of "
            "Python %d.%d instead of %s" % (*sys.version_info[:2], sys.executable)
        )
    try:
        from weir import _core as core
    except ImportError as error:
        raise UnsupportedPython(
            "Weir is not built for this Python %d.%d (%s): %s; install it into this environment, or "
            "set WEIR_PYTHON to the Python that it was built for"
            % (*sys.version_info[:2], sys.executable, error)
        ) from None
    return core


def __getattr__(name: str) -> Any:
    """`DeadlineExceeded`, which the extension defines: that is not loaded before it is needed."""
    if name != "DeadlineExceeded":
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    return _extension().DeadlineExceeded


def serve(
    app: WSGIApplication,
    *,
    _server: Callable[..., Any] | None = None,
    _quiet: bool = False,
    _profile: bool = False,
    **options: Unpack[Options],
) -> None:
    """Serve `app` until SIGTERM or Ctrl-C; then finish what runs and return.

    `_quiet` leaves out the line that tells the address, `_profile` runs under the profiler and prints
    what it found. A wrong keyword or value is a ValueError, an address that cannot be opened an
    OSError; both say what to do.
    """
    server = (_server or create_server)(app, **options)
    if not _quiet:
        server.print_listen("Serving on http://{}:{}")
    if _profile:
        profile("server.run()", globals(), {"server": server}, (), False)
    else:
        server.run()


def serve_paste(app: WSGIApplication, global_conf: Any, **options: Unpack[Options]) -> int:
    """The entry for PasteDeploy: `use = egg:weir#main` in the section [server:main]."""
    serve(app, **options)
    return 0


def create_server(app: WSGIApplication, **options: Unpack[Options]) -> Server:
    """Open the addresses and return the server, which has not started yet: see `Server.run`."""
    return Server(app, options)


class Server:
    """A server whose addresses are open.

    `effective_listen` has (host, port) of each address, `effective_host` and `effective_port` are those
    of the first one. A Unix socket has the host "unix" and its path as the port.
    """

    def __init__(self, application: WSGIApplication, options: Options) -> None:
        from weir import _options

        if not callable(application):
            raise ValueError(
                "a %s is not callable, so it is no WSGI application" % type(application).__name__
            )
        core = _extension()
        self.application = application
        with _options.duplicated_sockets(options) as descriptors:
            config = core.config("waitress", _options.pairs(options), descriptors)
            self._server = core.Server(application, config)
            self._server.listen()
        self.effective_listen = [_options.address(url) for url in self._server.addresses]
        self.effective_host, self.effective_port = self.effective_listen[0]

    def run(self) -> None:
        """Serve until the process gets SIGTERM or Ctrl-C, or another thread calls `close`.

        Signal handlers that the program has set stay; what they raise ends the run.
        """
        self._server.run(False)

    def close(self) -> None:
        """Stop: no new requests are taken, those that run are finished. May be called twice."""
        self._server.close()

    def print_listen(self, format_str: str) -> None:
        """Write a line for each address to the error log; {} stand for host and port."""
        for host, port in self.effective_listen:
            self._server.report(format_str.format("[%s]" % host if ":" in host else host, port))

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def profile(
    cmd: str, globals: dict, locals: dict, sort_order: tuple[str, ...], callers: bool
) -> None:
    """Run a statement under the profiler and print the upper 30 % of what took time."""
    import cProfile
    import pstats

    profiler = cProfile.Profile()
    try:
        profiler.runctx(cmd, globals, locals)
    finally:
        stats = pstats.Stats(profiler).strip_dirs()
        stats.sort_stats(*(sort_order or ("cumulative", "calls", "time")))
        (stats.print_callers if callers else stats.print_stats)(0.3)
