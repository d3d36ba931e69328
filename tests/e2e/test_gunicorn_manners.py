"""What requests and applications meet where Weir follows Gunicorn: verdicts, environ, answers."""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gunicorn_helpers import Gunicorn
from harness import APPS, Response, Server, Starter, plain_env, raw, wait_for

HOST = b"Host: t\r\n"
# What `weir gunicorn` sets beside the names of its options.
GUNICORN = {
    "manners": "gunicorn", "ident": "gunicorn", "lax_host": True, "permit_unconventional_method": False,
    "max_line_size": 4094, "max_field_size": 8188, "max_head_size": "1M", "proxy_protocol_optional": True,
    "trusted_proxy": "127.0.0.1,::1,unix", "trusted_proxy_headers": "none", "clear_untrusted_proxy_headers": False,
    "forwarder_headers": "SCRIPT_NAME,PATH_INFO", "url_prefix_required": True,
    "secure_scheme_headers": ["X-FORWARDED-PROTOCOL=ssl", "X-FORWARDED-PROTO=https", "X-FORWARDED-SSL=on"],
}


def told(r: Response) -> dict:
    """The strings of the environ that the application saw."""
    assert r.status == 200, r
    return json.loads(b64decode(r.get("x-answer") or ""))


@pytest.fixture(scope="module")
def server(weir_module: Starter) -> Server:
    return weir_module("wirecheck:app", **GUNICORN)


@pytest.fixture(scope="module")
def distrusting(weir_module: Starter) -> Server:
    return weir_module("wirecheck:app", **{**GUNICORN, "trusted_proxy": "10.0.0.0/8,unix"})


def test_the_command_line_sets_all_of_it(weir, tmp_path):
    s = Gunicorn(weir, tmp_path)("--workers", "2", "--casefold-http-method", "--permit-unconventional-http-method",
                                 "--forwarded-allow-ips", "127.0.0.1", app="wirecheck:app")
    data = b"get /app/x HTTP/1.1\r\nSCRIPT_NAME: /app\r\nX-Forwarded-Proto: https\r\nX-A: 1\r\nX-A: 2\r\n\r\n"
    environ = told(s.raw(data, 1).responses[0])
    assert {k: environ[k] for k in ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "wsgi.url_scheme", "HTTP_X_A",
                                    "SERVER_NAME", "SERVER_SOFTWARE")} == {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "/app", "PATH_INFO": "/x", "wsgi.url_scheme": "https", "HTTP_X_A": "1,2",
        "SERVER_NAME": "127.0.0.1", "SERVER_SOFTWARE": "gunicorn"}
    assert s.raw(b"GET / HTTP/2.0\r\n\r\n").statuses == [400]
    assert s.get("/" + "a" * 4094).status == 414 and s.get("/", "X: " + "a" * 8190).status == 431
    assert s.get("/x", "SCRIPT_NAME: /app").status == 500


# ---- limits ----


def test_limits_and_their_statuses(server):
    with server.client() as c:
        assert c.get("/" + "a" * (4094 - len("GET / HTTP/1.1"))).status == 200
        assert c.get("/", "X: " + "a" * (8190 - len("X: \r\n"))).status == 200
        assert c.get("/", *[f"X-{i}: y" for i in range(99)]).status == 200
    # Gunicorn says 400; RFC 9112 §3 demands 414.
    assert server.get("/" + "a" * (4095 - len("GET / HTTP/1.1"))).status == 414
    assert server.get("/", "X: " + "a" * (8191 - len("X: \r\n"))).status == 431
    assert server.get("/", *[f"X-{i}: y" for i in range(99)]).status == 431  # Host, Connection and these


def test_a_head_may_be_as_long_as_all_its_fields(weir):
    s = weir("basic:app", **GUNICORN)
    assert s.get("/hello", *[f"X-{i}: {'y' * 8000}" for i in range(90)]).status == 200


# ---- fields with an underscore ----


