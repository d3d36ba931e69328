"""The application of the fault tests: every request it runs is noted in a ledger on disk.

The ledger (the file named by LEDGER) is appended to before the answer is made, so a request that was
run twice, in whatever process, stands there twice.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

LEDGER = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    query = dict(part.split("=", 1) for part in environ["QUERY_STRING"].split("&") if "=" in part)
    if "id" in query:
        os.write(LEDGER, (query["id"] + "\n").encode())
    if "ms" in query:
        time.sleep(int(query["ms"]) / 1000)
    length = crc = 0
    while data := environ["wsgi.input"].read(65536):
        length += len(data)
        crc = zlib.crc32(data, crc)
    body = f"{query.get('id', '-')} {length} {crc:08x}\n".encode()
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body))),
                     ("X-Worker", str(os.getpid()))])
    return [body]
