"""PEP 3333 as a client sees it: every corner where servers differ, frameworks, files, streams, clients that leave."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import time
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from harness import PATIENCE, Client, Incomplete, Server, Starter, wait_for


@pytest.fixture(scope="module")
def pep(weir_module: Starter) -> Server:
    return weir_module("pep:app", threads="4:16")


@pytest.fixture(scope="module")
def basic(weir_module: Starter) -> Server:
    return weir_module("basic:app", threads="4:32")


def closes(server: Server) -> dict[str, int]:
    return server.get("/closes").json()


def seen(server: Server) -> dict:
    return server.get("/seen").json()


# ---- start_response ----


def test_start_response_may_be_called_with_the_first_item(pep: Server) -> None:
    r = pep.get("/generator")
    assert (r.status, r.reason, r.get("x-late"), r.text) == (201, "Late", "yes", "from a generator")


def test_empty_items_are_no_content_and_end_nothing(pep: Server) -> None:
    with pep.client() as c:
        r = c.get("/empties")
        assert r.chunks == [b"a", b"b"]
        assert c.alive()


def test_content_without_start_response_is_an_error(pep: Server) -> None:
    r = pep.get("/never")
    assert r.status == 500 and b"without a status" not in r.body
    pep.wait_log("without calling start_response")


def test_a_second_start_response_without_exc_info_is_an_error(pep: Server) -> None:
    assert pep.get("/twice").status == 500
    pep.wait_log("a second time without exc_info")


def test_exc_info_before_the_head_replaces_status_and_fields(pep: Server) -> None:
    r = pep.get("/replaced")
    assert (r.status, r.text, r.get("x-second"), r.get("x-first")) == (503, "replaced", "2", None)


def test_exc_info_after_the_head_cuts_the_connection(pep: Server) -> None:
    with pep.client() as c:
        c.request("GET", "/too-late")
        with pytest.raises(Incomplete) as e:
            c.response()
        assert e.value.partial.chunks == [b"half of it"]
    pep.wait_log("ValueError: after the head")
    assert closes(pep)["too_late"] >= 1


def test_the_traceback_of_exc_info_is_not_kept(pep: Server) -> None:
    assert pep.get("/leak").text == "leaked?"
    assert pep.get("/leaked").text == "no"


# ---- write() ----


def test_write_comes_before_the_iterable(pep: Server) -> None:
    assert pep.get("/writes").text == "one two three"
    r = pep.get("/writes-with-length")
    assert (r.get("content-length"), r.text) == ("6", "abcdef")


def test_write_takes_bytes_alone(pep: Server) -> None:
    assert pep.get("/write-text").status == 500
    pep.wait_log("must be bytes, not str")


# ---- wrong content, errors ----


@pytest.mark.parametrize("view", ["text", "none", "number", "raises", "raises-started", "raises-first", "wrong-type"])
def test_an_error_before_the_first_content_is_a_plain_500(pep: Server, view: str) -> None:
    with pep.client() as c:
        r = c.get(f"/{view}")
        assert r.status == 500 and (r.get("content-type") or "").startswith("text/plain")
        assert b"Traceback" not in r.body and b"on purpose" not in r.body
        if r.keep:
            assert c.alive()


@pytest.mark.parametrize("view", ["raises-later", "raises-later-with-length"])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_an_error_after_the_head_never_looks_like_an_end(pep: Server, view: str, version: str) -> None:
    with pep.client() as c:
        c.request("GET", f"/{view}", version=version)
        with pytest.raises(Incomplete):
            c.response()
        assert c.end in ("closed", "reset")
        assert c.end == "reset" or version == "HTTP/1.1" or "length" in view


def test_exceptions_go_to_the_log_with_the_request(pep: Server) -> None:
    pep.get("/raises?find-me")
    log = pep.wait_log("RuntimeError: before anything")
    entry = re.search(r"ERROR (request=\d+) GET /raises\S*: the application raised an exception\n\s*Traceback", log)
    assert entry, log[-2000:]


def test_system_exit_and_keyboard_interrupt_do_not_end_the_server(pep: Server) -> None:
    for view in ("exits", "interrupts"):
        assert pep.get(f"/{view}").status == 500
    assert pep.get("/one").text == "just one"


def test_close_is_called_once_and_always(pep: Server) -> None:
    before = closes(pep)

    def more(name: str) -> int:
        return closes(pep).get(name, 0) - before.get(name, 0)

    assert pep.get("/good").text == "ab"
    assert pep.ask("HEAD", "/good").status == 200
    assert more("good") == 2
    pep.get("/text")
    pep.get("/raises-first")
    for view in ("raises-later", "raises-later-with-length", "short", "close-raises"):
        with Client(pep.address) as c:
            c.request("GET", f"/{view}", "Connection: close")
            try:
                c.response()
            except Incomplete:
                pass
    pep.get("/long")
    wait_for(lambda: more("close_raises"))
    for name in ("text", "raises_first", "raises_later", "raises_later_with_length", "short", "long", "close_raises"):
        assert more(name) == 1, name
    pep.wait_log("RuntimeError: in close()")


# ---- lengths ----


def test_content_length_is_set_where_the_whole_content_is_known(pep: Server) -> None:
    for view, length in (("one", "8"), ("two", "6"), ("nothing", "0"), ("huge-item", "5000000")):
        r = pep.get(f"/{view}")
        assert (r.get("content-length"), r.get("transfer-encoding")) == (length, None), view
        assert len(r.body) == int(length)
    r = pep.get("/nothing-iterated")
    assert r.body == b"" and r.status == 200


def test_content_above_its_length_is_cut_off_and_logged(pep: Server) -> None:
    with pep.client() as c:
        r = c.get("/long")
        assert r.text == "12345"
        assert c.alive(), "the rest must not be taken for the next answer"
    pep.wait_log("more than its Content-Length of 5")


def test_content_below_its_length_closes_the_connection_and_is_logged(pep: Server) -> None:
    with pep.client() as c:
        c.request("GET", "/short")
        with pytest.raises(Incomplete) as e:
            c.response()
        assert e.value.partial.body == b"12345"
    pep.wait_log("less than its Content-Length of 10")


@pytest.mark.parametrize("status", [204, 304])
def test_204_and_304_have_no_content_whatever_the_application_gives(basic: Server, status: int) -> None:
    with basic.client() as c:
        r = c.get(f"/status/{status}")
        assert r.status == status and r.get("transfer-encoding") is None
        assert r.get("content-length") is None or status == 304
        assert c.alive()


def test_a_status_below_200_is_an_error_of_the_application(basic: Server) -> None:
    for status in (100, 101, 103, 199):
        assert basic.get(f"/status/{status}").status == 500


# ---- fields ----


def with_fields(server: Server, *pairs: tuple[str, str]):
    return server.get("/fields?" + quote(json.dumps(pairs)))


@pytest.mark.parametrize("name, value", [
    ("X-A", "a\r\nX-Injected: 1"), ("X-A", "a\nb"), ("X-A", "a\rb"), ("X-A", "a\0b"), ("X-A\r\nX-B", "1"), ("X A", "1"),
    ("X:A", "1"), ("", "1"), ("X-\u20ac", "1"), ("X-A", "\u20ac"), ("X-A", "\x7f"), ("Transfer-Encoding", "chunked"),
    ("Connection", "upgrade"), ("Upgrade", "h2c"), ("TE", "trailers"), ("Trailer", "X"), ("Proxy-Authenticate", "x"),
    ("Content-Length", "abc"), ("Content-Length", "-1"), ("Content-Length", "+1"),
])
def test_what_is_forbidden_never_reaches_the_wire(pep: Server, name: str, value: str) -> None:
    r = with_fields(pep, ("Content-Type", "text/plain"), (name, value))
    assert r.status == 500 and not r.all("x-injected") and b"Injected" not in r.head


@pytest.mark.parametrize("byte", [*range(0x00, 0x20), 0x7F])
def test_no_control_byte_passes_in_a_field_or_a_status(pep: Server, byte: int) -> None:
    r = with_fields(pep, ("X-A", f"a{chr(byte)}b"))
    if byte == 9:
        assert r.status == 200
        return
    assert r.status == 500
    r = pep.get("/status-line?" + quote(json.dumps(f"200 O{chr(byte)}K")))
    assert r.status == 500


@pytest.mark.parametrize("status", ["OK", "20 OK", "2000 OK", "abc", "", "200\r\nX: 1", "-200 x", "200OK"])
def test_a_malformed_status_is_an_error(pep: Server, status: str) -> None:
    assert pep.get("/status-line?" + quote(json.dumps(status))).status == 500


def test_unusual_statuses_are_passed_on(pep: Server) -> None:
    for status, reason in (("299 Fine Too", "Fine Too"), ("418 I'm a teapot", "I'm a teapot"), ("999 Odd", "Odd"),
                           ("200 na\u00efve", "na\u00efve")):
        r = pep.get("/status-line?" + quote(json.dumps(status)))
        assert (r.status, r.reason) == (int(status[:3]), reason)


def test_fields_keep_their_order_their_case_and_their_repetitions(pep: Server) -> None:
    pairs = [("Set-Cookie", "a=1"), ("X-cAsE", "1"), ("Set-Cookie", "b=2; HttpOnly"), ("X-Latin", "\u00e4\u00ff"), ("Set-Cookie", "c=3"),
             ("X-Empty", "")]
    r = with_fields(pep, *pairs)
    assert [f for f in r.fields if f[0] in dict(pairs)] == pairs


def test_fields_of_the_application_take_the_place_of_the_servers(pep: Server) -> None:
    r = with_fields(pep, ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Server", "mine"))
    assert r.all("date") == ["Thu, 01 Jan 1970 00:00:00 GMT"] and r.all("server") == ["mine"]


def test_connection_close_of_the_application_closes(pep: Server) -> None:
    with pep.client() as c:
        r = c.get("/fields?" + quote(json.dumps([("Connection", "close")])))
        assert r.all("connection") == ["close"]
        assert c.ended() == "closed"


# ---- environ ----


def test_the_environ_is_complete_and_fresh(pep: Server) -> None:
    for _ in range(2):
        with pep.client() as c:
            port = str(c.socket.getsockname()[1])
            e = c.ask("POST", "/environ/a%20b%2Fc?q=%20x&y", "Content-Type: text/plain", body=b"12", host="h:81").json()
        assert e["is dict"] and e["fresh"]
        expected = {
            "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/environ/a b/c", "QUERY_STRING": "q=%20x&y",
            "RAW_URI": "/environ/a%20b%2Fc?q=%20x&y", "REQUEST_URI": "/environ/a%20b%2Fc?q=%20x&y",
            "CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "2", "SERVER_NAME": "h",
            "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1", "REMOTE_HOST": "127.0.0.1", "REMOTE_PORT": port,
            "HTTP_HOST": "h:81", "wsgi.version": [1, 0], "wsgi.url_scheme": "http", "wsgi.multithread": True,
            "wsgi.multiprocess": False, "wsgi.run_once": False, "wsgi.input_terminated": True,
        }
        assert {k: e.get(k) for k in expected} == expected
        assert e["SERVER_PORT"] in (str(pep.port), "81")
        assert e["SERVER_SOFTWARE"].startswith("weir")
        for key in ("wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "waitress.client_disconnected"):
            assert key in e
        assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "PATH", "HOME", "PYTHONPATH"} & e.keys()


def test_multithread_is_truthful(weir: Starter) -> None:
    assert weir("pep:app", threads=1).get("/").json()["wsgi.multithread"] is False


@pytest.mark.parametrize("target, path, query", [
    ("/", "/", ""), ("/%e4%20%00?", "/\u00e4 \0", ""), ("/a//b/../c/./", "/a//b/../c/./", ""), ("/%zz%4", "/%zz%4", ""),
    ("/?a?b", "/", "a?b"), ("/%3F%23", "/?#", ""), ("/a;b=c", "/a;b=c", ""), ("http://x/y?z", "/y", "z"), ("http://x", "/", ""),
])
def test_path_and_query_are_what_pep_3333_says(pep: Server, target: str, path: str, query: str) -> None:
    e = pep.get(target, host="x").json()
    assert (e["PATH_INFO"], e["QUERY_STRING"]) == (path, query)
    assert e["RAW_URI"] == target or target.startswith("http")


def test_leading_slashes_do_not_become_an_authority(pep: Server) -> None:
    e = pep.get("//evil.example/x").json()
    assert e["PATH_INFO"] in ("//evil.example/x", "/evil.example/x") and e["HTTP_HOST"] == "t"


def test_repeated_fields_are_joined_and_cookies_with_semicolons(pep: Server) -> None:
    e = pep.get("/", "X-A: 1", "Cookie: a=1", "x-a: 2", "Cookie: b=2", "Accept: x", "Accept: y", "Accept: z").json()
    assert (e["HTTP_X_A"], e["HTTP_COOKIE"], e["HTTP_ACCEPT"]) == ("1, 2", "a=1; b=2", "x, y, z")


def test_methods_are_passed_on_in_their_case(pep: Server) -> None:
    for method in ("GET", "DELETE", "PATCH", "PROPFIND", "get", "M-SEARCH", "X"):
        assert pep.ask(method, "/").json()["REQUEST_METHOD"] == method


def test_field_values_come_as_latin_1(pep: Server) -> None:
    with pep.client() as c:
        c.send(b"GET / HTTP/1.1\r\nHost: t\r\nX-A: \xe4\xff\r\nX-Tab: a\tb  \r\n\r\n")
        e = c.response().json()
        assert e["HTTP_X_A"] == "\u00e4\u00ff" and e["HTTP_X_TAB"] == "a\tb"


# ---- wsgi.input ----


BODY = b"first\nsecond\n\nlast"
READS = {
    "read": [BODY.decode(), "", "", ""],
    "read-1": [BODY.decode(), ""],
    "sizes": ["", "f", "irs", "t\nsecond\n\nlast", ""],
    "readline": ["first\n", "second\n", "\n", "last", "", ""],
    "readline-n": ["fi", "rst\n", "", "second\n"],
    "readlines": ["first\n", "second\n", "\n", "last", ""],
    "readlines-hint": ["first\n", "second\n\nlast"],
    "iterate": ["first\n", "second\n", "\n", "last"],
    "mixed": ["first\n", "se", "cond\n", "\nlast"],
    "twice": [BODY.decode(), ""],
}


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("chunked", [False, True])
def test_every_way_to_read_the_body(pep: Server, how: str, chunked: bool) -> None:
    with pep.client() as c:
        if chunked:
            c.request("POST", f"/reading?{how}", "Transfer-Encoding: chunked")
            c.send(b"".join(b"1\r\n%c\r\n" % b for b in BODY) + b"0\r\n\r\n")
            r = c.response()
        else:
            r = c.ask("POST", f"/reading?{how}", body=BODY)
        assert r.json() == READS[how]


@pytest.mark.parametrize("how", READS)
def test_every_way_to_read_an_unbuffered_body(unbuffered: Server, how: str) -> None:
    with unbuffered.client() as c:
        c.request("POST", f"/reading?{how}", "Transfer-Encoding: chunked")
        for b in BODY:
            c.send(b"1\r\n%c\r\n" % b)
        c.send(b"0\r\n\r\n")
        assert c.response().json() == READS[how]


@pytest.fixture(scope="module")
def unbuffered(weir_module: Starter) -> Server:
    return weir_module("pep:app", request_buffering="off")


def test_without_a_body_everything_reads_as_empty(pep: Server) -> None:
    assert pep.get("/reading?read").json() == ["", "", "", ""]
    assert pep.get("/reading?iterate").json() == []


def test_a_chunked_body_that_is_whole_has_a_length(pep: Server) -> None:
    with pep.client() as c:
        c.request("POST", "/", "Transfer-Encoding: chunked")
        c.send(b"3\r\nabc\r\n0\r\n\r\n")
        e = c.response().json()
        assert e["CONTENT_LENGTH"] == "3" and "HTTP_TRANSFER_ENCODING" not in e


def test_objects_of_a_request_are_harmless_after_it(pep: Server) -> None:
    assert pep.get("/keep").text == "kept"
    answer = pep.get("/use-kept").text.split()
    assert answer[:3] == ["RuntimeError", "RuntimeError", "ValueError"] or answer[2] == "b''"
    assert answer[3] in ("False", "True")


# ---- wsgiref.validate ----


def test_wsgiref_validate_finds_nothing(weir: Starter) -> None:
    server = weir("validated:app")
    with server.client() as c:
        assert c.get("/").text == "no body"
        body = b"one line\nand another one\nand more" * 100
        assert c.ask("POST", "/", body=body).body == body
        assert c.ask("HEAD", "/").status == 200
        assert c.get("/stream").text == "ab"
        assert c.get("/write").text == "written returned"
        assert c.get("/empty").status == 204
        assert c.get("/?q", "X-A: 1", "Cookie: a=b").text == "no body"
    assert "AssertionError" not in server.log and "Traceback" not in server.log


# ---- frameworks ----


@pytest.fixture(scope="module")
def served_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "data.bin"
    path.write_bytes(bytes(range(256)) * 8000)  # 2 MB
    return path


def test_a_flask_application_works_as_on_other_servers(weir: Starter, served_file: Path) -> None:
    server = weir("flask_app:app", env={"SERVED_FILE": str(served_file)})
    url = server.url
    with requests.Session() as s:
        assert s.get(url).text == "flask"
        assert s.post(f"{url}/form", data={"a": ["1", "2"], "b": "\u00fc"}).json() == {"a": ["1", "2"], "b": ["\u00fc"]}
        assert s.post(f"{url}/json", json={"deep": [1, {"x": None}]}).json() == {"deep": [1, {"x": None}]}
        for size in (0, 10, 600_000, 3_000_000):
            data = bytes(range(256)) * (size // 256 + 1)
            r = s.post(f"{url}/upload", files={"f": ("name \u00e4.bin", data[:size]), "g": ("other", b"x")}).json()
            assert r["f"] == {"filename": "name \u00e4.bin", "size": size, "sha": hashlib.sha256(data[:size]).hexdigest()}
        r = s.get(f"{url}/cookies", cookies={"c": "3"})
        assert r.json() == {"c": "3"} and {"one", "two"} <= {c.name for c in s.cookies}
        assert [s.get(f"{url}/count").text for _ in range(3)] == ["1", "2", "3"]
        assert s.get(f"{url}/stream?name=n").text == "".join(f"n {i}\n" for i in range(5))
        assert s.get(f"{url}/file").content == served_file.read_bytes()
        r = s.get(f"{url}/file", headers={"Range": "bytes=1000-1999"})
        assert (r.status_code, r.content) == (206, served_file.read_bytes()[1000:2000])
        r = s.get(f"{url}/redirect", allow_redirects=False)
        assert r.headers["location"] in (f"{url}/", "/")
        assert s.get(f"{url}/redirect").text == "flask"
        assert s.get(f"{url}/\u00fcn\u00ef").text == "unicode"
        assert s.get(f"{url}/fail").status_code == 500
        assert s.get(f"{url}/abort").status_code == 418
        assert s.get(f"{url}/none").status_code == 404
        assert s.head(f"{url}/file").headers["content-length"] == str(served_file.stat().st_size)
        assert s.options(url).status_code == 200
    server.wait_log("RuntimeError: failed in Flask")


def test_events_of_flask_arrive_one_by_one(weir: Starter) -> None:
    server = weir("flask_app:app")
    with server.client() as c:
        c.request("GET", "/events")
        c.head()
        made = []
        for _ in range(3):
            event = float(c.chunk().split()[1])
            made.append(time.monotonic() - event)  # one clock for both processes
        assert max(made) < 0.15 * PATIENCE, "an event waited for the next one"


def test_a_django_application_works_as_on_other_servers(weir: Starter, served_file: Path) -> None:
    server = weir("django_app:application", env={"SERVED_FILE": str(served_file)})
    url = server.url
    with requests.Session() as s:
        assert s.get(url).text == "django"
        assert s.post(f"{url}/form", data={"a": ["1", "2"]}).json() == {"a": ["1", "2"]}
        for size in (10, 90_000, 700_000):
            data = b"d" * size
            sha = hashlib.sha256(data).hexdigest()
            r = s.post(f"{url}/upload", files={"f": ("name.bin", data)}).json()
            assert r["f"] == {"filename": "name.bin", "size": size, "sha": sha}
            assert s.post(f"{url}/body", data=data).json() == {"size": size, "sha": sha}
            assert s.post(f"{url}/body", data=iter([data[:5], data[5:]])).json() == {"size": size, "sha": sha}
        assert s.get(f"{url}/cookies", cookies={"c": "3"}).json() == {"c": "3"}
        assert {"one", "two"} <= {c.name for c in s.cookies}
        assert s.get(f"{url}/stream").text == "".join(f"line {i}\n" for i in range(1000))
        assert s.get(f"{url}/file").content == served_file.read_bytes()
        assert s.get(f"{url}/fail").status_code == 500
        assert s.get(f"{url}/none").status_code == 404


# ---- file_wrapper ----


FILE_SIZES = [0, 1, 4095, 4096, 65535, 65536, 65537, 262144, 1048575, 1048577]


@pytest.fixture(scope="module")
def files(weir_module: Starter, tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.mktemp("files")
    block = b"".join(i.to_bytes(4, "big") for i in range(300_000))
    (folder / "data").write_bytes(block[:100_000])
    (folder / "text").write_bytes(b"abc def " * 1000)
    for n in FILE_SIZES:
        (folder / str(n)).write_bytes(block[:n])
    (folder / "large").write_bytes(block * 34)  # 40 MB
    server = weir_module("files:app", env={"FILES": str(folder)}, threads="4:16")
    server.folder = folder
    return server


@pytest.mark.parametrize("kind", ["file", "raw", "bytes", "plain"])
@pytest.mark.parametrize("n", FILE_SIZES)
def test_files_of_all_sizes_arrive_whole(files: Server, kind: str, n: int) -> None:
    with files.client() as c:
        r = c.get(f"/{kind}?name={n}")
        assert r.body == (files.folder / str(n)).read_bytes()
        if kind in ("file", "raw"):
            assert r.get("content-length") == str(n)
        assert c.alive()


def test_a_large_file_arrives_byte_by_byte_also_slowly(files: Server) -> None:
    data = (files.folder / "large").read_bytes()
    r = files.get("/file?name=large", timeout=30)
    assert r.body == data
    with files.client(receive_buffer=16384, timeout=30) as c:
        c.request("GET", "/file?name=large")
        assert c.head().get("content-length") == str(len(data))
        assert c.take(len(data)) == data


@pytest.mark.parametrize("query, first, last", [
    ("offset=500", 500, 100_000), ("offset=100000", 100_000, 100_000), ("ahead=7", 7, 100_000),
    ("offset=50&ahead=20000", 20_050, 100_000), ("length=10", 0, 10), ("offset=90000&length=5", 90_000, 90_005),
    ("length=0", 0, 0), ("block=1", 0, 100_000),
])
def test_offset_and_length_of_a_file_are_honoured(files: Server, query: str, first: int, last: int) -> None:
    data = (files.folder / "data").read_bytes()
    with files.client() as c:
        r = c.get(f"/file?{query}")
        assert r.body == data[first:last]
        assert r.get("content-length") == str(last - first)
        assert c.alive()


def test_a_length_above_the_file_never_promises_more_than_comes(files: Server) -> None:
    with files.client() as c:
        try:
            r = c.get("/file?length=200000")
        except Incomplete as e:
            r = e.partial
        assert r.body == (files.folder / "data").read_bytes()
    assert files.get("/file").status == 200


@pytest.mark.parametrize("kind, start", [("temporary", 10)])
def test_temporary_files_are_sent_from_their_position(files: Server, kind: str, start: int) -> None:
    assert files.get(f"/{kind}").body == (b"temporary " * 5000)[start:]


def test_pipes_are_iterated(files: Server) -> None:
    assert files.get("/pipe").body == b"".join(b"line %d\n" % i for i in range(1000))


def test_middleware_around_the_wrapper_is_iterated(files: Server) -> None:
    assert files.get("/text?name=text").body == (b"ABC DEF " * 1000)


def test_files_in_http_10_and_for_head(files: Server) -> None:
    data = (files.folder / "data").read_bytes()
    assert files.get("/file", version="HTTP/1.0").body == data
    with files.client() as c:
        r = c.ask("HEAD", "/file")
        assert r.get("content-length") == "100000" and r.body == b""
        assert c.alive()


def test_a_304_with_a_file_has_no_content(files: Server) -> None:
    with files.client() as c:
        assert c.get("/file?status=304").body == b""
        assert c.alive()


def test_files_are_closed_whatever_happens(files: Server) -> None:
    assert files.get("/noted?key=a").status == 200
    files.ask("HEAD", "/noted?key=b")
    for key in "ab":
        assert files.get(f"/closed?key={key}").text == "1"
    c = files.client(receive_buffer=4096)
    c.request("GET", "/noted?key=c&name=large")
    c.head()
    c.reset()
    wait_for(lambda: files.get("/closed?key=c").text == "1", what="close() after the client left")
    wait_for(lambda: not [f for f in files.fds() if "large" in f], what="no descriptor of a file is left")


def test_many_slow_readers_of_a_file_leave_no_descriptors(files: Server) -> None:
    before = len(files.fds())
    clients = [files.client(receive_buffer=4096) for _ in range(20)]
    for c in clients:
        c.request("GET", "/file?name=large")
        c.head()
    for c in clients:
        c.reset()
    wait_for(lambda: len(files.fds()) <= before + 1)


# ---- streams ----


def test_each_event_arrives_while_the_next_is_not_yet_made(basic: Server) -> None:
    with basic.client() as c:
        c.request("GET", "/gated/sse")
        r = c.head()
        assert r.get("content-type") == "text/event-stream"
        for i in range(5):
            assert c.chunk() == b"data: %d\n\n" % i
            assert seen(basic)["made gated sse"] == i + 1, "the generator ran ahead"
            if i == 4:
                basic.get("/open/sse-end")
            basic.get(f"/open/sse-{i}")
        assert c.chunk() == b""
        c.take(2)
        assert c.alive()


def test_a_client_that_does_not_read_costs_bounded_memory_and_stops_the_generator(weir: Starter) -> None:
    server = weir("basic:app", response_memory="1M", response_backlog="4M")
    server.get("/hello")
    before = server.rss_kib()
    with server.client(receive_buffer=4096) as c:
        c.request("GET", "/flood/200?back")
        c.head()

        def stalled() -> bool:
            a = seen(server)["made flood back"]
            time.sleep(0.3)  # two looks apart: the generator must stand still
            return a == seen(server)["made flood back"]

        wait_for(stalled)
        made = seen(server)["made flood back"] * 65536
        assert made < 20_000_000, "the generator ran ahead of its client"
        assert server.rss_kib() - before < 12_000 * PATIENCE
        left = 200 * 1048576
        while chunk := c.chunk():
            left -= len(chunk)
        assert left == 0
    assert seen(server)["closed flood back"] == 1


def test_one_large_item_is_bounded_too(weir: Starter) -> None:
    server = weir("basic:app", threads=4)
    server.get("/hello")
    before = server.rss_kib()
    with server.client(receive_buffer=4096) as c:
        c.request("GET", "/big/30000000")
        r = c.head()
        assert r.get("content-length") == "30000000"
        assert server.get("/health").status == 200
        assert server.rss_kib() - before < 75_000 * PATIENCE
        assert c.take(30_000_000) == bytes(30_000_000)


def test_a_stream_to_a_slow_reader_is_complete_when_it_spills(weir: Starter, tmp_path: Path) -> None:
    folder = tmp_path / "spill"
    folder.mkdir()
    server = weir("basic:app", temp_dir=folder, response_memory="64k", response_backlog="8M")
    with server.client(receive_buffer=4096) as c:
        c.request("GET", "/flood/40?spill")
        c.head()
        wait_for(lambda: any(str(folder) in f for f in server.fds()), what="a spill file")
        total = 0
        while chunk := c.chunk():
            total += len(chunk)
        assert total == 40 * 1048576
        c.take(2)
        assert c.alive()
    wait_for(lambda: not any(str(folder) in f for f in server.fds()))


# ---- clients that leave ----


def watched(server: Server, name: str, fate: str, within: float = 2) -> float:
    """Seconds until /watch/NAME noted its client's fate."""
    begin = time.monotonic()
    wait_for(lambda: seen(server).get(f"watched {name} {fate}"), within, f"{name} noted as {fate}")
    return time.monotonic() - begin


