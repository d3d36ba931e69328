"""TLS: certificates, names, clients' certificates, sessions, and peers that misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE, Client, Incomplete, Server, Starter, plain_env, raw, wait_for
from test_command_line import run

# ---- certificates ----


def openssl(*arguments: str, **more: Any) -> subprocess.CompletedProcess:
    return subprocess.run(["openssl", *arguments], check=more.pop("check", True), capture_output=True, text=True,
                          env=plain_env(), timeout=30 * PATIENCE, **more)


class Certs:
    """A folder of certificates: an authority, and what it signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = self.own("ca", "Test Authority", ca=True)
        self.other_ca = self.own("other-ca", "Another Authority", ca=True)
        self.rsa = self.signed("rsa", "localhost", "DNS:localhost,IP:127.0.0.1", rsa=True)
        self.ec = self.signed("ec", "localhost", "DNS:localhost,IP:127.0.0.1")

    def path(self, name: str) -> Path:
        return self.folder / name

    def key(self, name: str, rsa: bool = False) -> Path:
        path = self.path(f"{name}.key")
        kind = ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"] if rsa else ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
        openssl("genpkey", "-algorithm", *kind, "-out", str(path))
        return path

    def own(self, name: str, subject: str, ca: bool = False, days: int = 30) -> Path:
        """Signed by itself; returns the certificate, NAME.pem beside NAME.key."""
        path = self.path(f"{name}.pem")
        openssl("req", "-x509", "-key", str(self.key(name)), "-out", str(path), "-days", str(days),
                "-subj", f"/CN={subject}", "-addext", f"basicConstraints=critical,CA:{str(ca).upper()}")
        return path

    def signed(self, name: str, subject: str, names: str = "", rsa: bool = False, ca: str = "ca",
               dates: tuple[str, str] | None = None) -> Path:
        """Signed by the authority; the file holds the certificate and, behind it, the authority's."""
        path, request, extra = (self.path(f"{name}{end}") for end in (".pem", ".csr", ".cnf"))
        openssl("req", "-new", "-key", str(self.key(name, rsa)), "-out", str(request), "-subj", f"/CN={subject}", "-utf8")
        extra.write_text(f"subjectAltName={names}\n" if names else "basicConstraints=CA:FALSE\n")
        if dates:
            base = self.path(f"{name}-db")
            base.mkdir()
            (base / "index.txt").touch()
            (base / "ca.cnf").write_text(
                f"[ca]\ndefault_ca=a\n[a]\ndatabase={base}/index.txt\nnew_certs_dir={base}\nrand_serial=yes\n"
                "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n")
            openssl("ca", "-batch", "-notext", "-config", str(base / "ca.cnf"), "-cert", str(self.path(f"{ca}.pem")),
                    "-keyfile", str(self.path(f"{ca}.key")), "-in", str(request), "-out", str(path),
                    "-startdate", dates[0], "-enddate", dates[1], "-extfile", str(extra))
        else:
            openssl("x509", "-req", "-in", str(request), "-CA", str(self.path(f"{ca}.pem")), "-CAkey",
                    str(self.path(f"{ca}.key")), "-CAcreateserial", "-days", "30", "-out", str(path),
                    "-extfile", str(extra))
        path.write_text(path.read_text() + self.path(f"{ca}.pem").read_text())
        return path

    def pair(self, name: str) -> dict[str, str]:
        return {"certfile": str(self.path(f"{name}.pem")), "keyfile": str(self.path(f"{name}.key"))}

    def context(self, client: str | None = None, low: Any = None, high: Any = None, alpn: list[str] | None = None,
                ca: str = "ca") -> ssl.SSLContext:
        """What a client needs that trusts the authority."""
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        c.load_verify_locations(str(self.path(f"{ca}.pem")))
        if client:
            c.load_cert_chain(str(self.path(f"{client}.pem")), str(self.path(f"{client}.key")))
        if low:
            c.minimum_version = low
        if high:
            c.maximum_version = high
        if alpn:
            c.set_alpn_protocols(alpn)
        return c


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    return Certs(tmp_path_factory.mktemp("certs"))


V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def shared(weir_module: Starter, certs: Certs) -> Server:
    """A server that tests share which leave it as it is."""
    return weir_module("basic:app", **certs.pair("ec"), header_timeout="5s")


def ask(server: Server, tls: ssl.SSLContext, target: str = "/env", *fields: str, **more: Any) -> Any:
    with server.client(tls=tls, **more) as c:
        return c.get(target, "Connection: close", *fields).json()


# ---- what the application and the client see ----


