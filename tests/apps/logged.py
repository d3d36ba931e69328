"""For access logs: answers of all kinds, and middleware that rewrites the environ, as ProxyFix does."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def app(environ: dict, start: Callable) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    environ["REMOTE_USER"] = 'me "myself"'
    environ["app.number"] = 42
    if path.startswith("/moved/"):
        environ.update(REMOTE_ADDR="10.1.1.1", PATH_INFO=path[6:], SCRIPT_NAME="/moved", REQUEST_METHOD="PATCH")
    headers = [("Content-Type", "text/plain"), ("X-Out", 'out "quoted"'), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    if path == "/missing":
        start("404 Not Found", [*headers, ("Content-Length", "4")])
        return [b"none"]
    if path == "/empty":
        start("204 No Content", headers)
        return []
    if path == "/stream":
        start("200 OK", headers)
        return iter([b"one", b"two"])
    environ["wsgi.input"].read()
    start("200 OK", [*headers, ("Content-Length", "5")])
    return [b"hello"]