@pytest.mark.parametrize("header_map, status, shown", [
    ("drop", 200, None), ("refuse", 400, None), ("dangerous", 200, "1")])
def test_header_map(weir, header_map, status, shown):
    s = weir("wirecheck:app", header_map=header_map)
    r = s.get("/", "X_Real_Ip: 1", "Content_Length: 7")
    assert r.status == status
    if status == 200:
        environ = told(r)
        assert environ.get("HTTP_X_REAL_IP") == shown
        assert environ.get("HTTP_CONTENT_LENGTH") == (shown and "7") and "CONTENT_LENGTH" not in environ
    assert s.get("/", "X-Real-Ip: 1").status == 200


def test_dangerous_merges_what_gunicorn_merges(weir):
    s = weir("wirecheck:app", manners="gunicorn", header_map="dangerous")
    assert told(s.get("/", "X-A: 1", "X_A: 2"))["HTTP_X_A"] == "1,2"


def test_a_trusted_peer_sets_script_name(server):
    environ = told(server.get("/app/x%20y", "SCRIPT_NAME: /app"))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/x y")
    environ = told(server.get("/app", "script_name: /app/"))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "")
    # The next request is not touched by it, nor by the same target before.
    with server.client() as c:
        for _ in range(2):
            assert told(c.get("/app/y"))["PATH_INFO"] == "/app/y"
            assert told(c.get("/app/y", "SCRIPT_NAME: /app"))["PATH_INFO"] == "/y"


def test_other_names_with_an_underscore_are_hidden_from_trusted_peers_too(server):
    environ = told(server.get("/", "X_Forwarded_For: 1.2.3.4", "PATH_INFO: /z"))
    assert "HTTP_X_FORWARDED_FOR" not in environ
    assert environ["PATH_INFO"] == "/" and environ["HTTP_PATH_INFO"] == "/z"


def test_an_untrusted_peer_does_not_set_script_name(distrusting):
    environ = told(distrusting.get("/app/x", "SCRIPT_NAME: /app"))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/app/x") and "HTTP_SCRIPT_NAME" not in environ


def test_any_name_may_be_allowed(weir):
    s = weir("wirecheck:app", trusted_proxy="127.0.0.1", trusted_proxy_headers="none", forwarder_headers="*")
    assert told(s.get("/", "X_Any: 1"))["HTTP_X_ANY"] == "1"


@pytest.mark.parametrize("path", ["/apix/y", "/other", "/", "/ap"])
def test_a_path_outside_of_script_name_is_500(weir, server, path):
    assert server.get(path, "SCRIPT_NAME: /api").status == 500
    server.wait_log("is not below SCRIPT_NAME")
    s = weir("wirecheck:app", url_prefix="/api", **GUNICORN)
    with s.client() as c:
        for _ in range(2):
            assert c.get(path).status == 500
        assert told(c.get("/api/y"))["PATH_INFO"] == "/y"
    assert "Traceback" not in s.log


# ---- the scheme ----


@pytest.mark.parametrize("fields, scheme", [
    ((), "http"),
    (("X-Forwarded-Proto: https",), "https"),
    (("x-forwarded-proto: https",), "https"),
    (("X-Forwarded-Proto: HTTPS",), "http"),
    (("X-Forwarded-Proto: http",), "http"),
    (("X-Forwarded-Protocol: ssl", "X-Forwarded-Ssl: on", "X-Forwarded-Proto: https"), "https"),
    (("X-Forwarded-Ssl: off", "X-Forwarded-Proto: http"), "http"),
])
def test_secure_scheme_headers_of_a_trusted_peer(server, fields, scheme):
    environ = told(server.get("/", *fields))
    assert environ["wsgi.url_scheme"] == scheme
    assert environ["SERVER_PORT"] == str(server.port)
    for field in fields:
        name, _, value = field.partition(": ")
        assert environ["HTTP_" + name.upper().replace("-", "_")] == value