@VERSIONS
@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_both_versions_and_kinds_of_keys_serve(weir: Starter, certs: Certs, version: Any, kind: str) -> None:
    server = weir("basic:app", **certs.pair(kind))
    assert server.urls[0].startswith("https://127.0.0.1:")
    with server.client(tls=certs.context(low=version, high=version)) as c:
        name, protocol, _ = c.socket.cipher()
        seen = c.get("/env").json()
        assert c.socket.version() == {V12: "TLSv1.2", V13: "TLSv1.3"}[version]
    assert seen["wsgi.url_scheme"] == "https" and seen["HTTPS"] == "on"
    assert seen["SSL_PROTOCOL"] == protocol.replace("TLSv1/SSLv3", "TLSv1.2")
    assert seen["SSL_CIPHER"] == name
    assert seen["SSL_CLIENT_VERIFY"] == "NONE" and "SSL_CLIENT_S_DN" not in seen


def test_a_plain_server_tells_nothing_of_tls(weir: Starter) -> None:
    server = weir("basic:app")
    seen = server.get("/env").json()
    assert seen["wsgi.url_scheme"] == "http"
    assert not [k for k in seen if k.startswith("SSL_") or k == "HTTPS"]


def test_a_server_without_a_certificate_does_not_load_openssl(weir: Starter) -> None:
    server = weir("basic:app")
    assert server.get("/hello").status == 200
    for pid in server.worker_pids():
        assert "libssl" not in Path(f"/proc/{pid}/maps").read_text()
        assert "_tls.so" not in Path(f"/proc/{pid}/maps").read_text()


def test_curl_is_served(shared: Server, certs: Certs) -> None:
    done = subprocess.run(
        ["curl", "-sS", "--cacert", str(certs.ca), f"https://localhost:{shared.port}/env", "--resolve",
         f"localhost:{shared.port}:127.0.0.1"], capture_output=True, text=True, timeout=30, env=plain_env())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["HTTP_HOST"] == f"localhost:{shared.port}"


