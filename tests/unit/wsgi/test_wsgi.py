"""The WSGI bridge without a server: PEP 3333 point by point, and what peers do where it is silent."""

import ctypes
import gc
import gzip
import io
import logging
import os
import re
import sys
import tempfile
import threading
import time
import tracemalloc
import weakref

import pytest

EPIPE, EPROTO, EMSGSIZE, ETIMEDOUT, EAGAIN, ECANCELED = -32, -71, -90, -110, -11, -125
PLAIN = [("Content-Type", "text/plain")]


class Answer:
    """One response, taken apart."""

    def __init__(self, result):
        self.__dict__.update(result)
        head, _, self.raw = self.sent.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.fields = [tuple(x.split(": ", 1)) for x in lines[1:] if x]
        self.text = self.raw if self.framing != "chunked" else unchunk(self.raw)

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name):
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None


def unchunk(raw):
    out = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        n = int(size, 16)
        if not n:
            assert raw == b"\r\n"
            break
        out, rest = out + raw[:n], raw[n:]
        assert rest[:2] == b"\r\n"
        raw = rest[2:]
    return out


def request(target="/", method="GET", fields=(), version="1.1", host="example.org:8000", **spec):
    head = f"{method} {target} HTTP/{version}\r\n"
    if host is not None:
        head += f"Host: {host}\r\n"
    head += "".join(f"{n}: {v}\r\n" for n, v in fields)
    return {"raw": (head + "\r\n").encode("latin-1"), **spec}


def post(body, fields=(), **spec):
    fields = [("Content-Length", len(body)), *fields]
    return request(method="POST", fields=fields, body=body, **spec)


def chunked(pieces, fields=(), **spec):
    return request(method="POST", fields=[("Transfer-Encoding", "chunked"), *fields], pieces=pieces, **spec)


@pytest.fixture
def run(harness):
    """run(app, request, …) -> Answer (a list of them for several requests)."""

    def call(app, *requests, **config):
        del harness.lines[:]
        specs = requests or (request(),)
        answers = [Answer(r) for r in harness.App(app, **config).run(*specs)]
        return answers if len(specs) > 1 else answers[0]

    return call


@pytest.fixture
def log(harness):
    return harness.lines


@pytest.fixture
def environ(run):
    """The environ that a request makes."""

    def call(spec=None, **config):
        seen = {}

        def app(env, start):
            seen.update(env)
            assert type(env) is dict
            start("200 OK", PLAIN)
            return [b""]

        run(app, spec or request(), **config)
        return seen

    return call


def simple(*content, status="200 OK", headers=PLAIN):
    def app(env, start):
        start(status, list(headers))
        return list(content)
    return app


def generated(*content, status="200 OK", headers=PLAIN):
    def app(env, start):
        start(status, list(headers))
        yield from content
    return app


# ---- environ ----


def test_environ_has_what_pep_3333_wants(environ):
    env = environ(request("/a/b?c=d"))
    assert env["REQUEST_METHOD"] == "GET"
    assert (env["SCRIPT_NAME"], env["PATH_INFO"], env["QUERY_STRING"]) == ("", "/a/b", "c=d")
    assert (env["SERVER_NAME"], env["SERVER_PORT"]) == ("example.org", "8000")
    assert env["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert env["SERVER_SOFTWARE"] == "weir"
    assert env["wsgi.version"] == (1, 0)
    assert env["wsgi.url_scheme"] == "http"
    assert env["wsgi.run_once"] is False and env["wsgi.multithread"] is True
    assert env["wsgi.multiprocess"] is False
    assert env["wsgi.input_terminated"] is True
    assert env["RAW_URI"] == env["REQUEST_URI"] == "/a/b?c=d"
    assert env["REMOTE_ADDR"] == env["REMOTE_HOST"] == "127.0.0.1"
    assert env["REMOTE_PORT"] == "40000"
    assert env["HTTP_HOST"] == "example.org:8000"
    assert env["weir.request_id"] == 1
    assert not set(os.environ) & set(env) - {"SERVER_SOFTWARE"}
    assert "CONTENT_LENGTH" not in env and "CONTENT_TYPE" not in env
    for key in ("waitress.client_disconnected", "weir.client_disconnected"):
        assert callable(env[key])


def test_environ_is_fresh_for_each_request(run):
    seen = []

    def app(env, start):
        seen.append(env)
        env["mine"] = 1
        env["PATH_INFO"] = "gone"
        start("200 OK", PLAIN)
        return []

    run(app, request("/x"), request("/x"), request("/y?q"), request("/x"))
    assert len({id(e) for e in seen}) == 4
    assert all(type(e) is dict for e in seen)
    run(lambda e, s: (seen.append(dict(e)), s("200 OK", PLAIN), [])[2], request("/x"), request("/x"))
    assert "mine" not in seen[-1] and seen[-1]["PATH_INFO"] == "/x"


def test_values_follow_the_request_when_it_changes(run):
    seen = []

    def app(env, start):
        seen.append((env["PATH_INFO"], env["QUERY_STRING"], env["HTTP_HOST"] if "HTTP_HOST" in env else None,
                     env["SERVER_NAME"], env["REMOTE_ADDR"], env.get("REMOTE_PORT"), env["SERVER_PORT"],
                     env["REQUEST_METHOD"], env["SERVER_PROTOCOL"]))
        start("200 OK", PLAIN)
        return []

    run(app, request("/a?x"), request("/a"), request("/a?x", host="other"),
        request("/a?x", host=None, version="1.0"), request("/a?x", host="other", remote_addr="::1"),
        request("/b", remote_port="1"), request("/b", unix=True), request("/b", method="PUT"),
        request("/b", server_port="81"), request("/b"))
    one = ("HTTP/1.1",)
    assert seen == [
        ("/a", "x", "example.org:8000", "example.org", "127.0.0.1", "40000", "8000", "GET", *one),
        ("/a", "", "example.org:8000", "example.org", "127.0.0.1", "40000", "8000", "GET", *one),
        ("/a", "x", "other", "other", "127.0.0.1", "40000", "8000", "GET", *one),
        ("/a", "x", None, "127.0.0.1", "127.0.0.1", "40000", "8000", "GET", "HTTP/1.0"),
        ("/a", "x", "other", "other", "::1", "40000", "8000", "GET", *one),
        ("/b", "", "example.org:8000", "example.org", "127.0.0.1", "1", "8000", "GET", *one),
        ("/b", "", "example.org:8000", "example.org", "", None, "80", "GET", *one),
        ("/b", "", "example.org:8000", "example.org", "127.0.0.1", "40000", "8000", "PUT", *one),
        ("/b", "", "example.org:8000", "example.org", "127.0.0.1", "40000", "81", "GET", *one),
        ("/b", "", "example.org:8000", "example.org", "127.0.0.1", "40000", "8000", "GET", *one)]


@pytest.mark.parametrize("target, path", [
    ("/%C3%A9", "/\u00c3\u00a9"), ("/a%2Fb", "/a/b"), ("/a%2fb%", "/a/b%"), ("/%zz%4", "/%zz%4"),
    ("//a//b", "//a//b"), ("/a%00", "/a\0"), ("/%25%41", "/%A"), ("/" + "%61" * 2000, "/" + "a" * 2000),
    ("/a+b", "/a+b"), ("http://h/x%20y", "/x y"),
])
def test_path_is_decoded_once_as_latin_1(environ, target, path):
    env = environ(request(target))
    assert env["PATH_INFO"] == path
    assert env["RAW_URI"] == target


def test_options_asterisk(environ):
    assert environ(request("*", method="OPTIONS"))["PATH_INFO"] == "*"


@pytest.mark.parametrize("target, script, path", [
    ("/api/x", "/api", "/x"), ("/api", "/api", ""), ("/api/", "/api", "/"), ("/apix", "/api", "/apix"),
    ("/other", "/api", "/other"), ("/%61pi/x", "/api", "/x"),
])
@pytest.mark.parametrize("prefix", ["/api", "api/", "/api/"])
def test_url_prefix(environ, prefix, target, script, path):
    env = environ(request(target), url_prefix=prefix)
    assert (env["SCRIPT_NAME"], env["PATH_INFO"]) == (script, path)
    assert env["RAW_URI"] == target


def test_fields_are_joined_and_renamed(environ):
    env = environ(request(fields=[
        ("X-A", "1"), ("x-a", "2"), ("X-a", "1"), ("Cookie", "a=1"), ("cookie", "b=2"),
        ("Content-Type", "text/x"), ("X_Under", "bad"), ("Content_Length", "9"), ("X-" + "L" * 60, "long"),
        ("X-Empty", ""), ("X-Latin", "\u00e9"), ("X-Y", "1"), ("X-Z", "1")]))
    assert env["HTTP_X_A"] == "1, 2, 1"
    assert env["HTTP_COOKIE"] == "a=1; b=2"
    assert env["CONTENT_TYPE"] == "text/x"
    assert "HTTP_CONTENT_TYPE" not in env and "HTTP_X_UNDER" not in env
    assert "CONTENT_LENGTH" not in env and "HTTP_CONTENT_LENGTH" not in env
    assert env["HTTP_X_" + "L" * 60] == "long"
    assert env["HTTP_X_EMPTY"] == "" and env["HTTP_X_LATIN"] == "\u00e9"
    assert env["HTTP_X_Y"] == env["HTTP_X_Z"] == "1"


def test_equal_values_of_a_repeated_field_are_both_kept(environ):
    assert environ(request(fields=[("A", "1"), ("A", "1")]))["HTTP_A"] == "1, 1"
    assert environ(request(fields=[("A", ""), ("A", "")]))["HTTP_A"] == ", "


def test_many_names_pass_through_the_bounded_cache(run):
    seen = []

    def app(env, start):
        seen.append({k: v for k, v in env.items() if k.startswith("HTTP_X_N")})
        start("200 OK", PLAIN)
        return []

    run(app, *[request(fields=[(f"X-N{i * 50 + j}", f"{i}.{j}") for j in range(50)]) for i in range(40)])
    for i, found in enumerate(seen):
        assert found == {f"HTTP_X_N{i * 50 + j}": f"{i}.{j}" for j in range(50)}


def test_values_of_one_request_never_show_in_another(run):
    seen = []

    def app(env, start):
        seen.append({k: v for k, v in env.items() if k.startswith("HTTP_") and k != "HTTP_HOST"})
        start("200 OK", PLAIN)
        return []

    names = ["Accept", "User-Agent", "Cookie", "Authorization", "X-Own", "Referer", "accept-language", "DNT", "Range",
             "Origin", "Pragma", "Via", "If-Range", "If-Match", "Priority"]
    sent = []
    for i in range(60):  # heads of few and of many fields by turns, values that come again or not
        count = (3, 15, 0, 11, 10)[i % 5]
        sent.append({n: f"{n}-{i % 7}" + "x" * (i % 3 * 100) for n in names[:count]})
    run(app, *[request(fields=list(x.items())) for x in sent])
    assert seen == [{"HTTP_" + n.upper().replace("-", "_"): v for n, v in x.items()} for x in sent]


def test_dropped_fields_are_not_shown(environ):
    env = environ(request(fields=[("X-Forwarded-For", "1.2.3.4")], drop="x-forwarded-for"))
    assert "HTTP_X_FORWARDED_FOR" not in env


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


def test_a_request_gets_an_id_and_a_trace(run):
    seen = []

    def app(env, start):
        seen.append((env["HTTP_X_REQUEST_ID"], env["HTTP_TRACEPARENT"]))
        assert env["weir.request_id"] in (1, 2)
        start("200 OK", PLAIN)
        return []

    answers = run(app, request(identity="it"), request(identity="it"))
    for (made, parent), answer in zip(seen, answers):
        assert re.fullmatch("[0-9a-f]{32}", made) and answer.get("X-Request-Id") == made
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", parent)
        assert parent.split("-")[1] == made  # one name to look for
    assert len({value for row in seen for value in row}) == 4


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="a str keeps no wide characters there")
def test_code_in_c_that_has_looked_at_the_text_of_one_request_sees_that_of_the_next(run):
    wide = ctypes.pythonapi.PyUnicode_AsUnicode  # as the format "u" of PyArg_Parse
    wide.argtypes, wide.restype = [ctypes.py_object], ctypes.c_wchar_p
    seen = []

    def app(env, start):  # no reference to a text outlives it
        seen.extend((env[name].encode(), wide(env[name]).encode()) for name in ("HTTP_X_REQUEST_ID", "HTTP_TRACEPARENT"))
        start("200 OK", PLAIN)
        return []

    run(app, *(request(fields=[("X-Request-Id", said)], identity="it") for said in ("one", "two", "six")))
    assert [text for text, _ in seen] == [text for _, text in seen]
    assert [text for text, _ in seen[::2]] == [b"one", b"two", b"six"]


