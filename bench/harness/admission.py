"""Scenarios about admission: what its checks cost, and what a queue and a greedy user do to others."""
import base64
import hashlib
import hmac
import json
import os

from . import load, machine, servers
from .scenarios import Contender, Criterion, Instructions, Scenario, Throughput, _pick, run_program

SECRET = b'0123456789abcdef0123456789abcdef0123456789abcdef'
ISSUER = 'https://abcdefghijkl.example.org/auth/v1'
TOKEN_BYTES = 400


def _b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=')


def token():
    """A token as Supabase signs them, HS256, of TOKEN_BYTES; it does not expire in this century."""
    head = _b64(b'{"alg":"HS256","typ":"JWT"}')
    for pad in range(200):
        claims = {'iss': ISSUER, 'sub': '3d2c5c3e-1f7e-4b0a-9a55-0f6d8c1b2a34', 'aud': 'authenticated',
                  'exp': 4_000_000_000, 'iat': 1_700_000_000, 'role': 'authenticated',
                  'app_metadata': {'tier': 'pro'}, 'x': 'p' * pad}
        text = head + b'.' + _b64(json.dumps(claims, separators=(',', ':')).encode())
        whole = text + b'.' + _b64(hmac.digest(SECRET, text, hashlib.sha256))
        if len(whole) >= TOKEN_BYTES:
            return whole.decode()
    raise AssertionError('no token of that size')


def policy(tmp, name, text):
    """The policy as a file of this run; -c and its path."""
    secret = os.path.join(tmp, 'jwt.secret')
    if not os.path.exists(secret):
        with open(os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600), 'wb') as file:
            file.write(SECRET)
    path = os.path.join(tmp, f'{name}.yaml')
    with open(path, 'w') as file:
        file.write(text.replace('TMP', tmp))
    return '-c', path


def written(text):
    """A policy in one line, for the notes."""
    return '`' + '; '.join(line.strip() for line in text.strip().splitlines()) + '`'


# --- instructions ------------------------------------------------------------------------------

CHECKS = f'''\
identify:
  - jwt: {{secret_file: TMP/jwt.secret, issuer: "{ISSUER}", audience: authenticated}}
  - address
tiers: {{from: jwt.app_metadata.tier, default: free}}
routes:
  - match: GET /ai/*
    require: user
    deadline: 90s
    concurrency: 8
    queue: {{size: 100, wait: 30s, fair_by: user}}
    rate: {{user: 1000000/s burst 100, address: 1000000/s burst 100}}
'''
CORS = 'cors: {origins: [https://app.example.org, "http://localhost:*"], credentials: true}\n'
ORIGIN = 'https://app.example.org'


class Checks(Instructions):
    name = 'admission-instructions'
    title = 'admission: instructions of all checks'
    text = f'The same hello request, with an HS256 token of {TOKEN_BYTES} bytes, asked of a server with and ' \
           'without a policy: a verified token that is in the cache, two rates, a place that is free, a deadline, ' \
           'and what the application and the client are told of it. callgrind, as for hello.'
    headline, est_s = 'single', (240, 100)
    notes = (*Instructions.notes,
             f'The policy: {written(CHECKS)}. The third row: an Origin in the request, and `cors` in the policy.')

    def counted(self, totals):
        return max(totals)  # the worker: the keeper, which answers for the metrics, works by the clock

    def contenders(self, ctx):
        return [Contender('weir', 'Weir, with the policy and metrics', 'weir',
                          extra=(*policy(ctx.tmp, 'checks', CHECKS), '--admin', '127.0.0.1:0')),
                Contender('weir-checks', 'Weir, with the policy', 'weir', extra=policy(ctx.tmp, 'checks', CHECKS)),
                Contender('weir-none', 'Weir, without', 'weir'),
                Contender('weir-cors', 'Weir, with the policy and CORS', 'weir',
                          extra=policy(ctx.tmp, 'checks-cors', CORS + CHECKS), options={'origin': True})]

    def sample(self, ctx, c):
        origin = f'Origin: {ORIGIN}\r\n' if c.options.get('origin') else ''
        return super().sample(ctx, c, f'GET /ai/hello HTTP/1.1\r\nHost: 127.0.0.1\r\n{origin}'
                                      f'Authorization: Bearer {token()}\r\n\r\n')

    def criteria(self, r):
        out = []
        for metric, heading in (('single', 'one per loop turn'), ('pipelined', '16 pipelined')):
            mine, none = r.median('weir', metric), r.median('weir-none', metric)
            more = mine - none if mine is not None and none is not None else None
            out.append(Criterion(f'more for a request, {heading}', more, 6000, higher=False, tie=0))
        return out


