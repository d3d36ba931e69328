"""Scenarios about what is seen: what it costs to count, to scrape, to look at stacks and at the status page."""
import json
import os
import re
import socket
import statistics
import subprocess
import threading
import time

from . import load, machine, proc
from .scenarios import Contender, Criterion, Instructions, Scenario, Throughput, run_program

# Everything that can be on; one trace of a hundred is sent, to a collector that is not there.
EVERYTHING = ('--admin', '127.0.0.1:0', '--request-id', '--trace-context', '--slow-request', '60s',
              '--trace-sample', '1', '--otlp-endpoint', 'http://127.0.0.1:9/v1/traces')
TIMING = (*EVERYTHING, '--server-timing')
NOTHING = ('--no-request-id', '--no-trace-context')


class Cost(Instructions):
    name = 'seeing-instructions'
    title = 'seeing: instructions of everything that is told of a request'
    text = 'The same hello request, with everything on (' + ' '.join(EVERYTHING) + ') and with nothing (' + \
           ' '.join(NOTHING) + '). callgrind, as for hello, but of the worker alone: the keeper works by the clock, ' \
           'whatever the number of requests.'
    headline, est_s = 'single', (240, 100)

    def counted(self, totals):
        return max(totals)

    def contenders(self, ctx):
        return [Contender('weir', 'Weir, everything on', 'weir', extra=EVERYTHING),
                Contender('weir-timing', 'Weir, everything on and Server-Timing', 'weir', extra=TIMING),
                Contender('weir-admin', 'Weir, with --admin alone', 'weir', extra=('--admin', '127.0.0.1:0')),
                Contender('weir-none', 'Weir, nothing', 'weir', extra=NOTHING)]

    def criteria(self, r):
        out = []
        for metric, heading in (('single', 'one per loop turn'), ('pipelined', '16 pipelined')):
            mine, none = r.median('weir', metric), r.median('weir-none', metric)
            more = mine - none if mine is not None and none is not None else None
            out.append(Criterion(f'more for a request, {heading}', more, 1500, higher=False, tie=0))
        return out


class Scrape(Scenario):
    name = 'seeing-scrape'
    title = 'seeing: a scrape of /metrics'
    text = 'bench/seeing/scrape.c: the page of 50 routes with places, all used, with five statuses and two refusals ' \
           'each, in four workers; in one thread, as the keeper makes it.'
    headline, higher, pinned, rounds, est_s = 'text_ms', False, False, 3, (10, 5)
    columns = (('text_ms', 'ms a page', '{:.2f}'), ('openmetrics_ms', 'ms as OpenMetrics', '{:.2f}'),
               ('text_kib', 'KiB', '{:.1f}'), ('openmetrics_kib', 'KiB as OpenMetrics', '{:.1f}'))

    def contenders(self, ctx):
        return [Contender('weir', 'src/admin/metrics', 'bare')]

    def sample(self, ctx, c):
        got, figures = run_program(ctx, 'bench/seeing/bench_scrape')
        out = dict(text_ms=got['text_ms']['median'], openmetrics_ms=got['openmetrics_ms']['median'],
                   text_p99_ms=got['text_ms']['p99'], text_kib=got['text_bytes'] / 1024,
                   openmetrics_kib=got['openmetrics_bytes'] / 1024, **figures)
        return out

    def criteria(self, r):
        return [r.bound('a page of 50 routes', 'weir', 'text_ms', 5, None, ' ms'),
                r.bound('its size', 'weir', 'text_kib', 256, None, ' KiB', tie=0)]


class Hello(Throughput):
    name, app = 'seeing-hello', 'hello:app'
    title = 'seeing: hello with everything that can be told of a request, and with nothing'
    text = 'wrk, 64 connections; one worker on one core, wrk on the other. Everything: ' + ' '.join(EVERYTHING) + \
           '; nothing: ' + ' '.join(NOTHING) + '. In turns.'
    headline, rounds, est_s = 'rps_core', 5, (150, 40)
    columns = (('rps_core', 'requests for a second of the server\'s core', '{:,.0f}'), *Throughput.columns)

    def contenders(self, ctx):
        return [Contender('weir', 'Weir, everything on', 'weir', extra=EVERYTHING),
                Contender('weir-timing', 'Weir, everything on and Server-Timing', 'weir', extra=TIMING),
                Contender('weir-admin', 'Weir, with --admin alone', 'weir', extra=('--admin', '127.0.0.1:0')),
                Contender('weir-none', 'Weir, nothing', 'weir', extra=NOTHING)]

    def sample(self, ctx, c):
        got = super().sample(ctx, c)
        got['rps_core'] = round(got['rps'] / max(got['server_cores'], 0.01))
        return got

    def criteria(self, r):
        return [r.versus('everything / nothing, for a core', 'weir', 'weir-none', 'rps_core', 0.97),
                r.versus('--admin alone / nothing, for a core', 'weir-admin', 'weir-none', 'rps_core', 0.97),
                r.versus('everything / nothing, as it came', 'weir', 'weir-none', 'rps', 0.97)]


