"""Who asks: tokens, keys, cookies and addresses, as the policy's `identify` says, and what the application is told."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
from pathlib import Path

import jwt
import pytest
from admission_helpers import (
    SECRET,
    WAYS,
    Key,
    KeyServer,
    as_user,
    bearer,
    key_set,
    problem,
    runs,
    start,
    token,
    told,
)
from harness import Server, Starter, wait_for

BY_SECRET = """\
identify:
  - jwt: {secret_file: jwt.secret, issuer: https://id.example, audience: authenticated}
  - address
tiers: {from: jwt.app_metadata.tier, default: free}
routes:
  - {match: /account/*, require: user}
  - {match: /*}
"""
GOOD = {"iss": "https://id.example", "aud": "authenticated"}
FORGED = ["X-Weir-User: eve", "weir.user: eve", "WEIR_USER: eve", "HTTP_WEIR_USER: eve", "HTTP-WEIR-USER: eve",
          "Weir-User: eve", "weir.claims: {}", "weir.tier: pro", "X-Weir-Tier: pro"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jwt.secret").write_text(SECRET + "\n")
    return tmp_path


def refused(server: Server, *fields: str, path: str = "/account/") -> str:
    """Its WWW-Authenticate, and that the request was refused for its credentials."""
    r = server.get(path, *fields)
    assert r.status == 401, (r.status, r.body)
    assert problem(r)["reason"] == "bad_credentials"
    challenge = r.get("www-authenticate") or ""
    parts = re.fullmatch(r'Bearer realm="[^"\\]*", error="invalid_token", error_description="([^"\\]*)"', challenge)
    assert parts, challenge
    return parts[1]


# ---- a secret ----


@pytest.mark.parametrize("way", WAYS)
def test_a_token_of_the_secret_names_its_user(weir: Starter, folder: Path, way: str) -> None:
    server = start(weir, folder, BY_SECRET, way)
    claims = {**GOOD, "app_metadata": {"tier": "pro"}, "name": "Änn"}
    made = token("ann", **claims)
    for _ in range(3):  # the second time it is known
        got = told(server.get("/account/", bearer(made), *FORGED))
        assert (got["weir.user"], got["weir.user_by"], got["weir.tier"]) == ("ann", "jwt", "pro")
        assert json.loads(got["weir.claims"]) == jwt.decode(made, options={"verify_signature": False})
        assert sorted(got) == ["weir.claims", "weir.tier", "weir.user", "weir.user_by"]
    assert told(server.get("/account/", as_user("bob", **GOOD)))["weir.tier"] == "free"
    r = server.get("/account/")
    assert (r.status, r.get("www-authenticate")) == (401, 'Bearer realm="api"')
    assert problem(r)["reason"] == "no_credentials"
    assert refused(server, as_user("ann", **{**GOOD, "exp": int(time.time()) - 60})) == "the token has expired"
    assert runs(folder) == 4


def test_what_one_request_was_told_the_next_is_not(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, BY_SECRET, workers=1)
    c = server.client()
    for _ in range(3):
        assert told(c.get("/", as_user("ann", **GOOD)))["weir.user"] == "ann"
        assert told(c.get("/", *FORGED)) == {"weir.user_by": "address"}
        assert "weir.user" not in told(c.get("/", bearer("wrong")))
    c.send(b"".join(f"GET / HTTP/1.1\r\nHost: t\r\n{f}\r\n\r\n".encode()
                    for f in (as_user("ann", **GOOD), "A: b", as_user("bob", **GOOD), FORGED[0])))
    assert [told(c.response()).get("weir.user") for _ in range(4)] == ["ann", None, "bob", None]


def unsigned(head: dict, claims: dict, signature: str = "") -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in (head, claims)]
    return ".".join([*parts, signature])


def test_wrong_tokens_are_told_why_and_never_run(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, BY_SECRET)
    now = int(time.time())
    wrong = {
        token("ann", **GOOD)[:-5] + "AAAAA": "the token's signature is wrong",
        token("ann", "another secret of the tests, as long", **GOOD): "the token's signature is wrong",
        token("ann", **{**GOOD, "exp": now - 45}): "the token has expired",
        token("ann", nbf=now + 60, **GOOD): "the token is not valid yet",
        token("ann", **{**GOOD, "iss": "https://evil.example"}): "the token was issued by somebody else",
        token("ann", aud="authenticated"): "the token was issued by somebody else",
        token("ann", **{**GOOD, "aud": "others"}): "the token is meant for somebody else",
        token("ann", iss=GOOD["iss"]): "the token is meant for somebody else",
        token(None, **GOOD): "the token does not say whose it is",
        token("", **GOOD, sub=""): "the token does not say whose it is",
        token("", **GOOD, sub={"a": 1}): "the token does not say whose it is",
        unsigned({"alg": "none"}, {"sub": "ann", **GOOD}): "the token's algorithm is not accepted here",
        jwt.encode({"sub": "ann", **GOOD}, SECRET, algorithm="HS512"): "the token's algorithm is not accepted here",
        "no.token": "the token is not a signed JSON Web Token",
        "a": "the token is not a signed JSON Web Token",
        token("ann", **GOOD, much="x" * 9000): "the token is too large",
    }
    for made, why in wrong.items():
        for _ in range(2):  # the second time it is known to be wrong
            got = refused(server, bearer(made))
            assert got == why or (made.count(".") == 2 and got.endswith("a signed JSON Web Token")), made
    assert runs(folder) == 0


def test_clocks_may_differ_by_half_a_minute(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, BY_SECRET)
    now = int(time.time())
    assert told(server.get("/", as_user("ann", **{**GOOD, "exp": now - 5})))["weir.user"] == "ann"
    assert told(server.get("/", as_user("bob", nbf=now + 25, **GOOD)))["weir.user"] == "bob"
    assert told(server.get("/", as_user("cyd", **{**GOOD, "aud": ["x", "authenticated"]})))["weir.user"] == "cyd"


def test_a_known_token_is_refused_when_it_expires(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, BY_SECRET, workers=1)
    made = bearer(token("ann", **{**GOOD, "exp": int(time.time()) - 28}))
    c = server.client()
    assert c.get("/account/", made).status == 200
    wait_for(lambda: c.get("/account/", made).status == 401)


def test_a_reload_takes_a_new_secret_and_keeps_the_old_while_it_cannot_be_read(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, BY_SECRET)
    old, other = as_user("ann", **GOOD), "the next secret of the tests, long enough"
    new = bearer(token("ann", other, **GOOD))
    assert server.get("/account/", old).status == 200
    (folder / "jwt.secret").write_text("short")
    server.kill(signal.SIGHUP)
    server.wait_log("weir.yaml:2: secret_file")
    assert server.get("/account/", old).status == 200
    (folder / "jwt.secret").write_text(other)
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded")
    wait_for(lambda: server.get("/account/", old).status == 401)
    assert told(server.get("/account/", new))["weir.user"] == "ann"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("preload", [False, True])
def test_a_secret_of_root_alone_is_enough_with_another_user(weir: Starter, tmp_path: Path, preload: bool) -> None:
    # pytest's folders are closed to others.
    folder = Path(os.path.realpath(f"/tmp/weir-identity-{os.getpid()}-{int(preload)}"))
    folder.mkdir(mode=0o755)
    try:
        (folder / "jwt.secret").write_text(SECRET)
        (folder / "jwt.secret").chmod(0o600)
        (folder / "keys.txt").write_text("service 0123456789abcdef-key\n")
        (folder / "keys.txt").chmod(0o600)
        policy = BY_SECRET.replace("  - address\n", "  - api_key: {file: keys.txt}\n  - address\n")
        server = start(weir, folder, policy, user="nobody", preload=preload, env={"RAN": ""})
        for pid in server.worker_pids():
            assert Path(f"/proc/{pid}").stat().st_uid != 0
        assert told(server.get("/account/", as_user("ann", **GOOD)))["weir.user"] == "ann"
        assert told(server.get("/account/", "X-API-Key: 0123456789abcdef-key"))["weir.user"] == "service"
        (folder / "jwt.secret").write_text("another secret that only root can read")
        server.kill(signal.SIGHUP)
        server.wait_log("reloaded")
        wait_for(lambda: server.get("/account/", as_user("ann", **GOOD)).status == 401)
        made = bearer(token("ann", "another secret that only root can read", **GOOD))
        assert told(server.get("/account/", made))["weir.user"] == "ann"
        server.stop()
    finally:
        for f in sorted(folder.rglob("*"), reverse=True):
            f.rmdir() if f.is_dir() else f.unlink()
        folder.rmdir()


# ---- key sets ----

BY_SET = """\
identify:
  - jwt: {{jwks: "{url}"}}
  - address
routes:
  - {{match: /account/*, require: user}}
  - {{match: /*}}
"""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_key_set_of_a_file_verifies(weir: Starter, folder: Path, algorithm: str, way: str) -> None:
    key, other = Key("one", algorithm), Key("one", algorithm)
    (folder / "jwks.json").write_text(key_set(key))
    server = start(weir, folder, BY_SET.format(url="jwks.json"), way)
    assert told(server.get("/account/", bearer(key.token("ann"))))["weir.user"] == "ann"
    assert refused(server, bearer(other.token("ann"))) == "the token's signature is wrong"
    assert refused(server, bearer(key.token("ann", kid="two"))) == (
        "the token is signed with a key that is not known here")
    # Whoever knows the public key cannot sign with it.
    forged = unsigned({"alg": "HS256", "kid": "one"}, {"sub": "ann"}, "A" * 43)
    assert refused(server, bearer(forged)) == "the token's algorithm is not accepted here"


@pytest.mark.parametrize("way", WAYS)
def test_a_key_set_of_a_url_is_waited_for_and_then_verifies(weir: Starter, folder: Path, way: str) -> None:
    key = Key("one")
    with KeyServer(key_set(key), "stall") as keys:
        server = start(weir, folder, BY_SET.format(url=keys.url), way)
        made = bearer(key.token("ann"))
        r = server.get("/account/", made)
        assert r.status == 503 and problem(r)["reason"] == "not_ready" and r.get("retry-after") == "1"
        assert server.get("/account/").status == 401
        assert "weir.user" not in told(server.get("/", made))
        keys.mode = "good"
        keys.goes_on.set()
        wait_for(lambda: server.get("/account/", made).status != 503)
        assert told(server.get("/account/", made))["weir.user"] == "ann"
        assert keys.asked == 1


def test_an_issuer_that_fails_at_the_start_is_asked_again(weir: Starter, folder: Path) -> None:
    key = Key("one")
    with KeyServer(key_set(key), "fail") as keys:
        server = start(weir, folder, BY_SET.format(url=keys.url))
        server.wait_log("cannot fetch the key set")
        for mode in ("garbage", "other"):
            keys.mode = mode
            asked = keys.asked
            wait_for(lambda a=asked: keys.asked > a, 20)
            assert server.get("/account/", bearer(key.token())).status == 503
        keys.mode = "good"
        wait_for(lambda: server.get("/account/", bearer(key.token())).status == 200, 30)


def keeper(server: Server) -> int:
    return wait_for(lambda: next(iter(server.keeper_pids()), 0), what="a keeper")


def test_old_keys_stay_while_the_issuer_fails_and_go_when_it_has_others(weir: Starter, folder: Path) -> None:
    old, new = Key("old"), Key("new", "RS256")
    with KeyServer(key_set(old)) as keys:
        server = start(weir, folder, BY_SET.format(url=keys.url))
        wait_for(lambda: server.get("/account/", bearer(old.token())).status == 200)
        for mode in ("fail", "garbage", "other", "stall"):  # a new keeper fetches at once
            keys.mode, asked = mode, keys.asked
            os.kill(keeper(server), signal.SIGKILL)
            wait_for(lambda a=asked: keys.asked > a, 20)
            # Not one that is known from before.
            assert told(server.get("/account/", bearer(old.token(mode))))["weir.user"] == mode
        keys.mode, keys.text, asked = "good", key_set(new), keys.asked
        keys.goes_on.set()
        os.kill(keeper(server), signal.SIGKILL)
        wait_for(lambda: server.get("/account/", bearer(new.token())).status == 200, 20)
        assert refused(server, bearer(old.token("ann")))


def test_an_unknown_key_is_looked_for_at_most_once_a_minute(weir: Starter, folder: Path) -> None:
    old, new = Key("old"), Key("new")
    with KeyServer(key_set(old)) as keys:
        server = start(weir, folder, BY_SET.format(url=keys.url))
        wait_for(lambda: server.get("/account/", bearer(old.token())).status == 200)
        begun = time.monotonic()
        keys.text = key_set(old, new)
        for i in range(20):
            assert refused(server, bearer(new.token(f"u{i}"))).endswith("not known here")
            assert refused(server, bearer(old.token(kid=f"invented-{i}"))).endswith("not known here")
            assert server.get("/account/", bearer(old.token(f"u{i}"))).status == 200
        assert keys.asked == 1
        # After that minute it is fetched, without anybody asking again, and the token that was wrong is good.
        wait_for(lambda: keys.asked == 2, 75)
        assert time.monotonic() - begun > 55
        wait_for(lambda: server.get("/account/", bearer(new.token("u1"))).status == 200)
        assert server.get("/account/", bearer(old.token("ann"))).status == 200
        assert keys.asked == 2


def test_a_token_may_be_of_any_issuer_of_the_file(weir: Starter, folder: Path) -> None:
    """As while a secret is replaced by a key set."""
    first, second = Key("a"), Key("b", "RS256")
    (folder / "one.json").write_text(key_set(first))
    (folder / "two.json").write_text(key_set(second))
    with KeyServer(key_set(Key("c")), "stall") as keys:
        server = start(weir, folder, f"""\
identify:
  - jwt: {{jwks: one.json, issuer: https://one.example}}
  - jwt: {{jwks: two.json, issuer: https://two.example, cookie: session}}
  - jwt: {{secret_file: jwt.secret}}
  - jwt: {{jwks: "{keys.url}"}}
routes:
  - {{match: /account/*, require: user}}
""", workers=1)
        one = bearer(first.token("one", iss="https://one.example"))
        two = second.token("two", iss="https://two.example")
        for _ in range(2):
            assert told(server.get("/account/", one))["weir.user"] == "one"
            assert told(server.get("/account/", bearer(two)))["weir.user"] == "two"
            assert told(server.get("/account/", f"Cookie: session={two}"))["weir.user"] == "two"
            assert told(server.get("/account/", as_user("three")))["weir.user"] == "three"
            # The verdict of the issuer that knows its key.
            assert refused(server, bearer(first.token(iss="https://two.example"))).endswith("somebody else")
            assert refused(server, as_user("x", exp=int(time.time()) - 100)).endswith("expired")
            # Nobody here knows it; the fourth issuer may, when its keys come.
            r = server.get("/account/", bearer(Key("c").token()))
            assert r.status == 503 and problem(r)["reason"] == "not_ready"


# ---- other credentials ----


def test_the_first_that_applies_says_who_it_is(weir: Starter, folder: Path) -> None:
    (folder / "keys.txt").write_text("robot 0123456789abcdef-robot pro # nightly\nrobot 0123456789abcdef-next\n"
                                     "guest 0123456789abcdef-guest\n")
    server = start(weir, folder, """\
identify:
  - jwt: {secret_file: jwt.secret, cookie: session}
  - api_key: {header: X-Service-Key, file: keys.txt}
  - address
tiers: {from: jwt.tier, default: free}
routes:
  - {match: /account/*, require: user}
  - {match: /*}
""")
    key = "X-Service-Key: 0123456789abcdef-robot"
    ann, bob = token("ann"), token("bob")
    assert told(server.get("/", bearer(ann), key))["weir.user"] == "ann"
    assert told(server.get("/", bearer(ann), f"Cookie: session={bob}"))["weir.user"] == "ann"
    for cookie in (f"session={bob}", f"a=b; session={bob}; session2=x", f"xsession={ann};session={bob}"):
        assert told(server.get("/account/", f"Cookie: {cookie}", key))["weir.user"] == "bob"
    assert told(server.get("/account/", "Authorization: Basic YTpi", f"Cookie: session={bob}"))["weir.user"] == "bob"
    got = told(server.get("/account/", key, "Cookie: other=x"))
    assert got == {"weir.user": "robot", "weir.user_by": "api_key", "weir.tier": "pro"}
    assert told(server.get("/account/", "x-service-key: 0123456789abcdef-next"))["weir.tier"] == "free"
    assert told(server.get("/")) == {"weir.user_by": "address"}
    assert refused(server, bearer(ann[:-4] + "AAAA"), key)  # it does not go on to the key
    r = server.get("/account/", "X-Service-Key: 0123456789abcdef-nobody")
    assert (r.status, r.get("www-authenticate")) == (401, 'ApiKey realm="api"')
    assert problem(r)["reason"] == "bad_credentials"


@pytest.mark.parametrize("way", WAYS)
def test_any_key_or_token_is_a_user_by_its_hash_where_the_file_says_so(weir: Starter, folder: Path, way: str) -> None:
    policy = "identify:\n  - api_key\n  - bearer\n  - address\nroutes:\n  - {match: /*, require: user}\n"
    server = start(weir, folder, policy, way)
    by_key = told(server.get("/", "X-API-Key: one"))
    by_token = told(server.get("/", bearer("one")))
    assert by_key["weir.user_by"] == "api_key" and by_token["weir.user_by"] == "bearer"
    assert re.fullmatch(r"[0-9a-f]{32}", by_key["weir.user"]) and "one" not in by_token["weir.user"]
    assert told(server.get("/", bearer("one"))) == by_token
    assert told(server.get("/", bearer("two")))["weir.user"] != by_token["weir.user"]
    r = server.get("/")
    assert (r.status, r.get("www-authenticate")) == (401, 'ApiKey realm="api"')


def test_bearer_behind_jwt_takes_what_is_no_such_token(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, "identify:\n  - jwt: {secret_file: jwt.secret}\n  - bearer\n"
                                 "routes:\n  - {match: /*, require: user}\n")
    assert told(server.get("/", bearer("me")))["weir.user_by"] == "bearer"
    assert told(server.get("/", as_user("ann")))["weir.user"] == "ann"
    refused(server, as_user("ann", exp=1), path="/")
    refused(server, bearer(token("ann", "another secret of the tests, as long")), path="/")


# ---- addresses ----


def test_addresses_of_one_ipv6_network_are_one_client(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, "routes:\n  - {match: /*, rate: {address: 2/day}}\n",
                   trusted_proxy="127.0.0.1")

    def ask(address: str) -> int:
        return server.get("/", f"X-Forwarded-For: {address}").status

    assert [ask(f"2001:db8:1:2:{i:x}::1") for i in range(4)] == [200, 200, 429, 429]
    assert ask("2001:db8:1:3::1") == 200
    assert [ask("192.0.2.1"), ask("::ffff:192.0.2.1"), ask("192.0.2.1")] == [200, 200, 429]
    assert ask("192.0.2.2") == 200


def test_an_address_that_sends_wrong_tokens_without_end_has_to_wait(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, BY_SECRET, workers=1, trusted_proxy="127.0.0.1")
    evil, other = "X-Forwarded-For: 192.0.2.66", "X-Forwarded-For: 192.0.2.7"
    c = server.client()
    known = as_user("ann", **GOOD)
    assert c.get("/account/", evil, known).status == 200
    statuses = []
    for i in range(2000):
        r = c.get("/account/", evil, bearer(token(f"u{i}", "another secret of the tests, as long", **GOOD)))
        statuses.append(r.status)
        if r.status == 429:
            break
    assert statuses.count(401) >= 100 and r.status == 429
    assert problem(r)["reason"] == "bad_credentials_often" and r.get("retry-after") == "1"
    # Who was known goes on; another address, and later this one, too.
    assert c.get("/account/", evil, known).status == 200
    assert c.get("/account/", other, as_user("bob", **GOOD)).status == 200
    wait_for(lambda: c.get("/account/", evil, as_user("cyd", **GOOD)).status == 200)
