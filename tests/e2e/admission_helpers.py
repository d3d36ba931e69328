"""Policies, tokens, key sets and their servers for the tests of admission."""

from __future__ import annotations

import base64
import http.server
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from harness import APPS, Response, Server, Starter, weir_command
from test_command_line import as_module

SECRET = "a secret of the tests, long enough for HS256"
WAYS = ["weir", "weir --workers 0", "waitress-serve", "gunicorn", "serve()"]


def start(weir: Starter, folder: Path, policy: str, way: str = "weir", **settings: Any) -> Server:
    """A server in `folder` with the policy as its weir.yaml, started in one of WAYS. `env` reaches the application."""
    shutil.copy(APPS / "admitted.py", folder)
    (folder / "weir.yaml").write_text(policy)
    env = {"RAN": str(folder / "ran"), "HOLD": str(folder), **settings.pop("env", {})}
    if way == "weir":
        return weir("admitted:app", cwd=folder, env=env, **{"workers": 2, **settings})
    if way == "weir --workers 0":
        return weir("admitted:app", cwd=folder, env=env, **{**settings, "workers": 0})
    if way == "waitress-serve":
        return weir("admitted:app", waitress=True, cwd=folder, env=env)
    if way == "gunicorn":
        command = [*weir_command(), "gunicorn", "-b", "127.0.0.1:0", "-w", "2", "admitted:app"]
        return weir(command=command, cwd=folder, env=env)
    assert way == "serve()"
    python, module_env = as_module()
    program = "import weir, admitted; weir.serve(admitted.app, port=0, host='127.0.0.1', config='weir.yaml')"
    return weir(command=[python[0], "-c", program], cwd=folder, env={**env, **module_env})


def runs(folder: Path) -> int:
    """How often the application has run."""
    ran = folder / "ran"
    return len(ran.read_text().splitlines()) if ran.exists() else 0


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


def token(user: str | None = "ann", secret: str = SECRET, **claims: Any) -> str:
    """Signed with HS256, good for an hour."""
    said = {"exp": int(time.time()) + 3600, **({"sub": user} if user else {}), **claims}
    return jwt.encode(said, secret, algorithm="HS256")


def as_user(user: str = "ann", tier: str | None = None, **claims: Any) -> str:
    if tier:
        claims["app_metadata"] = {"tier": tier}
    return bearer(token(user, **claims))


def told(r: Response) -> dict[str, str]:
    """What the application was told of who asks."""
    assert r.status == 200, (r.status, r.body)
    answer = r.json()
    assert answer["odd"] == []
    return answer["told"]


def at_once(n: int, ask: Any, threads: int = 16) -> list[Any]:
    """ask(i) for i < n, from several threads; the results in order."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(ask, range(n)))


# ---- key sets ----


def b64(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """One key of an issuer, with its name."""

    def __init__(self, kid: str, algorithm: str = "ES256") -> None:
        self.kid, self.algorithm = kid, algorithm
        self.private: Any = (ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256"
                             else rsa.generate_private_key(65537, 2048))

    @property
    def jwk(self) -> dict[str, str]:
        numbers = self.private.public_key().public_numbers()
        if self.algorithm == "ES256":
            x, y = (base64.urlsafe_b64encode(v.to_bytes(32, "big")).rstrip(b"=").decode()
                    for v in (numbers.x, numbers.y))
            return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid}
        return {"kty": "RSA", "n": b64(numbers.n), "e": b64(numbers.e), "kid": self.kid}

    def token(self, user: str = "ann", kid: str | None = None, **claims: Any) -> str:
        said = {"sub": user, "exp": int(time.time()) + 3600, **claims}
        return jwt.encode(said, self.private, algorithm=self.algorithm, headers={"kid": kid or self.kid})


def key_set(*keys: Key) -> str:
    return json.dumps({"keys": [k.jwk for k in keys]})


class KeyServer:
    """An issuer's server on this machine. `mode`: good, stall, fail, garbage, other (a key set without usable keys)."""

    def __init__(self, text: str, mode: str = "good") -> None:
        self.text, self.mode = text, mode
        self.asked = 0
        self.goes_on = threading.Event()  # ends the stall
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mode = outer.mode
                outer.asked += 1
                if mode == "stall":
                    outer.goes_on.wait(60)
                body = {"garbage": "<html>a login page</html>", "other": '{"keys": [{"kty": "OKP"}]}'}.get(
                    mode, outer.text).encode()
                self.send_response(500 if mode == "fail" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def __enter__(self) -> KeyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.goes_on.set()
        self.server.shutdown()
        self.server.server_close()


# ---- structured fields (RFC 9651), as far as RateLimit needs them ----

ITEM = re.compile(r'"((?:[^"\\]|\\["\\])*)"((?:;[a-z*][a-z0-9_.*-]*(?:=(?:-?[0-9]{1,15}|"[^"]*"))?)*)')


def members(text: str) -> Iterator[tuple[str, dict[str, int]]]:
    """The items of a List of Strings with Integer parameters; strict."""
    rest = text
    while rest:
        item = ITEM.match(rest)
        assert item, f"no item at {rest!r} of {text!r}"
        parameters: dict[str, int] = {}
        for part in filter(None, item[2].split(";")):
            name, _, value = part.partition("=")
            assert name not in parameters and re.fullmatch(r"-?[0-9]+", value), text
            parameters[name] = int(value)
        yield item[1], parameters
        rest = rest[item.end():]
        if rest:
            comma = re.match(r"[ \t]*,[ \t]*(?=.)", rest)
            assert comma, f"no comma at {rest!r} of {text!r}"
            rest = rest[comma.end():]


def limits(r: Response, name: str = "RateLimit") -> dict[str, dict[str, int]]:
    """The limits in a field, its lines joined as RFC 9110 says."""
    found = list(members(", ".join(r.all(name))))
    assert len(dict(found)) == len(found), "a name stands twice"
    return dict(found)


def problem(r: Response) -> dict[str, Any]:
    assert r.get("content-type") == "application/problem+json"
    assert r.get("cache-control") == "no-store"
    said = r.json()
    assert said["status"] == r.status and said["detail"] and said["title"] == r.reason
    if "retry_after" in said:
        assert r.get("retry-after") == str(said["retry_after"])
    return said
