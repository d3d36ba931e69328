"""Answers every method and path with what it was asked, for the cases of tests/wire."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable


def app(environ: dict, start: Callable) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    told = {k: v for k, v in environ.items() if isinstance(v, str)}
    told["body"] = base64.b64encode(body).decode()
    data = json.dumps(told).encode()
    start("200 OK", [("Content-Type", "application/json"), ("X-Answer", base64.b64encode(data).decode())])
    return [data]