def test_what_a_client_says_plainly_is_taken(environ):
    fields = [("X-REQUEST-ID", "Root=1-5"), ("traceparent", TRACEPARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]
    env = environ(request(fields=fields, identity="it"))
    assert env["HTTP_X_REQUEST_ID"] == "Root=1-5"
    assert env["HTTP_TRACEPARENT"] == TRACEPARENT  # no span is recorded here: the application's are children of his
    assert env["HTTP_TRACESTATE"] == "a=1, b=2"


def test_a_recorded_span_comes_between(environ):
    env = environ(request(fields=[("traceparent", TRACEPARENT), ("tracestate", "a=1")], identity="te"))
    assert env["HTTP_TRACEPARENT"].startswith(f"00-{TRACE}-") and env["HTTP_TRACEPARENT"].endswith("-01")
    assert PARENT not in env["HTTP_TRACEPARENT"] and env["HTTP_TRACESTATE"] == "a=1"
    env = environ(request(fields=[("traceparent", TRACEPARENT[:-1] + "0")], identity="te"))
    assert env["HTTP_TRACEPARENT"] == TRACEPARENT[:-1] + "0"  # who asks does not want it recorded
    assert "HTTP_X_REQUEST_ID" not in env


BAD_IDS = [[""], ["a b"], ["a" * 65], ["<script>"], ["one", "two"], ["same", "same"], ["one, two"], ["\xe9"]]


@pytest.mark.parametrize("values", BAD_IDS)
def test_another_request_id_is_replaced(run, values):
    seen = {}

    def app(env, start):
        seen.update(env)
        start("200 OK", PLAIN)
        return []

    answer = run(app, request(fields=[("X-Request-Id", v) for v in values], identity="i"))
    assert re.fullmatch("[0-9a-f]{32}", seen["HTTP_X_REQUEST_ID"])
    assert answer.get("X-Request-Id") == seen["HTTP_X_REQUEST_ID"]
    assert "HTTP_TRACEPARENT" not in seen


BAD_PARENTS = [[TRACEPARENT.upper()], [TRACEPARENT + "-x"], ["ff" + TRACEPARENT[2:]], [TRACEPARENT, TRACEPARENT], [""]]


@pytest.mark.parametrize("values", BAD_PARENTS)
def test_with_another_traceparent_a_trace_begins_and_its_state_is_dropped(environ, values):
    fields = [("tracestate", "a=1"), *(("traceparent", v) for v in values), ("Tracestate", "b=2")]
    env = environ(request(fields=fields, identity="t"))
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", env["HTTP_TRACEPARENT"])
    assert TRACE not in env["HTTP_TRACEPARENT"].lower()
    assert "HTTP_TRACESTATE" not in env


def test_fields_of_a_later_request_do_not_show_in_an_earlier_shape(environ):
    env = environ(request(fields=[("tracestate", "a=1")], identity="it"))
    assert "HTTP_TRACESTATE" not in env and "HTTP_TRACEPARENT" in env
    env = environ(request(fields=[("tracestate", "a=1"), ("traceparent", "what it says"), ("X-Request-Id", "a b")]))
    assert env["HTTP_TRACESTATE"] == "a=1" and env["HTTP_TRACEPARENT"] == "what it says"
    assert env["HTTP_X_REQUEST_ID"] == "a b"  # without these settings nothing is touched


def test_an_application_may_name_its_answer_itself(run):
    answer = run(simple(b"x", headers=[("x-request-id", "mine")]), request(identity="i"))
    assert answer.get("X-Request-Id") == "mine"


def test_an_error_page_carries_the_request_id(run):
    def app(env, start):
        start("200 OK", [("X-Request-Id", "mine")])
        raise RuntimeError

    answer = run(app, request(fields=[("X-Request-Id", "his")], identity="i"))
    assert answer.status == 500 and answer.get("X-Request-Id") == "his"


def test_absolute_target_decides_the_host(environ):
    env = environ(request("http://target.example:81/x?y", host="target.example:81"))
    assert env["HTTP_HOST"] == "target.example:81" and env["PATH_INFO"] == "/x"


@pytest.mark.parametrize("host, name", [("[::1]:80", "[::1]"), ("h", "h"), ("h:1", "h")])
def test_server_name_is_the_host_without_port(environ, host, name):
    env = environ(request(host=host))
    assert (env["HTTP_HOST"], env["SERVER_NAME"]) == (host, name)


def test_server_name_without_host(environ):
    old = request(host=None, version="1.0")
    assert environ(old)["SERVER_NAME"] == "127.0.0.1"
    assert environ(old, server_name="me.example")["SERVER_NAME"] == "me.example"
    assert environ(old)["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_waitress_dialect(environ):
    assert environ(waitress=True)["SERVER_NAME"] == "waitress.invalid"
    assert environ(waitress=True, server_name="x")["SERVER_NAME"] == "x"
    assert environ(request(unix=True), waitress=True)["REMOTE_ADDR"] == "localhost"


def test_unix_socket_peer(environ):
    env = environ(request(unix=True))
    assert env["REMOTE_ADDR"] == env["REMOTE_HOST"] == ""
    assert "REMOTE_PORT" not in env
    assert env["SERVER_NAME"] == "example.org" and env["SERVER_PORT"] == "80"


def test_facts_of_a_trusted_proxy_override(environ):
    env = environ(request(facts={"client": "203.0.113.9", "client_port": 5, "scheme": "https",
                                 "server_name": "shop.example", "host": "shop.example:444",
                                 "server_port": 444}))
    assert env["REMOTE_ADDR"] == env["REMOTE_HOST"] == "203.0.113.9" and env["REMOTE_PORT"] == "5"
    assert env["wsgi.url_scheme"] == "https"
    assert (env["SERVER_NAME"], env["SERVER_PORT"]) == ("shop.example", "444")
    assert env["HTTP_HOST"] == "shop.example:444"
    env = environ(request(facts={"client": "203.0.113.9"}))
    assert env["REMOTE_ADDR"] == "203.0.113.9" and "REMOTE_PORT" not in env
    assert env["HTTP_HOST"] == "example.org:8000" and env["wsgi.url_scheme"] == "http"
    env = environ(request(facts={}))
    assert env["REMOTE_ADDR"] == "127.0.0.1" and env["REMOTE_PORT"] == "40000"


def test_settings_reach_the_environ(environ):
    env = environ(url_scheme="https", ident="me", multithread=False)
    assert env["wsgi.url_scheme"] == "https" and env["SERVER_SOFTWARE"] == "me"
    assert env["wsgi.multithread"] is False


def test_content_length_of_bodies(environ):
    assert environ(post(b"abc"))["CONTENT_LENGTH"] == "3"
    assert environ(request(fields=[("Content-Length", "0")]))["CONTENT_LENGTH"] == "0"
    whole = request(method="POST", fields=[("Transfer-Encoding", "chunked")], body=b"abcd")
    env = environ(whole)
    assert env["CONTENT_LENGTH"] == "4" and "HTTP_TRANSFER_ENCODING" not in env
    env = environ(chunked([b"abcd"]))
    assert "CONTENT_LENGTH" not in env and env["HTTP_TRANSFER_ENCODING"] == "chunked"


# ---- wsgi.input ----


def reading(script):
    """An application that answers repr(script(input))."""
    def app(env, start):
        start("200 OK", PLAIN)
        return [repr(script(env["wsgi.input"])).encode()]
    return app


BODY = b"first\nsecond line\n\nlast without newline"
WAYS = [
    lambda i: i.read(),
    lambda i: i.read(-1),
    lambda i: i.read(None),
    lambda i: [i.read(3), i.read(0), i.read(4), i.read(100000), i.read(1), i.read()],
    lambda i: [i.readline(), i.readline(3), i.readline(0), i.readline(), i.readline(), i.readline(), i.readline()],
    lambda i: i.readlines(),
    lambda i: [i.readlines(7), i.readlines(None), i.readlines()],
    lambda i: list(i),
    lambda i: [next(i), i.read(2), next(i), i.read()],
    lambda i: [i.readline(-1), i.readline(None), i.read(1), i.readlines(1), i.read()],
    lambda i: b"".join(iter(lambda: i.read(5), b"")),
    lambda i: [i.readinto(bytearray(4)), i.read()],
    lambda i: io.BufferedReader(i, 7).read(),
    lambda i: [x for x in io.BufferedReader(i, 7)],
]


@pytest.mark.parametrize("way", range(len(WAYS)))
@pytest.mark.parametrize("kind", ["memory", "file", "bytes", "waits", "one"])
def test_reading_is_like_a_file(run, way, kind):
    script = WAYS[way]
    if kind in ("memory", "file"):
        spec = post(BODY, spill=kind == "file")
    elif kind == "bytes":
        spec = chunked([BODY[i:i + 1] for i in range(len(BODY))])
    elif kind == "one":
        spec = chunked([BODY])
    else:
        spec = chunked([None, BODY[:8], None, BODY[8:20], None, BODY[20:]])
    answer = run(reading(script), spec)
    assert eval(answer.text) == script(io.BytesIO(BODY))
    assert kind != "waits" or answer.body_waits


def test_empty_input_is_shared_and_unspoilt(run):
    seen = []

    def app(env, start):
        i = env["wsgi.input"]
        seen.append(i)
        assert [i.read(), i.read(5), i.readline(), i.readlines(), list(i), i.read1()] == [b"", b"", b"", [], [], b""]
        assert i.seek(0) == 0 and i.tell() == 0
        with pytest.raises(AttributeError):
            i.mark = 1
        start("200 OK", PLAIN)
        return [b"ok"]

    answers = run(app, request(), request(), request(method="POST", fields=[("Content-Length", "0")]))
    assert [a.text for a in answers] == [b"ok"] * 3
    assert seen[0] is seen[1] is seen[2]
    assert seen[0].read() == b""


def test_a_whole_body_can_be_rewound(run):
    def script(i):
        assert i.seekable() and i.readable() and not i.writable()
        out = [i.read(3), i.tell(), i.seek(0), i.readline(), i.tell(), i.seek(-4, 2), i.read(), i.seek(1, 0)]
        return out + [i.seek(2, 1), i.read(2), i.seek(1000), i.read(), i.readline()]

    for spill in (False, True):
        assert eval(run(reading(script), post(BODY, spill=spill)).text) == [
            b"fir", 3, 0, b"first\n", 6, len(BODY) - 4, b"line", 1, 3, b"st", 1000, b"", b""]
    def coming(i):
        assert not i.seekable()
        with pytest.raises(io.UnsupportedOperation):
            i.seek(0)
        return i.read()
    assert eval(run(reading(coming), chunked([b"x"])).text) == b"x"


def test_read1_gives_what_is_here(run):
    script = lambda i: [i.read1(), i.read1(1), i.read1(-1), i.read1(), i.read1()]
    assert eval(run(reading(script), chunked([b"abc", None, b"def"])).text) == [b"abc", b"d", b"ef", b"", b""]


def test_a_large_coming_body_is_read_whole(run):
    big = [bytes([i]) * 100_000 for i in range(20)]
    digest = lambda i: (lambda b: (len(b), b == b"".join(big)))(i.read())
    assert eval(run(reading(digest), chunked(big)).text) == (2_000_000, True)
    lines = lambda i: [len(x) for x in i]
    assert eval(run(reading(lines), chunked([b"x" * 50_000, b"y" * 50_000 + b"\n" + b"z" * 70_000])).text) == \
        [100_001, 70_000]


def test_a_huge_length_argument_allocates_nothing(run):
    script = lambda i: i.read(sys.maxsize)
    assert eval(run(reading(script), chunked([b"abc"])).text) == b"abc"
    assert eval(run(reading(script), post(b"abc", spill=True)).text) == b"abc"


def test_wrong_arguments_are_type_errors(run):
    def script(i):
        for call in (lambda: i.read("1"), lambda: i.read(1, 2), lambda: i.readline(b""), lambda: i.read(1.5),
                     lambda: i.seek()):
            with pytest.raises(TypeError):
                call()
        with pytest.raises(ValueError):
            i.seek(-1)
        return i.read()
    assert eval(run(reading(script), post(b"x")).text) == b"x"


@pytest.mark.parametrize("err, kind, status", [
    (EPROTO, OSError, 400), (EMSGSIZE, OSError, 413), (ETIMEDOUT, TimeoutError, 408)])
def test_a_bad_body_raises_and_answers_as_its_fault(run, log, err, kind, status):
    seen = []

    def app(env, start):
        start("200 OK", PLAIN)
        try:
            env["wsgi.input"].read()
        except kind as e:
            seen.append(e)
            with pytest.raises(kind):
                env["wsgi.input"].read(1)
            raise
        return []

    answer = run(app, chunked([b"abc", err]))
    assert seen[0].errno == -err and answer.status == status and answer.close_wanted
    assert "Traceback" not in log[0][2]


def test_an_application_may_answer_a_bad_body_itself(run):
    def app(env, start):
        try:
            env["wsgi.input"].read()
        except OSError:
            start("422 No", PLAIN)
        return [b"mine"]
    assert run(app, chunked([EPROTO])).status == 422


def test_a_client_that_left_in_its_body(run, log):
    def app(env, start):
        env["wsgi.input"].read()

    answer = run(app, chunked([b"abc", EPIPE]))
    assert answer.state == "aborted" and answer.sent == b""
    assert len(log) == 1 and "Traceback" not in log[0][2]


def test_a_kept_input_is_closed_after_the_request(run):
    kept = []
    run(lambda e, s: (kept.append(e["wsgi.input"]), s("200 OK", PLAIN), [])[2], post(b"abc"))
    assert kept[0].closed
    for use in (kept[0].read, kept[0].readline, lambda: list(kept[0]), kept[0].tell, lambda: kept[0].seek(0)):
        with pytest.raises(ValueError, match="over"):
            use()


def test_two_threads_do_not_mix_up_one_body(run):
    def app(env, start):
        i, errors, got = env["wsgi.input"], [], []
        t = threading.Thread(target=lambda: got.append(i.read(3)))
        t.start()
        time.sleep(0.005)
        try:
            i.read(3)
        except RuntimeError as e:
            errors.append(e)
        t.join()
        start("200 OK", PLAIN)
        return [repr((len(errors), got)).encode()]

    assert eval(run(app, chunked([None, b"abcdef"])).text) == (1, [b"abc"])


def test_a_thread_inside_a_read_is_waited_for(run):
    got = []

    def app(env, start):
        t = threading.Thread(target=lambda: got.append(env["wsgi.input"].read(3)))
        t.start()
        time.sleep(0.005)
        start("200 OK", PLAIN)
        return [b"done"]

    assert run(app, chunked([None, b"abc"])).text == b"done"
    deadline = time.monotonic() + 5
    while not got and time.monotonic() < deadline:
        time.sleep(0.001)
    assert got == [b"abc"]


# ---- wsgi.errors ----


def test_errors_go_to_what_sys_stderr_is(run, monkeypatch):
    out = io.StringIO()

    def app(env, start):
        e = env["wsgi.errors"]
        monkeypatch.setattr(sys, "stderr", out)
        assert e.write("one\n") == 4
        e.writelines(["two\n", "three\n"])
        print("four", file=e)
        e.flush()
        with pytest.raises(TypeError):
            e.write(b"bytes")
        assert e.encoding == "utf-8" and not e.isatty()
        start("200 OK", PLAIN)
        return []

    assert run(app).status == 200
    assert out.getvalue() == "one\ntwo\nthree\nfour\n"


def test_errors_to_the_log_are_lines_with_the_request(run, log):
    def app(env, start):
        e = env["wsgi.errors"]
        print("one", file=e)
        e.write("two ")
        e.write("halves\nthree\nfour")
        if env["PATH_INFO"] == "/flush":
            e.flush()
        logging.StreamHandler(e).emit(logging.LogRecord("n", 40, "p", 1, " five \udc80", (), None))
        start("200 OK", PLAIN)
        return []

    run(app, request(), request("/flush"), errors_to_log=True)
    assert log == [(3, 1, "one"), (3, 1, "two halves\nthree"), (3, 1, "four five \\udc80"),
                   (3, 2, "one"), (3, 2, "two halves\nthree"), (3, 2, "four"), (3, 2, " five \\udc80")]


# ---- lists ----


def test_a_list_gets_the_length_of_its_sum(run):
    answer = run(simple(b"ab", b"", b"cd"))
    assert answer.line == "HTTP/1.1 200 OK"
    assert answer.get("Content-Length") == "4" and answer.text == b"abcd"
    assert answer.get("Transfer-Encoding") is None and answer.flushes == []
    assert answer.get("Server") == "weir" and answer.get("Date").endswith(" GMT")
    assert answer.state == "ended" and answer.keep_alive


def test_an_empty_list_has_length_zero(run):
    assert run(simple()).get("Content-Length") == "0"
    assert run(lambda e, s: (s("200 OK", PLAIN), ())[1]).get("Content-Length") == "0"
    assert run(simple(b"")).get("Content-Length") == "0"


def test_a_tuple_and_buffers_are_taken(run):
    assert run(lambda e, s: (s("200 OK", PLAIN), (b"a", bytearray(b"b"), memoryview(b"c")))[1]).text == b"abc"
    assert run(generated(bytearray(b"ab"), memoryview(b"c"))).text == b"abc"


@pytest.mark.parametrize("make", [simple, generated])
@pytest.mark.parametrize("bad", ["text", 5, None, [b"x"]])
def test_other_items_are_type_errors(run, log, make, bad):
    answer = run(make(bad))
    assert answer.status == 500 and answer.get("Content-Type") == "text/plain; charset=utf-8"
    assert "must be bytes" in log[0][2] and b"must be bytes" not in answer.raw


def test_a_large_list_goes_in_pieces(run):
    big = [os.urandom(3_700_000), b"x" * 1000, os.urandom(300_000)]
    answer = run(simple(*big))
    assert answer.text == b"".join(big) and answer.get("Content-Length") == str(4_001_000)
    assert len(answer.flushes) > 2
    many = run(simple(*[b"k" * 1000] * 5000))
    assert many.text == b"k" * 5_000_000 and len(many.flushes) > 2


def test_an_answer_of_one_mebibyte_goes_in_one_piece(run):
    answer = run(simple(bytes(1 << 20)))
    assert answer.text == bytes(1 << 20) and not answer.flushes


def test_a_large_list_stops_when_the_client_leaves(run):
    answer = run(simple(b"x" * 5_000_000), request(flush=[0, EAGAIN, EPIPE]))
    assert answer.state == "aborted" and answer.waits == 1


def test_an_application_s_own_length_is_kept(run):
    answer = run(simple(b"abc", headers=[("content-length", "3")]))
    assert answer.all("Content-Length") == ["3"]
    answer = run(simple(b"abc", headers=[("Content-Length", "3"), ("Content-Length", "3")]))
    assert answer.all("Content-Length") == ["3"]


def test_http_1_0(run):
    answer = run(simple(b"abc"), request(version="1.0"))
    assert answer.line == "HTTP/1.0 200 OK" and answer.get("Connection") == "close"
    answer = run(simple(b"abc"), request(version="1.0", fields=[("Connection", "keep-alive")]))
    assert answer.get("Connection") == "Keep-Alive" and answer.keep_alive
    answer = run(generated(b"a", b"bc"), request(version="1.0", fields=[("Connection", "keep-alive")]))
    assert answer.framing == "close" and answer.raw == b"abc"
    assert answer.get("Connection") == "close" and not answer.keep_alive
    assert answer.get("Transfer-Encoding") is None


def test_connection_close_of_client_and_application(run):
    assert run(simple(b"x"), request(fields=[("Connection", "close")])).get("Connection") == "close"
    answer = run(simple(b"x", headers=[("Connection", "close")]))
    assert answer.all("Connection") == ["close"] and not answer.keep_alive


# ---- iteration ----


def test_chunks_are_framed_and_flushed_each(run):
    answer = run(generated(b"", b"one", b"", b"three!", b""))
    assert answer.get("Transfer-Encoding") == "chunked" and answer.get("Content-Length") is None
    assert answer.raw == b"3\r\none\r\n6\r\nthree!\r\n0\r\n\r\n"
    head = len(answer.sent) - len(answer.raw)
    assert answer.flushes == [head + 8, head + 19, head + 24]
    assert run(generated(b"x" * 26)).raw.startswith(b"1A\r\n")


def test_each_chunk_is_out_before_the_next_is_asked_for(harness, run):
    def app(env, start):
        start("200 OK", PLAIN)
        for part in (b"one", b"two"):
            yield part
            assert harness.flushed().endswith(part + b"\r\n")
    assert run(app).state == "ended"


def test_an_end_goes_out_before_close(harness, run):
    seen = []

    class Content:
        def __iter__(self):
            return iter([b"x"])

        def close(self):
            seen.append(harness.flushed())

    run(lambda e, s: (s("200 OK", PLAIN), Content())[1])
    assert seen[0].endswith(b"1\r\nx\r\n0\r\n\r\n")


def test_nothing_is_flushed_before_the_first_chunk_that_is_not_empty(harness, run):
    def app(env, start):
        start("200 OK", PLAIN)
        yield b""
        assert harness.flushed() == b""
        start("201 Other", PLAIN, exc_info(ValueError()))
        yield b"x"
    answer = run(app)
    assert answer.status == 201 and answer.text == b"x"


def test_start_response_may_come_late(run):
    def app(env, start):
        yield b""
        start("202 Late", PLAIN)
        yield b"x"
    assert run(app).line == "HTTP/1.1 202 Late"

    class Late:
        def __init__(self, start):
            self.start = start

        def __iter__(self):
            self.start("203 Iter", PLAIN)
            return iter([b"x"])
    assert run(lambda e, s: Late(s)).status == 203


def test_a_generator_of_nothing(run):
    answer = run(generated())
    assert answer.get("Content-Length") == "0" and answer.state == "ended"


def test_a_known_length_is_not_chunked(run):
    answer = run(generated(b"ab", b"c", headers=[("Content-Length", "3")]))
    assert answer.raw == b"abc" and answer.get("Transfer-Encoding") is None


def test_missing_start_response(run, log):
    for app in (lambda e, s: [b"x"], lambda e, s: iter([b"x"]), lambda e, s: [], lambda e, s: iter([]),
                lambda e, s: e["wsgi.file_wrapper"](io.BytesIO(b"x"))):
        answer = run(app)
        assert answer.status == 500 and "without calling start_response" in log[0][2]


def test_results_that_are_no_iterables(run, log):
    for bad in (None, 5):
        answer = run(lambda e, s: (s("200 OK", PLAIN), bad)[1])
        assert answer.status == 500 and "not iterable" in log[0][2]


def test_bytes_as_result_are_iterated_to_an_error(run):
    assert run(lambda e, s: (s("200 OK", PLAIN), b"abc")[1]).status == 500
    assert run(lambda e, s: (s("200 OK", PLAIN), "abc")[1]).status == 500


@pytest.mark.parametrize("make", [simple, generated])
def test_too_short(run, log, make):
    answer = run(make(b"abc", headers=[("Content-Length", "5")]))
    assert answer.state == "aborted" and answer.raw == b"abc" and not answer.keep_alive
    assert len(log) == 1 and "2 bytes less" in log[0][2]


@pytest.mark.parametrize("make", [simple, generated])
def test_too_long(run, log, make):
    answer = run(make(b"abc", b"defg", headers=[("Content-Length", "5")]))
    assert answer.state == "ended" and answer.raw == b"abcde" and answer.keep_alive
    assert len(log) == 1 and "2 bytes more" in log[0][2]


def test_nothing_where_a_length_was_promised(run):
    for make in (simple, generated):
        answer = run(make(headers=[("Content-Length", "5")]))
        assert answer.state == "aborted" and answer.get("Content-Length") == "5" and answer.raw == b""


def test_back_pressure_waits_without_the_gil(run):
    ticks = []
    stop = threading.Event()

    def count():
        while not stop.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    t = threading.Thread(target=count)
    t.start()
    answer = run(generated(*[b"x" * 10] * 5), request(flush=[EAGAIN] * 3))
    stop.set()
    t.join()
    assert answer.waits == 3 and answer.text == b"x" * 50 and len(ticks) > 10


# ---- the client leaves ----


def test_a_client_that_left_before_is_not_served(run):
    called = []
    answer = run(lambda e, s: called.append(1), request(gone=True))
    assert not called and answer.state == "aborted" and answer.sent == b""


@pytest.mark.parametrize("err", [EPIPE, ECANCELED])
def test_a_stream_stops_and_is_closed(run, log, err):
    made, closed = [], []

    def stream(start):
        start("200 OK", PLAIN)
        try:
            for i in range(100):
                made.append(i)
                yield b"x"
        finally:
            closed.append(1)

    answer = run(lambda e, s: stream(s), request(flush=[0, 0, err]))
    assert answer.state == "aborted" and made == [0, 1, 2] and closed == [1]
    assert not [x for x in log if x[0] >= 3]


def test_empty_chunks_are_a_chance_to_look(harness, run):
    made = []

    def app(env, start):
        start("200 OK", PLAIN)
        for i in range(100):
            made.append(i)
            if i == 5:
                harness.set_gone()
            yield b""

    assert run(app).state == "aborted" and len(made) == 6


def test_client_disconnected_tells(harness, run):
    kept = []

    def app(env, start):
        for key in ("waitress.client_disconnected", "weir.client_disconnected"):
            assert env[key]() is False
        with pytest.raises(TypeError):
            env[key](1)
        if env["PATH_INFO"] == "/leave":
            harness.set_gone()
            assert env[key]() is True
        kept.append(env[key])
        start("200 OK", PLAIN)
        return [b"x"]

    a, b, c = run(app, request("/leave"), request(), request())
    assert [f() for f in kept] == [True, False, False]
    assert len({id(f) for f in kept}) == 3


# ---- start_response ----


def exc_info(e):
    try:
        raise e
    except Exception:
        return sys.exc_info()


def test_arguments_by_name(run):
    for names in ({"status": "201 A", "headers": PLAIN}, {"status": "201 A", "response_headers": PLAIN},
                  {"status": "201 A", "headers": PLAIN, "exc_info": None}):
        assert run(lambda e, s: (s(**names), [])[1]).status == 201
    assert run(lambda e, s: (s("201 A", headers=PLAIN), [])[1]).status == 201
    assert run(lambda e, s: (s("201 A", PLAIN, None), [])[1]).status == 201


@pytest.mark.parametrize("call", [
    lambda s: s(), lambda s: s("200 OK"), lambda s: s("200 OK", [], None, 1),
    lambda s: s("200 OK", [], status="200 OK"), lambda s: s("200 OK", [], other=1),
    lambda s: s(200, []), lambda s: s(b"200 OK", []), lambda s: s("200 OK", None), lambda s: s("200 OK", [1]),
    lambda s: s("200 OK", [("a",)]), lambda s: s("200 OK", [(b"a", "b")]), lambda s: s("200 OK", [("a", 1)]),
    lambda s: s("200 OK", [("a", b"b")]),
])
def test_wrong_types_are_type_errors(run, log, call):
    def app(env, start):
        with pytest.raises(TypeError):
            call(start)
        call(start)
    answer = run(app)
    assert answer.status == 500 and len(log) == 1


@pytest.mark.parametrize("status", ["", "2", "20 OK", "2000 OK", "abc", "200OK", "100 Continue", "199 x", "200 a\r\nb",
                                    "200 \0", "200 \u20ac", " 200 OK", "-20 x"])
def test_wrong_statuses(run, log, status):
    answer = run(simple(status=status))
    assert answer.status == 500 and "ValueError" in log[0][2]


def test_status_without_a_reason(run):
    assert run(simple(status="404")).line == "HTTP/1.1 404 Not Found"
    assert run(simple(status="200 Über")).line == "HTTP/1.1 200 Über"
    assert run(simple(status="799 Own")).line == "HTTP/1.1 799 Own"


@pytest.mark.parametrize("name, value", [
    ("A B", "x"), ("", "x"), ("A:", "x"), ("A\r\nB", "x"), ("\u00e9", "x"), ("\u20ac", "x"),
    ("A", "x\r\nB: y"), ("A", "x\ny"), ("A", "x\ry"), ("A", "\0"), ("A", "\x7f"), ("A", "\u20ac"), ("A", "12345678\n"),
    ("A", "\n12345678"), ("A", "1234567\n12345678"),
    ("Content-Length", "x"), ("Content-Length", "-1"), ("Content-Length", "+1"), ("Content-Length", "1, 1"),
    ("Content-Length", ""), ("Content-Length", "9" * 25),
    ("Transfer-Encoding", "chunked"), ("transfer-encoding", "x"), ("Connection", "upgrade"), ("Upgrade", "x"),
    ("TE", "x"), ("Trailer", "x"), ("Proxy-Authenticate", "x"), ("PROXY-AUTHORIZATION", "x"),
    ("Proxy-Connection", "x"), ("Trailers", "x"),
])
def test_wrong_fields_never_reach_the_wire(run, log, name, value):
    answer = run(simple(b"x", headers=[("X-Before", "1"), (name, value)]))
    assert answer.status == 500 and answer.get("X-Before") is None
    assert "start_response()" in log[0][2] and "Error" in log[0][2]
    assert set(n for n, _ in answer.fields) == {"Content-Type", "Content-Length", "Server", "Date"}


def test_contradicting_lengths(run):
    assert run(simple(b"abc", headers=[("Content-Length", "3"), ("Content-Length", "4")])).status == 500


def test_fields_that_repeat_the_server_are_left_out(run):
    answer = run(generated(b"x", headers=[("Connection", "keep-alive"), ("Keep-Alive", "timeout=5"), ("A", "b")]))
    assert answer.status == 200 and not answer.all("Connection") and not answer.all("Keep-Alive")
    assert answer.get("A") == "b"


def test_fields_pass_as_they_are(run):
    fields = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Latin", "\u00e9\t\u00ff"), ("x-Case", ""),
              ("Server", "mine"), ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Via", "1.1 x"),
              ("Trailez", "7"), ("Content-Lengtx", "14"), ("dat", "e")]
    answer = run(simple(b"x", headers=fields))
    assert answer.fields == [*fields, ("Content-Length", "1")]


def test_a_head_is_bounded(run, log):
    assert run(simple(b"x", headers=[("A", "x" * 60_000)])).status == 200
    assert run(simple(b"x", headers=[("A", "x" * 70_000)])).status == 500
    assert run(simple(b"x", headers=[("A", "x" * 1000)] * 70)).status == 500
    assert "64 KiB" in log[0][2]
    assert run(simple(b"x", status="200 " + "x" * 70_000)).status == 500


def test_header_sequences(run):
    assert run(lambda e, s: (s("200 OK", tuple(PLAIN)), [])[1]).status == 200
    assert run(lambda e, s: (s("200 OK", [["A", "b"]]), [])[1]).get("A") == "b"
    assert run(lambda e, s: (s("200 OK", iter(PLAIN)), [])[1]).status == 200

    class Text(str):
        pass
    assert run(lambda e, s: (s(Text("200 OK"), [(Text("A"), Text("b"))]), [])[1]).get("A") == "b"


def test_a_second_call_needs_exc_info(run, log):
    def app(env, start):
        start("200 OK", PLAIN)
        start("201 OK", PLAIN)
        return []
    assert run(app).status == 500 and "second time" in log[0][2]


def test_exc_info_replaces_what_was_not_sent(run):
    def app(env, start):
        start("200 OK", [("X-Old", "1"), ("Content-Length", "100"), ("Connection", "close")])
        start("503 Sorry", [("X-New", "1")], exc_info(ValueError("x")))
        return [b"sorry"]
    answer = run(app)
    assert answer.status == 503 and answer.get("X-Old") is None and answer.get("X-New") == "1"
    assert answer.get("Content-Length") == "5"


def test_exc_info_in_the_first_call(run):
    assert run(lambda e, s: (s("500 X", PLAIN, exc_info(ValueError())), [b"x"])[1]).line == "HTTP/1.1 500 X"


def test_exc_info_after_the_head_is_raised(run, log):
    seen = []

    def app(env, start):
        start("200 OK", PLAIN)
        yield b"partial"
        try:
            start("500 Late", PLAIN, exc_info(KeyError("the reason")))
        except KeyError as e:
            seen.append(e)
            raise
    answer = run(app)
    assert seen and answer.state == "aborted" and not answer.sent.endswith(b"0\r\n\r\n")
    assert answer.sent.endswith(b"partial\r\n") and "the reason" in log[0][2]


@pytest.mark.parametrize("bad", [1, (), (1, 2, 3), (None, None, None), [ValueError, ValueError(), None]])
def test_a_wrong_exc_info_after_the_head(run, log, bad):
    def app(env, start):
        start("200 OK", PLAIN)
        yield b"partial"
        start("500 Late", PLAIN, bad)
    assert run(app).state == "aborted" and "exc_info" in log[0][2]


def test_a_failed_start_response_leaves_nothing(run):
    def app(env, start):
        with pytest.raises(ValueError):
            start("200 OK", [("X-Left", "1"), ("Bad Name", "x")])
        start("202 Again", PLAIN)
        return [b"x"]
    answer = run(app)
    assert answer.status == 202 and answer.get("X-Left") is None

    def swallow(env, start):
        with pytest.raises(ValueError):
            start("200 OK", [("Bad Name", "x")])
        return [b"x"]
    assert run(swallow).status == 500


def test_kept_start_response_and_write_are_harmless(run):
    kept = []

    def app(env, start):
        kept.append((start, start("200 OK", PLAIN)))
        return [b"x"]
    answers = run(app, request(), request())
    assert [a.text for a in answers] == [b"x", b"x"]
    for start, write in kept:
        with pytest.raises(RuntimeError):
            start("200 OK", PLAIN)
        with pytest.raises(RuntimeError):
            write(b"x")
    assert kept[0][0] is not kept[1][0]


# ---- write() ----


def test_write_sends_at_once_and_before_the_iterable(harness, run):
    def app(env, start):
        write = start("200 OK", PLAIN)
        write(b"")
        assert harness.flushed() == b""
        write(b"one")
        assert harness.flushed().endswith(b"3\r\none\r\n")
        write(bytearray(b"two"))
        return [b"three", b""]
    answer = run(app)
    assert answer.text == b"onetwothree" and answer.get("Transfer-Encoding") == "chunked"


def test_write_with_a_length(run):
    def app(env, start):
        start("200 OK", [("Content-Length", "6")])(b"one")
        return iter([b"two"])
    answer = run(app)
    assert answer.raw == b"onetwo" and answer.state == "ended"


def test_write_alone(run):
    assert run(lambda e, s: (s("200 OK", PLAIN)(b"x"), [])[1]).raw == b"1\r\nx\r\n0\r\n\r\n"
    assert run(lambda e, s: (s("200 OK", PLAIN)(b"x"), None)[1]).state == "aborted"


def test_write_wants_bytes(run, log):
    for bad in ("x", 1, None):
        def app(env, start):
            write = start("200 OK", PLAIN)
            for args in ((), (b"a", b"b")):
                with pytest.raises(TypeError):
                    write(*args)
            write(bad)
        assert run(app).status == 500 and "must be bytes" in log[0][2]


def test_write_tells_that_the_client_left(run, log):
    seen = []

    def app(env, start):
        write = start("200 OK", PLAIN)
        write(b"one")
        try:
            write(b"two")
        except BrokenPipeError as e:
            seen.append(e)
            raise
    answer = run(app, request(flush=[0, EPIPE]))
    assert seen and answer.state == "aborted"
    assert not [x for x in log if x[0] >= 3]


def test_write_waits_for_a_slow_client(run):
    answer = run(lambda e, s: (s("200 OK", PLAIN)(b"x"), [b"y"])[1], request(flush=[EAGAIN, EAGAIN]))
    assert answer.waits == 2 and answer.text == b"xy"


# ---- what must not be on the wire ----


@pytest.mark.parametrize("make", [simple, generated])
def test_head_keeps_the_length_and_drops_the_body(run, make):
    answer = run(make(b"abc", headers=[("Content-Length", "3")]), request(method="HEAD"))
    assert answer.get("Content-Length") == "3" and answer.raw == b"" and answer.keep_alive
    assert answer.state == "ended"


def test_head_without_a_length(run):
    assert run(simple(b"abc"), request(method="HEAD")).get("Content-Length") == "3"
    assert run(simple(), request(method="HEAD")).get("Content-Length") is None
    answer = run(generated(b"abc"), request(method="HEAD"))
    assert answer.get("Content-Length") is None and answer.raw == b"" and answer.get("Transfer-Encoding") is None


def test_head_ends_an_endless_generator(run):
    closed = []

    def app(env, start):
        start("200 OK", PLAIN)
        try:
            while True:
                yield b"x"
        finally:
            closed.append(1)
    assert run(app, request(method="HEAD")).state == "ended" and closed == [1]


@pytest.mark.parametrize("make", [simple, generated])
@pytest.mark.parametrize("status, length", [("204 No Content", None), ("304 Not Modified", "3"), ("205 Reset", "0")])
def test_statuses_without_content(run, make, status, length):
    answer = run(make(b"abc", status=status, headers=[("Content-Length", "3")]))
    assert answer.raw == b"" and answer.get("Content-Length") == length
    assert answer.get("Transfer-Encoding") is None and answer.keep_alive and answer.state == "ended"
    answer = run(make(b"abc", status=status))
    assert answer.raw == b"" and answer.get("Transfer-Encoding") is None
    assert answer.get("Content-Length") == ("0" if status.startswith("205") else None)


# ---- exceptions ----


def test_an_exception_is_logged_with_the_request_and_not_sent(run, log):
    def app(env, start):
        raise ValueError("the secret reason")
    answer = run(app, request("/path?query=secret"))
    assert answer.status == 500 and answer.text.startswith(b"Internal Server Error\n")
    assert b"secret" not in answer.sent and answer.keep_alive
    (level, request_id, text), = log
    assert level == 3 and request_id == 1
    assert text.startswith("GET /path: the application raised an exception\nTraceback (most recent call last):\n")
    assert text.rstrip().endswith("ValueError: the secret reason") and "test_wsgi.py" in text
    assert "query" not in text


def test_tracebacks_are_sent_when_asked_for(run):
    def app(env, start):
        raise ValueError("the reason \u20ac")
    answer = run(app, expose_tracebacks=True)
    assert "the reason \u20ac" in answer.text.decode() and b"Traceback" in answer.text
    assert answer.get("Content-Length") == str(len(answer.text))


def test_an_exception_after_start_response(run):
    def app(env, start):
        start("200 OK", [("X-Mine", "1"), ("Content-Length", "5")])
        raise ValueError
    answer = run(app)
    assert answer.status == 500 and answer.get("X-Mine") is None and answer.state == "ended"


def test_an_exception_in_the_iteration(run, log):
    def early(env, start):
        start("200 OK", PLAIN)
        yield b""
        raise ValueError
    assert run(early).status == 500

    def late(env, start):
        start("200 OK", PLAIN)
        yield b"part"
        raise ValueError
    answer = run(late)
    assert answer.state == "aborted" and answer.raw == b"4\r\npart\r\n" and len(log) == 1
    assert not answer.keep_alive


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, StopIteration, RecursionError])
def test_any_exception_ends_only_the_request(run, log, kind):
    def app(env, start):
        if env["PATH_INFO"] == "/bad":
            raise kind("x")
        start("200 OK", PLAIN)
        return [b"fine"]
    bad, fine = run(app, request("/bad"), request())
    assert bad.status == 500 and fine.text == b"fine"
    assert kind.__name__ in log[0][2]


