"""Processes: start, account for and end what the benchmark started, and nothing else.

Every child leads a session of its own, so the processes of a server are exactly those whose
session id is the pid we started, also after a parent in between has gone.
"""
import ctypes
import os
import resource
import signal
import subprocess
import time

TICKS = os.sysconf('SC_CLK_TCK')
PAGE_KIB = os.sysconf('SC_PAGE_SIZE') // 1024

_live = {}  # pid -> Popen of every child that was not ended yet


def raise_nofile():
    """Soft limit of open files to the hard one; returns it. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _die_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def start(argv, **kwargs):
    """Popen in its own session; it gets SIGTERM should the benchmark itself be killed."""
    child = subprocess.Popen(argv, start_new_session=True, preexec_fn=_die_with_parent, **kwargs)
    _live[child.pid] = child
    return child


def _stats():
    """(pid, fields after the command name) of every process. See proc(5)."""
    for name in os.listdir('/proc'):
        if not name.isdigit():
            continue
        try:
            with open(f'/proc/{name}/stat') as file:
                text = file.read()
        except OSError:
            continue
        yield int(name), text[text.rindex(')') + 2:].split()


def session(pid):
    """Live processes of the session that `pid` leads."""
    return [p for p, f in _stats() if int(f[3]) == pid and f[0] not in 'ZX']


def rss_kib(pid):
    """Resident memory of the session, summed over its processes; shared pages count in each."""
    return sum(int(f[21]) * PAGE_KIB for _, f in _stats() if int(f[3]) == pid)


def cpu_s(pid):
    """CPU time the session has used, with that of children already waited for."""
    return sum(sum(map(int, f[11:15])) for _, f in _stats() if int(f[3]) == pid) / TICKS


def stop(child, grace_s=3.0):
    """TERM, twice if need be, then KILL; every process of the session is gone afterwards."""
    pid = child.pid
    begin = time.monotonic()
    for sig, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGTERM, 1.0), (signal.SIGKILL, 2.0)):
        if child.poll() is None:
            child.send_signal(sig)
            try:
                child.wait(wait_s)
            except subprocess.TimeoutExpired:
                continue
        break
    # Its children normally follow; the rest of the session is ended one by one.
    end = time.monotonic() + 1.0
    while (left := session(pid)) and time.monotonic() < end:
        time.sleep(0.02)
    for p in left:
        try:
            os.kill(p, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream:
            stream.close()
    _live.pop(pid, None)
    return time.monotonic() - begin


def stop_all():
    """For the end of the run, however it comes."""
    for child in list(_live.values()):
        stop(child, grace_s=1.0)
