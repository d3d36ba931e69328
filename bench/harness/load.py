"""Start load generators on their core and read their results."""
import json
import os
import re
import subprocess
import time

from . import machine, proc

HERE = os.path.dirname(os.path.realpath(__file__))
BODY = os.path.join(HERE, 'body.json')


class LoadError(Exception):
    pass


def _pin(argv, core):
    return argv if core is None else ['/usr/bin/taskset', '-c', str(core)] + argv


def wrk(port, seconds, connections=64, depth=1, post=False, core=None, path='/', tls=False):
    """One thread of wrk. Returns rps, percentiles in ms, errors and wrk's own CPU share."""
    argv = ['/usr/bin/wrk', '-t1', f'-c{connections}', f'-d{seconds}s', '--timeout', '5s',
            '-s', os.path.join(HERE, 'load.lua'), f'http{"s" if tls else ""}://127.0.0.1:{port}/', '--',
            f'depth={depth}', f'path={path}']
    if post:
        argv.append(f'body={BODY}')
    before = os.times()
    child = proc.start(_pin(argv, core), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       stdin=subprocess.DEVNULL, text=True)
    try:
        text, _ = child.communicate(timeout=seconds + 15)
    except subprocess.TimeoutExpired:
        raise LoadError('wrk did not end') from None
    finally:
        proc.stop(child)
    used = sum(b - a for a, b in zip(before[2:4], os.times()[2:4]))
    for line in text.splitlines():
        if line.startswith('RESULT '):
            got = json.loads(line[7:])
            break
    else:
        raise LoadError(f'wrk: {text.strip()[-300:]}')
    took = max(got['duration_us'] / 1e6, 1e-6)
    errors = {k: got[k] for k in ('connect', 'read', 'write', 'status', 'timeout') if got[k]}
    return {'rps': round(got['requests'] / took, 1), 'mb_s': round(got['bytes'] / took / 1e6, 1), 'requests': got['requests'],
            'p50_ms': got['p50_us'] / 1e3, 'p99_ms': got['p99_us'] / 1e3,
            'max_ms': got['max_us'] / 1e3, 'errors': errors, 'wrk_cores': round(used / took, 3)}


def handshakes(port, seconds, processes, core=None):
    """`openssl s_time`: one whole TLS handshake after the other, in so many processes. Returns how many a
    second, and the share of a core that the clients used."""
    argv = ['/usr/bin/openssl', 's_time', '-connect', f'127.0.0.1:{port}', '-new', '-time',
            str(seconds)]
    before, begin = os.times(), time.monotonic()
    children = [proc.start(_pin(argv, core), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           stdin=subprocess.DEVNULL, text=True) for _ in range(processes)]
    total, longest = 0, 0.0
    try:
        for child in children:
            try:
                text, _ = child.communicate(timeout=seconds + 15)
            except subprocess.TimeoutExpired:
                raise LoadError('openssl s_time did not end') from None
            longest = max(longest, time.monotonic() - begin)
            found = re.search(r'^(\d+) connections in \d+ real seconds', text, re.M)
            if not found:
                raise LoadError(f'openssl s_time: {text.strip()[-300:]}')
            total += int(found[1])
    finally:
        for child in children:
            proc.stop(child)
    used = sum(b - a for a, b in zip(before[2:4], os.times()[2:4]))
    return {'per_s': round(total / longest, 1), 'handshakes': total,
            'client_cores': round(used / longest, 3)}


class Client:
    """A client process of clients.py; result() waits for it, bounded."""

    def __init__(self, kind, arguments, core=None, nice=0):
        self.kind = kind
        self.limit_s = arguments.get('limit_s', arguments.get('seconds', 0)) + 30
        argv = [machine.PYTHON, os.path.join(HERE, 'clients.py'), kind, json.dumps(arguments)]
        if nice:
            argv = ['/usr/bin/nice', '-n', str(nice)] + argv
        env = dict(os.environ, PYTHONDONTWRITEBYTECODE='1')
        self.child = proc.start(_pin(argv, core), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                stdin=subprocess.DEVNULL, text=True, env=env)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        proc.stop(self.child)

    def result(self):
        try:
            text, error = self.child.communicate(timeout=self.limit_s)
        except subprocess.TimeoutExpired:
            raise LoadError(f'the {self.kind} client did not end') from None
        if self.child.returncode:
            raise LoadError(f'the {self.kind} client: {error.strip()[-300:]}')
        return json.loads(text)


def client(kind, arguments, core=None):
    with Client(kind, arguments, core) as c:
        return c.result()