@pytest.mark.parametrize("how", ["close", "reset"])
def test_the_application_learns_within_half_a_second_that_its_client_left(basic: Server, how: str) -> None:
    c = basic.client()
    c.request("GET", f"/watch/{how}")
    wait_for(lambda: seen(basic).get(f"watch {how}"))
    getattr(c, how)()
    assert watched(basic, how, "gone") < 0.5 * PATIENCE


def test_the_same_over_a_unix_socket(weir: Starter, tmp_path: Path) -> None:
    server = weir("basic:app", bind=f"unix:{tmp_path}/s")
    c = server.client()
    c.request("GET", "/watch/unix")
    wait_for(lambda: seen(server).get("watch unix"))
    c.close()
    assert watched(server, "unix", "gone") < 0.5 * PATIENCE


def test_the_same_with_a_request_in_the_pipeline(basic: Server) -> None:
    c = basic.client()
    c.request("GET", "/watch/piped")
    c.request("GET", "/hello")
    wait_for(lambda: seen(basic).get("watch piped"))
    c.close()
    assert watched(basic, "piped", "gone") < 1 * PATIENCE


def test_the_same_behind_more_than_the_server_reads_ahead(basic: Server) -> None:
    c = basic.client()
    c.request("GET", "/watch/ahead")
    wait_for(lambda: seen(basic).get("watch ahead"))
    c.request("POST", "/ignore", body=bytes(90_000))
    c.close()
    assert watched(basic, "ahead", "gone") < 1 * PATIENCE


