"""Requests of many users in turns: what is kept from one of them is never told of the next."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
from harness import Client, Server, Starter

SECRET = b"0123456789abcdef0123456789abcdef"
POLICY = """\
identify:
  - jwt: {{secret_file: {folder}/secret}}
  - api_key: {{file: {folder}/keys.txt}}
  - address
tiers: {{from: jwt.tier}}
cors: {{origins: ["https://general.example"]}}
routes:
  - match: GET /env
    rate: {{user: 3/day burst 3, address: 100/s burst 100}}
    concurrency: 2
    queue: 10
  - match: POST /echo
    cors: {{origins: ["https://post.example"]}}
  - match: OPTIONS /echo
    rate: {{address: 1/day}}
"""


def jwt(**claims: object) -> str:
    def b64(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    text = b64(b'{"alg":"HS256"}') + b"." + b64(json.dumps(claims, ensure_ascii=False).encode())
    return (text + b"." + b64(hmac.digest(SECRET, text, hashlib.sha256))).decode()


@pytest.fixture
def server(weir: Starter, tmp_path: Path) -> Server:
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "keys.txt").write_text("robot key-of-the-robot gold\nplain key-of-the-plain\n")
    (tmp_path / "weir.yaml").write_text(POLICY.format(folder=tmp_path))
    return weir("basic:app", "--config", str(tmp_path / "weir.yaml"), workers=1)


def seen(c: Client, *fields: str) -> dict[str, str]:
    r = c.get("/env", *fields)
    assert r.status == 200, r.text
    return {k[5:]: v for k, v in r.json().items()
            if k in ("weir.user", "weir.user_by", "weir.tier", "weir.claims")}


def test_each_request_is_told_its_own_user_tier_and_claims(server: Server) -> None:
    who = {
        "ada": {"sub": "ada", "tier": "gold", "exp": 4_000_000_000},
        "zoë": {"sub": "zoë", "tier": "größer", "exp": 4_000_000_000, "text": "ä" * 100},
        "bob": {"sub": "bob", "exp": 4_000_000_000, "text": "b" * 300},
    }
    with server.client() as c:
        for _ in range(2):
            for name, claims in who.items():
                got = seen(c, f"Authorization: bearer {jwt(**claims)}")
                assert json.loads(got.pop("claims")) == claims
                tier = {"tier": claims["tier"]} if "tier" in claims else {}
                assert got == {"user": name, "user_by": "jwt", **tier}
            assert seen(c) == {"user_by": "address"}
            assert seen(c, "X-API-Key: key-of-the-robot") == {"user": "robot", "user_by": "api_key", "tier": "gold"}
            assert seen(c, "X-API-Key: key-of-the-plain") == {"user": "plain", "user_by": "api_key"}


def test_a_users_rate_is_one_for_all_of_his_tokens_and_nobody_elses(server: Server) -> None:
    """Found in the cache or verified anew, with one token or another: the same limit."""
    one, two = (f"Authorization: Bearer {jwt(sub='ada', exp=4_000_000_000, n=n)}" for n in (1, 2))
    with server.client() as c:
        for field in (one, one, two):
            assert c.get("/env", field).status == 200
        for field in (one, two):
            assert c.get("/env", field).status == 429
        assert c.get("/env", f"Authorization: Bearer {jwt(sub='bob', exp=4_000_000_000)}").status == 200
        assert c.get("/env", "X-API-Key: key-of-the-robot").status == 200


def test_a_preflight_has_the_rules_of_the_route_that_it_asks_about(server: Server) -> None:
    with server.client() as c:
        for _ in range(3):
            r = c.ask("OPTIONS", "/echo", "Origin: https://post.example", "Access-Control-Request-Method: POST")
            assert r.status == 204 and r.get("access-control-allow-origin") == "https://post.example"
            r = c.ask("OPTIONS", "/echo", "Origin: https://general.example", "Access-Control-Request-Method: GET")
            assert r.status == 204 and r.get("access-control-allow-origin") == "https://general.example"
        # Without a method it is no preflight, but a request like others, with the limits of its own route.
        assert c.ask("OPTIONS", "/echo", "Origin: https://post.example").status == 200
        assert c.ask("OPTIONS", "/echo", "Origin: https://post.example").status == 429
