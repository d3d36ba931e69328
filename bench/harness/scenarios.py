"""The scenarios: one class for each row of the table, with its contenders, sample and criteria.

A scenario's sample() runs one contender once and returns a flat dict of figures. The harness calls
it round by round, each round going through all contenders, and hands the medians to criteria().
"""
import contextlib
import dataclasses
import glob
import json
import os
import re
import statistics
import subprocess
import time

from . import load, machine, proc, servers

MILLION = 1_000_000
FULL = 0.85  # of a core: it limits the throughput


@dataclasses.dataclass
class Contender:
    key: str                   # unique in its scenario
    label: str                 # as tables show it
    kind: str                  # of servers.KINDS, or 'bare' / 'nothing'
    threads: object = None     # --threads, where it has one
    extra: tuple = ()          # more of its command line
    rounds: int = 0            # at most so many rounds; 0: as many as asked
    options: dict = dataclasses.field(default_factory=dict)  # what sample() needs to know


@dataclasses.dataclass
class Criterion:
    what: str                  # "Weir / Waitress"
    value: object              # measured, None where it was not
    must: float
    aim: object = None
    higher: bool = True        # is more better?
    unit: str = ''
    spread: object = None      # (min, max) over the rounds
    tie: float = 0.25          # what misses by less is a tie
    never: bool = False        # measured, but it did not happen within the limit

    def verdict(self, bound):
        if bound is None:
            return ''
        if self.value is None:
            return 'missed' if self.never else 'not measured'
        good = self.value >= bound if self.higher else self.value <= bound
        if good:
            return 'met'
        near = bound * (1 - self.tie) if self.higher else bound * (1 + self.tie)
        return 'tie' if (self.value >= near if self.higher else self.value <= near) else 'missed'