def test_exceptions_that_cannot_be_shown(run, log):
    class Nasty(Exception):
        def __str__(self):
            raise SystemExit("even here")

    def app(env, start):
        raise Nasty
    assert run(app).status == 500 and "Nasty" in log[0][2]

    def surrogates(env, start):
        raise ValueError("\udc80")
    assert run(surrogates).status == 500 and "\\udc80" in log[0][2]


def test_waitress_closes_after_an_error(run):
    def app(env, start):
        raise ValueError
    answer = run(app, waitress=True)
    assert answer.get("Connection") == "close" and not answer.keep_alive
    assert run(app, request(version="1.0")).line == "HTTP/1.0 500 Internal Server Error"
    head = run(app, request(method="HEAD"))
    assert head.raw == b"" and int(head.get("Content-Length")) > 0


# ---- close() ----


class Content:
    def __init__(self, *parts, fail=None, close_fails=None):
        self.parts, self.fail, self.close_fails, self.closed = list(parts), fail, close_fails, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.parts:
            return self.parts.pop(0)
        raise self.fail or StopIteration

    def close(self):
        self.closed += 1
        if self.close_fails:
            raise self.close_fails


@pytest.mark.parametrize("content, spec, state", [
    (lambda: Content(b"x"), request(), "ended"),
    (lambda: Content(), request(), "ended"),
    (lambda: Content(b"x", b"y"), request(method="HEAD"), "ended"),
    (lambda: Content(fail=ValueError()), request(), "ended"),
    (lambda: Content(b"x", fail=ValueError()), request(), "aborted"),
    (lambda: Content("text"), request(), "ended"),
    (lambda: Content(b"x", b"y"), request(flush=[EPIPE]), "aborted"),
    (lambda: Content(b"x", b"y", close_fails=ValueError("in close")), request(), "ended"),
    (lambda: Content(b"x", fail=ValueError(), close_fails=SystemExit()), request(), "aborted"),
])
def test_close_is_called_once_and_always(run, log, content, spec, state):
    made = []

    def app(env, start):
        start("200 OK", PLAIN)
        made.append(content())
        return made[0]
    answer = run(app, spec)
    assert answer.state == state and made[0].closed == 1
    assert not made[0].close_fails or "close()" in log[-1][2]


