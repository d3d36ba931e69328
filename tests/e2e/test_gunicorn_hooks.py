"""Hooks of gunicorn.conf.py: when they are called, with what, and what follows when they fail."""

from __future__ import annotations

import os
import signal

import pytest
from gunicorn_helpers import Gunicorn
from harness import SANITIZED, wait_for

HOOKS = """
import os

def note(*words):
    with open('notes', 'a') as file:
        file.write(' '.join(map(str, words)) + '\\n')

def on_starting(server): note('on_starting', server.pid == os.getpid(), server.num_workers, len(server.WORKERS))
def when_ready(server): note('when_ready', len(server.WORKERS), server.address[0][0], server.cfg.threads)
def on_reload(server): note('on_reload', server.cfg.backlog)
def pre_fork(server, worker): note('pre_fork', worker.age, worker.pid)
def post_fork(server, worker): note('post_fork', worker.pid == os.getpid(), worker.ppid == server.pid, worker.age)
def post_worker_init(worker): note('post_worker_init', worker.wsgi.__name__, worker.app.callable is worker.wsgi, worker.alive)
def worker_int(worker): note('worker_int', worker.pid == os.getpid())
def worker_abort(worker): note('worker_abort', worker.pid == os.getpid())
def worker_exit(server, worker): note('worker_exit', worker.pid == os.getpid())
def child_exit(server, worker): note('child_exit', worker.age, server.pid == os.getpid())
def nworkers_changed(server, new, old): note('nworkers_changed', new, old)
def on_exit(server): note('on_exit', server.pid == os.getpid())
"""


