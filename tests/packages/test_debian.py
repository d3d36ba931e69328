"""`make deb`: what is in the package, what lintian says, and a Debian with nothing else that installs it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import roots
from package_helpers import ROOT, certificate, run
from harness import APPS, Client, Incomplete, wait_for

VERSION = re.search(r'WEIR_VERSION "(.*)"', (ROOT / "src/conf/version.h").read_text())[1]

# Building takes its time on a busy machine.
pytestmark = [pytest.mark.skipif(not shutil.which("dh") or not shutil.which("dh_python3"),
                                 reason="debhelper or dh-python is not installed"),
              pytest.mark.timeout(400)]


def test_the_changelog_names_the_version():
    first = (ROOT / "deploy/debian/changelog").read_text().splitlines()[0]
    assert first.startswith(f"weir ({VERSION}) ")


def test_build_dependencies_are_those_of_the_build():
    """Every library that tools/deps installs for building."""
    wanted = re.search(r'^run="(.*?)"', (ROOT / "tools/deps").read_text(), re.M | re.S)[1].split()
    control = (ROOT / "deploy/debian/control").read_text()
    named = set(re.findall(r"[\w.+-]+", re.search(r"^Build-Depends: (.*?)\n\S", control, re.M | re.S)[1]))
    libraries = {p for p in wanted if p.startswith("lib") and p.endswith("-dev")}
    assert libraries and not libraries - named


@pytest.fixture(scope="module")
def deb(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("deb")
    said = run(ROOT / "tools/package", "deb", folder)
    (made,) = folder.glob("*.deb")
    assert said.strip() == str(made)
    return made


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory, deb) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    run("dpkg-deb", "-x", deb, folder)
    return folder


def test_the_package_tells_what_it_is(deb):
    architecture = run("dpkg", "--print-architecture").strip()
    assert deb.name == f"weir_{VERSION}_{architecture}.deb"
    depends = run("dpkg-deb", "-f", deb, "Depends")
    assert re.search(r"libc6 \(>= ", depends) and re.search(r"libuv1 \(>= ", depends)
    # The extension is for one version of the interpreter.
    assert re.search(r"python3 \(<< 3\.\d+\)", depends) and re.search(r"python3 \(>= 3\.\d+~\)", depends)


def test_every_library_that_is_linked_comes_with_a_dependency(deb, unpacked):
    depends = run("dpkg-deb", "-f", deb, "Depends")
    needed = set()
    for file in (unpacked / "usr/bin/weir", *unpacked.rglob("*.so")):
        needed |= set(re.findall(r"\(NEEDED\).*\[(\S+)\]", run("readelf", "-d", file)))
    packages = {"libc.so.6": "libc6", "ld-linux-x86-64.so.2": "libc6", "libm.so.6": "libc6", "libuv.so.1": "libuv1",
                "libyaml-0.so.2": "libyaml-0-2", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3",
                "libjansson.so.4": "libjansson4", "libsqlite3.so.0": "libsqlite3-0", "libcurl.so.4": "libcurl4"}
    for library in needed:
        assert re.search(rf"\b{re.escape(packages[library])}\b", depends), library


def test_files_are_where_debian_wants_them(unpacked):
    for name in ("usr/bin/weir", "usr/lib/python3/dist-packages/weir/__init__.py", "usr/share/man/man1/weir.1.gz",
                 "usr/share/bash-completion/completions/weir", "usr/share/zsh/vendor-completions/_weir",
                 "usr/share/fish/vendor_completions.d/weir.fish", "lib/systemd/system/weir@.service",
                 "lib/systemd/system/weir@.socket", "usr/share/doc/weir/copyright", "usr/share/doc/weir/changelog.gz",
                 "usr/share/doc/weir/changelog.Debian.gz", "usr/share/doc/weir/deploy.md",
                 "usr/share/doc/weir/examples/hello/app.py"):
        assert (unpacked / name).is_file(), name
    package = {p.name for p in (ROOT / "python/weir").iterdir() if p.suffix in (".py", ".typed")}
    package |= {p.name for p in (ROOT / "build/python/weir").glob("*.so")}
    assert not package - {p.name for p in (unpacked / "usr/lib/python3/dist-packages/weir").iterdir()}
    assert not list(unpacked.rglob("*.wants")), "no unit is enabled"


def test_scripts_of_the_package_enable_and_start_nothing(deb, tmp_path):
    run("dpkg-deb", "-e", deb, tmp_path)
    for script in ("postinst", "prerm", "postrm", "preinst"):
        if (tmp_path / script).exists():
            assert not re.search(r"systemctl|deb-systemd-(helper|invoke)|update-rc", (tmp_path / script).read_text())


def test_units_and_flags_are_those_of_the_source(unpacked):
    for name in ("weir@.service", "weir@.socket"):
        assert (unpacked / "lib/systemd/system" / name).read_text() == (ROOT / "deploy/systemd" / name).read_text()
    for file in (unpacked / "usr/bin/weir", *unpacked.rglob("*.so")):
        assert "BIND_NOW" in run("readelf", "-d", file)
        assert "__snprintf_chk" in run("readelf", "-W", "--dyn-syms", file)
        assert not re.search(r"\.(symtab|debug_info)", run("readelf", "-W", "-S", file)), "not stripped"


@pytest.mark.skipif(not shutil.which("lintian"), reason="lintian is not installed")
def test_lintian_finds_nothing(deb):
    """No exceptions are listed."""
    environment = {"LC_ALL": "C.UTF-8"}
    run("lintian", "--allow-root", "--no-cfg", "--fail-on", "error,warning,info", "-I", deb, env=environment)


def test_the_unpacked_command_serves(unpacked, weir):
    command = unpacked / "usr/bin/weir"
    assert run(command, "--version") == f"weir {VERSION}\n"
    server = weir(command=[str(command), "--bind", "127.0.0.1:0", "basic:app"], cwd=APPS)
    assert server.get("/").status == 200
    loaded = Path(f"/proc/{server.pid}/maps").read_text()
    assert str(unpacked / "usr/lib/python3/dist-packages/weir") in loaded


def test_the_unpacked_command_serves_tls(unpacked, weir, tmp_path):
    """_tls.so is found beside the extension."""
    server = weir(command=[str(unpacked / "usr/bin/weir"), "--bind", "127.0.0.1:0", *certificate(tmp_path), "basic:app"], cwd=APPS)
    assert run("curl", "-sSk", f"https://127.0.0.1:{server.port}/-/ping") == "pong\n"


def test_a_virtual_environment_finds_the_module(unpacked, weir, tmp_path):
    """It does not look into the system's modules."""
    run("/usr/bin/python3", "-m", "venv", "--without-pip", tmp_path / "venv")
    (tmp_path / "venv/lib/python3.11/site-packages").mkdir(parents=True, exist_ok=True)
    next((tmp_path / "venv/lib").glob("python3*/site-packages")).joinpath("only_here.py").write_text("ANSWER = b'yes'\n")
    (tmp_path / "app.py").write_text(
        "import only_here\n"
        "def app(environ, start):\n"
        "    start('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [only_here.ANSWER]\n")
    server = weir(command=[str(unpacked / "usr/bin/weir"), "--bind", "127.0.0.1:0", "app:app"], cwd=tmp_path,
                  env={"VIRTUAL_ENV": str(tmp_path / "venv")})
    assert server.get("/").body == b"yes"


