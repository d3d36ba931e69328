"""Stacks of this very process, looked at from a thread that Python knows nothing of (src/wsgi/stacks.c)."""

import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time

import pytest

pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="frames are known for CPython 3.11")


@pytest.fixture
def look(stacks):
    def look(thread=0, hold=False):
        return json.loads(stacks.look(thread, hold))

    return look


class Busy:
    """A thread that runs `work`; the fixture `stop` waits for its end."""

    all = []

    def __init__(self, work, *args, name="busy"):
        self.id = 0
        self.begun = threading.Event()

        def run():
            self.id = threading.get_native_id()
            self.begun.set()
            work(*args)

        self.thread = threading.Thread(target=run, name=name, daemon=True)
        self.all.append(self.thread)
        self.thread.start()
        assert self.begun.wait(10)


@pytest.fixture
def stop():
    """What ends the threads of a test."""
    stop = threading.Event()
    yield stop
    stop.set()
    while Busy.all:
        Busy.all.pop().join(20)


def one(look, busy, until=lambda t: True, **more):
    """What is told of a thread, once `until` is true of it."""
    end = time.monotonic() + 20
    while True:
        found = [t for t in look(busy.id, **more) if t["thread"] == busy.id]
        assert len(found) == 1
        if until(found[0]):
            return found[0]
        assert time.monotonic() < end, found[0]


def functions(thread):
    return [f["function"].rpartition(".")[2] for f in thread["frames"]]


def in_function(name):
    return lambda t: name in functions(t)


def test_the_looking_thread_itself_runs_no_python(look):
    threads = look()
    here = next(t for t in threads if t["thread"] == os.getpid())
    assert here["python"] and here["complete"] and here["lock"] in ("free", None)
    other = [t for t in threads if not t["python"]]
    assert len(other) == 1 and other[0]["frames"] == [] and other[0]["lock"] == "free"
    # Every thread that there is, once.
    assert sorted(t["thread"] for t in threads) == sorted({t["thread"] for t in threads})


def test_frames_are_what_python_itself_says(look):
    hold = True  # so that nothing moves
    said, f = [], sys._getframe()
    while f:
        said.append((f.f_code.co_qualname, f.f_code.co_filename, f.f_lineno))
        f = f.f_back
    threads = look(os.getpid(), hold)
    seen = [(f["function"], f["file"], f["line"]) for f in threads[0]["frames"]]
    # The newest is the function of the fixture, then this one, at another line.
    assert seen[1][0] == said[0][0] and seen[1][1] == __file__
    assert seen[2:] == said[1:len(seen) - 1]
    assert threads[0]["frames"][1]["source"] == "threads = look(os.getpid(), hold)"
    assert threads[0]["more_frames"] is (len(said) + 1 > 64)


def test_lines_are_right_in_every_kind_of_statement(look, tmp_path):
    source = """
def plain(here):
    here()

def several(here):
    x = [
        1,
        here(),
        (here() or
            10,
        ),
    ]
    return x

def far(here):
""" + "\n" * 700 + """    here()
    for _ in range(2):
        try:
            raise ValueError
        except ValueError:
            here()
        finally:
            here()
    with open('/dev/null') as f:
        here()
    [here() for _ in range(1)]
    (lambda: here())()
    here(); here()
""" + "    x = [" + "here(), " * 300 + "]" + """

class K:
    here = None
    def __enter__(self): K.here()
    def __exit__(self, *a): K.here()

def magic(here):
    K.here = here
    with K():
        pass
"""
    path = tmp_path / "lines.py"
    path.write_text(source)
    space = {}
    exec(compile(source, str(path), "exec"), space)
    lines = set()

    def here():
        frames = look(os.getpid(), True)[0]["frames"]
        at = next(f for f in frames if f["file"] == str(path))
        # What Python says at the next line is the same call.
        assert at["line"] == sys._getframe(1).f_lineno
        assert at["source"] == source.splitlines()[at["line"] - 1].strip()[:160].strip()
        lines.add(at["line"])

    for name in ("plain", "several", "far", "magic"):
        space[name](here)
    assert len(lines) == 13