class NoPolicy(Instructions, Throughput):
    name = 'no-policy'
    title = 'admission: hello without a policy, before and after'
    notes = (*Instructions.notes, 'Where others use the machine, requests a second say how much of it was left; those '
                                  'of a core do not.')
    text = 'Who has no policy should not pay for there being such: the present build beside the one that ' \
           'WEIR_OTHER names, from before admission, in turns.'
    headline, rounds, est_s = 'single', 3, (480, 0)
    pinned = True
    columns = (*Instructions.columns, ('rps', 'requests/s', '{:,.0f}'),
               ('rps_core', 'per second of the server\'s core', '{:,.0f}'), ('p99_ms', 'p99 ms', '{:.2f}'),
               ('server_cores', 'server core', '{:.0%}'), ('wrk_cores', 'wrk core', '{:.0%}'))

    def contenders(self, ctx):
        return [Contender('weir', 'Weir', 'weir'),
                Contender('other', 'Weir before admission', 'weir-other')]

    def sample(self, ctx, c):
        counted = Instructions.sample(self, ctx, c)
        got = Throughput.sample(self, ctx, c)
        got['rps_core'] = round(got['rps'] / max(got['server_cores'], 0.01))
        return {**counted, **got, 'note': servers.version_note(c.kind)}

    def criteria(self, r):
        out = []
        for metric, heading in (('single', 'one per loop turn'), ('pipelined', '16 pipelined')):
            value, spread = r.ratio('weir', 'other', metric)
            out.append(Criterion(f'instructions, {heading}, after / before', value, 1.01, None, False, '×', spread,
                                 tie=0))
        for metric, heading in (('rps_core', 'for a core'), ('rps', 'as it came')):
            value, spread = r.ratio('weir', 'other', metric)
            out.append(Criterion(f'requests a second, {heading}, after / before', value, 1, None, True, '×', spread,
                                 tie=0.05))
        return out


# --- what others feel --------------------------------------------------------------------------

QUEUE = '''\
identify: [bearer, address]
routes:
  - match: POST /hold
    concurrency: 4
    queue: {size: 20000, wait: 10m, fair_by: user}
'''