def test_openssl_s_client_is_served_and_verifies_the_chain(shared: Server, certs: Certs) -> None:
    done = openssl("s_client", "-connect", f"127.0.0.1:{shared.port}", "-CAfile", str(certs.ca), "-verify_return_error",
                   "-ign_eof", "-servername", "localhost", input="GET /hello HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    assert "Hello world" in done.stdout and "Verify return code: 0 (ok)" in done.stdout
    assert done.stdout.count("BEGIN CERTIFICATE") == 1 and " 1 s:CN = Test Authority" in done.stdout


@VERSIONS
def test_requests_follow_each_other_on_one_connection(shared: Server, certs: Certs, version: Any) -> None:
    with shared.client(tls=certs.context(high=version)) as c:
        for i in range(50):
            assert c.get(f"/token?{i}").text == str(i)
        c.send(b"".join(b"GET /token?p%d HTTP/1.1\r\nHost: t\r\n\r\n" % i for i in range(200)))
        assert [c.response().text for _ in range(200)] == [f"p{i}" for i in range(200)]


@VERSIONS
def test_large_bodies_go_both_ways(shared: Server, certs: Certs, version: Any) -> None:
    body = os.urandom(1 << 20) * 9 + b"end"
    with shared.client(tls=certs.context(high=version), timeout=30) as c:
        assert c.ask("POST", "/size", body=body).json() == {"size": len(body), "crc": zlib.crc32(body)}
        answer = c.ask("POST", "/echo", body=body)
        assert answer.body == body
        assert c.alive()


def test_a_slow_reader_gets_all_of_a_large_answer(shared: Server, certs: Certs) -> None:
    with shared.client(tls=certs.context(), receive_buffer=4096, timeout=30) as c:
        c.request("GET", "/big/3000000")
        r = c.head()
        body = b""
        while len(body) < 3_000_000:
            body += c.take(min(7001, 3_000_000 - len(body)))
        assert r.status == 200 and body == bytes(3_000_000) and c.alive()


def test_a_stream_arrives_piece_by_piece(shared: Server, certs: Certs) -> None:
    with shared.client(tls=certs.context()) as c:
        c.request("GET", "/gated/tls")
        c.head()
        assert c.chunk() == b"data: 0\n\n"
        assert c.quiet()
        ask_open = shared.client(tls=certs.context())
        ask_open.get("/open/tls-end")
        ask_open.get("/open/tls-0")
        assert c.chunk() == b""


def test_a_file_is_sent(weir: Starter, certs: Certs, tmp_path: Path) -> None:
    data = os.urandom(5_000_001)
    (tmp_path / "data").write_bytes(data)
    server = weir("files:app", env={"FILES": str(tmp_path)}, **certs.pair("ec"))
    with server.client(tls=certs.context(), timeout=30) as c:
        assert c.get("/file").body == data
        assert c.get("/file").body == data


def test_a_static_file_is_sent(weir: Starter, certs: Certs, tmp_path: Path) -> None:
    data = os.urandom(700_001)
    (tmp_path / "data.bin").write_bytes(data)
    server = weir("basic:app", static=f"/files={tmp_path}", **certs.pair("ec"))
    with server.client(tls=certs.context(), timeout=30) as c:
        assert c.get("/files/data.bin").body == data
        assert c.get("/files/data.bin", "Range: bytes=1000-1999").body == data[1000:2000]


def test_a_client_that_waits_is_told_to_continue(shared: Server, certs: Certs) -> None:
    with shared.client(tls=certs.context()) as c:
        c.request("POST", "/echo", "Expect: 100-continue", "Content-Length: 4")
        assert c.head(keep_interim=True).status == 100
        c.send(b"body")
        assert c.response().body == b"body"


def test_an_application_is_told_that_its_client_left(shared: Server, certs: Certs) -> None:
    with shared.client(tls=certs.context()) as c:
        c.request("GET", "/watch/tls")
        wait_for(lambda: ask(shared, certs.context(), "/seen").get("watch tls"))
        c.socket.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            c.socket.unwrap()  # close_notify; then FIN
    wait_for(lambda: ask(shared, certs.context(), "/seen").get("watched tls gone"))


def test_a_unix_socket_speaks_tls(weir: Starter, certs: Certs, tmp_path: Path) -> None:
    server = weir("basic:app", bind=f"unix:{tmp_path}/s", **certs.pair("ec"))
    assert server.urls[0] == f"https://unix:{tmp_path}/s"
    seen = ask(server, certs.context())
    assert seen["wsgi.url_scheme"] == "https" and seen["REMOTE_ADDR"] == ""


def test_certificate_and_key_may_stand_in_one_file(weir: Starter, certs: Certs, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(certs.path("ec.key").read_text() + certs.ec.read_text())
    server = weir("basic:app", certfile=both)
    assert ask(server, certs.context())["HTTPS"] == "on"


# ---- versions, ciphers, protocols ----


def test_old_versions_are_refused(weir: Starter, certs: Certs) -> None:
    server = weir("basic:app", **certs.pair("ec"), tls_min="1.3")
    with pytest.raises(ssl.SSLError, match="(?i)protocol.version"):
        server.client(tls=certs.context(high=V12))
    server.wait_log("failed: unsupported protocol")
    assert ask(server, certs.context())["SSL_PROTOCOL"] == "TLSv1.3"
    done = openssl("s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", input="",
                   check=False)
    assert "Cipher is (NONE)" in done.stdout + done.stderr


def test_chosen_ciphers_are_the_only_ones(weir: Starter, certs: Certs) -> None:
    server = weir("basic:app", **certs.pair("rsa"), ciphers="ECDHE-RSA-AES256-GCM-SHA384")
    assert ask(server, certs.context(high=V12))["SSL_CIPHER"] == "ECDHE-RSA-AES256-GCM-SHA384"
    tls = certs.context(high=V12)
    tls.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        server.client(tls=tls)
    server.wait_log("failed: no shared cipher")


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"])
def test_ciphers_without_forward_secrecy_or_authentication_are_off(weir: Starter, certs: Certs, cipher: str) -> None:
    server = weir("basic:app", **certs.pair("rsa"))
    tls = certs.context(high=V12)
    tls.set_ciphers(cipher)
    with pytest.raises(ssl.SSLError):
        server.client(tls=tls)


@pytest.mark.parametrize(("offered", "chosen"), [
    (None, None), (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), (["http/1.0"], "http/1.0")])
def test_the_protocol_is_http_1(shared: Server, certs: Certs, offered: Any, chosen: Any) -> None:
    with shared.client(tls=certs.context(alpn=offered)) as c:
        assert c.socket.selected_alpn_protocol() == chosen
        assert c.alive()


def test_a_client_that_offers_other_protocols_alone_is_refused(shared: Server, certs: Certs) -> None:
    with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        shared.client(tls=certs.context(alpn=["h2"]))


def test_renegotiation_is_refused(shared: Server) -> None:
    with subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{shared.port}", "-tls1_2"], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=plain_env()) as p:
        assert p.stdin and p.stdout
        for line in p.stdout:
            if "Verify return code" in line or "Extended master secret" in line:
                break
        p.stdin.write("R\n")
        p.stdin.flush()
        rest = p.stdout.read()
    assert "no renegotiation" in rest


# ---- names ----


@pytest.fixture(scope="module")
def named(weir_module: Starter, certs: Certs, tmp_path_factory: pytest.TempPathFactory) -> Server:
    certs.signed("one", "one.example.org", "DNS:one.example.org")
    certs.signed("wild", "wild", "DNS:*.example.org", rsa=True)
    folder = tmp_path_factory.mktemp("named")
    (folder / "weir.yaml").write_text(
        f"certfile: {certs.ec}\nkeyfile: {certs.path('ec.key')}\ntls:\n"
        f"  - names: [one.example.org, ONE.example.net]\n    certfile: {certs.path('one.pem')}\n"
        f"    keyfile: {certs.path('one.key')}\n"
        f"  - names: ['*.example.org']\n    certfile: {certs.path('wild.pem')}\n    keyfile: {certs.path('wild.key')}\n")
    return weir_module("basic:app", config=folder / "weir.yaml")


@VERSIONS
@pytest.mark.parametrize(("name", "subject"), [
    ("one.example.org", "one.example.org"), ("One.Example.Org", "one.example.org"), ("one.example.net", "one.example.org"),
    ("other.example.org", "wild"), ("a.b.example.org", "localhost"), ("example.org", "localhost"),
    ("unknown.test", "localhost"), (None, "localhost")])
def test_each_name_has_its_certificate(named: Server, certs: Certs, version: Any, name: str | None, subject: str) -> None:
    tls = certs.context(high=version)
    tls.check_hostname = False
    with named.client(tls=tls, name=name) as c:
        assert c.socket.getpeercert()["subject"][0][0] == ("commonName", subject)
        assert c.alive()


def test_a_name_that_its_certificate_is_not_for_is_told(named: Server) -> None:
    named.wait_log("is not for the name one.example.net")
    assert "is not for the name one.example.org" not in named.log
    assert "is not for the name *.example.org" not in named.log


# ---- certificates of clients ----


@pytest.fixture(scope="module")
def clients(certs: Certs) -> Certs:
    certs.signed("client", "Zoë, client")
    certs.signed("stranger", "stranger", ca="other-ca")
    certs.signed("expired-client", "late", dates=("20200101000000Z", "20200201000000Z"))
    return certs


@VERSIONS
def test_a_required_certificate_is_shown_to_the_application(weir: Starter, clients: Certs, version: Any) -> None:
    server = weir("basic:app", **clients.pair("ec"), ca_certs=clients.ca, cert_reqs="required")
    tls = clients.context("client", high=version)
    seen = ask(server, tls)
    assert seen["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert seen["SSL_CLIENT_S_DN"].encode("latin-1").decode() == "CN=Zoë\\, client"
    assert seen["SSL_CLIENT_I_DN"] == "CN=Test Authority"
    assert seen["SSL_CLIENT_CERT"] in clients.path("client.pem").read_text()
    with server.client(tls=tls) as c:  # each request of a connection sees it
        assert [c.get("/env").json()["SSL_CLIENT_VERIFY"] for _ in range(3)] == ["SUCCESS"] * 3


@VERSIONS
@pytest.mark.parametrize(("who", "why"), [
    (None, "peer did not return a certificate"), ("stranger", "refused: self-signed certificate in certificate chain"),
    ("expired-client", "refused: certificate has expired")])
def test_without_the_required_certificate_nothing_is_served(weir: Starter, clients: Certs, version: Any,
                                                            who: str | None, why: str) -> None:
    server = weir("basic:app", **clients.pair("ec"), ca_certs=clients.ca, cert_reqs="required")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with server.client(tls=clients.context(who, high=version)) as c:
            c.get("/env")  # TLS 1.3: the client learns it when it reads
    assert why in server.wait_log("TLS with 127.0.0.1 failed: ")


@pytest.mark.parametrize(("who", "verdict"), [
    (None, "NONE"), ("client", "SUCCESS"), ("stranger", "FAILED:self-signed certificate in certificate chain"),
    ("expired-client", "FAILED:certificate has expired")])
def test_an_optional_certificate_is_told_with_its_verdict(weir: Starter, clients: Certs, who: str | None,
                                                          verdict: str) -> None:
    server = weir("basic:app", **clients.pair("ec"), ca_certs=clients.ca, cert_reqs="optional")
    seen = ask(server, clients.context(who))
    assert seen["SSL_CLIENT_VERIFY"] == verdict
    assert ("SSL_CLIENT_CERT" in seen) == ("SSL_CLIENT_S_DN" in seen) == (verdict == "SUCCESS")


def test_a_certificate_is_asked_for_under_each_name(weir: Starter, clients: Certs, tmp_path: Path) -> None:
    clients.signed("two", "two.test", "DNS:two.test")
    (tmp_path / "weir.yaml").write_text(
        f"certfile: {clients.ec}\nkeyfile: {clients.path('ec.key')}\nca-certs: {clients.ca}\ncert-reqs: required\ntls:\n"
        f"  - names: [two.test]\n    certfile: {clients.path('two.pem')}\n    keyfile: {clients.path('two.key')}\n")
    server = weir("basic:app", config=tmp_path / "weir.yaml")
    assert ask(server, clients.context("client"), name="two.test")["SSL_CLIENT_VERIFY"] == "SUCCESS"
    with pytest.raises((ssl.SSLError, ConnectionError)), server.client(tls=clients.context("stranger"), name="two.test") as c:
        c.get("/env")


# ---- sessions ----


def resumed(server: Server, tls: ssl.SSLContext, session: Any) -> tuple[bool, Any, dict]:
    """Was the session gone on with, the session for the next time, the environ."""
    with server.client(tls=tls, session=session) as c:
        seen = c.get("/env").json()  # with TLS 1.3 the tickets come behind the handshake
        return bool(c.socket.session_reused), c.socket.session, seen


@VERSIONS
def test_a_session_goes_on(shared: Server, certs: Certs, version: Any) -> None:
    tls = certs.context(low=version, high=version)
    reused, session, _ = resumed(shared, tls, None)
    assert not reused and session.has_ticket
    for _ in range(3):
        reused, session, _ = resumed(shared, tls, session)
        assert reused


@VERSIONS
def test_a_session_keeps_the_client_s_certificate(weir: Starter, clients: Certs, version: Any) -> None:
    server = weir("basic:app", **clients.pair("ec"), ca_certs=clients.ca, cert_reqs="required")
    tls = clients.context("client", low=version, high=version)
    _, session, first = resumed(server, tls, None)
    reused, _, second = resumed(server, tls, session)
    assert reused
    assert second["SSL_CLIENT_CERT"] == first["SSL_CLIENT_CERT"] and second["SSL_CLIENT_VERIFY"] == "SUCCESS"


@VERSIONS
def test_a_ticket_of_another_server_means_a_whole_handshake(weir: Starter, shared: Server, certs: Certs, version: Any) -> None:
    other = weir("basic:app", **certs.pair("ec"))
    tls = certs.context(low=version, high=version)
    _, session, _ = resumed(other, tls, None)
    reused, _, seen = resumed(shared, tls, session)
    assert not reused and seen["HTTPS"] == "on"


# ---- workers ----


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_the_supervisor_does_not_load_openssl(weir: Starter, certs: Certs) -> None:
    server = weir("basic:app", workers=2, **certs.pair("ec"))
    assert "libssl" not in maps(server.pid) and "_tls.so" not in maps(server.pid)
    assert all("libssl" in maps(pid) for pid in server.worker_pids())


@VERSIONS
def test_a_session_goes_on_with_another_worker(weir: Starter, certs: Certs, version: Any) -> None:
    server = weir("basic:app", workers=2, **certs.pair("ec"))
    tls = certs.context(low=version, high=version)
    session, served = None, set()

    def both() -> bool:
        nonlocal session
        with server.client(tls=tls, session=session) as c:
            served.add(c.get("/thread").text.split()[2])
            assert c.socket.session_reused == (session is not None)
            session = c.socket.session
        return len(served) == 2

    wait_for(both)


def common_name(server: Server, certs: Certs) -> str:
    tls = certs.context()
    tls.check_hostname = False
    with server.client(tls=tls) as c:
        return c.socket.getpeercert()["subject"][0][0][1]


def test_a_reload_reads_the_certificates_anew(weir: Starter, certs: Certs, tmp_path: Path) -> None:
    cert, key = tmp_path / "now.pem", tmp_path / "now.key"

    def use(name: str) -> None:
        cert.write_text(certs.path(f"{name}.pem").read_text())
        key.write_text(certs.path(f"{name}.key").read_text())

    certs.signed("renewed", "renewed", "DNS:localhost")
    use("ec")
    server = weir("basic:app", workers=2, certfile=cert, keyfile=key)
    assert common_name(server, certs) == "localhost"
    tls = certs.context()
    _, session, _ = resumed(server, tls, None)
    with server.client(tls=tls) as idle, server.client(tls=tls) as busy:
        assert idle.alive()
        busy.request("GET", "/ticks/10")
        busy.head()
        assert busy.chunk() == b"tick 0\n"
        use("renewed")
        server.kill(signal.SIGHUP)
        wait_for(lambda: common_name(server, certs) == "renewed")
        # What TLS has agreed on cannot be handed to another worker: when its own has been told to go, it closes.
        wait_for(lambda: not idle.get("/hello").keep)
        assert idle.ended() == "closed"
        assert [busy.chunk() for _ in range(10)] == [*(b"tick %d\n" % i for i in range(1, 10)), b""]
        key.write_text("nothing")
        server.kill(signal.SIGHUP)
        server.wait_log("holds no private key in PEM form")
        assert common_name(server, certs) == "renewed"
    assert not resumed(server, tls, session)[0]  # it was begun with the certificate before


@pytest.fixture
def requests_all_the_time(certs: Certs) -> Iterator[Any]:
    """Clients that ask one request after the other until they are told to stop; their failures and counts."""
    stop = threading.Event()
    failures: list[str] = []
    served: list[int] = []
    threads: list[threading.Thread] = []

    def ask_on(server: Server, tls: ssl.SSLContext) -> None:
        n = 0
        try:
            while not stop.is_set():
                with Client(server.address, tls=tls) as c:
                    keep = True
                    while keep and not stop.is_set():
                        r = c.get(f"/token?{n}")
                        assert r.text == str(n)
                        keep = r.keep
                        n += 1
        except Exception as e:
            failures.append(f"after {n}: {e!r}")
        served.append(n)

    def start(server: Server) -> list[str]:
        for _ in range(3):
            threads.append(threading.Thread(target=ask_on, args=(server, certs.context())))
            threads[-1].start()
        return failures

    yield start
    stop.set()
    for t in threads:
        t.join()
    assert not failures
    assert min(served) > 10


def test_a_reload_loses_no_request(weir: Starter, certs: Certs, requests_all_the_time: Any) -> None:
    server = weir("basic:app", workers=2, **certs.pair("ec"))
    failures = requests_all_the_time(server)
    for i in range(3):
        before = set(server.worker_pids())
        server.kill(signal.SIGHUP)
        wait_for(lambda: failures or not before & set(server.worker_pids()), timeout=20)


def test_a_connection_that_has_said_nothing_goes_to_a_new_worker(weir: Starter, certs: Certs) -> None:
    server = weir("basic:app", **certs.pair("ec"))
    old = server.worker_pid
    n = server.sockets()
    with server.client() as plain:
        wait_for(lambda: server.sockets() == n + 1)
        server.kill(signal.SIGHUP)
        wait_for(lambda: server.worker_pids() not in ([], [old]) and old not in server.worker_pids())
        with certs.context().wrap_socket(plain.socket, server_hostname="localhost") as s:
            s.sendall(b"GET /thread HTTP/1.1\r\nHost: t\r\n\r\n")
            assert f" {server.worker_pid}".encode() in s.recv(4096)


def test_an_idle_client_may_ask_once_more_while_the_server_stops(weir: Starter, certs: Certs) -> None:
    server = weir("basic:app", **certs.pair("ec"))
    with server.client(tls=certs.context()) as c, server.client(tls=certs.context()) as other:
        assert c.alive() and other.alive()
        server.kill(signal.SIGTERM)
        server.wait_log("stopping: 2 connections are open")
        r = c.get("/hello")
        assert r.status == 200 and not r.keep
        assert c.ended() == "closed"
        assert other.ended() == "closed"
    assert server.wait_end() == 0


def test_a_key_that_only_root_can_read_is_read_before_privileges_are_dropped(weir: Starter, certs: Certs) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can drop privileges")
    assert not certs.path("ec.key").stat().st_mode & 0o077
    server = weir("basic:app", workers=1, user="nobody", **certs.pair("ec"))
    assert ask(server, certs.context())["HTTPS"] == "on"
    status = Path(f"/proc/{server.worker_pid}/status").read_text()
    assert re.search(r"Uid:\s+65534", status)


# ---- how connections end ----


@VERSIONS
def test_the_end_is_announced(weir: Starter, certs: Certs, version: Any) -> None:
    server = weir("basic:app", **certs.pair("ec"), keep_alive="300ms")
    tls = certs.context(high=version)
    with server.client(tls=tls) as c:
        c.get("/hello", "Connection: close")
        assert c.ended() == "closed"
    with server.client(tls=tls) as c:  # keep-alive runs out
        c.get("/hello")
        assert c.ended() == "closed"
    with server.client(tls=tls) as c:
        c.send(b"garbage\r\n\r\n")
        assert c.response().status == 400
        assert c.ended() == "closed"


def test_a_response_that_is_broken_off_is_seen_to_be(weir: Starter, certs: Certs) -> None:
    server = weir("pep:app", **certs.pair("ec"))
    with server.client(tls=certs.context()) as c, pytest.raises(Incomplete):
        c.get("/too_late")
        c.get("/too_late")
    server.stop()


def test_an_idle_client_may_go_without_a_word(shared: Server, certs: Certs) -> None:
    c = shared.client(tls=certs.context())
    assert c.alive()
    socket.socket(fileno=c.socket.detach()).close()  # FIN without close_notify
    assert ask(shared, certs.context())["HTTPS"] == "on"


def test_a_cut_request_is_not_run(weir: Starter, certs: Certs) -> None:
    server = weir("basic:app", **certs.pair("ec"), access_log="-")
    c = server.client(tls=certs.context())
    c.request("POST", "/reads/cut", "Content-Length: 100", body=None)
    c.send(b"half of it")
    socket.socket(fileno=c.socket.detach()).close()
    server.wait_out("POST /reads/cut")
    assert not ask(server, certs.context(), "/seen").get("reads cut")


@pytest.mark.parametrize("words", [b"\x00" * 64, b"\x16\x03\x01\x40\x00" + b"x" * 0x4000, b"\x16\x03\x01\x00\x05hello",
                                   b"\x80\x2e\x01\x03\x01" + b"\x00" * 60, b"\x15\x03\x01\x00\x02\x02\x28",
                                   b"\xff" * 70000, b"\x01"])
def test_garbage_ends_the_connection_and_nothing_else(shared: Server, certs: Certs, words: bytes) -> None:
    with shared.client() as c:
        with contextlib.suppress(OSError):
            c.send(words)
            c.half_close()
        answer = c.rest()
        assert len(answer) < 200 and b"HTTP" not in answer
    assert ask(shared, certs.context())["HTTPS"] == "on"
    shared.wait_log("TLS with 127.0.0.1 failed: ")


@pytest.mark.parametrize("method", ["GET", "HEAD", "BREW"])
def test_plain_http_is_told_that_this_is_https(shared: Server, method: str) -> None:
    with shared.client() as c:
        r = c.ask(method, "/hello")
        assert r.status == 400 and not r.keep
        assert (b"The plain HTTP request was sent to an HTTPS port" in r.body) == (method != "HEAD")
        assert c.ended() == "closed"


def test_a_client_that_says_nothing_is_no_failure(weir: Starter, certs: Certs) -> None:
    server = weir("basic:app", **certs.pair("ec"), log_level="debug")
    with server.client():
        pass
    server.wait_log("reason=client_closed")
    with server.client() as c:
        c.send(b"\x16\x03\x01")
    server.wait_log("DEBUG TLS with 127.0.0.1 failed: the client closed the connection inside the handshake")
    assert server.log.count(" failed: ") == 1


@pytest.mark.parametrize("words", [b"", b"\x16\x03\x01\x02\x00\x01\x00"])
def test_a_slow_handshake_is_cut(weir: Starter, certs: Certs, words: bytes) -> None:
    server = weir("basic:app", **certs.pair("ec"), header_timeout="300ms", log_level="debug")
    with server.client() as c:
        begun = time.monotonic()
        c.send(words)
        while c.more():
            pass
        assert time.monotonic() - begun >= 0.25
    if words:
        server.wait_log("failed: the handshake was not complete within header-timeout")
        server.wait_log("reason=tls_failed")
    else:
        server.wait_log("reason=no_request")


def test_connections_above_the_limit_get_no_plain_answer(weir: Starter, certs: Certs) -> None:
    server = weir("basic:app", **certs.pair("ec"), connections=1, header_timeout="20s")
    with server.client() as first, server.client() as second:
        assert second.rest() == b""
        assert first.quiet()


# ---- bytes that come one by one ----


class Dribble:
    """A TLS client whose bytes are sent singly; `stop` more bytes, then none."""

    def __init__(self, server: Server, tls: ssl.SSLContext, preamble: bytes = b"") -> None:
        self.client = server.client()
        self.from_server, self.to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = tls.wrap_bio(self.from_server, self.to_server, server_hostname="localhost")
        self.sent = 0
        self.send(preamble)

    def send(self, data: bytes) -> None:
        for i in range(len(data)):
            self.client.send(data[i : i + 1])
            self.sent += 1
            # Where the server is ready to answer, it does so before the next byte.
            select.select([self.client.socket], [], [], 0)

    def step(self, action: Any) -> Any:
        while True:
            try:
                result = action()
                self.send(self.to_server.read())
                return result
            except ssl.SSLWantReadError:
                self.send(self.to_server.read())
                if not self.client.buffer:
                    assert self.client.more(), "the server ended it"
                self.from_server.write(self.client.take(len(self.client.buffer)))

    def get(self, target: str) -> bytes:
        self.step(self.tls.do_handshake)
        self.step(lambda: self.tls.write(f"GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode()))
        answer = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while piece := self.step(lambda: self.tls.read(65536)):
                answer += piece
        return answer


@VERSIONS
def test_bytes_may_come_one_by_one(shared: Server, certs: Certs, version: Any) -> None:
    assert Dribble(shared, certs.context(high=version)).get("/hello").endswith(b"\r\n\r\nHello world\n")


@VERSIONS
@pytest.mark.parametrize("dribbled", [False, True])
@pytest.mark.parametrize("line", [b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n",
                                  b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x08\x12\x67\x01\xbb"])
def test_the_proxy_protocol_comes_before_tls(weir: Starter, certs: Certs, version: Any, dribbled: bool,
                                             line: bytes) -> None:
    server = weir("basic:app", **certs.pair("ec"), proxy_protocol="auto")
    tls = certs.context(high=version)
    if dribbled:
        seen = json.loads(Dribble(server, tls, line).get("/env").partition(b"\r\n\r\n")[2])
    else:
        seen = ask(server, tls, preamble=line)
    assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"]) == ("192.0.2.7", "4711")
    assert seen["wsgi.url_scheme"] == "https"


def test_the_proxy_protocol_and_the_handshake_may_come_in_one_write(weir: Starter, certs: Certs) -> None:
    server = weir("basic:app", **certs.pair("ec"), proxy_protocol="v1")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = certs.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with server.client() as c:
        c.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n" + outgoing.read())
        while True:
            assert c.more()
            incoming.write(c.take(len(c.buffer)))
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break


def test_a_bad_proxy_line_is_refused_in_the_clear(weir: Starter, certs: Certs) -> None:
    server = weir("basic:app", **certs.pair("ec"), proxy_protocol="v1")
    assert raw(server.address, b"PROXY NONSENSE\r\n").statuses == [400]


# ---- starts that fail ----


def bad_pairs(certs: Certs, folder: Path) -> dict[str, tuple[dict[str, str], str]]:
    empty, broken, locked = folder / "empty.pem", folder / "broken.pem", folder / "locked.key"
    empty.write_text("")
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    openssl("pkey", "-in", str(certs.path("ec.key")), "-out", str(locked), "-aes128", "-passout", "pass:x")
    cert, key = str(certs.ec), str(certs.path("ec.key"))
    return {
        "missing": ({"certfile": f"{folder}/none.pem"}, "certfile: cannot read '.*/none.pem': No such file or directory; "
                    "give a PEM file that the server may read"),
        "folder": ({"certfile": str(folder)}, "certfile: cannot read '.*': Is a directory; "),
        "empty": ({"certfile": str(empty)}, "certfile: '.*/empty.pem' holds no certificate in PEM form: there is no "
                  "CERTIFICATE block in it"),
        "broken": ({"certfile": str(broken)}, "certfile: '.*/broken.pem' holds no certificate in PEM form: "),
        "no key": ({"certfile": cert}, "certfile: '.*/ec.pem' holds no private key in PEM form; name the file that has "
                   "it with keyfile"),
        "missing key": ({"certfile": cert, "keyfile": f"{folder}/none.key"}, "keyfile: cannot read '.*/none.key': "),
        "a cert as key": ({"certfile": cert, "keyfile": cert}, "keyfile: '.*/ec.pem' holds no private key"),
        "mismatch": ({"certfile": cert, "keyfile": str(certs.path("rsa.key"))},
                     "keyfile: the private key in '.*/rsa.key' does not belong to the certificate in '.*/ec.pem'"),
        "mismatch of one kind": ({"certfile": cert, "keyfile": str(certs.path("ca.key"))},
                                 "keyfile: the private key in '.*/ca.key' does not belong to the certificate in '.*/ec.pem'"),
        "encrypted": ({"certfile": cert, "keyfile": str(locked)}, "keyfile: the key in '.*/locked.key' is encrypted; give "
                      "one without a passphrase"),
        "keyfile alone": ({"keyfile": key}, "keyfile has no meaning without certfile"),
        "ciphers": ({"certfile": cert, "keyfile": key, "ciphers": "NONSENSE"}, "ciphers: 'NONSENSE' names no cipher"),
        "no authorities": ({"certfile": cert, "keyfile": key, "cert-reqs": "required"}, "cert-reqs required needs ca-certs: "),
        "missing authorities": ({"certfile": cert, "keyfile": key, "ca-certs": f"{folder}/none.pem"}, "ca-certs: cannot read"),
        "empty authorities": ({"certfile": cert, "keyfile": key, "ca-certs": str(empty)}, "ca-certs: '.*' holds no certificate"),
    }


BAD = ["missing", "folder", "empty", "broken", "no key", "missing key", "a cert as key", "mismatch", "mismatch of one kind",
       "encrypted", "keyfile alone", "ciphers", "no authorities", "missing authorities", "empty authorities"]


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_certificate_is_told_in_one_sentence(certs: Certs, tmp_path: Path, what: str) -> None:
    settings, sentence = bad_pairs(certs, tmp_path)[what]
    (tmp_path / "server.py").write_text("def app(environ, start_response):\n    return []\n")
    r = run("--bind=127.0.0.1:0", *(f"--{k}={v}" for k, v in settings.items()), "server:app", cwd=tmp_path)
    assert r.returncode == (2 if what == "keyfile alone" else 3) and r.stdout == ""
    assert re.fullmatch(f"weir: (--)?{sentence}.*\n", r.stderr), r.stderr


def test_every_wrong_certificate_is_tried(certs: Certs, tmp_path: Path) -> None:
    assert sorted(bad_pairs(certs, tmp_path)) == sorted(BAD)


def test_the_check_of_the_configuration_looks_at_certificates(certs: Certs, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("def app(environ, start_response):\n    return []\n")
    r = run("--check-config", f"--certfile={certs.ec}", "server:app", cwd=tmp_path)
    assert r.returncode != 0 and "holds no private key" in r.stderr


def test_an_expired_certificate_is_told_and_served(weir: Starter, certs: Certs) -> None:
    certs.signed("late", "localhost", "DNS:localhost", dates=("20200101000000Z", "20200201000000Z"))
    server = weir("basic:app", **certs.pair("late"))
    server.wait_log(re.compile("WARNING the certificate in '.*/late.pem' expired on Feb  1 00:00:00 2020 GMT: clients "
                               "will refuse it"))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        server.client(tls=certs.context())
