"""Python's logging beside Weir's own logs, in workers and in the process that writes (_gunicorn_writer).

The application may write to the loggers gunicorn.error and gunicorn.access: such records go to Weir's
logs. With logconfig, logconfig_dict, logconfig_json or syslog it is the other way round as well: Weir's
lines go to these loggers, by way of that process.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys

from weir._gunicorn_cfg import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from weir._gunicorn_cfg import Config

ERROR, ACCESS = "gunicorn.error", "gunicorn.access"
FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
DATE = "[%Y-%m-%d %H:%M:%S %z]"
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


def level_of(cfg: Config) -> int:
    level = logging.getLevelName(str(cfg.loglevel).upper())
    return level if isinstance(level, int) else logging.INFO


class CoreHandler(logging.Handler):
    """Records to Weir's error log."""

    def __init__(self, core: Any) -> None:
        super().__init__()
        self.core = core

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.core.log(min(max(record.levelno // 10 - 1, 0), 4), self.format(record).replace("\0", "?"))
        except Exception:
            self.handleError(record)


def for_application(core: Any, cfg: Config) -> None:
    """Before the application is imported: it may take handlers and levels of these loggers over."""
    if cfg.logs_through_python:
        try:
            configure(cfg)
        except ConfigError as error:
            # The process that writes could; this one may be of another user.
            core.log(2, "%s; what the application logs goes to gunicorn.error" % error)
            for logger in (logging.getLogger(), logging.getLogger(ERROR)):
                logger.handlers = [CoreHandler(core)]
                logger.setLevel(level_of(cfg))
        return
    errors = logging.getLogger(ERROR)
    errors.handlers = [CoreHandler(core)]
    errors.setLevel(level_of(cfg))
    errors.propagate = False
    access = logging.getLogger(ACCESS)
    access.setLevel(logging.INFO)
    access.propagate = False
    access.handlers = []
    if cfg.accesslog:
        handler = to_file(cfg.accesslog, sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        access.handlers = [handler]


def error_logger(core: Any) -> logging.Logger:
    """gunicorn.error for hooks of the supervisor, where logging is not set up."""
    logger = logging.getLogger(ERROR)
    if not logger.handlers:
        logger.handlers = [CoreHandler(core)]
        logger.propagate = False
        logger.setLevel(logging.DEBUG)  # the core decides
    return logger


def to_file(path: str, stream: Any) -> logging.Handler:
    if path == "-":
        return logging.StreamHandler(stream)
    from logging.handlers import WatchedFileHandler

    return WatchedFileHandler(path, delay=True)


# ---- configured logging ----


def defaults() -> dict[str, Any]:
    """What a configuration leaves out: both logs as Gunicorn writes them."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "root": {"level": "INFO", "handlers": ["console"]},
        "loggers": {
            ERROR: {"level": "INFO", "handlers": ["error_console"], "propagate": True, "qualname": ERROR},
            ACCESS: {"level": "INFO", "handlers": ["console"], "propagate": True, "qualname": ACCESS},
        },
        "handlers": {
            "console": {
                "class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stdout",
            },
            "error_console": {
                "class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stderr",
            },
        },
        "formatters": {"generic": {"format": FORMAT, "datefmt": DATE, "class": "logging.Formatter"}},
    }


def configure(cfg: Config) -> None:
    """Set up logging in this process. Raises ConfigError."""
    plain(cfg)
    name = "logconfig_dict" if cfg.logconfig_dict else "logconfig_json" if cfg.logconfig_json else "logconfig"
    try:
        if cfg.logconfig_dict:
            from_dict(cfg.logconfig_dict)
        elif cfg.logconfig_json:
            with open(cfg.logconfig_json, encoding="utf-8") as file:
                from_dict(json.load(file))
        elif cfg.logconfig:
            from_ini(cfg.logconfig)
    except Exception as error:
        cause = error.__cause__ or error
        raise ConfigError("%s: %s: %s" % (name, error, cause) if error is not cause else "%s: %s" % (name, error)) from None
    if cfg.syslog:
        add_syslog(cfg)


def plain(cfg: Config) -> None:
    """Both logs where errorlog and accesslog say."""
    errors, access = logging.getLogger(ERROR), logging.getLogger(ACCESS)
    for logger in (errors, access):
        logger.propagate = False
        for handler in logger.handlers:
            handler.close()
        logger.handlers = []
    errors.setLevel(level_of(cfg))
    access.setLevel(logging.INFO)
    handler = to_file(cfg.errorlog, sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT, DATE))
    errors.addHandler(handler)
    if cfg.accesslog:
        handler = to_file(cfg.accesslog, sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        access.addHandler(handler)


def from_dict(given: dict[str, Any]) -> None:
    from logging.config import dictConfig

    dictConfig({**defaults(), **given})


def from_ini(path: str) -> None:
    from logging.config import fileConfig

    if not os.path.exists(path):
        raise ValueError("there is no file '%s'" % path)
    fileConfig(
        path,
        defaults={"__file__": path, "here": os.path.dirname(os.path.abspath(path))},
        disable_existing_loggers=False,
    )


def add_syslog(cfg: Config) -> None:
    kinds = [ERROR] if cfg.disable_redirect_access_to_syslog else [ERROR, ACCESS]
    for name in kinds:
        handler = syslog_handler(cfg)
        # Without %(asctime)s: syslog has its own.
        program = "gunicorn.%s" % (cfg.syslog_prefix or str(cfg.proc_name).replace(":", "."))
        handler.setFormatter(
            logging.Formatter("%s.%s: %%(message)s" % (program, name.rpartition(".")[2]))
        )
        logging.getLogger(name).addHandler(handler)


def syslog_handler(cfg: Config) -> logging.Handler:
    from logging.handlers import SysLogHandler
    from socket import SOCK_DGRAM, SOCK_STREAM

    facility = SysLogHandler.facility_names.get(str(cfg.syslog_facility).lower())
    if facility is None:
        raise ConfigError("syslog_facility: '%s' is unknown" % cfg.syslog_facility)
    text = cfg.syslog_addr
    scheme, _, rest = text.partition("://")
    try:
        if scheme == "unix":
            path, _, kind = rest.partition("#")
            types = {"stream": SOCK_STREAM, "dgram": SOCK_DGRAM}  # otherwise it tries both
            return SysLogHandler(path, facility, types.get(kind))
        if scheme in ("udp", "tcp"):
            host, colon, port = rest.rpartition(":")
            where = (host or rest, int(port) if colon else 514)
            return SysLogHandler(where, facility, SOCK_STREAM if scheme == "tcp" else SOCK_DGRAM)
    except (OSError, ValueError) as error:
        raise ConfigError("syslog_addr: '%s': %s" % (text, error)) from None
    raise ConfigError(
        "syslog_addr: '%s' is no address; give unix://PATH, udp://HOST:PORT or tcp://HOST:PORT" % text
    )


# ---- the process that writes ----


def write_for(cfg: Config, reads: tuple[int, int], tells: int) -> None:
    """The life of the process: what is wrong goes to `tells`, which is closed when lines are taken."""
    close_all_but((*reads, tells))
    try:
        configure(cfg)
    except ConfigError as error:
        os.write(tells, str(error).encode("utf-8", "replace")[:2000])
        return
    os.close(tells)
    write_logs(*reads)


def close_all_but(keep: tuple[int, ...]) -> None:
    """Of all descriptors above standard error: nobody must see this process at the end of a socket."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                pass  # of the listing itself


def write_logs(errors: int, accesses: int) -> None:
    """Until both pipes have ended, or until TERM and the end of a line."""
    import select

    # Signals of the terminal are for the server; this process goes when the server has gone.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
                   signal.SIGWINCH, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    told: list[bool] = []
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    wakes, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    takers = {errors: error_line, accesses: access_line}
    rests = {errors: b"", accesses: b""}
    poll = select.poll()
    for fd in (*takers, wakes):
        poll.register(fd, select.POLLIN)
    while takers and not (told and not any(rests.values())):
        for fd, _ in poll.poll():
            data = os.read(fd, 1 << 16)
            if fd == wakes:
                continue
            lines = (rests[fd] + data).split(b"\n")
            rests[fd] = lines.pop()
            for line in lines:
                if line:
                    takers[fd](line)
            if not data:
                poll.unregister(fd)
                del takers[fd]
    logging.shutdown()


def access_line(line: bytes) -> None:
    logging.getLogger(ACCESS).info("%s", line.decode("utf-8", "backslashreplace"))


def error_line(line: bytes) -> None:
    """One JSON object of Weir's error log, or what capture_output caught."""
    logger = logging.getLogger(ERROR)
    try:
        told = json.loads(line)
        level = getattr(logging, told["level"].upper())
        text = told["message"]
        if "request" in told:
            text = "request=%s %s" % (told["request"], text)
    except (ValueError, KeyError, AttributeError, TypeError):
        level, text, told = logging.INFO, line.decode("utf-8", "backslashreplace"), {}
    if not logger.isEnabledFor(level):
        return
    record = logger.makeRecord(ERROR, level, "weir", 0, text, (), None)
    record.process = told.get("pid", record.process)
    logger.handle(record)
