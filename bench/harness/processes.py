"""Scenarios about several processes: workers, a shared model, a reload under load, an idle supervisor."""
import os
import re
import signal
import socket
import threading
import time

from . import proc, scenarios, servers
from .scenarios import Contender, Scenario, Throughput



def pss_kib(pid):
    """Proportional set size: what several processes share counts once, divided among them."""
    with open(f'/proc/{pid}/smaps_rollup') as file:
        return int(re.search(r'^Pss:\s+(\d+)', file.read(), re.M)[1])


class Hello2(Throughput):
    name, app = 'hello-2', 'hello:app'
    title = 'hello, two workers'
    text = 'wrk, 64 connections, 12-byte answer; two workers and wrk share both cores, nobody is pinned.'
    pinned = False
    est_s = (70, 10)
    columns = (('rps', 'requests/s', '{:,.0f}'), ('p50_ms', 'p50 ms', '{:.2f}'),
               ('p99_ms', 'p99 ms', '{:.2f}'), ('server_cores', 'server cores', '{:.2f}'),
               ('wrk_cores', 'wrk cores', '{:.2f}'))
    notes = ('wrk takes what the server leaves of the two cores, so a fast server is held back by its own '
             'load generator.',)

    def contenders(self, ctx):
        few = [Contender('weir', 'Weir, 2 workers', 'weir', extra=('--workers', '2')),
               Contender('gunicorn-gthread', 'Gunicorn gthread, 2 workers, 4 threads', 'gunicorn-gthread',
                         extra=('-w', '2'))]
        return few + scenarios._pick(ctx, [], [
            Contender('gunicorn-sync', 'Gunicorn sync, 2 workers', 'gunicorn-sync', extra=('-w', '2'))])

    def criteria(self, r):
        return [r.versus('Weir / Gunicorn gthread', 'weir', 'gunicorn-gthread', 'rps', 4)]


class Preload(Scenario):
    name, app = 'preload', 'model:app'
    title = 'a model of 300 MB, four workers'
    text = 'Proportional set size of all processes of the server, summed, after each worker has ' \
           'answered: what they share counts once.'
    headline, higher, pinned, rounds, est_s = 'pss_mb', False, False, 1, (40, 15)
    retry_busy = False
    columns = (('pss_mb', 'PSS MB', '{:,.0f}'), ('workers', 'workers', '{:.0f}'))

    def contenders(self, ctx):
        return [Contender('weir-preload', 'Weir, --preload', 'weir', extra=('--workers', '4', '--preload')),
                Contender('weir', 'Weir, without', 'weir', extra=('--workers', '4')),
                Contender('gunicorn-preload', 'Gunicorn gthread, --preload', 'gunicorn-gthread',
                          extra=('-w', '4', '--preload'))]

    def sample(self, ctx, c):
        with self.serve(ctx, c, limit_s=60.0) as server:
            end = time.monotonic() + 30
            while len(proc.session(server.pid)) < 5 and time.monotonic() < end:
                time.sleep(0.1)
            for _ in range(200):  # on connections of their own: every worker gets some
                servers.get(server.port)
            pids = proc.session(server.pid)
            pss = sum(pss_kib(p) for p in pids)
            return {'pss_mb': round(pss * 1024 / 1e6, 1), 'workers': 4, 'processes': len(pids)}

    def criteria(self, r):
        return [r.bound('Weir, --preload', 'weir-preload', 'pss_mb', 340, None, ' MB', tie=0)]