def test_a_thread_that_spins_in_python_is_seen(look, stop):
    def spin():
        n = 0
        while not stop.is_set():
            n += 1

    busy = Busy(spin)
    t = one(look, busy, lambda t: in_function("spin")(t) and t["complete"])
    first = t["frames"][0]
    assert first["function"].endswith("spin") or first["file"].endswith("threading.py")
    assert t["python"] and t["name"]
    assert one(look, busy, lambda t: t["lock"] == "holds")
    assert one(look, busy, lambda t: t["cpu"] > 0)["state"] == "R"


def test_a_lock_held_in_c_is_seen_with_its_holder_and_who_waits(look, stacks, stop):
    waiter = Busy(lambda: [time.sleep(0.001) for _ in iter(stop.is_set, True)])
    results = []
    done = threading.Event()

    # The look happens while this thread sits in C and has the lock, so a thread of C takes it.
    def looks():
        for _ in range(20):
            results.append(json.loads(stacks.look(0, True)))  # holds the GIL all the while
        done.set()

    holder = Busy(looks)
    assert done.wait(20)
    held = [r for r in results if any(t["thread"] == holder.id and t["lock"] == "holds" for t in r)]
    assert len(held) == 20  # each
    for r in held:
        assert sum(t["lock"] == "holds" for t in r) == 1
    assert any(t["thread"] == waiter.id and t["lock"] == "waits" and t["waits_in"] == "futex"
               for r in held for t in r)


def test_how_long_the_lock_is_held_is_told_while_somebody_wants_it(stacks, stop):
    waiter = Busy(lambda: [time.sleep(0.001) for _ in iter(stop.is_set, True)])
    begin = time.monotonic()
    # Ten looks of a thread of C, while this one keeps the lock.
    broken, last, _ = stacks.many(10, True, 30000)
    passed = time.monotonic() - begin
    threads = {t["thread"]: t for t in json.loads(last)}
    assert not broken and threads[waiter.id]["lock"] == "waits"
    assert 0.2 < threads[os.getpid()]["lock_for"] < passed
    assert threads[waiter.id]["lock_for"] is None
    # It was given back since then; nobody says that it was held all the time.
    t = next(t for t in json.loads(stacks.look(os.getpid(), True)))
    assert t["lock"] == "holds" and (t["lock_for"] or 0) < 0.1


def test_a_lock_that_nobody_wants_is_not_said_to_be_held_for_long(stacks, stop):
    broken, last, _ = stacks.many(10, True, 10000)
    here = next(t for t in json.loads(last) if t["thread"] == os.getpid())
    assert not broken and here["lock"] == "holds" and here["lock_for"] is None


def test_what_a_thread_waits_in_is_told(look, stop, tmp_path):
    a, b = socket.socketpair()
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    peer, _ = server.accept()
    slow = socket.create_connection(server.getsockname())
    slow.settimeout(60)
    slow_peer, _ = server.accept()
    r, w = os.pipe()
    lock = threading.Lock()
    lock.acquire()
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)

    def epolling(fd):
        with select.epoll() as e:
            e.register(fd, select.EPOLLHUP)
            e.poll(60)

    here, there = client.getsockname(), client.getpeername()

    threads = {
        "recvfrom": Busy(client.recv, 1),
        "unix": Busy(a.recv, 1),
        "poll": Busy(slow.recv, 1),
        "pipe": Busy(os.read, r, 1),
        "sleep": Busy(lambda: [time.sleep(0.2) for _ in iter(stop.is_set, True)]),
        "lock": Busy(lock.acquire),
        "child": Busy(child.wait),
        "epoll": Busy(lambda: epolling(r)),
    }

    def waits(name, call):
        t = one(look, threads[name], lambda t: (t["waits_in"] or "").split(":")[0] in call.split("|") and t["state"] == "S")
        assert t["lock"] == "free" and t["complete"]
        return t["waits_in"]

    try:
        assert waits("recvfrom", "recvfrom") == f"recvfrom: {here[0]}:{here[1]} > {there[0]}:{there[1]}"
        assert waits("unix", "recvfrom") == "recvfrom: unix"
        assert re.fullmatch(r"p?poll: 127.0.0.1:\d+ > 127.0.0.1:\d+", waits("poll", "poll|ppoll"))
        assert waits("pipe", "read").startswith("read: pipe:[")
        assert waits("sleep", "clock_nanosleep|nanosleep") in ("clock_nanosleep", "nanosleep")
        assert waits("lock", "futex") == "futex"
        assert waits("child", "wait4|waitid") == f"wait4: process {child.pid}"
        assert waits("epoll", "epoll_wait|epoll_pwait").startswith("epoll_")
        assert "wait" in functions(one(look, threads["child"]))
    finally:
        stop.set()
        b.send(b"x"), peer.send(b"x"), os.write(w, b"x"), os.close(w), lock.release()
        child.stdin.close()
        child.wait(10)
        slow_peer.send(b"x")
        for busy in threads.values():
            busy.thread.join(10)
        for s in (a, b, client, peer, slow, slow_peer, server):
            s.close()
        os.close(r)