def test_close_without_start_response(run):
    made = Content(b"x")
    assert run(lambda e, s: made).status == 500 and made.closed == 1


def test_a_list_that_has_close(run):
    class Closing(list):
        closed = 0

        def close(self):
            self.closed += 1
    made = Closing([b"abc"])
    answer = run(lambda e, s: (s("200 OK", PLAIN), made)[1])
    assert answer.text == b"abc" and made.closed == 1


def test_close_that_is_no_function(run, log):
    made = Content(b"x")
    made.close = 5
    assert run(lambda e, s: (s("200 OK", PLAIN), made)[1]).text == b"x" and "close()" in log[0][2]


# ---- file_wrapper ----


@pytest.fixture
def path(tmp_path):
    p = tmp_path / "file"
    p.write_bytes(bytes(range(256)) * 1000)
    return p


def sending(open_, headers=PLAIN, wrap=lambda x: x, before=lambda f: None):
    def app(env, start):
        f = open_()
        before(f)
        start("200 OK", list(headers))
        return wrap(env["wsgi.file_wrapper"](f, 1000))
    return app


def test_a_file_is_sent_by_its_descriptor(run, path):
    opened = []

    def open_():
        opened.append(path.open("rb"))
        return opened[-1]
    for raw in (lambda: open_(), lambda: opened.append(path.open("rb", buffering=0)) or opened[-1]):
        answer = run(sending(raw))
        assert answer.file == 256_000 and answer.text == path.read_bytes()
        assert answer.get("Content-Length") == "256000" and opened[-1].closed