class Reload(Scenario):
    name, app = 'reload', 'flask_hello:app'
    env = {'PYTHONPYCACHEPREFIX': ''}  # with the bytecode that is installed, as users have it
    title = 'reload of four workers under load'
    text = 'HUP while eight clients keep asking on connections that are kept open and never retry; the ' \
           'application imports Flask. Time from the signal until the last old worker has ended, and requests that failed.'
    headline, higher, pinned, est_s = 'reload_s', False, False, (60, 20)
    retry_busy = False
    columns = (('reload_s', 'reload s', '{:.2f}'), ('failed', 'failed', '{:,.0f}'),
               ('requests', 'requests', '{:,.0f}'))

    def contenders(self, ctx):
        return [Contender('weir', 'Weir, 4 workers', 'weir', extra=('--workers', '4')),
                Contender('gunicorn-gthread', 'Gunicorn gthread, 4 workers', 'gunicorn-gthread',
                          extra=('-w', '4'))]

    def workers(self, server):
        # One small file: looking through /proc competes with the clients' threads for seconds.
        with open(f'/proc/{server.pid}/task/{server.pid}/children') as file:
            return set(map(int, file.read().split()))

    def sample(self, ctx, c):
        with self.serve(ctx, c) as server:
            end = time.monotonic() + 30
            while len(self.workers(server)) < 4 and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(1.0)
            stop, counts, lock = threading.Event(), {'requests': 0, 'failed': 0}, threading.Lock()
            threads = [threading.Thread(target=self.ask, args=(server.port, stop, counts, lock), daemon=True)
                       for _ in range(8)]
            for t in threads:
                t.start()
            time.sleep(0.5)
            old = self.workers(server)
            begin = time.monotonic()
            os.kill(server.pid, signal.SIGHUP)
            while old & self.workers(server) and time.monotonic() < begin + 40:
                time.sleep(0.005)
            took = time.monotonic() - begin
            time.sleep(0.5)
            stop.set()
            for t in threads:
                t.join(10)
        return {'reload_s': round(took, 3), **counts}

    @staticmethod
    def ask(port, stop, counts, lock):
        sock = None
        request = b'GET / HTTP/1.1\r\nHost: bench\r\n\r\n'
        while not stop.is_set():
            try:
                if sock is None:
                    sock = socket.create_connection(('127.0.0.1', port), 10)
                sock.sendall(request)
                data = b''
                while b'\r\n\r\n' not in data:
                    more = sock.recv(65536)
                    if not more:
                        raise ConnectionError
                    data += more
                head, _, rest = data.partition(b'\r\n\r\n')
                low = head.lower()
                if b'transfer-encoding: chunked' in low:
                    while not rest.endswith(b'0\r\n\r\n'):
                        rest += sock.recv(65536)
                else:
                    length = int(low.split(b'content-length:')[1].split(b'\r\n')[0])
                    while len(rest) < length:
                        rest += sock.recv(65536)
                ok = head.startswith(b'HTTP/1.1 200')
                if b'connection: close' in low:
                    sock.close()
                    sock = None
            except (OSError, ValueError, IndexError):
                ok = False
                if sock:
                    sock.close()
                sock = None
            with lock:
                counts['requests'] += 1
                counts['failed'] += not ok
            time.sleep(0.002)

    def criteria(self, r):
        return [r.bound('until the last old worker has ended', 'weir', 'reload_s', 1.5, None, ' s'),
                r.bound('requests that failed', 'weir', 'failed', 0, None, '', tie=0)]


class Supervisor(Scenario):
    name, app = 'supervisor', 'hello:app'
    env = {'PYTHONPYCACHEPREFIX': ''}  # as users start it: another place for bytecode costs 2 MiB
    title = 'the supervisor at rest'
    text = 'Resident memory of the process that was started, and how often it woke in ten seconds ' \
           'without work (voluntary context switches).'
    headline, higher, pinned, rounds, est_s = 'rss_mib', False, False, 1, (40, 20)
    retry_busy = False
    columns = (('rss_mib', 'MiB', '{:.1f}'), ('wakes_10s', 'wake-ups in 10 s', '{:.0f}'))

    def contenders(self, ctx):
        return [Contender('weir', 'Weir', 'weir', extra=('--workers', '2', '--worker-timeout', '0')),
                Contender('weir-heartbeat', 'Weir, with its heartbeat of 30 s', 'weir', extra=('--workers', '2')),
                Contender('gunicorn-gthread', 'Gunicorn', 'gunicorn-gthread', extra=('-w', '2'))]

    @staticmethod
    def switches(pid):
        with open(f'/proc/{pid}/status') as file:
            return int(re.search(r'^voluntary_ctxt_switches:\s+(\d+)', file.read(), re.M)[1])

    def sample(self, ctx, c):
        with self.serve(ctx, c) as server:
            time.sleep(2)
            before = self.switches(server.pid)
            time.sleep(10)
            wakes = self.switches(server.pid) - before
            with open(f'/proc/{server.pid}/status') as file:
                rss = int(re.search(r'^VmRSS:\s+(\d+)', file.read(), re.M)[1])
        return {'rss_mib': round(rss / 1024, 2), 'wakes_10s': wakes}

    def criteria(self, r):
        return [r.bound('resident memory', 'weir', 'rss_mib', 12, None, ' MiB', tie=0),
                r.bound('wake-ups beyond the heartbeat', 'weir', 'wakes_10s', 0, None, '', tie=0)]


ALL = [cls() for cls in (Hello2, Preload, Reload, Supervisor)]
