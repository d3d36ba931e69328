"""CORS: browsers' preflights are answered, and pages of other origins can read every answer, refusals among them."""

from __future__ import annotations

from pathlib import Path

import pytest
from admission_helpers import SECRET, WAYS, as_user, problem, runs, start
from harness import Client, Response, Server, Starter, wait_for

PAGE = "Origin: https://app.example"
POLICY = """\
identify:
  - jwt: {secret_file: jwt.secret}
  - address
tiers: {from: jwt.app_metadata.tier, default: free}
cors: {origins: [https://app.example, "http://localhost:*"], credentials: true}
store: quotas.db
max-body-size: 1K
routes:
  - {match: /ai/limited, require: user, rate: {user: 1/day}}
  - {match: /ai/paid, require: user, quota: {free: 0, pro: 1/day}}
  - {match: "/ai/narrow/*", require: user, concurrency: 1}
  - {match: /ai/slow/*, require: user, deadline: 300ms}
  - {match: /public/*, cors: {origins: "*", methods: [GET], headers: [X-One, X-Two], max_age: 1h, expose: X-More}}
  - {match: /closed/*, cors: {origins: []}}
  - {match: /*}
"""
ASKS = "Access-Control-Request-Method: "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jwt.secret").write_text(SECRET)
    return tmp_path


def preflight(server: Server, path: str, method: str = "POST", origin: str = PAGE, headers: str = "") -> Response:
    more = [f"Access-Control-Request-Headers: {headers}"] if headers else []
    return server.ask("OPTIONS", path, origin, ASKS + method, *more)


def names(r: Response, field: str) -> set[str]:
    return {n.strip().lower() for line in r.all(field) for n in line.split(",")}


def readable(r: Response, origin: str = "https://app.example") -> Response:
    """A page of `origin` that sends credentials may read it, and the fields that say what next."""
    assert r.get("access-control-allow-origin") == origin
    assert r.get("access-control-allow-credentials") == "true"
    assert {"retry-after", "ratelimit", "ratelimit-policy"} <= names(r, "access-control-expose-headers")
    assert "origin" in names(r, "vary")
    return r


@pytest.mark.parametrize("way", WAYS)
def test_a_preflight_is_answered_without_the_application(weir: Starter, folder: Path, way: str) -> None:
    server = start(weir, folder, POLICY, way)
    r = readable(preflight(server, "/ai/limited", headers="authorization,content-type"))
    assert (r.status, r.body) == (204, b"")
    assert {"post", "get", "delete"} <= names(r, "access-control-allow-methods")
    assert names(r, "access-control-allow-headers") == {"authorization", "content-type"}
    assert r.get("access-control-max-age") == "600"
    assert {"origin", "access-control-request-method", "access-control-request-headers"} <= names(r, "vary")
    assert runs(folder) == 0
    # OPTIONS that asks nothing is the application's, and limited like others.
    assert server.ask("OPTIONS", "/", PAGE).status == 200
    assert server.ask("OPTIONS", "/ai/limited", PAGE).status == 401
    assert runs(folder) == 1


def test_preflights_spend_no_limit(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, POLICY)
    for _ in range(5):
        assert preflight(server, "/ai/limited").status == 204
        assert preflight(server, "/ai/paid").status == 204
    assert server.ask("POST", "/ai/limited", PAGE, as_user()).status == 200
    assert server.ask("POST", "/ai/paid", PAGE, as_user(tier="pro")).status == 200
    assert server.ask("POST", "/ai/limited", PAGE, as_user()).status == 429
    assert preflight(server, "/ai/limited").status == 204


@pytest.mark.parametrize("origin", ["https://evil.example", "http://app.example", "https://app.example.evil",
                                    "https://app.example:444", "null", "http://localhost.evil:80", "*"])
def test_pages_of_other_origins_may_not(weir: Starter, folder: Path, origin: str) -> None:
    server = start(weir, folder, POLICY, workers=0)
    r = preflight(server, "/ai/limited", origin=f"Origin: {origin}")
    assert r.status == 403 and not r.all("access-control-allow-origin")
    for path, status in (("/", 200), ("/ai/limited", 401)):
        r = server.get(path, f"Origin: {origin}")
        assert r.status == status and not r.all("access-control-allow-origin")
        assert "origin" in names(r, "vary")


def test_a_star_stands_for_every_port(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, POLICY)
    for origin in ("http://localhost", "http://localhost:3000", "http://localhost:65535"):
        readable(server.get("/", f"Origin: {origin}"), origin)