def test_a_short_file_is_copied(run, path):
    path.write_bytes(b"short")
    answer = run(sending(lambda: path.open("rb")))
    assert answer.file is None and answer.text == b"short" and answer.get("Content-Length") == "5"
    path.write_bytes(b"")
    answer = run(sending(lambda: path.open("rb")))
    assert answer.text == b"" and answer.get("Content-Length") == "0"


def test_the_offset_of_the_file_counts(run, path):
    data = path.read_bytes()
    answer = run(sending(lambda: path.open("rb"), before=lambda f: f.read(10)))
    assert answer.text == data[10:] and answer.get("Content-Length") == str(len(data) - 10)
    answer = run(sending(lambda: path.open("rb"), before=lambda f: f.seek(len(data) + 5)))
    assert answer.text == b"" and answer.get("Content-Length") == "0"


@pytest.mark.parametrize("size", [256_000, 5])
def test_the_application_s_length(run, log, path, size):
    data = path.read_bytes()[:size]
    path.write_bytes(data)
    answer = run(sending(lambda: path.open("rb"), headers=[("Content-Length", "4")]))
    assert answer.text == data[:4] and answer.get("Content-Length") == "4" and not log
    answer = run(sending(lambda: path.open("rb"), headers=[("Content-Length", "999999")]))
    assert answer.text == data and answer.get("Content-Length") == str(size)
    assert answer.state == "ended" and "999999" in log[0][2]


