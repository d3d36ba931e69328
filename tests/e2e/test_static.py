"""Files of a folder, served without the application: over real sockets, with real files."""

from __future__ import annotations

import email.utils
import gzip
import os
import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from harness import APPS, SANITIZED, Incomplete, Server
from test_command_line import run

TEXT = "".join(f"line {i}\n" for i in range(10_000)).encode()  # above what is copied with the head
HOUR_AGO = time.time() - 3600


def put(path: Path, data: bytes, age: float = 3600) -> Path:
    """A file that was written so many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("static")
    public = root / "public"
    put(public / "a.txt", b"hello\n")
    put(public / "long.txt", TEXT)
    put(public / "empty.css", b"")
    put(public / "a b%41.txt", b"odd name\n")
    put(public / "index.html", b"<p>top\n")
    put(public / "sub" / "index.html", b"<p>sub\n")
    put(public / "sub" / "deep" / "x.js", b"x()\n")
    put(public / "bare" / "x.txt", b"x\n")
    put(public / ".hidden", b"secret\n")
    put(public / ".git" / "config", b"secret\n")
    put(public / ".well-known" / "security.txt", b"Contact: a\n")
    put(public / "app.js", b"plain\n" * 50)
    put(public / "app.js.gz", gzip.compress(b"plain\n" * 50, mtime=0))
    put(public / "app.js.br", b"not really brotli, but smaller\n")
    put(public / "only.css", b"b{}\n" * 50)
    put(public / "only.css.gz", gzip.compress(b"b{}\n" * 50, mtime=0))
    put(root / "secret.txt", b"outside\n")
    put(root / "publicity" / "a.txt", b"another folder\n")
    (public / "in").symlink_to("a.txt")
    (public / "in-folder").symlink_to("sub")
    (public / "out").symlink_to("../secret.txt")
    (public / "out-folder").symlink_to("..")
    (public / "absolute").symlink_to(root / "public" / "a.txt")
    (public / "loop").symlink_to("loop")
    (public / "magic").symlink_to("/proc/self/cwd")
    os.mkfifo(public / "fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(public / "socket"))
    with open(public / "sparse.bin", "wb") as f:
        f.truncate(1 << 30)
    os.utime(public / "sparse.bin", (HOUR_AGO, HOUR_AGO))
    put(root / "other" / "a.txt", b"other\n")
    return root


@pytest.fixture(scope="module")
def server(weir_module, folder) -> Server:
    return weir_module("basic:app", cwd=APPS, access_log="-", static=[
        f"/assets={folder}/public", f"/assets/inner/={folder}/other", f"/aged={folder}/public"])


# ---- what is served ----


def test_file_comes_with_its_type_and_validators(server):
    r = server.get("/assets/a.txt")
    assert (r.status, r.body) == (200, b"hello\n")
    assert r.get("content-type") == "text/plain; charset=utf-8"
    assert r.get("x-content-type-options") == "nosniff"
    assert r.get("accept-ranges") == "bytes"
    assert r.get("cache-control") == "no-cache"
    assert r.get("vary") is None and r.get("content-encoding") is None
    assert re.fullmatch(r'"[0-9a-f]+-6-[0-9a-f]+"', r.get("etag"))
    age = time.time() - email.utils.parsedate_to_datetime(r.get("last-modified")).timestamp()
    assert 3590 < age < 3900


def test_head_says_what_get_would(server):
    get, head = server.get("/assets/long.txt"), server.ask("HEAD", "/assets/long.txt")
    assert get.body == TEXT and head.body == b""
    drop = ("date", "x-request-id")
    assert [f for f in get.fields if f[0].lower() not in drop] == [
        f for f in head.fields if f[0].lower() not in drop]


def test_empty_file_has_no_content(server):
    r = server.get("/assets/empty.css")
    assert (r.status, r.body, r.get("content-length")) == (200, b"", "0")


def test_connection_is_kept_between_files(server):
    c = server.client()
    for _ in range(3):
        for target in ("/assets/a.txt", "/assets/long.txt", "/assets/none", "/assets/empty.css"):
            r = c.get(target)
            assert r.status == (404 if "none" in target else 200)
    assert c.alive()


def test_pipelined_files_come_in_order(server):
    data = b"".join(b"GET /assets/%s HTTP/1.1\r\nHost: t\r\n\r\n" % name
                    for name in (b"long.txt", b"a.txt", b"long.txt", b"in"))
    got = server.raw(data, n=4)
    assert [len(r.body) for r in got.responses] == [len(TEXT), 6, len(TEXT), 6]


def test_http_10_gets_files_too(server):
    got = server.raw(b"GET /assets/long.txt HTTP/1.0\r\nHost: t\r\n\r\n")
    assert got.responses[0].body == TEXT and got.end == "closed"


def test_name_is_decoded_once(server):
    assert server.get("/assets/a%20b%2541.txt").body == b"odd name\n"
    assert server.get("/assets/a%20b%41.txt").status == 404
    assert server.get("/%61ssets/%61.txt?query=1").body == b"hello\n"


def test_folder_is_its_index(server):
    assert server.get("/assets/").body == b"<p>top\n"
    assert server.get("/assets/sub/").body == b"<p>sub\n"
    assert server.get("/assets/in-folder/").body == b"<p>sub\n"


def test_folder_without_a_slash_is_sent_to_it(server):
    for target, location in (("/assets", "/assets/"), ("/assets/sub", "/assets/sub/"),
                             ("/assets/sub?a=b&c", "/assets/sub/?a=b&c"), ("/%61ssets/sub", "/%61ssets/sub/")):
        r = server.get(target)
        assert (r.status, r.get("location")) == (301, location)
    assert server.get("/assets/bare").status == 404
    assert server.get("/assets/bare/").status == 404
    assert server.get("/assets/a.txt/").status == 404


def test_longest_prefix_wins_and_ends_at_a_segment(server):
    assert server.get("/assets/inner/a.txt").body == b"other\n"
    assert server.get("/assets/inner/long.txt").status == 404
    r = server.get("/assetsX/a.txt")
    assert "no view" in r.text  # the application's answer
    assert server.get("/publicity/a.txt").status == 404


def test_missing_file_does_not_reach_the_application(server):
    r = server.get("/assets/none.txt")
    assert r.status == 404 and r.text == "404 Not Found: there is no such file\n"


def test_other_methods_are_told_which_are_allowed(server):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"):
        r = server.ask(method, "/assets/a.txt", body=b"x" if method != "OPTIONS" else None)
        assert (r.status, r.get("allow")) == (405, "GET, HEAD")


def test_access_line_counts_the_bytes(server):
    server.get("/assets/long.txt", "User-Agent: counted")
    server.wait_out("counted")
    assert f'"GET /assets/long.txt HTTP/1.1" 200 {len(TEXT)} ' in server.out


# ---- never outside ----

OUTSIDE = [
    "..", "../secret.txt", "../publicity/a.txt", "sub/../../secret.txt", "sub/../a.txt", "./a.txt", "%2e%2e/secret.txt",
    ".%2e/secret.txt", "%2e./secret.txt", "..%2fsecret.txt", "%2e%2e%2fsecret.txt", "..%5csecret.txt", "..\\secret.txt",
    "%252e%252e/secret.txt", "%c0%ae%c0%ae/secret.txt", "..;/secret.txt", "%2e%2e;/secret.txt", "/../secret.txt",
    "//secret.txt", "/etc/passwd", "%2fetc%2fpasswd", "..%00/secret.txt", "a.txt%00", "a.txt%00.html", "a.txt%0a",
    "..%0d%0a/secret.txt", "sub//index.html", "out", "out-folder/secret.txt", "out-folder/", "absolute", "loop", "magic",
    "magic/", ".hidden", ".git/config", ".git/", "%2egit/config", ".well-known/../.hidden", "fifo", "socket", "a.txt/",
    "a.txt/x", "%zz", "%", "%4", "in-folder/../../secret.txt", "A.TXT", "x" * 300, "x/" * 1500, "~root/", "con", "%uff0e",
]


@pytest.mark.parametrize("rest", OUTSIDE)
def test_what_is_not_a_file_of_the_folder_is_not_found(server, rest):
    got = server.raw(f"GET /assets/{rest} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
    assert got.statuses in ([404], [400]), got
    assert b"outside" not in got.responses[0].body and b"secret" not in got.responses[0].body


def test_links_inside_the_folder_are_followed(server):
    assert server.get("/assets/in").body == b"hello\n"
    assert server.get("/assets/in-folder/deep/x.js").body == b"x()\n"


def test_link_that_leads_out_is_told_in_the_log(server):
    server.get("/assets/out")
    server.wait_log("public/out is a link that is not followed: it leads out of its folder")


def test_well_known_is_the_one_name_with_a_dot(server):
    assert server.get("/assets/.well-known/security.txt").body == b"Contact: a\n"


# ---- conditions ----


def test_unchanged_file_is_not_sent_again(server):
    r = server.get("/assets/app.js")
    etag, date = r.get("etag"), r.get("last-modified")
    for condition in (f"If-None-Match: {etag}", f"If-None-Match: W/{etag}", f'If-None-Match: "x", {etag}', "If-None-Match: *",
                      f"If-Modified-Since: {date}", "If-Modified-Since: " + email.utils.formatdate(time.time(), usegmt=True)):
        again = server.get("/assets/app.js", condition)
        assert (again.status, again.body) == (304, b"")
        assert (again.get("etag"), again.get("last-modified"), again.get("cache-control"), again.get("vary")) == (
            etag, date, "no-cache", "Accept-Encoding")
        assert again.get("content-type") is None and again.get("content-length") is None


def test_changed_file_is_sent(server):
    r = server.get("/assets/a.txt")
    for conditions in (['If-None-Match: "x"'], ['If-None-Match: "x"', f"If-Modified-Since: {r.get('last-modified')}"],
                       ["If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], ["If-Modified-Since: nonsense"],
                       [f"If-Match: {r.get('etag')}"], ["If-Match: *"], [f"If-Unmodified-Since: {r.get('last-modified')}"]):
        assert server.get("/assets/a.txt", *conditions).status == 200


def test_file_that_is_another_by_now_fails_the_condition(server):
    r = server.get("/assets/a.txt")
    for condition in ('If-Match: "x"', f"If-Match: W/{r.get('etag')}", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"):
        assert server.get("/assets/a.txt", condition).status == 412


def test_tag_changes_with_the_file(weir, tmp_path):
    server = weir("basic:app", static=f"/s={tmp_path}")
    put(tmp_path / "x.txt", b"one")
    first = server.get("/s/x.txt")
    put(tmp_path / "x.new", b"two")
    os.utime(tmp_path / "x.new", ns=(0, (tmp_path / "x.txt").stat().st_mtime_ns))
    (tmp_path / "x.new").rename(tmp_path / "x.txt")  # same time, same size
    second = server.get("/s/x.txt", f"If-None-Match: {first.get('etag')}")
    assert (second.status, second.body) == (200, b"two")


def test_young_file_has_a_weak_tag_and_no_parts_by_it(weir, tmp_path):
    server = weir("basic:app", static=f"/s={tmp_path}")
    put(tmp_path / "x.txt", b"one", age=-3600)
    r = server.get("/s/x.txt")
    assert r.get("etag").startswith('W/"')
    assert email.utils.parsedate_to_datetime(r.get("last-modified")).timestamp() <= time.time()
    assert server.get("/s/x.txt", f"If-None-Match: {r.get('etag')}").status == 304
    part = server.get("/s/x.txt", "Range: bytes=0-0", f"If-Range: {r.get('etag')}")
    assert (part.status, part.body) == (200, b"one")


# ---- parts ----


@pytest.mark.parametrize("value, first, last", [
    ("0-0", 0, 0), ("5-9", 5, 9), ("5-", 5, None), ("-5", -5, None), ("-99999999", 0, None),
    ("0-9223372036854775808", 0, None), ("40000-80000", 40000, 80000), ("7-18446744073709551616", 7, None)])
def test_part_of_a_file(server, value, first, last):
    r = server.get("/assets/long.txt", f"Range: bytes={value}")
    expected = TEXT[first:] if last is None else TEXT[first:last + 1]
    assert (r.status, r.body) == (206, expected)
    start = first if first >= 0 else len(TEXT) + first
    assert r.get("content-range") == f"bytes {start}-{start + len(expected) - 1}/{len(TEXT)}"


@pytest.mark.parametrize("value", [f"{len(TEXT)}-", "9223372036854775808-", "99999999999999999999999999999-", "-0"])
def test_part_behind_the_end_is_refused_with_the_size(server, value):
    r = server.get("/assets/long.txt", f"Range: bytes={value}")
    assert (r.status, r.get("content-range")) == (416, f"bytes */{len(TEXT)}")


@pytest.mark.parametrize("value", ["bytes=5-2", "bytes=x", "bytes=0-1,3-4", "lines=1-2", "bytes 1-2", ""])
def test_other_ranges_get_the_whole(server, value):
    r = server.get("/assets/long.txt", f"Range: {value}")
    assert (r.status, len(r.body)) == (200, len(TEXT))


def test_two_range_fields_and_head_get_the_whole(server):
    assert server.get("/assets/long.txt", "Range: bytes=0-1", "Range: bytes=0-1").status == 200
    assert server.ask("HEAD", "/assets/long.txt", "Range: bytes=0-1").status == 200


def test_part_is_sent_only_of_the_same_file(server):
    r = server.get("/assets/a.txt")
    for value, status in ((r.get("etag"), 206), (r.get("last-modified"), 206), ('"x"', 200), ("W/" + r.get("etag"), 200),
                          (email.utils.formatdate(0, usegmt=True), 200), ("nonsense", 200)):
        assert server.get("/assets/a.txt", "Range: bytes=0-1", f"If-Range: {value}").status == status


def test_part_far_inside_a_large_file(server):
    far = (1 << 30) - 3
    r = server.get("/assets/sparse.bin", f"Range: bytes={far}-")
    assert (r.status, r.body, r.get("content-range")) == (206, b"\0\0\0", f"bytes {far}-{far + 2}/{1 << 30}")


def test_curl_resumes_a_download(server, folder, tmp_path):
    target = tmp_path / "got"
    target.write_bytes(TEXT[:40_000])
    subprocess.run(["curl", "-sSf", "-m", "20", "-C", "-", "-o", target, server.url + "/assets/long.txt"], check=True)
    assert target.read_bytes() == TEXT


# ---- codings ----


@pytest.mark.parametrize("accept, coding", [
    (None, None), ("gzip", "gzip"), ("gzip, deflate, br", "br"), ("br;q=0.5, gzip", "gzip"), ("br;q=0, gzip;q=0", None),
    ("*", "br"), ("identity, gzip;q=0.5", None), ("deflate", None), ("x-gzip;q=0.1", "gzip"), ("gzip;q=0.000", None)])
def test_precompressed_neighbour_is_chosen_by_weight(server, folder, accept, coding):
    r = server.get("/assets/app.js", *([f"Accept-Encoding: {accept}"] if accept else []))
    name = {"gzip": "app.js.gz", "br": "app.js.br", None: "app.js"}[coding]
    assert (r.status, r.get("content-encoding")) == (200, coding)
    assert r.body == (folder / "public" / name).read_bytes()
    assert r.get("vary") == "Accept-Encoding" and r.get("content-type").startswith("text/javascript")


def test_codings_have_tags_of_their_own(server):
    tags = {server.get("/assets/app.js", f"Accept-Encoding: {a}").get("etag") for a in ("br", "gzip", "identity")}
    assert len(tags) == 3


def test_missing_coding_falls_back(server):
    r = server.get("/assets/only.css", "Accept-Encoding: br")
    assert (r.get("content-encoding"), r.get("vary")) == (None, "Accept-Encoding")
    r = server.get("/assets/only.css", "Accept-Encoding: br, gzip;q=0.1")
    assert r.get("content-encoding") == "gzip" and gzip.decompress(r.body) == b"b{}\n" * 50


def test_curl_unpacks_it(server):
    out = subprocess.run(["curl", "-sSf", "-m", "20", "-H", "Accept-Encoding: gzip", "--compressed",
                          server.url + "/assets/only.css"], capture_output=True, check=True).stdout
    assert out == b"b{}\n" * 50


# ---- large and changing files ----


def test_gigabyte_passes_without_memory(server):
    before = server.rss_kib()
    with server.client(timeout=60) as c:
        c.request("GET", "/assets/sparse.bin", "Connection: close")
        head = c.head()
        assert head.get("content-length") == str(1 << 30)
        n = len(c.buffer)
        buffer = bytearray(1 << 20)
        while k := c.socket.recv_into(buffer):
            n += k
            assert not any(buffer[:k:4096])
    assert n == 1 << 30
    if not SANITIZED:  # which fills memory of its own
        assert server.rss_kib() - before < 8 * 1024


def test_slow_reader_holds_up_nobody(server):
    with server.client(receive_buffer=4096) as slow:
        slow.request("GET", "/assets/sparse.bin")
        slow.head()
        for _ in range(20):
            assert server.get("/assets/a.txt").body == b"hello\n"


def test_file_that_shrinks_while_it_is_sent_is_cut_with_a_line(weir, tmp_path):
    server = weir("basic:app", static=f"/s={tmp_path}")
    with open(tmp_path / "x.bin", "wb") as f:
        f.truncate(64 << 20)
    with server.client(receive_buffer=4096) as c:
        c.request("GET", "/s/x.bin")
        r = c.head()
        os.truncate(tmp_path / "x.bin", 1 << 20)
        with pytest.raises(Incomplete):
            c.body_of(r)
    server.wait_log("a file became shorter while it was sent")
    assert server.get("/s/x.bin").status == 200


def test_folder_may_be_replaced_while_it_is_served(weir, tmp_path):
    put(tmp_path / "www" / "x.txt", b"one")
    server = weir("basic:app", static=f"/s={tmp_path}/www")
    assert server.get("/s/x.txt").body == b"one"
    (tmp_path / "www").rename(tmp_path / "old")
    assert server.get("/s/x.txt").status == 404
    put(tmp_path / "www" / "x.txt", b"two")
    assert server.get("/s/x.txt").body == b"two"


def test_file_without_permission_is_told_in_the_log(weir):
    with tempfile.TemporaryDirectory() as name:  # not below a folder that is pytest's alone
        os.chmod(name, 0o755)
        put(Path(name) / "x.txt", b"one").chmod(0)
        nobody = (lambda: os.setuid(65534)) if os.geteuid() == 0 else None
        server = weir("basic:app", static=f"/s={name}", preexec=nobody)
        assert server.get("/s/x.txt").status == 404
        server.wait_log("x.txt: Permission denied")


# ---- settings ----


def test_max_age_is_told(weir, folder):
    server = weir("basic:app", static=f"/assets={folder}/public", static_max_age="1h")
    assert server.get("/assets/a.txt").get("cache-control") == "public, max-age=3600"


def test_relative_folder_is_below_the_working_one(weir):
    server = weir("basic:app", cwd=APPS.parent, chdir="apps", static="/apps=../apps")
    assert b"def app" in server.get("/apps/basic.py").body


def test_slash_serves_every_path(weir, folder):
    server = weir("basic:app", static=f"/={folder}/public")
    assert server.get("/").body == b"<p>top\n"
    assert server.get("/a.txt").body == b"hello\n"
    assert server.get("//a.txt").status == 404
    assert server.get("/-/ping").body == b"pong\n"
    server.wait_log("--static: / takes every path, and the application gets none")


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_a_body_that_comes_behind_the_answer_does_not_break_it(weir, tmp_path, mode):
    size = 8_000_000  # more than sockets take
    put(tmp_path / "public" / "large", b"x" * size)
    server = weir("basic:app", f"--static=/s={tmp_path / 'public'}", workers=1, request_buffering=mode)
    with server.client(receive_buffer=4096) as c:
        c.request("GET", "/s/large", "Transfer-Encoding: chunked")
        assert c.head().status == 200
        c.send(b"3\r\nabc\r\n0\r\n\r\n")
        assert c.take(size) == b"x" * size
        assert c.alive()


def test_waitress_names_serve_files_too(weir, folder):
    server = weir("basic:app", waitress=True, static=f"/assets={folder}/public")
    assert server.get("/assets/a.txt").body == b"hello\n"


@pytest.mark.parametrize("value, text", [
    ("assets=/tmp", "--static: 'assets=/tmp' is not /PREFIX=FOLDER, as /assets=public/assets"),
    ("/assets", "--static: '/assets' is not /PREFIX=FOLDER"),
    ("/assets=", "--static: '/assets=' is not /PREFIX=FOLDER"),
    ("/a?b=/tmp", "--static: '/a?b' is not a prefix of paths; give one as /assets, not encoded"),
    ("/a//b=/tmp", "is not a prefix of paths"),
    ("/assets=/nonexistent", "--static: the folder '/nonexistent': No such file or directory"),
    ("/assets=/etc/passwd", "--static: the folder '/etc/passwd': Not a directory"),
])
def test_wrong_folder_is_one_line(value, text):
    r = run("--static", value, "basic:app")
    assert r.returncode == 2 and r.stderr.count("\n") == 1 and text in r.stderr


def test_prefix_given_twice_is_refused():
    r = run("--static", "/a=/tmp", "--static", "/a/=/usr", "basic:app")
    assert r.returncode == 2 and "the prefix '/a/' is given twice" in r.stderr