@pytest.mark.parametrize("fields", [
    ("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"),
    ("X-Forwarded-Proto: http", "X-Forwarded-Protocol: ssl"),
    ("X-Forwarded-Proto: https", "X-Forwarded-Proto: http"),
])
def test_contradictory_scheme_headers_are_refused(server, distrusting, fields):
    assert server.get("/", *fields).status == 400
    assert told(distrusting.get("/", *fields))["wsgi.url_scheme"] == "http"


def test_an_untrusted_peer_does_not_tell_the_scheme(distrusting):
    environ = told(distrusting.get("/", "X-Forwarded-Proto: https"))
    assert environ["wsgi.url_scheme"] == "http" and environ["HTTP_X_FORWARDED_PROTO"] == "https"


def test_remote_addr_is_the_peer_whatever_it_forwards(server):
    environ = told(server.get("/", "X-Forwarded-For: 1.2.3.4", "Forwarded: for=5.6.7.8", "X-Forwarded-Host: h"))
    assert environ["REMOTE_ADDR"] == "127.0.0.1" and environ["REMOTE_PORT"].isdigit()
    assert environ["HTTP_X_FORWARDED_FOR"] == "1.2.3.4" and environ["HTTP_FORWARDED"] == "for=5.6.7.8"
    assert environ["HTTP_HOST"] == "t"


def test_settings_about_trusted_peers_need_one(weir):
    for settings in ({"secure_scheme_headers": "X-P=https"}, {"forwarder_headers": "SCRIPT_NAME"}):
        s = weir("wirecheck:app", ready=False, **settings)
        s.expected_status = (2,)
        assert s.wait_end() == 2
        s.wait_log("has no meaning without trusted-proxy")


@pytest.mark.parametrize("value", ["X-P", "=https", "X P=https", "X-P="])
def test_a_scheme_header_that_is_no_pair(weir, value):
    s = weir("wirecheck:app", ready=False, trusted_proxy="*", secure_scheme_headers=value)
    s.expected_status = (2,)
    assert s.wait_end() == 2
    s.wait_log("is not NAME=VALUE, as X-Forwarded-Proto=https")


# ---- methods, versions, folds ----


def test_odd_methods_and_versions(weir, server):
    for line in (b"get / HTTP/1.1", b"GE / HTTP/1.1", b"A#B / HTTP/1.1", b"GET / HTTP/2.0"):
        assert server.raw(line + b"\r\n" + HOST + b"\r\n").statuses == [400]
    s = weir("wirecheck:app", casefold_method=True, permit_unconventional_version=True)
    for line in (b"get / HTTP/1.1", b"Get / HTTP/2.0"):
        assert told(s.raw(line + b"\r\n" + HOST + b"\r\n", 1).responses[0])["REQUEST_METHOD"] == "GET"
    r = s.raw(b"head / HTTP/0.9\r\n\r\n", methods=["HEAD"])
    assert told(r.responses[0])["REQUEST_METHOD"] == "HEAD" and r.end == "closed" and not r.rest


def test_folded_fields_are_one_line_for_the_application(weir, server):
    data = b"GET / HTTP/1.1\r\n" + HOST + b"X-A: one\r\n\t two\r\nCookie:\r\n a=b\r\n\r\n"
    environ = told(weir("wirecheck:app", permit_obsolete_folding=True).raw(data, 1).responses[0])
    assert environ["HTTP_X_A"] == "one two" and environ["HTTP_COOKIE"] == "a=b"
    assert server.raw(data).statuses == [400]


# ---- PROXY protocol ----