def test_head_and_304_send_no_file(run, path):
    answer = run(sending(lambda: path.open("rb")), request(method="HEAD"))
    assert answer.get("Content-Length") == "256000" and answer.raw == b"" and answer.file is None


def test_other_objects_are_iterated(run, path):
    data = path.read_bytes()
    assert run(sending(lambda: io.BytesIO(b"x" * 2500))).raw == \
        b"3E8\r\n" + b"x" * 1000 + b"\r\n3E8\r\n" + b"x" * 1000 + b"\r\n1F4\r\n" + b"x" * 500 + b"\r\n0\r\n\r\n"
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(data))
    assert run(sending(lambda: gzip.open(packed))).text == data

    class Own(io.BufferedReader):
        def read(self, n=-1):
            return super().read(n)[::-1]
    assert run(sending(lambda: Own(open(path, "rb", buffering=0)))).text != data

    class Bare:
        parts = [b"a", b"b"]

        def read(self, n):
            return self.parts.pop(0) if self.parts else b""
    assert run(sending(Bare)).text == b"ab"


def test_pipes_are_iterated(run):
    def open_():
        r, w = os.pipe()
        os.write(w, b"through a pipe")
        os.close(w)
        return os.fdopen(r, "rb")
    assert run(sending(open_)).text == b"through a pipe"