def test_a_local_client_is_not_sent_anything_to_see_whether_it_left(basic: Server) -> None:
    with basic.client() as c:
        c.request("GET", "/sleep/400?half")
        c.half_close()
        if c.response().interim:
            pytest.skip("this kernel cannot be asked about the other end of a connection")
    c = basic.client()
    c.request("GET", "/watch/old", version="HTTP/1.0")
    wait_for(lambda: seen(basic).get("watch old"))
    c.close()
    assert watched(basic, "old", "gone") < 0.5 * PATIENCE


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_half_a_close_is_no_disconnect_and_gets_its_answer(basic: Server, version: str) -> None:
    with basic.client() as c:
        name = "half" + version[-1]
        c.request("GET", f"/watch/{name}", version=version)
        c.half_close()
        wait_for(lambda: seen(basic).get(f"watch {name}"))
        c.socket.settimeout(0.7)
        with pytest.raises(TimeoutError):
            while c.more():
                assert b"200" not in c.buffer
        c.socket.settimeout(10)
        basic.get(f"/open/{name}")
        r = c.response()
        assert r.text == "there\n"
        assert set(r.interim) <= {100}
        assert c.ended() == "closed"


def test_a_stream_to_a_half_closed_client_goes_on_unharmed(basic: Server) -> None:
    with basic.client() as c:
        c.request("GET", "/gated/halfway")
        c.head()
        assert c.chunk() == b"data: 0\n\n"
        c.half_close()
        c.socket.settimeout(0.7)
        with pytest.raises(TimeoutError):
            c.chunk()
        c.socket.settimeout(10)
        basic.get("/open/halfway-end")
        basic.get("/open/halfway-0")
        assert c.chunk() == b""
        assert c.take(2) == b"\r\n"
        assert c.ended() == "closed"
    assert "left halfway" not in seen(basic)