# ---- a Debian with nothing else ----

SHOP = """
import ctypes, os, socket, sys, time

def attempt(what):
    try:
        what()
        return "done"
    except OSError as error:
        return error.strerror

def system(number, *arguments):
    def call():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return call

def write(path):
    def call():
        with open(path, "w") as file:
            file.write("x")
    return call

def app(environ, start):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(1)
        body = "slow"
    elif path == "/try":
        body = "; ".join("%s: %s" % (name, attempt(what)) for name, what in (
            ("etc", write("/etc/weir/x")), ("srv", write("/srv/shop/x")), ("home", lambda: os.listdir("/root")),
            ("state", write("/var/lib/weir/shop/x")), ("tmp", write("/tmp/x")),
            ("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
            ("unshare", system(272, 0x10000000)), ("chroot", lambda: os.chroot("/tmp")), ("setuid", lambda: os.setuid(0)),
            ("nice", lambda: os.nice(-5)), ("client", lambda: socket.socket(socket.AF_INET).close())))
    else:
        body = "%d %s %s %s" % (os.getpid(), os.environ.get("MODEL_KEY"), sys.prefix, environ["REMOTE_ADDR"])
    start("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
"""


@pytest.fixture(scope="module")
def debian(tmp_path_factory, deb) -> Iterator[roots.Root]:
    """The package in a fresh Debian, and systemd."""
    root = roots.base().copy(tmp_path_factory.mktemp("debian") / "root")
    try:
        shutil.copy(deb, root / "tmp")
        root.run("apt-get", "update", "-q")
        root.run("apt-get", "install", "-y", "-q", "--no-install-recommends", "systemd", f"/tmp/{deb.name}")
        yield root
    finally:
        shutil.rmtree(root.path)


