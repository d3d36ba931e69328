"""The keywords of serve(): their types, and their way into the configuration."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping, TypedDict, Union

if TYPE_CHECKING:
    Flag = Union[bool, str]
    Number = Union[int, str]
    Words = Union[str, Iterable[str]]


class Options(TypedDict, total=False):
    """Waitress' keywords first, then Weir's own. Sizes are bytes, times are seconds."""

    # Where to listen. One way of these: host and port, listen, unix_socket, sockets.
    host: str  # "0.0.0.0"
    port: Number  # 8080; a service name works as well
    listen: Words  # "127.0.0.1:8080 [::1]:8080", or a list
    ipv4: Flag  # True: use IPv4 addresses of a host name
    ipv6: Flag  # True: use IPv6 addresses of a host name
    unix_socket: str  # a path
    unix_socket_perms: Number  # "600": octal text, or a number as 0o600
    sockets: Iterable[socket.socket]  # bound already; the caller still owns and closes them
    backlog: Number  # 1024

    # How much at once, and how long.
    threads: Number  # 4: the most requests in the application; "MIN:MAX" and "auto" work as well
    connection_limit: Number  # 100 open connections
    channel_timeout: Number  # 120: a connection without progress is closed
    channel_request_lookahead: Number  # no effect is lost: clients that left are always noticed

    # Sizes.
    max_request_header_size: Number  # 262144; above: 431
    max_request_body_size: Number  # 1073741824; so much or more: 413
    inbuf_overflow: Number  # 524288: a request body above this goes to a file
    outbuf_overflow: Number  # 1048576: an unsent response above this goes to a file
    outbuf_high_watermark: Number  # 16777216: the application waits when so much is unsent

    # What the application sees.
    url_scheme: str  # "http"
    url_prefix: str  # SCRIPT_NAME; cut from the path
    server_name: str  # "waitress.invalid", for requests that name no host
    ident: str | None  # "waitress": the Server header; None or "": none
    expose_tracebacks: Flag  # False: send tracebacks to clients
    log_socket_errors: Flag  # True

    # Behind a proxy.
    trusted_proxy: str | None  # address whose headers count; "*" all; "localhost" a Unix socket
    trusted_proxy_count: Number  # 1
    trusted_proxy_headers: Words  # "forwarded", or some of "x-forwarded-for", "-host", "-proto", …
    clear_untrusted_proxy_headers: Flag  # True
    log_untrusted_proxy_headers: Flag  # False

    # Taken, but without effect: one line says why.
    recv_bytes: Number
    send_bytes: Number
    cleanup_interval: Number
    asyncore_loop_timeout: Number
    asyncore_use_poll: Flag

    # Weir's own that are used most; all others of the settings reference work as well.
    config: str  # a YAML file of settings; without it none is read
    access_log: str  # a file, or "-" for standard output
    access_log_format: str
    error_log: str
    log_level: str
    log_format: str
    grace: Number  # 30: time to finish on SIGTERM or Ctrl-C
    keep_alive: Number
    header_timeout: Number
    body_timeout: Number
    send_timeout: Number
    max_fields: Number
    memory_budget: Number
    temp_dir: str
    proxy_protocol: str


# What Waitress' create_server() and server classes take beside these: parts of its own event loop.
INNER = frozenset(("map", "_start", "_sock", "_dispatcher", "adj", "dispatcher_class"))


def text(name: str, value: Any) -> str:
    """A keyword's value as it would be written on the command line."""
    if name in INNER:
        raise ValueError(
            "%s: this is a part of Waitress' own event loop, which Weir does not have; leave it out" % name
        )
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, int) and name == "unix_socket_perms":
        return format(int(value), "o")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return " ".join(sorted(value) if isinstance(value, (set, frozenset)) else map(str, value))
    raise ValueError("%s: a %s is not a value; give a text or a number" % (name, type(value).__name__))


def pairs(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and texts for the configuration. None means the default; for ident: no Server header."""
    result = []
    for name, value in options.items():
        if name == "sockets":
            # The descriptors go beside; that sockets was given at all excludes other addresses.
            result.append((name, ""))
        elif name == "ident" and value is None:
            result.append((name, ""))
        elif value is not None:
            result.append((name, text(name, value)))
    return result


@contextlib.contextmanager
def duplicated_sockets(options: Mapping[str, Any]) -> Iterator[list[int]]:
    """Descriptors for sockets=[…]: copies, which the server closes. They are closed here on an error."""
    sockets = list(options.get("sockets") or ())
    families = set()
    for item in sockets:
        if not isinstance(item, socket.socket):
            raise ValueError("sockets: a %s is not a socket" % type(item).__name__)
        if item.type != socket.SOCK_STREAM or item.family not in (
            socket.AF_INET,
            socket.AF_INET6,
            socket.AF_UNIX,
        ):
            raise ValueError("sockets: only Internet or UNIX stream sockets may be used.")
        families.add(item.family == socket.AF_UNIX)
    if len(families) > 1:
        raise ValueError("sockets: Internet and UNIX sockets may not be mixed.")
    copies: list[int] = []
    try:
        for item in sockets:
            copies.append(os.dup(item.fileno()))
        yield copies
    except BaseException:
        for copy in copies:
            with contextlib.suppress(OSError):
                os.close(copy)
        raise


def address(url: str) -> tuple[str, int | str]:
    """("127.0.0.1", 8000) of "http://127.0.0.1:8000"; ("unix", path) of "http://unix:/path"."""
    rest = url.split("://", 1)[-1]
    host, _, port = rest.partition(":") if rest.startswith("unix:") else rest.rpartition(":")
    return host.strip("[]"), int(port) if port.isdigit() else port