def test_a_stream_whose_client_left_ends_and_is_closed(basic: Server) -> None:
    c = basic.client()
    c.request("GET", "/gated/left")
    c.head()
    assert c.chunk() == b"data: 0\n\n"
    c.close()
    wait_for(lambda: seen(basic).get("closed gated left") == 1)


def test_a_flood_whose_client_left_is_closed_though_it_waits_for_room(basic: Server) -> None:
    c = basic.client(receive_buffer=4096)
    c.request("GET", "/flood/500?gone")
    c.head()
    c.reset()
    wait_for(lambda: seen(basic).get("closed flood gone") == 1)
    assert seen(basic)["made flood gone"] < 500 * 16


@pytest.mark.parametrize("how", ["close", "reset", "unix"])
def test_what_was_abandoned_in_the_queue_never_starts(weir: Starter, tmp_path: Path, how: str) -> None:
    bind = f"unix:{tmp_path}/s" if how == "unix" else "127.0.0.1:0"
    server = weir("basic:app", threads=1, bind=bind)
    holder = server.client()
    holder.request("GET", "/sleep/1500?holder")
    waiting = [server.client() for _ in range(10)]
    for i, c in enumerate(waiting):
        c.request("GET", f"/wait/queued{i}")
    stays = server.client()
    stays.request("GET", "/token?stays")
    with server.client() as c:
        assert c.get("/-/ping").status == 200  # all of them were read
    for c in waiting:
        c.reset() if how == "reset" else c.close()
    assert holder.response().text == "holder"
    assert stays.response().text == "stays"
    events = seen(server)
    assert not [e for e in events if "queued" in e], events


def test_detection_can_be_turned_off(weir: Starter) -> None:
    server = weir("basic:app", disconnect_detection=False)
    c = server.client()
    c.request("GET", "/watch/off")
    wait_for(lambda: seen(server).get("watch off"))
    c.close()
    a, b = socket.socketpair()
    a.settimeout(0.7)
    with pytest.raises(TimeoutError):
        a.recv(1)
    a.close(), b.close()
    assert "watched off gone" not in seen(server)
    server.get("/open/off")