@pytest.fixture
def gunicorn(weir, tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return Gunicorn(weir, folder)


@pytest.fixture
def notes(gunicorn):
    """What the hooks have noted, each a line."""
    def read() -> list[str]:
        path = gunicorn.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []
    return read


def test_hooks_from_the_start_to_the_end(gunicorn, notes):
    s = gunicorn(conf=HOOKS)
    s.stop()
    assert notes() == [
        "on_starting True 1 0", "nworkers_changed 1 None", "pre_fork 1 None", "post_fork True True 1",
        "post_worker_init app True True", "when_ready 1 127.0.0.1 1", "worker_exit True", "child_exit 1 True",
        "on_exit True",
    ]


def test_a_worker_that_is_killed_is_told_of_in_the_supervisor(gunicorn, notes):
    s = gunicorn(conf=HOOKS)
    os.kill(s.worker_pid, signal.SIGKILL)
    wait_for(lambda: "post_fork True True 2" in notes())
    assert "child_exit 1 True" in notes() and "worker_exit True" not in notes()


def test_the_number_of_workers_is_told(gunicorn, notes):
    s = gunicorn("-w", "2", conf=HOOKS)
    s.kill(signal.SIGTTIN)
    wait_for(lambda: "nworkers_changed 3 2" in notes())
    s.kill(signal.SIGTTOU)
    wait_for(lambda: "nworkers_changed 2 3" in notes())


def test_a_reload_reads_the_file_again(gunicorn, notes):
    s = gunicorn(conf=HOOKS)
    gunicorn.write(HOOKS.replace("note('post_fork'", "note('post_fork of the new file'") + "\nbacklog = 77\n")
    s.kill(signal.SIGHUP)
    wait_for(lambda: "child_exit 1 True" in notes())
    assert "on_reload 77" in notes() and "post_fork of the new file True True 2" in notes()


def test_a_wrong_file_leaves_everything_as_it_was(gunicorn, notes):
    s = gunicorn(conf=HOOKS)
    pids = s.worker_pids()
    gunicorn.write("workers = 'many'")
    s.kill(signal.SIGHUP)
    s.wait_log("not reloaded: gunicorn.conf.py: workers: 'many' is not a number")
    assert s.worker_pids() == pids and s.get("/").status == 200
    gunicorn.write(HOOKS + "\nworkers = 2\n")
    s.kill(signal.SIGHUP)
    wait_for(lambda: "child_exit 1 True" in notes() and len(s.worker_pids()) == 2)


def test_variables_of_the_file_follow_a_reload(gunicorn):
    s = gunicorn(conf="raw_env = ['GREETING=one', 'OTHER=x']")
    assert s.get("/").json()["greeting"] == "one"
    gunicorn.write("raw_env = ['GREETING=two']")
    s.kill(signal.SIGHUP)
    wait_for(lambda: s.get("/").json()["greeting"] == "two")
    assert "OTHER" not in s.get("/").json()["environ"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_end_is_told_in_the_worker(gunicorn, notes, number):
    s = gunicorn(conf=HOOKS)
    s.kill(number)
    s.wait_end()
    assert "worker_int True" in notes() and notes()[-1] == "on_exit True"


@pytest.mark.skipif(SANITIZED, reason="the sanitizer takes ABRT itself")
def test_abort_is_told_in_the_worker(gunicorn, notes):
    s = gunicorn(conf=HOOKS)
    os.kill(s.worker_pid, signal.SIGABRT)
    wait_for(lambda: "worker_abort True" in notes())
    wait_for(lambda: "post_fork True True 2" in notes())


def test_hooks_may_be_named_by_their_module(gunicorn, notes):
    gunicorn.write(HOOKS, "my_hooks.py")
    gunicorn(conf="when_ready = 'my_hooks.when_ready'")
    assert notes() == ["when_ready 1 127.0.0.1 1"]


def test_methods_and_other_callables_are_hooks(gunicorn, notes):
    gunicorn(conf=HOOKS + """
class Ready:
    def __call__(self, server): note('called')
    def method(self, server, worker): note('method')
when_ready = Ready()
import functools
def three(word, server, worker): note(word)
pre_fork = functools.partial(three, 'partial')
""")
    assert "called" in notes() and "partial" in notes()


# ---- requests ----

REQUESTS = """
def note(*words):
    with open('notes', 'a') as file:
        file.write(' '.join(map(str, words)) + '\\n')

def pre_request(worker, req):
    note('pre', req.method, req.uri, req.path, req.query, req.version, dict(req.headers)['X-A'], worker.nr)
"""
POST = {
    2: "def post_request(worker, req): note('post', req.path)",
    3: "def post_request(worker, req, environ): note('post', environ['PATH_INFO'])",
    4: "def post_request(worker, req, environ, resp): note('post', resp.status, resp.status_code, resp.sent, "
       "dict(resp.headers)['Content-Type'])",
}


@pytest.mark.parametrize("n, said", [(2, "post /env"), (3, "post /env"), (4, "post 200 OK 200 {size} application/json")])
def test_hooks_around_a_request(gunicorn, notes, n, said):
    s = gunicorn(app="basic:app", conf=REQUESTS + POST[n])
    r = s.get("/env?a=b", "X-A: one")
    wait_for(lambda: len(notes()) == 2)
    assert notes() == ["pre GET /env?a=b /env a=b (1, 1) one 1", said.format(size=len(r.body))]


def test_the_hook_behind_a_request_comes_when_all_of_it_was_given(gunicorn, notes):
    s = gunicorn("--threads", "2", app="basic:app",
                 conf=REQUESTS.partition("def pre")[0] + "def post_request(worker, req, environ, resp): "
                                                         "note(req.path, resp.sent)")
    assert s.get("/status/200").body == b"some content"
    wait_for(lambda: "/status/200 12" in notes())


def test_an_application_that_fails_is_told_of_too(gunicorn, notes):
    s = gunicorn(conf=REQUESTS.partition("def pre")[0] + POST[2])
    assert s.get("/raise").status == 500
    wait_for(lambda: notes() == ["post /raise"])
    s.wait_log("raised on purpose")


def test_what_fails_before_a_request_is_its_answer_and_what_fails_behind_it_is_logged(gunicorn):
    s = gunicorn(conf="def pre_request(worker, req): assert req.path != '/no'\n"
                      "def post_request(worker, req): raise ValueError('behind it')")
    assert s.get("/").status == 200
    s.wait_log("ValueError: behind it")
    assert s.get("/no").status == 500


# ---- hooks that fail ----


@pytest.mark.parametrize("hook, status", [("on_starting(server)", 1), ("post_fork(server, worker)", 3),
                                          ("post_worker_init(worker)", 3)])
def test_a_start_whose_hook_fails_does_not_loop(gunicorn, hook, status):
    gunicorn.write(f"def {hook}: raise ValueError('not today')")
    r = gunicorn.run()
    assert r.returncode == status and "ValueError: not today" in r.stderr
    assert f"the hook {hook.partition('(')[0]} failed" in r.stderr


@pytest.mark.parametrize("hook", ["pre_fork(server, worker)", "nworkers_changed(server, new, old)",
                                  "child_exit(server, worker)", "worker_exit(server, worker)", "on_exit(server)"])
def test_other_hooks_that_fail_are_logged(gunicorn, hook):
    s = gunicorn(conf=f"def {hook}: raise ValueError('not today')")
    assert s.get("/").status == 200
    s.stop()
    assert f"the hook {hook.partition('(')[0]} failed" in s.log and "ValueError: not today" in s.log


# ---- what hooks find ----


def test_cfg_has_every_setting_with_gunicorns_types(gunicorn, notes):
    gunicorn(app="basic:app", conf="""
        bind = '127.0.0.1:0'
        raw_env = ['A=b=c']
        umask = 0o22
        def when_ready(server):
            cfg = server.cfg
            found = [len(cfg.settings), cfg.workers, cfg.bind, cfg.address, cfg.timeout, cfg.reload, cfg.raw_env, cfg.env,
                     cfg.umask, cfg.accesslog, cfg.errorlog, cfg.forwarded_allow_ips, cfg.proxy_protocol, cfg.is_ssl,
                     cfg.worker_class_str, cfg.settings['workers'].get(), cfg.secure_scheme_headers, cfg.logconfig_dict,
                     cfg.statsd_prefix, cfg.user, cfg.cert_reqs, cfg.keepalive, cfg.proc_name, cfg.when_ready.__name__]
            try:
                cfg.workers = 3
            except AttributeError:
                found.append('fixed')
            open('notes', 'w').write(repr(found))
    """)
    assert eval(notes()[0]) == [
        119, 1, ["127.0.0.1:0"], [("127.0.0.1", 0)], 30, False, ["A=b=c"], {"A": "b=c"}, 0o22, None, "-", "127.0.0.1,::1",
        "off", False, "sync", 1, {"X-FORWARDED-PROTOCOL": "ssl", "X-FORWARDED-PROTO": "https", "X-FORWARDED-SSL": "on"},
        {}, "", os.geteuid(), 0, 2, "basic:app", "when_ready", "fixed"]


def test_logs_of_server_and_worker_are_weirs(gunicorn):
    s = gunicorn(conf="""
        def when_ready(server):
            server.log.info("from %s", "the server")
            server.log.error_log.warning("from its logger")
        def post_worker_init(worker):
            worker.log.warning("from the worker")
            try:
                1 / 0
            except ZeroDivisionError:
                worker.log.exception("with its traceback")
    """)
    s.wait_log("INFO from the server")
    s.wait_log("WARNING from the worker")
    assert "WARNING from its logger" in s.log
    assert "ERROR with its traceback" in s.log and "ZeroDivisionError" in s.log


def test_ssl_context_says_that_it_is_not_called(gunicorn):
    s = gunicorn(conf="def ssl_context(config, factory): return factory()")
    s.wait_log("gunicorn.conf.py: ssl_context has no effect: TLS is Weir's own")