class Queued(Scenario):
    name, app, ready = 'queued-10000', 'hold:app', '/'
    title = 'admission: 10,000 requests wait in a queue'
    text = '10,000 requests of 1,000 users wait for the four places of their route. Resident memory of the server ' \
           'before and meanwhile, and eight clients that ask for another route, which has no limits, before, ' \
           'meanwhile and after; with and without are of the same life of one server. Then the places become ' \
           'free, and all must be answered.'
    headline, higher, rounds, est_s = 'more_mib', False, 5, (200, 20)
    columns = (('queued', 'waiting', '{:,.0f}'), ('more_mib', 'MiB more', '{:.1f}'), ('each_kib', 'KiB each', '{:.2f}'),
               ('without_p50_ms', 'p50 without', '{:.2f}'), ('with_p50_ms', 'with', '{:.2f}'),
               ('without_p99_ms', 'p99 ms without', '{:.2f}'), ('with_p99_ms', 'with', '{:.2f}'),
               ('p99_ratio', 'p99 with / without', '{:.2f}'), ('answered', 'answered', '{:,.0f}'),
               ('drained_s', 'drained in s', '{:.1f}'))
    notes = (f'The policy: {written(QUEUE)}.', 'Memory of the kernel\'s sockets is not in it.')
    n = 10_000

    def contenders(self, ctx):
        return [Contender('weir', 'Weir', 'weir', extra=policy(ctx.tmp, 'queue', QUEUE))]

    def sample(self, ctx, c):
        body = json.dumps({'prompt': 'x' * 100})
        request = f'POST /hold HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer user-{{i}}\r\n' \
                  f'Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}'
        with self.serve(ctx, c) as server:
            with machine.Watch(server.pid) as watch:
                got = load.client('queued', {
                    'port': server.port, 'pid': server.pid, 'n': self.n, 'users': 1000, 'request': request,
                    'other': '/other', 'release': '/release', 'clients': 8, 'pause_s': 0.002, 'warm_s': 1.0,
                    'seconds': _pick(ctx, 2.0, 5.0), 'limit_s': 240}, self.load_core(ctx))
        more = got['rss_during_kib'] - got['rss_before_kib']
        out = {'queued': got['queued'], 'more_mib': round(more / 1024, 2),
               'each_kib': round(more / max(got['queued'], 1), 3), 'answered': got['answered'],
               'drained_s': got['drained_s'], 'other_failed': got['other_failed'],
               **_compared(got, watch)}
        if got['other_failed'] or got['answered'] < self.n:
            out['note'] = f'{got["answered"]:,} of {self.n:,} answered, {got["answered_early"]} of them at once; ' \
                          f'{got["other_failed"]} of the other route failed'
        return out

    def criteria(self, r):
        more = r.bound('resident memory more', 'weir', 'more_mib', 40, None, ' MiB', tie=0)
        if (r.median('weir', 'queued') or 0) < self.n - 4:
            more.value = more.spread = None  # fewer that wait prove nothing
        return [more,
                r.bound('p99 of another route, with / without', 'weir', 'p99_ratio', 1.2, None, '×', tie=0)]


def _compared(got, watch):
    out = {}
    for which in ('without', 'with'):
        out.update({f'{which}_{k}': got[which][k] for k in ('p50_ms', 'p99_ms', 'max_ms')})
    if out['without_p99_ms'] and out['with_p99_ms']:
        out['p99_ratio'] = round(out['with_p99_ms'] / out['without_p99_ms'], 3)
    return {**out, **watch.record()}


GREEDY = '''\
identify: [bearer, address]
routes:
  - match: GET /work
    require: user
    concurrency: 4
    queue: {size: 300, wait: 30s, fair_by: user}
'''