def test_temporary_files(run):
    def open_(kind):
        f = kind()
        f.write(b"abc" * 20_000)
        f.seek(3)
        return f
    for kind in (tempfile.TemporaryFile, tempfile.NamedTemporaryFile, tempfile.SpooledTemporaryFile):
        assert run(sending(lambda: open_(kind))).text == b"abc" * 19_999

    def unflushed():
        f = tempfile.TemporaryFile()
        f.seek(0)
        f.write(b"abc")
        f.seek(1)
        return f
    assert run(sending(unflushed)).text == b"bc"


def test_middleware_may_wrap_the_wrapper(run, path):
    def middle(wrapper):
        yield from wrapper
        wrapper.close()
    answer = run(sending(lambda: path.open("rb"), wrap=middle))
    assert answer.text == path.read_bytes() and answer.framing == "chunked"


def test_a_wrapper_that_was_iterated_goes_on_from_there(run, path):
    data = path.read_bytes()

    def wrap(w):
        next(w)
        return w
    assert run(sending(lambda: path.open("rb"), wrap=wrap)).text == data[1000:]


def test_a_closed_file_is_an_error(run, log, path):
    assert run(sending(lambda: path.open("rb"), before=lambda f: f.close())).status == 500
    assert "closed file" in log[0][2]


def test_write_before_a_file(run, path):
    def app(env, start):
        start("200 OK", PLAIN)(b"before:")
        return env["wsgi.file_wrapper"](path.open("rb"))
    answer = run(app)
    assert answer.text == b"before:" + path.read_bytes()


def test_http_1_0_file(run, path):
    answer = run(sending(lambda: path.open("rb")), request(version="1.0"))
    assert answer.file == 256_000 and answer.get("Content-Length") == "256000"


def test_the_wrapper_as_an_object(run):
    def app(env, start):
        kind = env["wsgi.file_wrapper"]
        closed = []

        class File(io.BytesIO):
            def close(self):
                closed.append(1)
        w = kind(File(b"abcdef"), blksize=4)
        assert list(w) == [b"abcd", b"ef"] and w.blksize == 4
        w.close()
        w.close()
        assert closed == [1]
        kind(object()).close()
        assert kind(io.BytesIO(b"")).blksize == 8192
        with pytest.raises(TypeError):
            kind()
        start("200 OK", PLAIN)
        return [b"ok"]
    assert run(app).text == b"ok"


def test_no_descriptor_is_lost(run, path):
    before = len(os.listdir("/proc/self/fd"))
    for app in (sending(lambda: path.open("rb")),
                sending(lambda: path.open("rb"), headers=[("Content-Length", "5")])):
        for spec in (request(), request(method="HEAD")):
            run(app, spec)
    assert len(os.listdir("/proc/self/fd")) == before


# ---- threads ----


def test_threads_have_names_and_leave_no_trace(harness, run):
    names = []

    def app(env, start):
        names.append(threading.current_thread().name)
        start("200 OK", PLAIN)
        return []
    before = set(threading._active)
    a = harness.App(app)
    a.run(request(), request())
    a.run(request())
    assert names == ["weir-1", "weir-1", "weir-2"]
    assert set(threading._active) == before


def test_thread_locals_last_as_long_as_the_thread(run):
    local, seen = threading.local(), []

    def app(env, start):
        local.n = getattr(local, "n", 0) + 1
        seen.append(local.n)
        start("200 OK", PLAIN)
        return []
    run(app, request(), request(), request())
    assert seen == [1, 2, 3]


def test_a_callable_is_needed(harness):
    with pytest.raises(TypeError, match="callable"):
        harness.App(5)


# ---- nothing is kept ----


def exercise(path):
    """Applications that touch every path, with the request to give them."""
    def fails(env, start):
        raise ValueError

    def late(env, start):
        start("200 OK", PLAIN)
        yield b"x"
        raise ValueError

    def twice(env, start):
        start("200 OK", PLAIN)
        start("500 X", PLAIN, exc_info(ValueError()))
        yield b"x"
        start("500 X", PLAIN, exc_info(ValueError()))

    def writes(env, start):
        start("200 OK", PLAIN)(b"x")
        return [b"y"]

    return [
        (simple(b"abc"), request("/%41?b", fields=[("A", "1"), ("a", "2"), ("B_c", "3")])),
        (generated(b"a", b"b"), request(version="1.0", host=None)),
        (simple("no"), request()), (simple(b"x", headers=[("Bad Name", "x")]), request()),
        (fails, request()), (late, request()), (twice, request()), (writes, request()),
        (reading(lambda i: i.read()), post(b"abc" * 100)), (reading(lambda i: list(i)), chunked([b"a\nb", b"c\n"])),
        (reading(lambda i: i.read(5)), post(b"abc" * 100, spill=True)),
        (reading(lambda i: i.read()), chunked([b"a", EPROTO])),
        (sending(lambda: path.open("rb")), request()), (sending(lambda: io.BytesIO(b"x")), request()),
        (generated(*[b"x"] * 5), request(flush=[0, EPIPE])), (simple(b"x"), request(gone=True)),
        (simple(b"x"), request(unix=True, facts={"client": "1.2.3.4", "host": "h", "scheme": "https"})),
        (lambda e, s: None, request()), (lambda e, s: [b"x"], request()),
    ]


def test_objects_of_a_request_go_with_it(harness, path):
    class Mark:
        pass

    for inner, spec in exercise(path):
        marks = []

        def app(env, start):
            mark = Mark()
            marks.append(weakref.ref(mark))
            env["mark"] = mark
            return inner(env, start)
        a = harness.App(app)
        a.run(spec)
        del harness.lines[:]
        del a, app
        gc.collect()
        assert all(m() is None for m in marks), inner


CASES = 19  # of exercise()


@pytest.mark.parametrize("case", range(CASES))
def test_nothing_grows(harness, path, case):
    """Memory, tracked objects and the counts of shared objects over 800 runs."""
    cases = exercise(path)
    assert len(cases) == CASES
    app, spec = cases[case]
    a = harness.App(app)
    shared = ["", b"", None, True, False, 0, 1, "GET", OSError, list, dict]
    kept = []

    def keep(env, start):
        kept.append((env["wsgi.input"], env["wsgi.file_wrapper"], env["wsgi.errors"]))
        start("200 OK", PLAIN)
        return []

    harness.App(keep).run(request())
    shared += kept.pop()[:2]

    def once(n):
        for _ in range(n):
            a.run(spec, spec)
            del harness.lines[:]
        gc.collect()
        return (tracemalloc.get_traced_memory()[0], len(gc.get_objects()), [sys.getrefcount(x) for x in shared])

    tracemalloc.start()
    try:
        once(200)  # caches of the interpreter settle
        memory, objects, counts = once(10)
        memory_2, objects_2, counts_2 = once(400)
    finally:
        tracemalloc.stop()
    assert memory_2 - memory < 800 * 40  # one object of each request would be more
    assert objects_2 - objects < 50
    assert all(y - x < 200 for x, y in zip(counts, counts_2)), (counts, counts_2)
    assert all(x - y < 750 for x, y in zip(counts, counts_2)), (counts, counts_2)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="CPython's own traceback module crashes without memory")