def test_generators_and_what_calls_them_are_in_one_stack(look, stop):
    def inner():
        yield 1
        stop.wait()
        yield 2

    def outer():
        yield from inner()

    def consume():
        for _ in outer():
            sorted([1, 2], key=lambda _: next(iter([0])))

    busy = Busy(consume)
    t = one(look, busy, in_function("inner"))
    names = functions(t)
    assert names[names.index("inner"):][:4] == ["inner", "outer", "consume", "run"]


def test_callbacks_through_c_are_in_one_stack(look, stop):
    def key(_):
        stop.wait()
        return 0

    busy = Busy(lambda: sorted([1], key=key))
    names = functions(one(look, busy, in_function("key")))
    assert names[names.index("key"):][:3] == ["key", "<lambda>", "run"]


def test_coroutines_are_seen(look, stop):
    async def leaf():
        stop.wait()

    async def trunk():
        await leaf()

    def drive():
        try:
            trunk().send(None)
        except StopIteration:
            pass

    names = functions(one(look, Busy(drive), in_function("leaf")))
    assert names[names.index("leaf"):][:3] == ["leaf", "trunk", "drive"]


def test_a_deep_stack_is_cut_behind_64_frames(look, stop):
    def down(n):
        if n:
            down(n - 1)
        else:
            stop.wait()

    t = one(look, Busy(down, 300), in_function("down"))
    assert len(t["frames"]) == 64 and t["more_frames"] and t["complete"]


def test_names_and_files_of_any_characters_are_told(look, stop, tmp_path):
    path = tmp_path / "наблюдение_日本_é.py"
    text = "def größe_функция_日(stop):\n    stop.wait()  # тест\n"
    path.write_text(text, encoding="utf-8")
    space = {}
    exec(compile(text, str(path), "exec"), space)
    t = one(look, Busy(space["größe_функция_日"], stop), in_function("größe_функция_日"))
    f = next(f for f in t["frames"] if f["function"] == "größe_функция_日")
    assert f == {"function": "größe_функция_日", "file": str(path), "line": 2, "source": "stop.wait()  # тест"}


def test_each_width_of_a_name_is_read(look, stop):
    for name in ("ascii", "é" * 20, "日本", "\U00020000x"):
        space = {}
        exec(compile(f"def {name}(stop):\n stop.wait()\n", f"<{name}>", "exec"), space)
        name = space and [k for k in space if not k.startswith("__")][0]
        t = one(look, Busy(space[name], stop), in_function(name))
        f = next(f for f in t["frames"] if f["function"] == name)
        assert f["line"] == 2 and f["source"] is None
    # A file name whose bytes are no UTF-8 (PEP 383): as base/escape.h shows such bytes.
    space = {}
    exec(compile("def raw(stop):\n stop.wait()\n", os.fsdecode(b"/x/\xff.py"), "exec"), space)
    f = next(f for f in one(look, Busy(space["raw"], stop), in_function("raw"))["frames"] if f["function"] == "raw")
    assert f["file"] == "/x/\xff.py"


def test_code_without_a_file_has_no_source(look, stop):
    space = {"stop": stop}
    busy = Busy(lambda: exec("def nowhere():\n  stop.wait()\nnowhere()", space))
    f = next(f for f in one(look, busy, in_function("nowhere"))["frames"] if f["function"] == "nowhere")
    assert f == {"function": "nowhere", "file": "<string>", "line": 2, "source": None}