def _figure(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Results:
    """Medians and ranges of the samples of one scenario."""

    def __init__(self, samples):
        self.samples = samples  # {contender key: [dict with 'round', ...]}

    def values(self, key, metric):
        """{round: figure}, without those that are None."""
        return {s['round']: s[metric] for s in self.samples.get(key, ()) if _figure(s.get(metric))}

    def median(self, key, metric):
        """The median; None where there is none. A figure that a sample gives as None stands for
        what did not happen within the limit: it counts as later than any other."""
        never = sum(metric in s and s[metric] is None for s in self.samples.get(key, ()))
        values = [*self.values(key, metric).values(), *[float('inf')] * never]
        if not values or statistics.median(values) == float('inf'):
            return None
        return statistics.median(values)

    def spread(self, key, metric):
        values = self.values(key, metric).values()
        return (min(values), max(values)) if values else None

    def ratio(self, one, other, metric):
        """(ratio of medians, (min, max) of the ratios within a round)."""
        a, b = self.median(one, metric), self.median(other, metric)
        if a is None or not b:
            return None, None
        ones, others = self.values(one, metric), self.values(other, metric)
        pairs = [ones[r] / others[r] for r in ones if others.get(r)]
        return a / b, (min(pairs), max(pairs)) if pairs else None

    def versus(self, what, one, other, metric, must, aim=None):
        value, spread = self.ratio(one, other, metric)
        return Criterion(what, value, must, aim, True, '×', spread)

    def bound(self, what, key, metric, must, aim=None, unit='', tie=0.25):
        value = self.median(key, metric)
        never = value is None and any(metric in s for s in self.samples.get(key, ()))
        return Criterion(what, value, must, aim, False, unit, self.spread(key, metric), tie, never)


class Scenario:
    name = title = text = app = ''
    headline = ''          # the metric of the ratio column
    higher = True          # of the headline
    pinned = True          # server and load generator on a core each
    rounds = 3             # when nothing else is asked
    est_s = (60, 20)       # seconds in a full and in a quick run, about
    columns = ()           # (metric, heading, format)
    notes = ()
    ready = '/'
    env = {}
    retry_busy = True      # measure again, once, when others used the machine meanwhile

    def contenders(self, ctx):
        raise NotImplementedError

    def sample(self, ctx, c):
        raise NotImplementedError

    def criteria(self, r):
        return []

    @contextlib.contextmanager
    def serve(self, ctx, c, **more):
        core = ctx.cores[0] if self.pinned and ctx.cores else None
        args = dict(threads=c.threads, extra=c.extra, core=core, env=self.env, ready=self.ready)
        args.update(more)
        extra = tuple(args['extra'])
        if c.kind in ('weir', 'weir-other'):
            cwd = os.path.relpath(args.pop('cwd', servers.APPS), machine.ROOT)
            extra += ('--chdir', cwd)
            args['cwd'] = machine.ROOT
        args['extra'] = extra
        with servers.running(c.kind, args.pop('app', self.app), ctx.tmp, **args) as server:
            ctx.command = server.command
            yield server

    def load_core(self, ctx):
        return ctx.cores[1] if self.pinned and ctx.cores else None


def _pick(ctx, quick, full):
    return quick if ctx.quick else full


def run_program(ctx, target):
    """Build a bench that is a program of its own, and run it: what it printed as JSON, and how busy the machine was."""
    build = os.path.join(machine.ROOT, 'build')
    subprocess.run(['ninja', '-C', build, '--quiet', target], check=True, stdout=subprocess.DEVNULL, timeout=300)
    ctx.command = f'build/{target}'
    with machine.Watch() as watch:
        done = subprocess.run([os.path.join(build, target)], check=True, capture_output=True, text=True, timeout=300)
    figures = watch.record()
    del figures['server_cores']  # there is none
    return json.loads(done.stdout), figures


# --- throughput --------------------------------------------------------------------------------


class Throughput(Scenario):
    headline = 'rps'
    columns = (('rps', 'requests/s', '{:,.0f}'), ('p50_ms', 'p50 ms', '{:.2f}'),
               ('p99_ms', 'p99 ms', '{:.2f}'), ('server_cores', 'server core', '{:.0%}'),
               ('wrk_cores', 'wrk core', '{:.0%}'))
    depth, post, expect, path = 1, False, b'hello world\n', '/'

    def sample(self, ctx, c):
        with self.serve(ctx, c) as server:
            status, body = servers.get(server.port)
            if status != 200 or body.strip() != self.expect.strip():
                raise load.LoadError(f'unexpected answer: {status} {body[:60]!r}')
            return self.drive(ctx, server)

    def drive(self, ctx, server):
        core = self.load_core(ctx)
        args = dict(depth=self.depth, post=self.post, core=core, path=self.path)
        load.wrk(server.port, 1, **args)  # warm
        with machine.Watch(server.pid) as watch:
            got = load.wrk(server.port, ctx.seconds, **args)
        figures = watch.record()
        if watch.server_cpu < FULL and got['wrk_cores'] < FULL:
            # Nobody was at work all the time: something outside of this machine took its cores.
            figures['busy'] = figures['idle_cores'] = True
        got['rss_mib'] = round(server.rss_kib() / 1024, 1)
        bad = sum(got['errors'].values())
        if bad > got['requests'] / 1000:
            got['note'] = f'errors: {got["errors"]}'
        return {**got, **figures}


class Hello(Throughput):
    name, app = 'hello', 'hello:app'
    title = '12-byte hello'
    text = 'wrk, 64 connections, 12-byte answer; one worker on one core, wrk on the other.'
    est_s = (230, 18)
    notes = ('wrk fills its own core at about the rate of the fastest servers: compare its core '
             'column before ranking them.',
             'uWSGI\'s http-socket and Gunicorn sync have no keep-alive.')

    def contenders(self, ctx):
        few = [Contender('weir', 'Weir', 'weir'),
               Contender('waitress', 'Waitress', 'waitress'),
               Contender('gunicorn-gthread', 'Gunicorn gthread, 4 threads', 'gunicorn-gthread'),
               Contender('nginx', 'nginx return 200', 'nginx')]
        return few + _pick(ctx, [], [
            Contender('gunicorn-sync', 'Gunicorn sync', 'gunicorn-sync'),
            Contender('gunicorn-gevent', 'Gunicorn gevent', 'gunicorn-gevent'),
            Contender('uwsgi', 'uWSGI http-socket', 'uwsgi'),
            Contender('uwsgi-threads', 'uWSGI http-socket, 4 threads', 'uwsgi-threads')])

    def criteria(self, r):
        return [r.versus('Weir / Waitress', 'weir', 'waitress', 'rps', 6),
                r.versus('Weir / Gunicorn gthread', 'weir', 'gunicorn-gthread', 'rps', 8),
                r.versus('Weir / nginx return 200', 'weir', 'nginx', 'rps', 0.75, 0.9)]


class Pipelined(Throughput):
    name, app, depth = 'pipelined', 'hello:app', 16
    title = 'the same, 16 pipelined per write'
    text = 'As hello, but wrk sends 16 requests in one write and waits for their answers.'
    est_s = (65, 8)
    columns = (('rps', 'requests/s', '{:,.0f}'), ('server_cores', 'server core', '{:.0%}'),
               ('wrk_cores', 'wrk core', '{:.0%}'))
    notes = ('Gunicorn sync and uWSGI\'s http-socket close after an answer, and Gunicorn gthread '
             'loses pipelined requests; they are left out.',)

    def contenders(self, ctx):
        few = [Contender('weir', 'Weir', 'weir'), Contender('nginx', 'nginx return 200', 'nginx')]
        return few + _pick(ctx, [], [
            Contender('waitress', 'Waitress', 'waitress'),
            Contender('gunicorn-gevent', 'Gunicorn gevent', 'gunicorn-gevent')])

    def criteria(self, r):
        return [r.versus('Weir / nginx return 200', 'weir', 'nginx', 'rps', 3, 6)]


class Static(Throughput):
    name, app, path, size = 'static', 'hello:app', '/files/1m.bin', 1 << 20
    title = '1 MiB static file'
    text = 'wrk, 64 connections, a file of 1 MiB that lies in memory, by sendfile.'
    est_s = (50, 10)
    columns = (('rps', 'requests/s', '{:,.0f}'), ('mb_s', 'MB/s', '{:,.0f}'), ('p50_ms', 'p50 ms', '{:.2f}'),
               ('p99_ms', 'p99 ms', '{:.2f}'), ('server_cores', 'server core', '{:.0%}'),
               ('wrk_cores', 'wrk core', '{:.0%}'))

    def contenders(self, ctx):
        return [Contender('weir', 'Weir --static', 'weir', extra=('--static', f'/files={ctx.tmp}/files')),
                Contender('nginx', 'nginx, sendfile', 'nginx')]

    def sample(self, ctx, c):
        folder = os.path.join(ctx.tmp, 'files')
        os.makedirs(folder, exist_ok=True)
        name = os.path.join(ctx.tmp, self.path.strip('/'))
        if not os.path.exists(name):
            with open(name, 'wb') as file:
                file.write(os.urandom(self.size))
        with self.serve(ctx, c) as server:
            status, body = servers.get(server.port, self.path, tls=isinstance(self, Tls))
            if status != 200 or len(body) != self.size:
                raise load.LoadError(f'unexpected answer: {status}, {len(body)} bytes')
            return self.drive(ctx, server)

    def criteria(self, r):
        return [r.versus('Weir / nginx', 'weir', 'nginx', 'rps', 0.8, 1)]


class StaticSmall(Static):
    name, path, size = 'static-4k', '/files/4k.bin', 4096
    title = '4 KiB static file'
    text = 'wrk, 64 connections, a file of 4 KiB that lies in memory.'


# --- TLS ---------------------------------------------------------------------------------------


class Tls(Static):
    name, app, path = 'tls', 'big:app', '/files/1m.bin'
    title = 'answer of 1 MiB over TLS 1.3'
    text = 'wrk, 64 connections, 1 MiB, ECDSA P-256, AES-256-GCM; one worker on one core, wrk on the other.'
    est_s = (75, 15)
    notes = ('wrk has to open what the server seals, so it fills its own core first: the server\'s '
             'rate for a whole core stands beside it.',)
    columns = (('mb_s', 'MB/s', '{:,.0f}'), ('mb_core', 'MB per second of the server\'s core', '{:,.0f}'),
               ('p50_ms', 'p50 ms', '{:.2f}'), ('server_cores', 'server core', '{:.0%}'),
               ('wrk_cores', 'wrk core', '{:.0%}'))
    headline = 'mb_core'

    def contenders(self, ctx):
        pem, key = servers.certificate('ecdsa', ctx.tmp)
        tls = ('--certfile', pem, '--keyfile', key)
        return [Contender('weir', 'Weir, from Python', 'weir', extra=tls),
                Contender('weir-static', 'Weir --static', 'weir',
                          extra=(*tls, '--static', f'/files={ctx.tmp}/files')),
                Contender('nginx', 'nginx, a file', 'nginx', extra=('ecdsa',))]

    def serve(self, ctx, c, **more):
        return super().serve(ctx, c, tls=True, **more)

    def drive(self, ctx, server):
        core = self.load_core(ctx)
        load.wrk(server.port, 1, path=self.path, core=core, tls=True)  # warm
        with machine.Watch(server.pid) as watch:
            got = load.wrk(server.port, ctx.seconds, path=self.path, core=core, tls=True)
        figures = watch.record()
        got['mb_core'] = round(got['mb_s'] / max(watch.server_cpu, 0.01), 1)
        bad = sum(got['errors'].values())
        if bad > got['requests'] / 1000:
            got['note'] = f'errors: {got["errors"]}'
        return {**got, **figures}

    def criteria(self, r):
        return [r.versus('Weir, from Python / nginx, for a core', 'weir', 'nginx', 'mb_core', 0.8),
                r.versus('Weir --static / nginx, for a core', 'weir-static', 'nginx', 'mb_core', 0.8),
                r.versus('Weir, from Python / nginx, as it came', 'weir', 'nginx', 'mb_s', 0.8)]


class Handshakes(Scenario):
    name, app = 'tls-handshakes', 'hello:app'
    title = 'TLS 1.3 handshakes'
    text = 'Whole handshakes, each on a connection of its own, by three processes of openssl s_time; ' \
           'RSA 2048 and ECDSA P-256. One worker on one core, the clients on the other.'
    est_s = (110, 20)
    headline = 'rsa_core'
    notes = ('A client of ECDSA works longer than its server, so the clients fill their core first: the '
             'server\'s rate for a whole core stands beside what came about.',)
    columns = (('rsa_s', 'RSA a second', '{:,.0f}'), ('rsa_core', 'RSA per second of the server\'s core', '{:,.0f}'),
               ('ecdsa_s', 'ECDSA a second', '{:,.0f}'),
               ('ecdsa_core', 'ECDSA per second of the server\'s core', '{:,.0f}'))

    def contenders(self, ctx):
        return [Contender('weir', 'Weir', 'weir'), Contender('nginx', 'nginx', 'nginx')]

    def sample(self, ctx, c):
        out = {'busy': False}
        for key in servers.KEYS:
            pem, private = servers.certificate(key, ctx.tmp)
            extra = (key,) if c.kind == 'nginx' else ('--certfile', pem, '--keyfile', private)
            with self.serve(ctx, c, extra=extra, tls=True) as server:
                load.handshakes(server.port, 1, 1, self.load_core(ctx))  # warm
                with machine.Watch(server.pid) as watch:
                    got = load.handshakes(server.port, ctx.seconds, 3, self.load_core(ctx))
            figures = watch.record()
            per_core = got['handshakes'] / watch.wall_s / max(watch.server_cpu, 0.01)
            out.update({f'{key}_s': got['per_s'], f'{key}_core': round(per_core, 1),
                        f'{key}_server_cores': figures['server_cores'],
                        f'{key}_client_cores': got['client_cores']})
            busy = out['busy'] or figures['busy']
            out.update({k: max(v, out.get(k, 0)) for k, v in figures.items() if k != 'server_cores'})
            out['busy'] = busy
        return out

    def criteria(self, r):
        return [r.versus('Weir / nginx, RSA, for a core', 'weir', 'nginx', 'rsa_core', 0.8),
                r.versus('Weir / nginx, ECDSA, for a core', 'weir', 'nginx', 'ecdsa_core', 0.8),
                r.versus('Weir / nginx, RSA, as it came', 'weir', 'nginx', 'rsa_s', 0.8),
                r.versus('Weir / nginx, ECDSA, as it came', 'weir', 'nginx', 'ecdsa_s', 0.8)]


class JsonEcho(Throughput):
    name, app, post, expect = 'json', 'echo:app', True, b'{}'
    title = 'POST 1 KiB JSON echo'
    text = 'wrk, 64 connections, POST of 1,024 bytes of JSON that the application decodes, ' \
           'encodes and sends back.'
    est_s = (200, 8)

    def contenders(self, ctx):
        few = [Contender('weir', 'Weir', 'weir'), Contender('waitress', 'Waitress', 'waitress')]
        return few + _pick(ctx, [], [
            Contender('gunicorn-gthread', 'Gunicorn gthread, 4 threads', 'gunicorn-gthread'),
            Contender('gunicorn-sync', 'Gunicorn sync', 'gunicorn-sync'),
            Contender('gunicorn-gevent', 'Gunicorn gevent', 'gunicorn-gevent'),
            Contender('uwsgi', 'uWSGI http-socket', 'uwsgi'),
            Contender('uwsgi-threads', 'uWSGI http-socket, 4 threads', 'uwsgi-threads')])

    def criteria(self, r):
        return [r.versus('Weir / Waitress', 'weir', 'waitress', 'rps', 4, 6)]


class FlaskHello(Throughput):
    name, app = 'flask', 'flask_hello:app'
    title = 'Flask hello'
    text = 'As hello, through Flask. The bare loop calls app(environ, start_response) on the ' \
           'server\'s core without any server: no server can be faster.'
    est_s = (230, 16)

    def contenders(self, ctx):
        few = [Contender('weir', 'Weir', 'weir'),
               Contender('bare', 'bare loop, no server', 'bare'),
               Contender('waitress', 'Waitress', 'waitress'),
               Contender('gunicorn-gthread', 'Gunicorn gthread, 4 threads', 'gunicorn-gthread')]
        return few + _pick(ctx, [], [
            Contender('gunicorn-sync', 'Gunicorn sync', 'gunicorn-sync'),
            Contender('gunicorn-gevent', 'Gunicorn gevent', 'gunicorn-gevent'),
            Contender('uwsgi', 'uWSGI http-socket', 'uwsgi'),
            Contender('uwsgi-threads', 'uWSGI http-socket, 4 threads', 'uwsgi-threads')])

    def sample(self, ctx, c):
        if c.kind != 'bare':
            return super().sample(ctx, c)
        argv = [machine.PYTHON, 'flask_hello.py', str(ctx.seconds)]
        ctx.command = 'python3 flask_hello.py SECONDS'
        if ctx.cores:
            argv = ['/usr/bin/taskset', '-c', str(ctx.cores[0])] + argv
        with machine.Watch() as watch:
            child = proc.start(argv, cwd=servers.APPS, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True,
                               env=servers.environment(ctx.tmp))
            try:
                text, error = child.communicate(timeout=ctx.seconds + 20)
            finally:
                proc.stop(child)
        if child.returncode:
            raise load.LoadError(error.strip()[-300:])
        out = {'rps': round(float(text), 1), **watch.record()}
        del out['server_cores']  # the loop is no server of ours to watch
        return out

    def criteria(self, r):
        gunicorns = [k for k in ('gunicorn-gthread', 'gunicorn-sync', 'gunicorn-gevent')
                     if r.median(k, 'rps')]
        best = max(gunicorns, key=lambda k: r.median(k, 'rps'), default='gunicorn-gthread')
        return [r.versus('Weir / Waitress', 'weir', 'waitress', 'rps', 2),
                r.versus(f'Weir / the best of Gunicorn ({best[9:]})', 'weir', best, 'rps', 2),
                r.versus('Weir / bare loop', 'weir', 'bare', 'rps', 0.65, 0.8)]


# --- instructions ------------------------------------------------------------------------------


class Instructions(Scenario):
    name, app = 'instructions', 'hello:app'
    title = 'user-space instructions per hello request'
    text = 'callgrind counts N1 and then N2 requests, each in a server of its own; the ' \
           'difference of the counts, divided by N2 − N1, leaves start and end out.'
    headline, higher, rounds, est_s = 'pipelined', False, 1, (60, 30)
    pinned = retry_busy = False
    columns = (('pipelined', '16 pipelined', '{:,.0f}'), ('single', 'one per loop turn', '{:,.0f}'))
    notes = ('A count of instructions does not depend on what else the machine does. Weir\'s '
             'monitor is off (WEIR_MONITOR=off): under valgrind every run looks slow.',
             'Interrupts and the kernel are not in it.')

    def contenders(self, ctx):
        return [Contender('weir', 'Weir', 'weir')] + [
            Contender(k, servers.KINDS[k][0], k) for k in ctx.instr_peers]

    def _count(self, ctx, c, n, depth, request=None):
        """Instructions of a whole server life that answers n requests."""
        out = os.path.join(ctx.tmp, f'callgrind-{c.key}-{depth}-{n}')
        os.makedirs(out, exist_ok=True)
        prefix = ['/usr/bin/valgrind', '--tool=callgrind', '--trace-children=yes',
                  f'--callgrind-out-file={out}/%p', f'--log-file={out}/log.%p']
        env = {'WEIR_MONITOR': 'off', 'PYTHONHASHSEED': '0'}
        with self.serve(ctx, c, prefix=prefix, env=env, limit_s=120, grace_s=60) as server:
            asked = {'request': request} if request else {}
            got = load.client('exact', {'port': server.port, 'n': n, 'depth': depth,
                                        'connections': 1, 'limit_s': 120, **asked})
            if got['answered'] != n:
                raise load.LoadError(f'{got["answered"]} of {n} answered under callgrind')
        totals = []
        for path in glob.glob(f'{out}/[0-9]*'):
            with open(path, errors='replace') as file:
                totals += [int(line.split()[1]) for line in file if line.startswith('totals:')]
            os.unlink(path)
        if not totals:
            raise load.LoadError('callgrind wrote no count')
        return self.counted(totals)

    def counted(self, totals):
        """What counts of the processes of a server."""
        return sum(totals)

    def sample(self, ctx, c, request=None):
        n1, n2 = _pick(ctx, (400, 2400), (1600, 9600))
        out = {'load1': round(os.getloadavg()[0], 2)}
        with self.serve(ctx, c):
            pass  # the first server of a run compiles what it imports, which is not to be counted
        for metric, depth in (('pipelined', 16), ('single', 1)):
            if depth > 1 and c.kind in ('gunicorn-sync', 'gunicorn-gthread', 'uwsgi'):
                continue
            counts = [self._count(ctx, c, n, depth, request) for n in (n1, n2)]
            out[metric] = round((counts[1] - counts[0]) / (n2 - n1))
        return out

    def criteria(self, r):
        return [r.bound('16 pipelined', 'weir', 'pipelined', 9000, 6000, tie=0),
                r.bound('one per loop turn', 'weir', 'single', 11000, 7500, tie=0)]


# --- blocking requests -------------------------------------------------------------------------


class Slow200(Scenario):
    name, app = 'slow-200', 'slow:app'
    title = '200 requests that block 2 s each'
    text = '200 requests at once, each on its own connection; meanwhile 40 GET /health of the ' \
           'same application, one every 40 ms on a fresh connection. Default settings for Weir; ' \
           'eight threads for the peers that have threads.'
    headline, higher, est_s = 'total_s', False, (230, 14)
    ready = '/health'
    n, path = 200, '/slow'
    columns = (('total_s', 'all answered, s', '{:.2f}'), ('answered', 'answered', '{:.0f}'),
               ('health_p50_ms', '/health p50 ms', '{:.1f}'),
               ('health_max_ms', '/health max ms', '{:.1f}'),
               ('rss_mib', 'peak RSS MiB', '{:.0f}'))

    def contenders(self, ctx):
        full, cut = (60, 8) if not ctx.quick else (5, 5)
        few = [Contender('weir', 'Weir, default settings', 'weir', options={'limit_s': 20}),
               Contender('gunicorn-gevent', 'Gunicorn gevent', 'gunicorn-gevent', rounds=2,
                         options={'limit_s': 20})]
        # These take 50 s whatever the machine does: once is enough.
        return few + [
            Contender('waitress', 'Waitress, 8 threads', 'waitress', 8, rounds=1,
                      options={'limit_s': full})] + _pick(ctx, [], [
                          Contender('gunicorn-gthread', 'Gunicorn gthread, 8 threads',
                                    'gunicorn-gthread', 8, rounds=1, options={'limit_s': full}),
                          Contender('uwsgi-threads', 'uWSGI http-socket, 8 threads',
                                    'uwsgi-threads', 8, rounds=1, options={'limit_s': full}),
                          Contender('gunicorn-sync', 'Gunicorn sync', 'gunicorn-sync', rounds=1,
                                    options={'limit_s': cut}),
                          Contender('flask-dev', 'Flask development server', 'flask-dev',
                                    rounds=1, options={'limit_s': 20})])

    def sample(self, ctx, c):
        limit_s = c.options['limit_s']
        core = self.load_core(ctx)
        with self.serve(ctx, c, grace_s=1.0) as server:
            servers.get(server.port, '/health')
            t0 = time.monotonic() + 0.8  # both clients are up by then
            burst = {'port': server.port, 'n': self.n, 't0': t0, 'limit_s': limit_s,
                     'request': f'GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n'
                                'Connection: close\r\n\r\n'}
            health = {'port': server.port, 'path': '/health', 't0': t0, 'count': 40,
                      'every_s': 0.04, 'limit_s': limit_s + 1}
            # The burst yields to the prober: what is measured is the server, not their shared core.
            with machine.Watch(server.pid) as watch, \
                    load.Client('burst', burst, core, nice=10) as slow, \
                    load.Client('probe', health, core) as probe:
                time.sleep(max(0.0, t0 + 1.5 - time.monotonic()))
                rss = server.rss_kib()
                got, answers = slow.result(), probe.result()
        out = {'total_s': got['total_s'], 'answered': got['answered'], 'failed': got['failed'],
               'last_s': got['last_s'], 'health_p50_ms': answers['p50_ms'],
               'health_p99_ms': answers['p99_ms'], 'health_max_ms': answers['max_ms'],
               'health_unanswered': answers['unanswered'], 'rss_mib': round(rss / 1024, 1),
               **watch.record()}
        if got['answered'] < self.n:
            out['note'] = f'{got["answered"]} of {self.n} answered in {limit_s} s'
        return out

    def criteria(self, r):
        return [r.bound('all answered', 'weir', 'total_s', 2.4, 2.1, ' s', tie=0),
                r.bound('/health p50', 'weir', 'health_p50_ms', 2, 1, ' ms'),
                r.bound('/health max', 'weir', 'health_max_ms', 20, None, ' ms')]


class Slow2000(Slow200):
    name, n = 'slow-2000', 2000
    title = '2,000 such, --threads 4:2048'
    text = '2,000 requests that block 2 s each at once, /health as above. Peers with the ' \
           'settings that let them hold as many, where they have such.'
    est_s = (60, 5)

    def contenders(self, ctx):
        few = [Contender('weir', 'Weir, --threads 4:2048', 'weir', '4:2048',
                         options={'limit_s': 30})]
        return few + _pick(ctx, [], [
            Contender('gunicorn-gevent', 'Gunicorn gevent, 4,000 connections', 'gunicorn-gevent',
                      extra=('--worker-connections', '4000'), rounds=1, options={'limit_s': 20}),
            Contender('waitress', 'Waitress, 2,048 threads, limits raised', 'waitress', 2048,
                      ('--connection-limit', '8000', '--asyncore-use-poll', '--backlog', '4096'),
                      rounds=1, options={'limit_s': 30}),
            Contender('flask-dev', 'Flask development server', 'flask-dev', rounds=1,
                      options={'limit_s': 20})])

    def criteria(self, r):
        return [r.bound('all answered', 'weir', 'total_s', 3.5, 2.9, ' s', tie=0),
                r.bound('/health p50', 'weir', 'health_p50_ms', 5, None, ' ms')]


class Board(Scenario):
    name, app = 'board', 'api.index:app'
    title = '3, 20 and 200 build-boards of the example at once'
    text = 'POST /api/ai/build-board of examples/board against its rehearsal server, whose ' \
           'delays are held still here (3 s a model call, 0.3 s a query) so that every board ' \
           'costs the same and the time of one is a number. Nothing is pinned: server, model and ' \
           'client share the cores.'
    headline, higher, pinned, rounds = 'total_20_s', False, False, 1
    retry_busy = False
    est_s = (500, 20)
    ready = '/health'
    sizes = (3, 20, 200)
    columns = (('one_s', 'one alone, s', '{:.1f}'), ('total_3_s', '3 at once, s', '{:.1f}'),
               ('total_20_s', '20 at once, s', '{:.1f}'),
               ('total_200_s', '200 at once, s', '{:.1f}'),
               ('health_p50_ms', '/health p50 ms with the most', '{:.1f}'))
    notes = ('A total that is missing did not end within the limit (60 s with 20, 90 s with 200).',)
    limits = {1: 30, 3: 45, 20: 60, 200: 90}
    folder = os.path.join(machine.ROOT, 'examples', 'board')

    def contenders(self, ctx):
        # Without the example's policy: all of these boards are of one user.
        few = [Contender('weir', 'Weir, default settings', 'weir', extra=('--config=',))]
        return few + _pick(ctx, [], [
            Contender('flask-dev', 'Flask development server', 'flask-dev'),
            Contender('waitress', 'Waitress, 8 threads', 'waitress', 8),
            Contender('gunicorn-w4', 'Gunicorn -w 4', 'gunicorn-sync', extra=('-w', '4'))])

    @contextlib.contextmanager
    def rehearsal(self, ctx):
        path = os.path.join(self.folder, 'rehearsal.py')
        if not os.path.exists(path):
            raise servers.StartError('examples/board/rehearsal.py is not there')
        builder = os.path.join(self.folder, 'catalogue.py')
        done = subprocess.run([machine.PYTHON, builder, '--if-missing'], cwd=self.folder,
                              capture_output=True, timeout=300, text=True,
                              env=servers.environment(ctx.tmp), stdin=subprocess.DEVNULL)
        if done.returncode:
            raise servers.StartError(f'the catalogue: {done.stderr.strip()[-300:]}')
        with open(os.path.join(ctx.tmp, 'rehearsal.log'), 'w+') as log:
            child = proc.start([machine.PYTHON, path, '--port', '0', '--delay-ai', '3',
                                '--delay-db', '0.3'], cwd=self.folder, stdout=log, stderr=log,
                               stdin=subprocess.DEVNULL,
                               env=servers.environment(ctx.tmp, {'PYTHONUNBUFFERED': '1'}))
            try:
                end = time.monotonic() + 15
                while time.monotonic() < end and child.poll() is None:
                    log.seek(0)
                    found = re.search(r'127\.0\.0\.1:(\d+)', log.read())
                    if found:
                        yield int(found[1])
                        return
                    time.sleep(0.05)
                log.seek(0)
                raise servers.StartError(f'the rehearsal server: {log.read()[-300:]}')
            finally:
                proc.stop(child)

    def sample(self, ctx, c):
        body = json.dumps({'prompt': 'a small recording studio at home'})
        request = ('POST /api/ai/build-board HTTP/1.1\r\nHost: 127.0.0.1\r\n'
                   'Authorization: Bearer bench\r\nContent-Type: application/json\r\n'
                   f'Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}')
        out = {}
        with self.rehearsal(ctx) as port:
            url = f'http://127.0.0.1:{port}'
            env = {'DEEPSEEK_BASE_URL': url, 'DEEPSEEK_API_KEY': 'rehearsal', 'SUPABASE_URL': url,
                   'SUPABASE_KEY': 'rehearsal', 'BOARD_REHEARSAL': 'yes',
                   'NO_PROXY': '127.0.0.1'}
            with self.serve(ctx, c, env=env, cwd=self.folder, limit_s=30, grace_s=1.0) as server:
                most = 0
                for n in (1,) + (self.sizes if not ctx.quick else (20,)):
                    ctx.say(f'{n} at once')
                    t0 = time.monotonic() + 0.5
                    limit_s = self.limits[n]
                    health = {'port': server.port, 'path': '/health', 't0': t0 + 0.5, 'count': 40,
                              'every_s': 0.1, 'limit_s': limit_s}
                    with machine.Watch(server.pid) as watch, load.Client(
                            'burst', {'port': server.port, 'n': n, 't0': t0, 'limit_s': limit_s,
                                      'request': request}) as boards, \
                            load.Client('probe', health) as probe:
                        got, answers = boards.result(), probe.result()
                    if n == 1 and not got['answered']:
                        raise load.LoadError('one board alone was not answered')
                    out['one_s' if n == 1 else f'total_{n}_s'] = got['total_s']
                    if n > most:
                        most = n
                        out['health_p50_ms'], out['health_max_ms'] = (answers['p50_ms'],
                                                                      answers['max_ms'])
                    if got['answered'] < n:
                        out['note'] = (f'of {n} at once {got["answered"]} were answered in '
                                       f'{limit_s} s, {got["failed"]} failed')
                        break  # more at once would not go better; the server is still at it
                out.update(watch.record())
        for n in self.sizes:
            if f'total_{n}_s' in out:
                total = out[f'total_{n}_s']
                out[f'ratio_{n}'] = round(total / out['one_s'], 3) if total else None
        return out

    def criteria(self, r):
        return [r.bound(f'{n} at once / the time of one', 'weir', f'ratio_{n}', 1.25, None, '×',
                        tie=0) for n in self.sizes]


# --- connections -------------------------------------------------------------------------------

# What lets a peer hold ten thousand connections at all; select() ends at 1,024.
ROOMY = {'waitress': ('--connection-limit', '16000', '--asyncore-use-poll'),
         'gunicorn-gthread': ('--worker-connections', '16000'),
         'gunicorn-gevent': ('--worker-connections', '16000')}


class Idle(Scenario):
    name, app = 'idle', 'hello:app'
    title = '10,000 idle keep-alive connections'
    text = '10,000 connections ask once each and then stay open. KiB each is the growth of the ' \
           'server\'s resident memory, divided by those still alive; then 100 GETs, each on a ' \
           'fresh connection. Peers with their connection limits raised.'
    headline, higher, est_s = 'each_kib', False, (90, 6)
    retry_busy = False
    rounds = 3
    columns = (('each_kib', 'KiB each', '{:.2f}'), ('alive', 'alive', '{:,.0f}'),
               ('fresh_p50_ms', 'fresh GET p50 ms', '{:.2f}'),
               ('fresh_max_ms', 'fresh GET max ms', '{:.2f}'))
    notes = ('Memory of the kernel\'s sockets is not in it; it is the same for all.',)

    def contenders(self, ctx):
        few = [Contender('weir', 'Weir', 'weir')]
        return few + _pick(ctx, [], [
            Contender(k, label, k, extra=ROOMY.get(k, ()), rounds=1) for k, label in (
                ('nginx', 'nginx return 200'), ('waitress', 'Waitress, limits raised'),
                ('gunicorn-gthread', 'Gunicorn gthread, limits raised'),
                ('gunicorn-gevent', 'Gunicorn gevent, limits raised'))])

    def sample(self, ctx, c):
        n = 10_000
        nofile = proc.raise_nofile()
        if nofile < n + 300:
            n = nofile - 300
        with self.serve(ctx, c) as server:
            load.client('exact', {'port': server.port, 'n': 640, 'depth': 1, 'connections': 64,
                                  'limit_s': 20}, self.load_core(ctx))
            time.sleep(0.5)
            with machine.Watch(server.pid) as watch:
                got = load.client('idle', {'port': server.port, 'pid': server.pid, 'n': n,
                                           'fresh': 100, 'settle_s': 1.0, 'limit_s': 30},
                                  self.load_core(ctx))
        out = {**got, **watch.record()}
        if n < 10_000:
            out['note'] = f'only {n} connections: the limit of open files is {nofile}'
        elif got['alive'] < n:
            out['note'] = f'{got["alive"]} of {n} alive'
        return out

    def criteria(self, r):
        alive = r.median('weir', 'alive')
        held = Criterion('connections alive', alive, 10_000, None, True, '',
                         r.spread('weir', 'alive'), tie=0)
        return [r.bound('each', 'weir', 'each_kib', 0.8, 0.45, ' KiB'),
                r.bound('fresh GET, slowest of 100', 'weir', 'fresh_max_ms', 5, None, ' ms'), held]


class Dribble(Scenario):
    name, app, n = 'dribble', 'hello:app', 500
    title = '500 dribbling connections'
    text = '500 connections send one byte of a request head a second; meanwhile a GET every ' \
           '10 ms on a fresh connection. When does the server end the dribblers? Watched for 14 s.'
    headline, higher, rounds, est_s = 'fast_p99_ms', False, 1, (85, 15)
    watched_s = 14.0
    columns = (('fast_p50_ms', 'fast p50 ms', '{:.2f}'), ('fast_p99_ms', 'fast p99 ms', '{:.2f}'),
               ('fast_unanswered', 'fast unanswered', '{:.0f}'),
               ('cut', 'dribblers cut', '{:,.0f}'), ('cut_first_s', 'first cut s', '{:.1f}'),
               ('cut_last_s', 'last cut s', '{:.1f}'))
    notes = ('Weir\'s head deadline is 10 s. Waitress stops accepting at 100 connections unless '
             'told otherwise; it is shown with its limits raised.',)
    retry_busy = False

    def contenders(self, ctx):
        few = [Contender('weir', 'Weir, default settings', 'weir')]
        return few + _pick(ctx, [], [
            Contender('waitress', 'Waitress, limits raised', 'waitress', extra=ROOMY['waitress']),
            Contender('gunicorn-gthread', 'Gunicorn gthread, limits raised', 'gunicorn-gthread',
                      extra=ROOMY['gunicorn-gthread']),
            Contender('gunicorn-gevent', 'Gunicorn gevent, limits raised', 'gunicorn-gevent',
                      extra=ROOMY['gunicorn-gevent']),
            Contender('nginx', 'nginx return 200', 'nginx')])

    def sample(self, ctx, c):
        core = self.load_core(ctx)
        with self.serve(ctx, c) as server:
            t0 = time.monotonic() + 0.8
            count = int((self.watched_s - 1) / 0.01)
            with machine.Watch(server.pid) as watch, \
                    load.Client('dribble', {'port': server.port, 'n': self.n, 't0': t0,
                                            'limit_s': self.watched_s}, core, nice=10) as many, \
                    load.Client('probe', {'port': server.port, 'path': '/', 't0': t0 + 1.0,
                                          'count': count, 'every_s': 0.01,
                                          'limit_s': self.watched_s}, core) as probe:
                got, fast = many.result(), probe.result()
        return {**got, **{'fast_' + k: v for k, v in fast.items()}, **watch.record()}

    def criteria(self, r):
        cut = Criterion('dribblers cut', r.median('weir', 'cut'), self.n, None, True, '',
                        r.spread('weir', 'cut'), tie=0)
        last = r.bound('last one cut after', 'weir', 'cut_last_s', 11, None, ' s', tie=0)
        return [r.bound('fast requests p99', 'weir', 'fast_p99_ms', 10, None, ' ms'), cut, last]


class Dribble5000(Dribble):
    name, n = 'dribble-5000', 5000
    title = '5,000 dribbling connections (the aim)'
    text = Dribble.text.replace('500 connections', '5,000 connections')
    est_s = (35, 0)

    def contenders(self, ctx):
        return [c for c in super().contenders(ctx) if c.key in ('weir', 'nginx')]


# --- processor and memory ----------------------------------------------------------------------


class Busy(Scenario):
    name, app = 'busy', 'busy:app'
    title = '50 ms pure-Python busy handlers × 4 clients, hello × 10 clients'
    text = 'Four clients ask for 50 ms of computing in Python, without a pause; ten ask hello ' \
           'and pause 2 ms; for Weir one more asks /-/ping and pauses 2 ms. Nothing is pinned.'
    headline, higher, pinned, est_s = 'hello_p50_ms', False, False, (130, 13)
    columns = (('hello_p50_ms', 'hello p50 ms', '{:.1f}'),
               ('hello_p99_ms', 'hello p99 ms', '{:.1f}'),
               ('busy_per_s', 'busy answers/s', '{:.1f}'),
               ('ping_p50_ms', '/-/ping p50 ms', '{:.2f}'),
               ('ping_p99_ms', '/-/ping p99 ms', '{:.2f}'))

    def contenders(self, ctx):
        few = [Contender('weir', 'Weir', 'weir'),
               Contender('waitress', 'Waitress, 8 threads', 'waitress', 8)]
        return few + _pick(ctx, [], [
            Contender('gunicorn-gthread', 'Gunicorn gthread, 8 threads', 'gunicorn-gthread', 8),
            Contender('uwsgi-threads', 'uWSGI http-socket, 8 threads', 'uwsgi-threads', 8)])

    def sample(self, ctx, c):
        env = {'BENCH_BUSY_LOOPS': str(ctx.busy_loops())}
        groups = [{'name': 'busy', 'path': '/busy', 'clients': 4, 'pause_s': 0.0},
                  {'name': 'hello', 'path': '/hello', 'clients': 10, 'pause_s': 0.002}]
        if c.kind == 'weir':
            groups.append({'name': 'ping', 'path': '/-/ping', 'clients': 1, 'pause_s': 0.002})
        with self.serve(ctx, c, env=env) as server:
            with machine.Watch(server.pid) as watch:
                got = load.client('loops', {'port': server.port, 'groups': groups, 'warm_s': 1.0,
                                            'seconds': _pick(ctx, 4.0, 8.0)})
        out = watch.record()
        for name, figures in got.items():
            out.update({f'{name}_{k}': v for k, v in figures.items()})
        return out

    def criteria(self, r):
        p50, s50 = r.ratio('waitress', 'weir', 'hello_p50_ms')
        p99, s99 = r.ratio('waitress', 'weir', 'hello_p99_ms')
        return [Criterion('hello p50, times better than Waitress', p50, 4, None, True, '×', s50),
                Criterion('hello p99, times better than Waitress', p99, 4, None, True, '×', s99),
                r.bound('/-/ping p99', 'weir', 'ping_p99_ms', 10, 5, ' ms')]


class Rss(Scenario):
    name, app = 'rss', 'hello:app'
    title = 'resident memory after 10 k and after 1 M requests'
    text = 'RSS after exactly 10,000 hello requests over 64 connections, and after at least a ' \
           'million more from wrk. Peers get as many as they answer in 30 s.'
    headline, higher, rounds, est_s = 'growth', False, 1, (90, 15)
    retry_busy = False
    columns = (('rss_10k_mib', 'MiB after 10 k', '{:.1f}'),
               ('rss_end_mib', 'MiB at the end', '{:.1f}'),
               ('requests', 'requests', '{:,.0f}'), ('growth', 'growth', '{:.3f}×'))

    def contenders(self, ctx):
        few = [Contender('weir', 'Weir', 'weir', options={'limit_s': 60})]
        return few + _pick(ctx, [], [
            Contender(k, label, k, options={'limit_s': 30}) for k, label in (
                ('waitress', 'Waitress'), ('gunicorn-gthread', 'Gunicorn gthread, 4 threads'))])

    def sample(self, ctx, c):
        core = self.load_core(ctx)
        with self.serve(ctx, c) as server:
            load.client('exact', {'port': server.port, 'n': 10_000, 'depth': 1, 'connections': 64,
                                  'limit_s': 60}, core)
            time.sleep(0.5)
            first = server.rss_kib()
            done, end = 10_000, time.monotonic() + c.options['limit_s']
            rate = 0
            with machine.Watch(server.pid) as watch:
                while done < MILLION + 10_000 and time.monotonic() < end:
                    left_s = (MILLION + 10_000 - done) / rate if rate else 1
                    seconds = int(max(1, min(left_s + 1, 10, end - time.monotonic())))
                    got = load.wrk(server.port, seconds, core=core)
                    done += got['requests']
                    rate = got['rps']
                    if not rate:
                        break
            time.sleep(0.5)
            last = server.rss_kib()
        out = {'rss_10k_mib': round(first / 1024, 2), 'rss_end_mib': round(last / 1024, 2),
               'requests': done, 'growth': round(last / first, 4), **watch.record()}
        if c.kind == 'weir' and done < MILLION:
            out['note'] = f'only {done:,} requests in {c.options["limit_s"]} s'
        return out

    def criteria(self, r):
        # The row asks for a million: fewer requests prove nothing.
        enough = (r.median('weir', 'requests') or 0) >= MILLION
        growth = r.bound('after 1 M / after 10 k', 'weir', 'growth', 1.1, None, '×', tie=0)
        if not enough:
            growth.value = growth.spread = None
        return [growth]


ALL = [cls() for cls in (Hello, Pipelined, Static, StaticSmall, Tls, Handshakes, Instructions, JsonEcho, FlaskHello, Slow200, Slow2000,
                         Board, Idle, Dribble, Dribble5000, Busy, Rss)]