def test_a_route_has_its_own_rules(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, POLICY)
    r = preflight(server, "/public/x", "GET", "Origin: https://anybody.example", "x-one")
    assert (r.status, r.get("access-control-allow-origin")) == (204, "*")
    assert r.get("access-control-allow-credentials") is None
    assert names(r, "access-control-allow-methods") == {"get"}
    assert names(r, "access-control-allow-headers") == {"x-one", "x-two"}
    assert r.get("access-control-max-age") == "3600"
    r = server.get("/public/x", "Origin: https://anybody.example")
    assert r.get("access-control-allow-origin") == "*" and "x-more" in names(r, "access-control-expose-headers")
    assert preflight(server, "/closed/x").status == 403
    assert not server.get("/closed/x", PAGE).all("access-control-allow-origin")


def test_an_application_that_says_it_itself_keeps_its_own(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, POLICY)
    r = server.get("/own-cors", PAGE)
    assert r.all("access-control-allow-origin") == ["https://own.example"]
    assert not r.all("access-control-allow-credentials") and not r.all("access-control-expose-headers")
    readable(server.get("/other", PAGE))


def entered(folder: Path, name: str) -> None:
    wait_for((folder / f"{name}.in").exists, what="the application has it")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_each_refusal_can_be_read_by_the_page(weir: Starter, folder: Path, method: str) -> None:
    server = start(weir, folder, POLICY, threads=4)
    body = b"{}" if method == "POST" else None

    def ask(path: str, *fields: str, **more: bytes) -> Response:
        return readable(server.ask(method, path, PAGE, *fields, **{"body": body, **more}))  # type: ignore[arg-type]

    assert ask("/", as_user()).status == 200
    r = ask("/ai/limited")
    assert (r.status, problem(r)["reason"]) == (401, "no_credentials")
    r = ask("/ai/limited", "Authorization: Bearer x")
    assert (r.status, problem(r)["reason"]) == (401, "bad_credentials")
    r = ask("/ai/paid", as_user())
    assert (r.status, problem(r)["reason"]) == (403, "tier")
    assert ask("/ai/limited", as_user()).status == 200
    r = ask("/ai/limited", as_user())
    assert (r.status, problem(r)["reason"]) == (429, "rate_limited") and int(r.get("retry-after") or 0) > 0
    with Client(server.address) as c:
        c.request(method, f"/ai/narrow/hold/{method}", as_user(), body=body)
        entered(folder, method)
        r = ask("/ai/narrow/x", as_user())
        assert (r.status, problem(r)["reason"]) == (503, "queue_full") and int(r.get("retry-after") or 0) > 0
        (folder / f"{method}.go").touch()
        assert c.response().status == 200
    r = ask(f"/ai/slow/hold/late-{method}", as_user())
    assert (r.status, problem(r)["reason"]) == (504, "deadline")
    if method == "POST":
        r = ask("/", body=b"x" * 2000)
        assert r.status == 413 and "max-body-size" in r.text
        # Refused before its body has come, because that is long.
        with Client(server.address) as c:
            c.request("POST", "/ai/limited", PAGE, "Content-Length: 100000")
            assert readable(c.response()).status == 401
        with Client(server.address) as c:
            c.request("POST", "/", PAGE, "Transfer-Encoding: chunked")
            c.send(b"800\r\n" + b"x" * 2048 + b"\r\n0\r\n\r\n")
            assert readable(c.response()).status == 413


def test_a_file_that_is_not_there_can_be_told_by_the_page(weir: Starter, folder: Path) -> None:
    (folder / "files").mkdir()
    (folder / "files" / "a.txt").write_text("a")
    server = start(weir, folder, POLICY, static="/files=files")
    assert readable(server.get("/files/none", PAGE)).status == 404
    assert readable(server.get("/files/a.txt", PAGE)).body == b"a"
    assert preflight(server, "/files/a.txt", "GET").status == 204
    assert readable(server.get("/-/usage", PAGE)).status == 401
    assert readable(server.get("/-/usage", PAGE, as_user())).status == 200


def test_an_application_that_fails_can_be_told_by_the_page(weir: Starter, folder: Path) -> None:
    (folder / "broken.py").write_text("def app(environ, start_response):\n    raise ValueError('x')\n")
    (folder / "weir.yaml").write_text(POLICY)
    server = weir("broken:app", cwd=folder, workers=0)
    assert readable(server.get("/", PAGE)).status == 500


def test_without_origin_nothing_is_said_of_origins(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, POLICY)
    r = server.get("/")
    assert not [k for k, _ in r.fields if k.lower().startswith("access-control")]
    assert "origin" in names(r, "vary")
