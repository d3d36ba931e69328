"""`weir healthcheck`: exit code 0 where the server answers, 1 and one line where it does not."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PATIENCE, PYTHON, ROOT, Starter, plain_env, wait_for, weir_command

BUILD = ROOT / os.environ.get("WEIR_BUILD", "build")


def native() -> list[str]:
    return [*weir_command(), "healthcheck"]


def python() -> list[str]:
    return [PYTHON, "-m", "weir", "healthcheck"]


def check(*arguments: str, command: list[str] | None = None, env: dict[str, str] | None = None,
          cwd: Path | None = None) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WEIR_", "PORT"))}
    if command and command[0] == PYTHON:
        environment["PYTHONPATH"] = str(BUILD / "python")
        if os.environ.get("WEIR_ASAN_RUNTIME"):
            environment["LD_PRELOAD"] = os.environ["WEIR_ASAN_RUNTIME"]
    done = subprocess.run([*(command or native()), *arguments], text=True, capture_output=True, cwd=cwd,
                          env={**environment, **(env or {})}, timeout=30 * PATIENCE)
    assert done.returncode in (0, 1), done
    assert done.stdout.count("\n") + done.stderr.count("\n") == 1, done
    assert bool(done.stdout) == (done.returncode == 0)
    return done


@contextlib.contextmanager
def answering(answer: bytes, wait: bool = True) -> Iterator[int]:
    """A server of one connection that answers whatever comes with `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def run() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    if wait:
                        connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", listener.getsockname()[1]), 1).close()
        thread.join(10)


@pytest.mark.parametrize("command", [native(), python()], ids=["native", "python"])
def test_a_server_that_answers_is_healthy(weir: Starter, command: list[str]) -> None:
    port = weir("basic:app").port
    good = f"weir: healthy: 127.0.0.1:{port}: GET /-/ping is answered with 200 in "
    for arguments, env in (
        ([str(port)], {}),
        ([f"127.0.0.1:{port}"], {}),
        ([f"--bind=127.0.0.1:{port}"], {}),
        (["-b", f"0.0.0.0:{port}"], {}),  # as the server was told: asked on this machine's own address
        ([], {"WEIR_BIND": f"127.0.0.1:{port}"}),
        ([], {"PORT": str(port)}),
        ([f"http://127.0.0.1:{port}/-/ping", "--timeout", "500ms"], {}),
    ):
        done = check(*arguments, command=command, env=env)
        assert done.returncode == 0 and done.stdout.startswith(good), (arguments, env, done)
    done = check(f"http://127.0.0.1:{port}/nothere", command=command)
    assert done.returncode == 1
    assert done.stderr == f"weir: unhealthy: 127.0.0.1:{port}: GET /nothere is answered with 404\n"


def test_unix_sockets_and_prefixes_are_those_of_the_settings(weir: Starter, tmp_path: Path) -> None:
    path = str(tmp_path / "weir.sock")
    weir("basic:app", bind=[f"unix:{path}", f"unix:@weir-health-{os.getpid()}"], internal_path="/intern/")
    prefix = {"WEIR_INTERNAL_PATH": "/intern/"}
    for address in (f"unix:{path}", f"unix:@weir-health-{os.getpid()}"):
        done = check(address, env=prefix)
        assert f"{address}: GET /intern/ping is answered with 200" in done.stdout, done
    assert check(env={"WEIR_BIND": f"unix:{path}", **prefix}).returncode == 0
    assert "is answered with 404" in check(f"unix:{path}").stderr


@pytest.mark.parametrize("version", ["v1", "v2", "auto"])
def test_a_listener_behind_the_proxy_protocol_gets_its_header(weir: Starter, version: str) -> None:
    port = weir("basic:app", proxy_protocol=version).port
    assert check(str(port), f"--proxy-protocol={version}").returncode == 0
    if version != "auto":
        assert check(str(port)).returncode == 1


def test_a_server_that_does_not_listen_is_unhealthy(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        done = check(str(port))
    assert (done.returncode, done.stderr) == (1, f"weir: unhealthy: 127.0.0.1:{port}: Connection refused\n")
    done = check(f"unix:{tmp_path}/none")
    assert done.stderr == f"weir: unhealthy: unix:{tmp_path}/none: No such file or directory\n"


def test_a_server_that_hangs_is_unhealthy_after_the_timeout(weir: Starter) -> None:
    server = weir("basic:app", workers=0)
    server.kill(signal.SIGSTOP)
    try:
        done = check(str(server.port), "--timeout=300ms")
    finally:
        server.kill(signal.SIGCONT)
    assert done.stderr == f"weir: unhealthy: 127.0.0.1:{server.port}: no answer in time\n"
    assert check(str(server.port)).returncode == 0


def test_what_is_no_http_server_is_unhealthy() -> None:
    with answering(b"220 mail.example.org ESMTP\r\n") as port:
        assert "what answers there is no HTTP server" in check(str(port)).stderr
    with answering(b"") as port:
        assert "closed without an answer" in check(str(port)).stderr
    with answering(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n") as port:
        assert "GET /-/ping is answered with 503" in check(str(port)).stderr
    with answering(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000) as port:
        assert check(str(port)).returncode == 0  # only so much is read


def test_wrong_usage_is_one_line_and_never_exit_code_two() -> None:
    for arguments, text in (
        (["--timeout=never"], "--timeout: 'never' is not a time"),
        (["--timeout=0"], "--timeout: '0' is not a time"),
        (["--thread=4"], "unknown option; did you mean --threads"),
        (["1", "2"], "two addresses given, '1' and '2'"),
        (["https://127.0.0.1:1/"], "a certificate is not checked here"),
        (["http:///x"], "names no host"),
        (["fd://3"], "inherited descriptor (fd://3)"),
        (["127.0.0.1:0"], "port 0 is chosen anew at each start"),
        (["nonsense:nonsense:1"], "more than one colon"),
        (["x" * 300], "is too long for a host name"),
    ):
        done = check(*arguments)
        assert done.returncode == 1 and text in done.stderr, done


def test_help_names_every_way_to_give_the_address() -> None:
    for command in (native(), python()):
        env = {**os.environ, "PYTHONPATH": str(BUILD / "python")}
        if command == python() and os.environ.get("WEIR_ASAN_RUNTIME"):
            env["LD_PRELOAD"] = os.environ["WEIR_ASAN_RUNTIME"]
        done = subprocess.run([*command, "--help"], text=True, capture_output=True, check=True, env=env)
        assert done.stdout.startswith("Usage: weir healthcheck [ADDRESS]")
        for word in ("--bind", "WEIR_BIND", "PORT", "weir.yaml", "--timeout"):
            assert word in done.stdout


def certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
                    "-days", "1", "-subj", "/CN=localhost"], check=True, capture_output=True, env=plain_env())
    return cert, key


needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl program")


@needs_openssl
@pytest.mark.parametrize("oldest", ["1.2", "1.3"])
def test_a_server_with_tls_is_asked_for_a_handshake(weir: Starter, tmp_path: Path, oldest: str) -> None:
    cert, key = certificate(tmp_path)
    server = weir("basic:app", certfile=cert, keyfile=key, tls_min=oldest)
    settings = {"WEIR_CERTFILE": str(cert), "WEIR_KEYFILE": str(key), "WEIR_BIND": f"127.0.0.1:{server.port}"}
    done = check(env=settings)
    assert f"127.0.0.1:{server.port}: answers TLS handshakes in " in done.stdout, done
    assert check(str(server.port)).returncode == 1, "plain HTTP is no answer of a TLS listener"
    assert "WARN" not in server.log and "ERROR" not in server.log


@needs_openssl
@pytest.mark.parametrize("only", ["-tls1_2", "-tls1_3"])
def test_a_tls_listener_is_asked_for_a_handshake(tmp_path: Path, only: str) -> None:
    cert, key = certificate(tmp_path)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key,
                                "-www", only], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               stdin=subprocess.DEVNULL, env=plain_env())
    try:
        done = wait_for(lambda: (d := check(str(port), f"--certfile={cert}")).returncode == 0 and d)
        assert "answers TLS handshakes" in done.stdout
        assert check(str(port)).returncode == 1, "plain HTTP is no answer of a TLS listener"
    finally:
        process.kill()
        process.wait()
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as plain:
        assert "what answers there is no TLS" in check(str(plain), f"--certfile={cert}").stderr