def test_the_proxy_protocol_is_optional(weir):
    line = b"PROXY TCP4 1.2.3.4 10.0.0.1 5555 80\r\n"
    for mode in ("v1", "auto"):
        s = weir("wirecheck:app", **GUNICORN, proxy_protocol=mode, proxy_protocol_from="127.0.0.1")
        with s.client() as c:
            assert told(c.get("/"))["REMOTE_ADDR"] == "127.0.0.1"
        for pieces in ([line + b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"], [b"P", b"ROX", line[4:] + b"GET / HTTP/1.1\r\n\r\n"]):
            environ = told(s.raw(pieces, 1).responses[0])
            assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("1.2.3.4", "5555")
        assert told(s.raw([b"P", b"OST / HTTP/1.1\r\n\r\n"], 1).responses[0])["REQUEST_METHOD"] == "POST"
        assert s.raw(b"PROXY TCP4 nonsense\r\n").statuses == [400]
    s = weir("wirecheck:app", **GUNICORN, proxy_protocol="auto", proxy_protocol_from="10.0.0.1")
    assert s.raw(line).statuses == [403]
    assert s.get("/").status == 200


def test_trust_is_in_who_sends_the_proxy_line_not_in_whom_it_names(weir, distrusting):
    data = b"PROXY TCP4 10.2.3.4 10.0.0.1 5555 80\r\nGET /a HTTP/1.1\r\nHost: t\r\nX-Forwarded-Proto: https\r\n\r\n"
    schemes = []
    for trusted in ("127.0.0.1", "10.0.0.0/8"):
        s = weir("wirecheck:app", **{**GUNICORN, "trusted_proxy": trusted}, proxy_protocol="v1")
        environ = told(s.raw(data, 1).responses[0])
        assert environ["REMOTE_ADDR"] == "10.2.3.4"
        schemes.append(environ["wsgi.url_scheme"])
    assert schemes == ["https", "http"]


# ---- environ ----


def test_server_name_and_port_are_the_listeners(server):
    environ = told(server.get("/", host="example.org:99"))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("127.0.0.1", str(server.port))
    assert environ["HTTP_HOST"] == "example.org:99"


def test_of_a_unix_socket_they_are_the_hosts(weir, tmp_path):
    s = weir("wirecheck:app", **GUNICORN, bind=f"unix:{tmp_path}/s")
    with s.client() as c:
        for host, name, port in (("example.org", "example.org", "80"), ("a:99", "a", "99"), ("[::1]:7", "[::1]", "7"),
                                 ("b", "b", "80")):
            environ = told(c.get("/", host=host))
            assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)
        assert environ["REMOTE_ADDR"] == "" and "REMOTE_PORT" not in environ
        assert told(c.get("/", "X-Forwarded-Proto: https", host="c"))["SERVER_PORT"] == "443"
        assert told(c.get("/", "X-Forwarded-Proto: https", host="c:8"))["SERVER_PORT"] == "8"
        assert told(c.get("/", host="c"))["SERVER_PORT"] == "80"


def test_names_of_the_environ(server):
    environ = told(server.get("//a//b%2Fc?q=1#f"))
    assert environ["PATH_INFO"] == "//a//b/c" and environ["QUERY_STRING"] == "q=1"
    assert environ["RAW_URI"] == "//a//b%2Fc?q=1#f"
    assert environ["SERVER_SOFTWARE"] == "gunicorn" and environ["SCRIPT_NAME"] == ""


def test_repeated_fields_are_joined_without_a_space_but_cookies(server):
    environ = told(server.get("/", "X-A: 1", "X-A: 2", "Cookie: a=1", "Cookie: b=2"))
    assert environ["HTTP_X_A"] == "1,2" and environ["HTTP_COOKIE"] == "a=1; b=2"


def test_a_chunked_body_looks_like_one(server):
    with server.client() as c:
        c.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        environ = told(c.response())
    assert environ["HTTP_TRANSFER_ENCODING"] == "chunked" and "CONTENT_LENGTH" not in environ
    assert b64decode(environ["body"]) == b"hello"


def test_a_coding_inside_chunked_is_the_applications(server):
    with server.client() as c:
        c.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nzz\r\n0\r\n\r\n")
        r = c.response()
        environ = told(r)
        assert r.get("connection") == "close" and c.rest() == b""
    assert environ["HTTP_TRANSFER_ENCODING"] == "gzip, chunked" and b64decode(environ["body"]) == b"zz"


# ---- answers ----


def test_reserved_fields_of_the_application_are_dropped_without_a_word(weir):
    s = weir("pep:app", **GUNICORN)
    r = s.get("/reserved")
    assert r.status == 200 and r.body == b"reserved"
    assert r.get("server") == "gunicorn" and "1999" not in r.get("date")
    for name in ("keep-alive", "upgrade", "te", "trailers", "proxy-authenticate"):
        assert r.get(name) is None
    assert "Traceback" not in s.log
    assert weir("pep:app").get("/reserved").status == 500


@pytest.mark.parametrize("version, field, keep", [
    (b"1.1", b"", True), (b"1.1", b"Connection: close\r\n", False),
    (b"1.0", b"", False), (b"1.0", b"Connection: keep-alive\r\n", True)])
def test_which_connections_are_kept(server, version, field, keep):
    with server.client() as c:
        c.send(b"GET / HTTP/" + version + b"\r\n" + HOST + field + b"\r\n")
        assert c.response().keep == keep
        assert c.alive() if keep else c.rest() == b""


def test_an_expectation_that_is_not_known_is_417(server):
    for value in (b"99-continue", b"100-continue, x"):
        assert server.raw(b"POST / HTTP/1.1\r\n" + HOST + b"Expect: " + value + b"\r\nContent-Length: 1\r\n\r\n").statuses == [417]


# ---- 103 Early Hints ----


@pytest.fixture(scope="module")
def pep(weir_module: Starter) -> Server:
    return weir_module("pep:app", access_log="-", access_log_format="%(s)s %(b)s", request_buffering="off")


@pytest.mark.parametrize("how, body", [
    ("list", b"hinted"), ("head", b"hinted"), ("stream", b"onetwo"), ("file", None)])
def test_early_hints_come_before_the_answer(pep, how, body):
    body = body or (APPS / "pep.py").read_bytes()
    with pep.client() as c:
        for _ in range(3):
            c.request("GET", f"/hints/{how}")
            r = c.head(keep_interim=True)
            assert (r.status, r.reason, r.all("link")) == (103, "Early Hints", ["</a.css>; rel=preload"])
            assert c.response().body == body
    pep.wait_out(f"200 {len(body)}\n")


def test_early_hints_may_come_more_than_once_and_in_a_pipeline(pep):
    with pep.client() as c:
        c.send(b"GET /hints/twice HTTP/1.1\r\nHost: t\r\n\r\n" * 3)
        for _ in range(3):
            r = c.response()
            assert (r.status, r.interim, r.body) == (200, [103, 103], b"hinted")


def test_http_1_0_gets_no_early_hints(pep):
    with pep.client() as c:
        c.send(b"GET /hints/list HTTP/1.0\r\n\r\n")
        assert c.head(keep_interim=True).status == 200


def test_100_continue_and_early_hints_go_together(pep):
    with pep.client() as c:
        c.send(b"POST /hints/read HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert {c.head(keep_interim=True).status, c.head(keep_interim=True).status} == {100, 103}
        c.send(b"ab")
        assert c.response().body == b"ab"


def test_an_application_that_fails_behind_its_hints_still_answers_500(pep):
    with pep.client() as c:
        r = c.get("/hints/fails")
        assert (r.status, r.interim) == (500, [103])
        assert c.get("/hints/list").status == 200


# ---- the access log, beside Debian's Gunicorn 20.1 ----

# Atoms whose meaning has not changed since.
ATOMS = ["h", "l", "u", "r", "m", "U", "q", "H", "s", "b", "B", "f", "a", "unknown", "{User-Agent}i", "{x-IN}i", "{x-twice}i",
         "{none}i", "{X-Out}o", "{set-cookie}o", "{content-length}o", "{none}o", "{REMOTE_USER}e", "{remote_addr}e",
         "{app.number}e", "{SCRIPT_NAME}e", "{PATH_INFO}e", "{HTTP_X_IN}e", "{wsgi.url_scheme}e", "{wsgi.version}e",
         "{NONE}e", "{CONTENT_LENGTH}e", "{HTTP_X_TWICE}e", "{SERVER_NAME}e", "{SERVER_PROTOCOL}e"]
BASIC = b"Authorization: Basic " + b64encode(b"Aladdin:open sesame") + b"\r\n"
LOGGED = [
    b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /a%20b%2Fc?x=1&y=%20 HTTP/1.1\r\nHost: t\r\nUser-Agent: agent \"q\" 1\r\nReferer: http://r/\"x\"\r\n" + BASIC + b"\r\n",
    b"GET /? HTTP/1.1\r\nHost: t\r\nUser-Agent:\r\nReferer:\r\nX-In:\r\n\r\n",
    b"GET /missing HTTP/1.1\r\nHost: t\r\nX-In: one\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n",
    b"GET /empty HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /stream HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /moved/on?z HTTP/1.1\r\nHost: t\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /old HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nAuthorization: basic Zm9vOmJhcg==\r\n\r\n",
]


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Callable[..., tuple[tuple[str, int], Path]]]:
    """peer("option", …): a running Gunicorn of Debian; its address, its access log."""
    processes = []

    def start(*options: str) -> tuple[tuple[str, int], Path]:
        errors, log = tmp_path / "peer.err", tmp_path / "peer.log"
        with open(errors, "wb") as err:
            processes.append(subprocess.Popen(
                ["/usr/bin/gunicorn", "-k", "gthread", "-b", "127.0.0.1:0", "--access-logfile", str(log), *options, "logged:app"],
                cwd=APPS, env=plain_env(), stderr=err, stdout=err))
        found = wait_for(lambda: re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", errors.read_text()), 20)
        wait_for(lambda: "Booting worker" in errors.read_text(), 20)
        return ("127.0.0.1", int(found[1])), log

    yield start
    for process in processes:
        process.terminate()
        process.wait(20)


def logged(address: tuple[str, int], log: Callable[[], str]) -> list[str]:
    """One line for each request of LOGGED."""
    for i, data in enumerate(LOGGED, 1):
        raw(address, data, 1)
        wait_for(lambda i=i: log().count("\n") == i, what=f"{i} lines in the access log")
    return log().splitlines()


@pytest.mark.skipif(not Path("/usr/bin/gunicorn").exists(), reason="needs Debian's gunicorn")
def test_the_access_log_says_what_gunicorns_says(weir, peer):
    form = "|".join(f"%({atom})s" for atom in ATOMS)
    address, path = peer("--access-logformat", form)
    theirs = logged(address, path.read_text)
    s = weir("logged:app", **GUNICORN, access_log="-", access_log_format=form)
    ours = logged(s.address, lambda: s.out)
    for request, mine, other in zip(LOGGED, ours, theirs):
        assert dict(zip(ATOMS, mine.split("|"))) == dict(zip(ATOMS, other.split("|"))), request


def test_times_and_the_process_in_gunicorns_forms(weir):
    s = weir("logged:app", **GUNICORN, access_log="-", access_log_format="%(t)s %(T)s %(M)s %(D)s %(L)s %(p)s")
    s.get("/")
    s.wait_out("\n")
    assert re.fullmatch(r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] 0 \d{1,3} \d{1,6} 0\.\d{6} <\d+>\n", s.out)


def test_a_variable_that_middleware_sets_is_logged_by_weir_itself_too(weir):
    s = weir("logged:app", access_log="-", access_log_format="%({REMOTE_USER}e)s %(h)s %({REMOTE_ADDR}e)s")
    s.get("/moved/x")
    s.get("/-/ping")  # no application, no environ
    s.wait_out('me \\"myself\\" 127.0.0.1 10.1.1.1\n- 127.0.0.1 127.0.0.1\n')
