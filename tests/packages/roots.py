"""A Debian of its own in a folder, made by debootstrap and kept under build/, and programs inside it.

It needs root, the network to Debian's packages, and a Debian 12 around it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "roots"
RELEASE = "bookworm"

# Debian's Python stands in for that of the image python:3.11-slim-bookworm, which brings its headers and
# pip along.
PACKAGES = ("python3", "python3-dev", "python3-pip", "ca-certificates")

usable = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("debootstrap") or not Path("/etc/debian_version").read_text().startswith("12"),
    reason="needs root, debootstrap and Debian 12")


def mirror() -> str:
    """Where this machine gets its packages from."""
    listed = subprocess.run(["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(SITE)", "Created-By: Packages"],
                            text=True, capture_output=True, check=True).stdout
    for line in listed.splitlines():
        release, component, site = line.split(" ", 2)
        if (release, component) == (RELEASE, "main"):
            return site
    pytest.fail(f"no package source for {RELEASE} main on this machine")


class Root:
    """A file system to run programs in."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name.lstrip("/")

    def command(self, words: Sequence[str], user: str = "", cwd: str = "/", read_only: bool = False) -> list[str]:
        """The words as a command of this machine: own processes, mounts and names; the network is shared."""
        archives = KEPT / "archives"
        archives.mkdir(parents=True, exist_ok=True)
        script = (
            'set -e; root=$1; cwd=$2; user=$3; shift 3\n'
            f'mount --bind "{archives}" "$root/var/cache/apt/archives"\n'
            'mount --bind "$root" "$root"\n'
            'mount -t proc proc "$root/proc"; mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"\n'
            + ('mount -o remount,bind,ro "$root"; mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"\n' if read_only else "")
            + 'cd "$root$cwd"\n'
            'exec chroot ${user:+--userspec="$user"} "$root" /bin/sh -c \'cd "$1"; shift; exec "$@"\' sh "$cwd" "$@"\n')
        return ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--propagation=private",
                "/bin/sh", "-c", script, "sh", str(self.path), cwd, user, *words]

    def run(self, *words: str, env: Mapping[str, str] | None = None, timeout: float = 380, ok: bool = True, **more) -> str:
        # All roots share the folder of packages, so one apt-get at a time.
        with open(KEPT / "apt.lock", "w") if "apt-get" in " ".join(words) else contextlib.nullcontext() as lock:
            if lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
            done = subprocess.run(self.command(words, **more), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=timeout, env=environment(env))
        assert not ok or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout[-6000:]}"
        return done.stdout

    def copy(self, path: Path) -> Root:
        subprocess.run(["cp", "-a", "--reflink=auto", self.path, path], check=True)
        return Root(path)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive", **(more or {})}


def base() -> Root:
    """The root to copy from; made once, kept until `make clean`."""
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / RELEASE
    with open(KEPT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return Root(path)
        unfinished = KEPT / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        make(unfinished)
        unfinished.rename(path)
    return Root(path)


def make(path: Path) -> None:
    archives = KEPT / "archives"
    archives.mkdir(exist_ok=True)
    source = mirror()
    run = lambda *words: subprocess.run(words, check=True, env=environment(), stdout=subprocess.DEVNULL)  # noqa: E731
    run("debootstrap", "--variant=minbase", "--foreign", f"--cache-dir={archives}", f"--include={','.join(PACKAGES)}",
        RELEASE, str(path), source)
    # Nobody needs this root after a power failure.
    (path / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True, exist_ok=True)
    (path / "etc/dpkg/dpkg.cfg.d/quick").write_text("force-unsafe-io\n")
    Root(path).run("/debootstrap/debootstrap", "--second-stage")
    shutil.copy("/etc/resolv.conf", path / "etc/resolv.conf")
    site = source.rstrip("/")
    lines = [f"deb {site} {RELEASE} main", f"deb {site} {RELEASE}-updates main"]
    (path / "etc/apt/sources.list").write_text("\n".join(lines) + "\n")
    # As the image has it: python, pip, and no system that forbids pip.
    for name, target in (("python", "python3"), ("python3", "python3")):
        (path / "usr/local/bin" / name).symlink_to(f"/usr/bin/{target}")
    for marker in path.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()


# ---- a machine with systemd ----

BOOT = r"""
set -e
root=$1
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for folder in run tmp; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
pivot_root . mnt
# container=: what would need a machine's hardware is left out.
exec env -i container=weir-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /bin/sh -c 'umount -l /mnt
    exec /lib/systemd/systemd --system --log-target=journal --log-level=info'
"""


class Machine:
    """systemd as process 1 of namespaces of its own, above a Root that has it."""

    def __init__(self, root: Root, log: Path) -> None:
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup", "--fork", "--kill-child",
                 "--propagation=private", "/bin/sh", "-c", BOOT, "sh", str(root.path)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.log = log
        self.pid = 0

    def booted(self) -> bool:
        if self.process.poll() is not None:
            pytest.skip(f"this machine boots no systemd in namespaces: {self.log.read_text().strip()[-300:]}")
        if not self.pid:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            self.pid = int(children[0]) if children else 0
        return bool(self.pid) and self.run("systemctl", "is-system-running", ok=False).strip() in ("running", "degraded")

    def run(self, *words: str, ok: bool = True, timeout: float = 60) -> str:
        """Run a command beside its services."""
        done = subprocess.run(["nsenter", "-t", str(self.pid), "-m", "-p", "-i", "-u", "-n", "-C", "-r", "-w", *words],
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
                              stdin=subprocess.DEVNULL, env=environment({"SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}))
        assert not ok or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout[-4000:]}\n{self.journal()}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "-P", name, unit).strip()

    def journal(self) -> str:
        return subprocess.run(["nsenter", "-t", str(self.pid), "-a", "journalctl", "--no-pager", "-n", "30"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    def __truediv__(self, name: str) -> Path:
        """A path of this machine for a file in there."""
        return Path(f"/proc/{self.pid}/root") / name.lstrip("/")

    def end(self) -> None:
        if self.pid:
            os.kill(self.pid, 9)
        else:
            self.process.kill()
        self.process.wait()