@pytest.mark.parametrize("case", range(CASES))
def test_no_failed_allocation_breaks_a_thread(harness, path, case):
    """The n-th allocation fails, for every n: an answer or an aborted one, and the next request is as ever."""
    app, spec = exercise(path)[case]
    a = harness.App(app)
    ordinary = Answer(a.run(spec, spec)[1])
    for n in range(1, 400):
        failed, first, second = a.fail(n, spec)
        if not failed:
            break
        first, second = Answer(first), Answer(second)
        assert first.state in ("ended", "aborted")
        assert (second.status, second.text, second.state) == (ordinary.status, ordinary.text, ordinary.state)
        del harness.lines[:]


# ---- real frameworks ----


def test_wsgiref_validate(run, log):
    from wsgiref.validate import validator

    def app(env, start):
        start("200 OK", [("Content-Type", "text/plain")])
        body = env["wsgi.input"].read(100)
        env["wsgi.errors"].write("")
        env["wsgi.errors"].flush()
        return [b"got " + body]
    for spec in (request("/a?b"), post(b"abc", fields=[("Content-Type", "text/plain")]),
                 request(method="HEAD"), request(version="1.0", host=None)):
        answer = run(validator(app), spec)
        assert answer.status == 200, log
    assert run(validator(app), chunked([b"xyz"])).text == b"got xyz"


def test_wsgiref_demo_and_util(run):
    from wsgiref.simple_server import demo_app
    assert run(demo_app).text.startswith(b"Hello world!")

    def app(env, start):
        from wsgiref.util import request_uri
        start("200 OK", PLAIN)
        return [request_uri(env).encode()]
    assert run(app, request("/a%20b?c")).text == b"http://example.org:8000/a%20b?c"


def test_flask(run, log):
    flask = pytest.importorskip("flask")
    app = flask.Flask("weir_test")

    @app.route("/")
    def index():
        return "hi"

    @app.route("/json", methods=["POST"])
    def echo():
        return flask.jsonify(flask.request.get_json())

    @app.route("/upload", methods=["POST"])
    def upload():
        f = flask.request.files["f"]
        return f"{f.filename}:{len(f.read())}:{flask.request.form['k']}"

    @app.route("/stream")
    def stream():
        return flask.Response((f"data: {i}\n\n" for i in range(3)), mimetype="text/event-stream",
                              headers={"Connection": "keep-alive"})

    @app.route("/cookie")
    def cookie():
        r = flask.make_response(flask.request.cookies.get("a", "none"))
        r.set_cookie("x", "1")
        r.set_cookie("y", "2")
        return r

    @app.route("/file")
    def file():
        return flask.send_file(__file__, mimetype="text/plain")

    @app.route("/bad")
    def bad():
        raise ValueError("in the view")

    @app.route("/redirect")
    def redirect():
        return flask.redirect(flask.url_for("index", _external=True))

    assert run(app).text == b"hi"
    data = b'{"a": [1, 2]}'
    kind = [("Content-Type", "application/json")]
    assert b'"a"' in run(app, post(data, fields=kind, target="/json")).text
    assert b'"a"' in run(app, chunked([data[:4], None, data[4:]], fields=kind, target="/json")).text
    form = (b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\nv\r\n'
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="n.bin"\r\n\r\n' + b"\0" * 100_000 +
            b"\r\n--b--\r\n")
    fields = [("Content-Type", "multipart/form-data; boundary=b")]
    for spec in (post(form, fields, target="/upload"), post(form, fields, target="/upload", spill=True)):
        assert run(app, spec).text == b"n.bin:100000:v"
    answer = run(app, request("/stream"))
    assert answer.text == b"data: 0\n\ndata: 1\n\ndata: 2\n\n" and len(answer.flushes) == 4
    answer = run(app, request("/cookie", fields=[("Cookie", "a=b; c=d")]))
    assert answer.text == b"b" and len(answer.all("Set-Cookie")) == 2
    answer = run(app, request("/file"))
    assert answer.text == open(__file__, "rb").read() and answer.file
    app.logger.disabled = True
    assert run(app, request("/bad")).status == 500
    assert run(app, request("/none")).status == 404
    assert run(app, request("/redirect")).get("Location") == "http://example.org:8000/"
    assert run(app, request(method="HEAD")).get("Content-Length") == "2"
    assert run(app, request(method="OPTIONS")).status == 200
    app.config["PROPAGATE_EXCEPTIONS"] = True
    assert run(app, request("/bad")).status == 500 and "in the view" in log[0][2]


def test_django(run, path):
    django = pytest.importorskip("django")
    from django.conf import settings
    if not settings.configured:
        settings.configure(DEBUG=False, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x",
                           MIDDLEWARE=["django.middleware.common.CommonMiddleware"])
        django.setup()
    from django.core.wsgi import get_wsgi_application
    from django.http import FileResponse, HttpResponse, StreamingHttpResponse
    from django.urls import path as route

    def upload(request):
        return HttpResponse(f"{request.FILES['f'].size}:{request.POST['k']}")

    def stream(request):
        return StreamingHttpResponse(iter([b"a", b"b"]))

    def body(request):
        return HttpResponse(request.body)

    global urlpatterns
    urlpatterns = [route("", lambda r: HttpResponse("hi " + r.get_host())), route("upload", upload),
                   route("stream", stream), route("body", body),
                   route("file", lambda r: FileResponse(open(path, "rb")))]
    app = get_wsgi_application()
    answer = run(app)
    assert answer.text == b"hi example.org:8000" and answer.get("Content-Length") == "19"
    form = (b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\nv\r\n'
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n' + b"\0" * 5000 + b"\r\n--b--\r\n")
    kind = [("Content-Type", "multipart/form-data; boundary=b")]
    assert run(app, post(form, kind, target="/upload")).text == b"5000:v"
    assert run(app, request("/stream")).raw == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
    assert run(app, post(b"data", target="/body")).text == b"data"
    whole = request("/body", method="POST", fields=[("Transfer-Encoding", "chunked")], body=b"data")
    assert run(app, whole).text == b"data"
    answer = run(app, request("/file"))
    assert answer.text == path.read_bytes() and answer.file == 256_000
    logging.disable(logging.CRITICAL)
    assert run(app, request("/none")).status == 404
    logging.disable(logging.NOTSET)


# ---- wsgi.early_hints ----

LINKS = [("Link", "</a.css>; rel=preload; as=style"), ("Link", "</b.js>; rel=preload")]
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload; as=style\r\nLink: </b.js>; rel=preload\r\n\r\n"


def hinting(hints=LINKS, times=1):
    def app(env, start):
        for _ in range(times):
            assert env["wsgi.early_hints"](hints) is None
        start("200 OK", PLAIN)
        return [b"x"]
    return app


@pytest.mark.parametrize("hints", [LINKS, tuple(map(tuple, LINKS)), iter(LINKS), [list(x) for x in LINKS]])
def test_early_hints_go_out_before_the_response(run, hints):
    a = run(hinting(hints))
    assert a.sent.startswith(HINTS + b"HTTP/1.1 200 OK\r\n") and a.sent.endswith(b"\r\n\r\nx")


def test_early_hints_may_come_again_and_after_start_response(run):
    def app(env, start):
        env["wsgi.early_hints"](LINKS)
        start("200 OK", PLAIN)
        env["wsgi.early_hints"]([("X", " y ")])
        return [b"x"]
    assert run(app).sent.startswith(HINTS + b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_http_1_0_gets_no_early_hints(run):
    assert run(hinting(), request(version="1.0")).line == "HTTP/1.0 200 OK"


@pytest.mark.parametrize("hints, error", [
    ([("Link", "a\r\nSet-Cookie: x")], "no valid field"), ([("Li nk", "a")], "no valid field"),
    ([("Content-Length", "5")], "belongs to the response"), ([("Connection", "close")], "belongs to the response"),
    ([("Transfer-Encoding", "chunked")], "belongs to the response"), ([("Link", "ä€")], "latin-1"), ([("Link", b"x")], "latin-1"),
    ([("Link",)], "tuples"), ([5], "tuples"), (5, "not iterable"), ([("Link", "x" * 9000)] * 2, "above 16 KiB"),
])
def test_early_hints_that_are_wrong_are_the_applications_fault(run, log, hints, error):
    a = run(hinting(hints))
    assert a.line == "HTTP/1.1 500 Internal Server Error" and b"103" not in a.sent
    assert error in log[-1][2]


def test_early_hints_have_an_end(run, log):
    a = run(hinting([("Link", "x" * 4000)], times=5))
    assert a.sent.count(b"103 Early Hints") == 4 and b"\r\n\r\nHTTP/1.1 500 " in a.sent


def test_early_hints_come_too_late(run):
    def app(env, start):
        write = start("200 OK", PLAIN)
        write(b"x")
        with pytest.raises(RuntimeError, match="after the response had begun"):
            env["wsgi.early_hints"](LINKS)
        return []
    assert run(app).text == b"x"


def test_early_hints_are_of_the_thread_that_runs_the_request(run):
    kept = []

    def app(env, start):
        kept.append(env["wsgi.early_hints"])

        def elsewhere():
            with pytest.raises(RuntimeError, match="the thread that runs the request"):
                kept[0](LINKS)
            kept.append("raised")

        t = threading.Thread(target=elsewhere)
        t.start()
        t.join()
        start("200 OK", PLAIN)
        return [b"x"]
    assert run(app).line == "HTTP/1.1 200 OK" and kept[1] == "raised"
    with pytest.raises(RuntimeError):
        kept[0](LINKS)


def test_early_hints_for_a_client_that_left_do_nothing(run, harness):
    called = []

    def app(env, start):
        harness.set_gone()
        called.append(env["wsgi.early_hints"](LINKS))
        start("200 OK", PLAIN)
        return [b"x"]
    assert b"103" not in run(app).sent and called == [None]