@pytest.mark.parametrize("kind", ["fifo", "device", "missing", "large", "folder", "short"])
def test_what_is_no_ordinary_source_is_not_read(look, stop, tmp_path, kind):
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = "/dev/zero"
    elif kind == "large":
        with open(path, "wb") as f:
            f.truncate(5 << 20)
    elif kind == "folder":
        path.mkdir()
    elif kind == "short":
        path.write_text("one line\n")
    space = {}
    exec(compile("\n\n\ndef f(stop):\n stop.wait()\n", str(path), "exec"), space)
    f = next(f for f in one(look, Busy(space["f"], stop), in_function("f"))["frames"] if f["function"] == "f")
    assert f["line"] == 5 and f["source"] is None


def test_two_hundred_threads_are_told_whole(look, stop):
    def down(n):
        if n:
            return down(n - 1)
        return stop.wait()

    busy = [Busy(down, 25) for _ in range(200)]
    for b in busy:
        one(look, b, lambda t: functions(t).count("down") == 26)
    threads = {t["thread"]: t for t in look()}
    for b in busy:
        t = threads[b.id]
        assert t["complete"] and not t["more_frames"] and functions(t).count("down") == 26


def test_a_ceiling_leaves_frames_out_and_stays_json(stacks, stop):
    def down(n):
        if n:
            return down(n - 1)
        return stop.wait()

    busy = [Busy(down, 40) for _ in range(30)]
    for ceiling in (6000, 40000, 100000, 200000):
        out = stacks.look(0, True, False, ceiling)
        assert len(out) <= ceiling
        threads = json.loads(out)
        assert all(t["more_frames"] for t in threads if t["python"] and not t["frames"])
    assert len(threads) >= len(busy)


def test_a_thread_that_is_not_there_has_no_entry(stacks):
    assert json.loads(stacks.look(2 ** 22 + 1)) == []


def test_a_traceback_has_the_newest_last(stacks, look, stop):
    def waiting():
        stop.wait()

    busy = Busy(waiting)
    one(look, busy, in_function("wait"))
    text = stacks.look(busy.id, False, True).decode()
    lines = [line for line in text.splitlines() if line.startswith("  File ")]
    assert lines[-1].endswith("in Condition.wait")
    assert f'  File "{__file__}", line {waiting.__code__.co_firstlineno + 1}, in ' in text
    assert "\n    stop.wait()\n" in text
    # Where there is little room it is the oldest frames that are left out.
    short = stacks.look(busy.id, False, True, 300).decode()
    assert len(short) <= 300 and short.startswith("\n  (older frames are left out)\n  File ")
    assert text.endswith(short.partition("out)")[2])


def test_a_forked_process_sees_its_own_threads(look):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            threads = look(0, True)
            good = [t for t in threads if t["thread"] == os.getpid() and t["python"] and t["complete"]]
            os.write(w, b"y" if good and in_function("test_a_forked_process_sees_its_own_threads")(good[0]) else b"n")
            code = 0
        finally:
            os._exit(code)
    os.close(w)
    assert os.read(r, 1) == b"y"
    os.close(r)
    assert os.waitpid(pid, 0)[1] == 0


LOOKS = int(os.environ.get("STACKS_LOOKS", "2000"))


def test_threads_that_live_and_die_all_the_time_break_nothing(stacks, stop):
    """Recursion, generators, code that is compiled and thrown away, threads of a moment: 2,000 looks."""
    def churn():
        while not stop.is_set():
            threads = [threading.Thread(target=lambda: sum(range(50))) for _ in range(4)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()

    def recurse():
        def down(n):
            return down(n - 1) + 1 if n else 0
        while not stop.is_set():
            down(200)

    def compile_away():
        n = 0
        while not stop.is_set():
            n += 1
            space = {}
            exec(compile("def f%d(x):\n def g():\n  yield x\n  yield from range(x)\n return list(g())\n" % n,
                         "/nowhere/%d.py" % n, "exec"), space)
            space["f%d" % n](20)

    for work in (churn, churn, recurse, compile_away):
        Busy(work)
    broken, last, _ = stacks.many(LOOKS)
    assert broken == 0
    assert json.loads(last)
