"""The C core. Texts that name files or come from the environment use the file system encoding."""

from typing import Any, Literal, TypedDict, final

from _typeshed.wsgi import WSGIApplication

Dialect = Literal["weir", "waitress", "gunicorn"]

class DeadlineExceeded(BaseException):
    """Raised in a request whose deadline has passed, where `on_deadline: interrupt` asks for it."""

@final
class Config:
    """A finished configuration."""

    @property
    def app(self) -> str: ...
    @property
    def factory(self) -> bool: ...
    @property
    def chdir(self) -> str: ...
    @property
    def pythonpath(self) -> list[str]: ...
    @property
    def env_file(self) -> list[str]: ...
    @property
    def expose_tracebacks(self) -> bool: ...
    @property
    def dialect(self) -> Dialect: ...
    @property
    def daemon(self) -> bool: ...
    @property
    def reload(self) -> bool: ...
    @property
    def reload_extra(self) -> list[str]: ...
    @property
    def config(self) -> str: ...
    @property
    def workers(self) -> int: ...
    @property
    def admin(self) -> str: ...
    @property
    def admin_token(self) -> str: ...
    @property
    def admin_token_file(self) -> str: ...

class Parsed(TypedDict):
    action: Literal["run", "exit", "check", "print"]
    status: int  # exit code; 0 unless there is an error
    message: str  # for standard error, as it is; "" = nothing
    output: str  # for standard output, as it is: help, version, settings
    environ: dict[str, str]  # what --env-file adds to the environment
    config: Config | None  # None with the action "exit"

def parse(argv: list[str], dialect: Dialect, env: dict[str, str]) -> Parsed: ...
def healthcheck(argv: list[str], environ: list[str]) -> tuple[int, str, str]:
    """`weir healthcheck`: exit code, standard output, standard error. `environ` is NAME=VALUE."""
def config(dialect: Dialect, pairs: list[tuple[str, str]], sockets_fds: list[int]) -> Config:
    """A configuration from keywords. ValueError names the keyword and the cure."""

def gunicorn_settings(
    config: Config,
) -> list[tuple[str, str, str, str, list[str], str | None]]:
    """(name, kind, default, arity, texts, source) of each; source is None where nothing was given."""
def gunicorn_finish(config: Config, values: list[tuple[str, list[str], str]]) -> dict:
    """Take (name, texts, source) of the configuration file and complete the configuration: message,
    output, environ, binds, app, workers, threads. ValueError says what is wrong."""
def gunicorn_lead(config: Config, name: str, value: str) -> None:
    """Another value for a setting of Weir, before anything is opened."""
def gunicorn_title(role: str, name: str) -> None:
    """What ps shows of this process."""
def log(level: int, text: str) -> None:
    """An entry of the error log; level is 0 (debug) to 4 (critical)."""
def signals_early() -> None:
    """From now on signals wait for the server that is about to be started."""

def signals_late() -> bool:
    """They do what they did before. Has one asked for the end meanwhile?"""

def process_begin(config: Config, supervises: bool, handed: dict[str, str | None]) -> None:
    """Mask, pid file and title of the main process. OSError says what is wrong."""
def process_end() -> None: ...
def log_lent_changed() -> None:
    """Standard output or standard error leads elsewhere."""

@final
class Supervisor:
    """Starts workers and looks after them; `host` is weir._supervisor.Supervisor."""

    def __init__(self, config: Config, host: Any) -> None: ...
    def listen(self) -> None:
        """Open the addresses. OSError names the address, the cause and the cure."""
    def check(self) -> None:
        """Read what the policy names; then close it. OSError names the file, the cause and the cure."""
    @property
    def addresses(self) -> list[str]: ...
    def run(self) -> int | None:
        """The exit code once all workers have ended. In a worker, right after its fork: None."""
    @property
    def worker(self) -> Any:
        """In a worker: what `host` made for it."""
    def begin(self) -> bool:
        """In a worker, before anything else. False: the supervisor has ended already."""
    def may_complain(self) -> bool:
        """Is this the first worker that says why it cannot start?"""
    def stop(self, quick: bool = False) -> None: ...
    def upgrade_begin(self) -> str:
        """What a successor finds in WEIR_UPGRADE. OSError says why there can be none now."""
    def upgrade_pass(self) -> None:
        """In the successor's process, before it becomes another program."""
    def upgrade_started(self, pid: int) -> None:
        """It was forked; 0: that failed."""

@final
class Server:
    def __init__(
        self, app: WSGIApplication, config: Config, supervisor: Supervisor | None = None
    ) -> None: ...
    def listen(self) -> None:
        """Open the addresses. OSError names the address, the cause and the cure."""
    @property
    def addresses(self) -> list[str]:
        """"http://127.0.0.1:8000", "http://[::1]:8000", "http://unix:/path"."""
    @property
    def left(self) -> int:
        """Threads still inside the application when run() returned."""
    def run(self, own_signals: bool = False) -> int:
        """Serve until stopped: 0 drained, 1 work was cut. `own_signals`: take over all signals."""
    def stats(self) -> dict[str, int] | None:
        """Counters of a running server."""
    def close(self) -> None: ...
    def recycle(self) -> bool:
        """A worker: ask for a replacement, and accept no connection from now on. False: it does not run."""
    def report(self, text: str) -> None:
        """A line in the error log."""

@final
class Watch:
    """Names that change in folders. OSError: the kernel has no more watches."""

    def add(self, folder: str) -> int: ...
    def wait(self, seconds: float) -> list[tuple[int, str]]:
        """(folder, name) of what changed; (n, ""): the folder is gone; (-1, ""): look at everything."""
    def close(self) -> None: ...
