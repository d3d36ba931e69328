"""Around each request, only when the configuration asks for it: pre_request, post_request and StatsD."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator

from weir._gunicorn_cfg import address, unset_hook

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from weir._gunicorn_cfg import Config


def around(
    application: WSGIApplication, cfg: Config, worker: Callable[[], Any]
) -> WSGIApplication:
    """The application itself when nothing is wanted around it. `worker` tells whose it is now."""
    before = None if cfg.pre_request is unset_hook else cfg.pre_request
    after = None if cfg.post_request is unset_hook else cfg.post_request
    statsd = StatsD(cfg.statsd_host, cfg.statsd_prefix, cfg.dogstatsd_tags) if cfg.statsd_host else None
    if before is None and after is None and statsd is None:
        return application
    return Around(application, worker, before, after, statsd)


class Request:
    """What hooks know as `req`: the head of a request."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.method = environ["REQUEST_METHOD"]
        self.uri = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
        self.path = environ["PATH_INFO"]
        self.query = environ["QUERY_STRING"]
        self.fragment = ""
        major, _, minor = environ["SERVER_PROTOCOL"].partition("/")[2].partition(".")
        self.version = (int(major), int(minor))
        self.scheme = environ["wsgi.url_scheme"]
        self.remote_addr = (environ.get("REMOTE_ADDR", ""), int(environ.get("REMOTE_PORT") or 0))
        self.peer_addr = self.remote_addr
        self.body = environ["wsgi.input"]
        self.trailers: list[tuple[str, str]] = []
        self.proxy_protocol_info = None
        self._environ = environ

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names in capitals with dashes."""
        found = [
            (name[5:].replace("_", "-"), value)
            for name, value in self._environ.items()
            if name.startswith("HTTP_")
        ]
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if self._environ.get(name):
                found.append((name.replace("_", "-"), self._environ[name]))
        return found


class Response:
    """What hooks know as `resp`: what the application answered."""

    def __init__(self) -> None:
        self.status: str | None = None
        self.status_code: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.response_length: int | None = None  # as the application declared it
        self.sent = 0  # bytes of the body that the application gave
        self.headers_sent = False

    def begin(self, status: str, headers: Iterable[tuple[str, str]]) -> None:
        self.status = status
        self.headers = list(headers)
        code = status[:3]
        self.status_code = int(code) if code.isdigit() else None
        for name, value in self.headers:
            if name.lower() == "content-length" and value.strip().isdigit():
                self.response_length = int(value)

    def count(self, data: bytes) -> None:
        self.sent += len(data)
        self.headers_sent = True


class Around:
    def __init__(
        self,
        application: WSGIApplication,
        worker: Callable[[], Any],
        before: Callable[..., object] | None,
        after: Callable[..., object] | None,
        statsd: StatsD | None,
    ) -> None:
        self.application = application
        self.worker = worker
        self.before = before
        self.after = after
        self.statsd = statsd

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun = time.monotonic()
        worker = self.worker()
        worker.nr += 1
        request, response = Request(environ), Response()
        if self.before is not None:
            self.before(worker, request)

        def start(status: str, headers: Any, *exc_info: Any) -> Callable[[bytes], object]:
            write = start_response(status, headers, *exc_info)
            response.begin(status, headers)

            def counted(data: bytes) -> object:
                response.count(data)
                return write(data)

            return counted

        def done() -> None:
            self.done(worker, request, environ, response, time.monotonic() - begun)

        try:
            result = self.application(environ, start)
        except BaseException:
            done()
            raise
        if isinstance(result, environ["wsgi.file_wrapper"]):
            # The kernel sends it; wrapped, it would be copied through Python.
            done()
            return result
        return Result(result, response, done)

    def done(
        self, worker: Any, request: Request, environ: WSGIEnvironment, response: Response, seconds: float
    ) -> None:
        if self.statsd is not None:
            self.statsd.request(response.status_code or 500, seconds)
        if self.after is not None:
            try:
                self.after(worker, request, environ, response)
            except Exception:
                worker.log.exception("Exception in post_request hook")


class Result:
    """The application's answer, counted, and told of when it is closed."""

    def __init__(self, result: Iterable[bytes], response: Response, done: Callable[[], None]) -> None:
        self.result = result
        self.response = response
        self.done = done
        if isinstance(result, (list, tuple)):
            self.__class__ = Sized

    def __iter__(self) -> Iterator[bytes]:
        for data in self.result:
            self.response.count(data)
            yield data

    def close(self) -> None:
        try:
            close = getattr(self.result, "close", None)
            if close is not None:
                close()
        finally:
            self.done()


class Sized(Result):
    def __len__(self) -> int:
        return len(self.result)  # type: ignore[arg-type]


class StatsD:
    """Counters and times as datagrams. Nobody waits for them, and a lost one is lost."""

    def __init__(self, host: str, prefix: str | None, tags: str | None) -> None:
        if host.startswith("unix:"):
            self.to: Any = host.removeprefix("unix:").replace("//", "/", 1)
            family = socket.AF_UNIX
        else:
            name, port = address(host if ":" in host else host + ":8125")
            family, _, _, _, self.to = socket.getaddrinfo(name, port, type=socket.SOCK_DGRAM)[0]
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.prefix = (prefix or "").rstrip(".")
        if self.prefix:
            self.prefix += "."
        self.tail = "|#" + tags if tags else ""

    def send(self, *lines: str) -> None:
        text = "\n".join(self.prefix + line + self.tail for line in lines)
        try:
            self.socket.sendto(text.encode("ascii", "replace"), self.to)
        except OSError:
            pass

    def request(self, status: int, seconds: float) -> None:
        self.send(
            "gunicorn.request.duration:%.3f|ms" % (seconds * 1000),
            "gunicorn.requests:1|c",
            "gunicorn.request.status.%d:1|c" % status,
        )

    def workers(self, number: int) -> None:
        self.send("gunicorn.workers:%d|g" % number)