@roots.usable
def test_a_fresh_debian_installs_it_and_serves(debian, tmp_path):
    assert debian.run("weir", "--version") == f"weir {VERSION}\n"
    assert debian.run("python3", "-c", "from weir import serve; print(serve.__name__)") == "serve\n"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = tmp_path / "log"
    with open(log, "w") as out:
        process = subprocess.Popen(
            debian.command(["weir", "--bind", f"127.0.0.1:{port}", "app:app"], user="nobody:nogroup",
                           cwd="/usr/share/doc/weir/examples/hello"),
            stdout=out, stderr=out, env=roots.environment())
    try:
        wait_for(lambda: "serving" in log.read_text() or process.poll() is not None, 20)
        assert debian.run("weir", "healthcheck", f"127.0.0.1:{port}").startswith("weir: healthy")
        assert run("curl", "-sS", f"http://127.0.0.1:{port}/") == "Hello from Weir\n"
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


# ---- a machine with systemd ----


@pytest.fixture(scope="module")
def machine(debian, tmp_path_factory) -> Iterator[roots.Machine]:
    """weir@shop is configured, and its socket is open."""
    for folder in ("srv/shop", "etc/weir", "etc/systemd/system/weir@shop.service.d"):
        (debian / folder).mkdir(parents=True)
    (debian / "srv/shop/app.py").write_text(SHOP)
    # The two files that docs/deploy.md shows.
    for name, language in (("shop.yaml", "yaml"), ("shop.env", "sh")):
        block = re.search(rf"```{language}\n# /etc/weir/{name}\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.S)
        (debian / "etc/weir" / name).write_text(block[1])
    (debian / "etc/weir/shop.env").chmod(0o600)
    debian.run("python3", "-m", "venv", "--without-pip", "/srv/shop/.venv")
    machine = roots.Machine(debian, tmp_path_factory.mktemp("machine") / "log")
    try:
        wait_for(machine.booted, 60, "systemd is up")
        machine.run("systemctl", "start", "weir@shop.socket")
        yield machine
    finally:
        machine.end()


def ask(machine: roots.Machine, target: str, *fields: str) -> str:
    with Client(str(machine / "run/weir/shop.sock"), 20) as c:
        r = c.get(target, *fields)
        assert r.status == 200
        return r.text


@roots.usable
def test_installing_enables_and_starts_nothing(machine):
    assert machine.run("systemctl", "is-enabled", "weir@shop", ok=False).strip() == "disabled"
    assert machine.show("weir@other", "ActiveState") == "inactive"


@roots.usable
def test_the_first_connection_starts_the_service(machine):
    machine.run("systemctl", "stop", "weir@shop")
    assert machine.show("weir@shop", "ActiveState") == "inactive"
    assert ask(machine, "/", "X-Forwarded-For: 192.0.2.9").split()[1:] == ["secret", "/srv/shop/.venv", "192.0.2.9"]
    wait_for(lambda: machine.show("weir@shop", "ActiveState") == "active", 20, "the service is ready")


@roots.usable
def test_the_service_runs_as_nobody_in_particular(machine):
    worker = int(ask(machine, "/").split()[0])
    status = machine.run("cat", f"/proc/{worker}/status")
    assert not re.search(r"^Uid:\t0\t", status, re.M)
    assert re.search(r"^CapBnd:\t0+$", status, re.M) and re.search(r"^NoNewPrivs:\t1$", status, re.M)
    assert re.search(r"^Seccomp:\t2$", status, re.M)


@roots.usable
def test_the_sandbox_holds_and_leaves_what_applications_need(machine):
    said = dict(part.split(": ", 1) for part in ask(machine, "/try").split("; "))
    assert {name for name, result in said.items() if result == "done"} == {"state", "tmp", "client"}
    assert said["etc"] == said["srv"] == "Read-only file system"
    assert said["netlink"] == "Address family not supported by protocol"
    assert said["unshare"] == "Operation not permitted"


@roots.usable
def test_a_reload_replaces_the_workers_and_drops_nothing(machine):
    before, main = ask(machine, "/").split()[0], machine.show("weir@shop", "MainPID")
    with Client(str(machine / "run/weir/shop.sock"), 20) as c:
        assert c.get("/").status == 200
        machine.run("systemctl", "reload", "weir@shop")
        wait_for(lambda: c.get("/").text.split()[0] not in (before, ""), 20, "another worker answers this connection")
        assert not c.end
    assert machine.show("weir@shop", "MainPID") == main
    wait_for(lambda: machine.show("weir@shop", "ActiveState") == "active", 20, "the reload is over")


@roots.usable
def test_a_killed_service_is_started_again_and_its_socket_refuses_nobody(machine):
    main = machine.show("weir@shop", "MainPID")
    machine.run("kill", "-9", main)

    def answered() -> bool:
        """A worker may take a connection and be killed with the others; but nobody is refused."""
        try:
            return bool(ask(machine, "/"))
        except (Incomplete, ConnectionResetError, BrokenPipeError):
            return False

    wait_for(answered, 20, "an answer")
    wait_for(lambda: machine.show("weir@shop", "ActiveState") == "active", 20, "the service is back")
    assert machine.show("weir@shop", "MainPID") not in (main, "0")


@roots.usable
def test_the_watchdog_is_fed_and_ends_a_supervisor_that_hangs(machine):
    override = machine / "etc/systemd/system/weir@shop.service.d/watchdog.conf"
    override.write_text("[Service]\nWatchdogSec=2s\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "weir@shop")
    first = machine.show("weir@shop", "WatchdogTimestampMonotonic")
    wait_for(lambda: machine.show("weir@shop", "WatchdogTimestampMonotonic") > first, 10, "a beat")
    main = machine.show("weir@shop", "MainPID")
    machine.run("kill", "-STOP", main)
    wait_for(lambda: machine.show("weir@shop", "MainPID") not in (main, "0"), 30, "another supervisor")
    assert "watchdog" in machine.run("journalctl", "--no-pager", "-u", "weir@shop").lower()
    override.unlink()
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "weir@shop")


POLICY = """
identify: [bearer]
routes:
  - match: /counted
    require: user
    quota: 2/day
"""


@roots.usable
def test_quotas_are_in_the_state_folder_and_outlive_a_restart(machine):
    settings = machine / "etc/weir/shop.yaml"
    before = settings.read_text()
    settings.write_text(before + POLICY)
    machine.run("systemctl", "restart", "weir@shop")
    who = "Authorization: Bearer me"

    def counted() -> int:
        with Client(str(machine / "run/weir/shop.sock"), 20) as c:
            return c.get("/counted", who).status

    try:
        assert [counted() for _ in range(3)] == [200, 200, 429], machine.journal()
        assert machine.run("stat", "-L", "-c", "%a", "/var/lib/weir/shop/weir.db").strip() == "600"
        machine.run("systemctl", "restart", "weir@shop")
        assert counted() == 429
        with Client(str(machine / "run/weir/shop.sock"), 20) as c:
            assert c.get("/counted").status == 401
            assert c.get("/-/usage", who).json()["routes"][0]["day"]["used"] == 2
    finally:
        settings.write_text(before)
        machine.run("systemctl", "restart", "weir@shop")


@roots.usable
def test_a_stop_finishes_what_runs(machine):
    assert ask(machine, "/")
    with Client(str(machine / "run/weir/shop.sock"), 20) as c:
        c.request("GET", "/slow")
        # The socket would start it again for whoever comes next.
        machine.run("systemctl", "stop", "weir@shop.socket", "weir@shop")
        assert c.response().text == "slow"
    assert machine.show("weir@shop", "Result") == "success"
    assert machine.show("weir@shop", "ActiveState") == "inactive"
    assert "Traceback" not in machine.journal()


@roots.usable
def test_removing_the_package_leaves_nothing(debian):
    """The last one: the others need it."""
    debian.run("apt-get", "purge", "-y", "-q", "weir")
    kept = ("/etc/", "/srv/", "/var/lib/weir", "/var/lib/private", "/var/cache", "/var/lib/systemd", "/var/log")
    left = debian.run("find", "/", "-xdev", "-name", "*weir*").splitlines()
    assert not [p for p in left if not p.startswith((*kept, "/tmp", "/proc", "/sys", "/run"))]