class Greedy(Scenario):
    name, app = 'greedy', 'hold:app'
    title = 'admission: one greedy user, 100 to 1'
    text = 'Twenty users ask for an endpoint that takes 20 to 40 ms and has four places in two workers, each user ' \
           'one request after the other. Meanwhile one more has a hundred requests at once, all the time. ' \
           'Response times of the twenty before, meanwhile and after; all of the same life of one server.'
    headline, higher, pinned, rounds, est_s = 'p99_ratio', False, False, 5, (150, 20)
    columns = (('without_p50_ms', 'p50 ms without', '{:.0f}'), ('with_p50_ms', 'with', '{:.0f}'),
               ('without_p99_ms', 'p99 ms without', '{:.0f}'), ('with_p99_ms', 'with', '{:.0f}'),
               ('p99_ratio', 'p99 with / without', '{:.2f}'), ('greedy_p50_ms', 'greedy, p50 ms', '{:,.0f}'),
               ('greedy_share', 'greedy, of all answers', '{:.1%}'), ('failed', 'failed', '{:.0f}'))
    notes = (f'The policy: {written(GREEDY)}.',
             'Who takes turns with twenty others is one of twenty-one: 1/20 more, and 1/21 of the answers, are what '
             'fairness means.')

    def contenders(self, ctx):
        return [Contender('weir', 'Weir, 2 workers', 'weir',
                          extra=('--workers', '2', *policy(ctx.tmp, 'greedy', GREEDY)))]

    def sample(self, ctx, c):
        request = 'GET /work HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {i}\r\n\r\n'
        with self.serve(ctx, c) as server:
            with machine.Watch(server.pid) as watch:
                got = load.client('greedy', {
                    'port': server.port, 'users': 20, 'greed': 100, 'request': request, 'pause_s': 0.0,
                    'warm_s': 1.5, 'seconds': _pick(ctx, 3.0, 8.0), 'limit_s': 120})
        total = got['with_per_s'] + got['greedy_per_s']
        return {**_compared(got, watch), 'greedy_p50_ms': got['greedy']['p50_ms'],
                'greedy_share': round(got['greedy_per_s'] / total, 4) if total else None,
                'failed': got['others_failed'], 'greedy_refused': got['greedy_refused'],
                'without_per_s': got['without_per_s'], 'with_per_s': got['with_per_s']}

    def criteria(self, r):
        return [r.bound('p99 of the others, with him / without', 'weir', 'p99_ratio', 1.2, None, '×', tie=0),
                r.bound('requests of others that failed', 'weir', 'failed', 0, tie=0)]


# --- the parts, alone --------------------------------------------------------------------------


class Rates(Scenario):
    name = 'admission-rates'
    title = 'admission: the shared table of rates'
    text = 'bench/admission/rates.c: decisions about a million keys, all in debt, and a million decisions by 64 ' \
           'threads in 4 processes against the exact count. Three plays of the crowd: the clock stands still, it ' \
           'moves, and each decision is about several keys.'
    headline, higher, pinned, rounds, est_s = 'decision_ns', False, False, 3, (60, 20)
    columns = (('decision_ns', 'ns a decision', '{:.0f}'), ('decision_two_threads_ns', 'by two threads', '{:.0f}'),
               ('decision_of_three_keys_ns', 'about three keys', '{:.0f}'), ('decision_hot_ns', 'key in the cache', '{:.0f}'),
               ('key_ns', 'making a key', '{:.0f}'), ('table_mib', 'MiB of the table', '{:.1f}'),
               ('crowd_decisions', 'decisions of the crowd', '{:,.0f}'), ('over_admitted', 'admitted too much', '{:.0f}'),
               ('under_admitted', 'too little', '{:.0f}'))

    def contenders(self, ctx):
        return [Contender('weir', 'src/admit/rates', 'bare')]

    def sample(self, ctx, c):
        got, figures = run_program(ctx, 'bench/admission/bench_rates')
        out = {k: v['median'] for k, v in got.items() if isinstance(v, dict) and 'median' in v}
        crowds = [v for k, v in got.items() if k.startswith('crowd_')]
        out.update(keys=got['keys'], table_mib=round(got['table_bytes'] / (1 << 20), 2),
                   forgotten=got['forgotten_when_all_are_in_debt'],
                   threads=got['threads'], processes=got['processes'],
                   crowd_decisions=sum(v['decisions'] for v in crowds),
                   over_admitted=sum(v['over_admitted'] for v in crowds),
                   under_admitted=sum(v['under_admitted'] for v in crowds), **figures)
        return out

    def criteria(self, r):
        return [r.bound('one decision, of a million keys', 'weir', 'decision_ns', 300, None, ' ns'),
                r.bound('the table for a million keys', 'weir', 'table_mib', 64, None, ' MiB', tie=0),
                r.bound('admitted too much by the crowd', 'weir', 'over_admitted', 0, tie=0)]


ALL = [cls() for cls in (Checks, NoPolicy, Queued, Greedy, Rates)]