class Stacks(Scenario):
    name = 'seeing-stacks'
    title = 'seeing: the stacks of 200 threads'
    text = 'bench/stacks/run: 200 threads of 30 frames each, which wait, and the same while four more compute. Nobody ' \
           'is stopped for it: what another thread sees of a look is its share of the processor.'
    headline, higher, pinned, rounds, est_s = 'wait_ms', False, False, 3, (30, 10)
    columns = (('wait_ms', 'ms, they wait', '{:.1f}'), ('wait_worst_ms', 'worst', '{:.1f}'),
               ('compute_ms', 'ms, 4 compute', '{:.1f}'), ('compute_worst_ms', 'worst', '{:.1f}'))

    def contenders(self, ctx):
        return [Contender('weir', 'src/wsgi/stacks', 'bare')]

    def sample(self, ctx, c):
        ctx.command = 'bench/stacks/run 100'
        with machine.Watch() as watch:
            done = subprocess.run(['/usr/bin/python3', os.path.join(machine.ROOT, 'bench', 'stacks', 'run'), '100'],
                                  check=True, capture_output=True, text=True, timeout=300)
        found = re.findall(r'median ([\d.]+) ms, p99 [\d.]+ ms, worst ([\d.]+) ms', done.stdout)
        (wait, wait_worst), (compute, compute_worst) = [(float(a), float(b)) for a, b in found]
        out = dict(wait_ms=wait, wait_worst_ms=wait_worst, compute_ms=compute, compute_worst_ms=compute_worst,
                   **watch.record())
        del out['server_cores']  # there is none
        return out

    def criteria(self, r):
        return [r.bound('200 threads that wait', 'weir', 'wait_ms', 50, None, ' ms'),
                r.bound('and while 4 compute', 'weir', 'compute_ms', 50, None, ' ms')]


class Page(Scenario):
    name, app = 'seeing-page', 'hello:app'
    title = 'seeing: the status page'
    text = 'Two workers at about 1,000 requests/s. Processor time of the keeper, which alone works for the page, with its ' \
           'stream of events open, less the same without; and the page in Chromium: bytes transferred, first contentful paint (median ' \
           'of five loads).'
    headline, higher, pinned, rounds, est_s = 'more', False, False, 3, (90, 40)
    columns = (('more', 'more, % of a core', '{:.2f}'), ('with_page', 'with the page', '{:.2%}'),
               ('without', 'without', '{:.2%}'), ('rate', 'requests/s', '{:,.0f}'), ('page_kib', 'page KiB', '{:.0f}'),
               ('paint_ms', 'first paint ms', '{:.0f}'))

    def contenders(self, ctx):
        return [Contender('weir', 'Weir', 'weir', extra=('--workers', '2'))]

    def sample(self, ctx, c):
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            admin = s.getsockname()[1]
        seconds = 4 if ctx.quick else 12
        out = {}
        with self.serve(ctx, c, extra=(*c.extra, '--admin', f'127.0.0.1:{admin}')) as server, \
                _Paced(server.port, 1000) as paced:
            time.sleep(1)
            without = _keeper_share(server.pid, seconds)
            with _Events(admin):
                time.sleep(1)
                begin = paced.n
                with machine.Watch(server.pid) as watch:
                    with_page = _keeper_share(server.pid, seconds)
                rate = (paced.n - begin) / seconds
            out.update(without=without, with_page=with_page, more=100 * (with_page - without), rate=rate)
            out.update(watch.record())
            out.update(_paint(admin))
        return out

    def criteria(self, r):
        return [r.bound('the page open, more of a core', 'weir', 'more', 1, None, ' %', tie=0),
                r.bound('transferred', 'weir', 'page_kib', 150, None, ' KiB', tie=0),
                r.bound('first paint', 'weir', 'paint_ms', 300, None, ' ms')]


def _keeper_share(pid, seconds):
    """Part of a core that the keeper of this server has for so long: it alone works for the page."""
    keeper = [p for p in proc.session(pid) if b'keeper' in _cmdline(p)]
    if len(keeper) != 1:
        raise load.LoadError(f'{len(keeper)} keepers')

    def on_core():
        with open(f'/proc/{keeper[0]}/schedstat') as file:
            return int(file.read().split()[0]) / 1e9

    begin = on_core()
    time.sleep(seconds)
    return (on_core() - begin) / seconds


def _cmdline(pid):
    with open(f'/proc/{pid}/cmdline', 'rb') as file:
        return file.read()


class _Paced:
    """Requests at a steady rate over four connections, by a thread; n: answered so far."""

    def __init__(self, port, rate):
        self.port, self.rate, self.n, self.over = port, rate, 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def run(self):
        socks = [socket.create_connection(('127.0.0.1', self.port)) for _ in range(4)]
        begin = time.monotonic()
        while not self.over.is_set():
            for s in socks:
                s.sendall(b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
            for s in socks:
                s.recv(65536)
                self.n += 1
            pause = begin + self.n / self.rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
        for s in socks:
            s.close()


class _Events:
    """Somebody looks: the page's stream of events, read to nowhere."""

    def __init__(self, port):
        self.socket = socket.create_connection(('127.0.0.1', port))
        self.socket.sendall(b'GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n')
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while self.socket.recv(1 << 20):
            pass

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()


def _paint(port):
    """The page in Chromium; nothing where that is not installed."""
    script = os.path.join(machine.ROOT, 'tests', 'browser', 'page_paint.mjs')
    done = subprocess.run(['node', script, f'http://127.0.0.1:{port}/status'], capture_output=True, text=True, timeout=120)
    if done.returncode:
        return {'note': 'no Chromium with Playwright here'}
    got = json.loads(done.stdout)
    return {'page_kib': got['bytes'] / 1024, 'paint_ms': statistics.median(got['paints'])}


ALL = [cls() for cls in (Cost, Hello, Scrape, Stacks, Page)]
