"""The load that wrk cannot make: small clients on one epoll loop each.

Run as a program, `python3 clients.py KIND '{"port": …}'`, in a process of its own; it prints one
line of JSON. Times are milliseconds of the monotonic clock, which all processes share, so that two
clients can start at the same instant ("t0").

    burst    n requests at once, each on its own connection
    probe    one GET on a fresh connection every so often, whatever became of those before
    exact    a number of requests, exactly, pipelined or one at a time
    idle     n keep-alive connections that stay open and say nothing more
    dribble  n connections that send a byte of a head each second
    loops    closed loops: clients that ask, wait for the answer, pause, and ask again
    queued   closed loops on one route while another has n requests waiting, and before and after
    greedy   closed loops of some users while another has a hundred times as many, and before and after
"""
import gc
import heapq
import itertools
import json
import math
import os
import re
import resource
import select
import socket
import sys
import time

IN, OUT = select.EPOLLIN, select.EPOLLOUT
LENGTH = re.compile(rb'\r\ncontent-length:[ \t]*(\d+)', re.I)
CHUNKED = re.compile(rb'\r\ntransfer-encoding:[ \t]*chunked', re.I)
HEAD_MAX = 65536

now = time.monotonic


class Loop:
    """epoll and a heap of timers, until stop() or the deadline."""

    def __init__(self, deadline):
        self.epoll = select.epoll()
        self.handlers = {}
        self.timers = []
        self.order = itertools.count()
        self.deadline = deadline
        self.running = True

    def at(self, when, call):
        heapq.heappush(self.timers, (when, next(self.order), call))

    def add(self, sock, events, call):
        self.handlers[sock.fileno()] = call
        self.epoll.register(sock.fileno(), events)

    def change(self, sock, events):
        self.epoll.modify(sock.fileno(), events)

    def drop(self, sock):
        fd = sock.fileno()
        if self.handlers.pop(fd, None):
            self.epoll.unregister(fd)
        sock.close()

    def stop(self):
        self.running = False

    def run(self):
        while self.running:
            current = now()
            if current >= self.deadline:
                return
            while self.timers and self.timers[0][0] <= current:
                heapq.heappop(self.timers)[2]()
            if not self.running:
                return
            until = min(self.deadline, self.timers[0][0] if self.timers else self.deadline)
            for fd, _ in self.epoll.poll(max(0.0, until - now()), 512):
                call = self.handlers.get(fd)
                if call:
                    call()


class Answers:
    """Cuts a byte stream into answers. take() returns those that are complete: (status, body)."""

    def __init__(self):
        self.data = bytearray()

    def take(self, chunk, eof=False):
        self.data += chunk
        out = []
        while self.data:
            head = self.data.find(b'\r\n\r\n')
            if head < 0:
                if len(self.data) > HEAD_MAX:
                    raise ValueError('endless head')
                break
            text = bytes(self.data[:head])
            status = int(text[9:12])
            length = LENGTH.search(text)
            if 100 <= status < 200:
                del self.data[:head + 4]
                continue
            if length:
                end = head + 4 + int(length[1])
                if len(self.data) < end:
                    break
                body = bytes(self.data[head + 4:end])
            elif CHUNKED.search(text):
                # Enough for the bodies of this benchmark, which never hold this sequence.
                end = self.data.find(b'\r\n0\r\n\r\n', head + 2)
                if end < 0:
                    break
                end += 7
                body = bytes(self.data[head + 4:end])
            elif eof:
                end = len(self.data)
                body = bytes(self.data[head + 4:])
            else:
                break
            del self.data[:end]
            out.append((status, body))
        return out


class Asker:
    """One connection that sends a request and calls done(status or None, seconds, body)."""

    def __init__(self, loop, port, done):
        self.loop, self.port, self.done = loop, port, done
        self.sock = None
        self.waiting = False

    def ask(self, request, keep=False):
        """Time runs from here, connecting included where it is needed."""
        self.begin = now()
        self.waiting = True
        self.request, self.keep = memoryview(request), keep
        if self.sock:
            self._event()
            return
        self.answers = Answers()
        self.connected = False
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.sock.connect(('127.0.0.1', self.port))
        except BlockingIOError:
            pass
        except OSError:
            self._finish(None, b'')
            return
        self.loop.add(self.sock, OUT, self._event)

    def _event(self):
        if not self.waiting:  # the server closed a connection we kept
            self.close()
            return
        try:
            if self.request:
                sent = self.sock.send(self.request)
                self.request = self.request[sent:]
                self.loop.change(self.sock, OUT if self.request else IN)
                return
            chunk = self.sock.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            self._finish(None, b'')
            return
        got = self.answers.take(chunk, eof=not chunk)
        if got:
            self._finish(*got[0])
        elif not chunk:
            self._finish(None, b'')

    def _finish(self, status, body):
        seconds = now() - self.begin
        self.waiting = False
        if status is None or not self.keep:
            self.close()
        self.done(status, seconds, body)

    def close(self):
        if self.sock:
            if self.sock.fileno() >= 0:
                self.loop.drop(self.sock)
            self.sock = None


def get(path, keep):
    close = '' if keep else 'Connection: close\r\n'
    return f'GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{close}\r\n'.encode()


def summary(seconds, unanswered=0):
    """Percentiles in ms. What was never answered counts as infinitely late: shown as None."""
    values = sorted(seconds) + [math.inf] * unanswered
    if not values:
        return {'n': 0, 'unanswered': 0, 'p50_ms': None, 'p99_ms': None, 'max_ms': None}

    def at(share):
        value = values[min(len(values) - 1, math.ceil(share * len(values)) - 1)]
        return None if value == math.inf else round(value * 1e3, 3)

    return {'n': len(values), 'unanswered': unanswered, 'p50_ms': at(0.5), 'p99_ms': at(0.99),
            'max_ms': at(1.0)}


def burst(a):
    """n requests at once. `request` is raw text; `keep_bodies` hands the answers' bodies back."""
    loop = Loop(a['t0'] + a['limit_s'])
    request = a['request'].encode()
    took, wrong, bodies = [], [0], []
    left = [a['n']]
    last = [None]

    def done(status, seconds, body):
        if status == 200:
            took.append(seconds)
            last[0] = now()
            if a.get('keep_bodies'):
                bodies.append(body.decode(errors='replace'))
        else:
            wrong[0] += 1
        left[0] -= 1
        if not left[0]:
            loop.stop()

    def begin():
        for _ in range(a['n']):
            Asker(loop, a['port'], done).ask(request)

    loop.at(a['t0'], begin)
    loop.run()
    return {'n': a['n'], 'answered': len(took), 'failed': wrong[0], 'unanswered': left[0],
            'total_s': round(last[0] - a['t0'], 3) if len(took) == a['n'] else None,
            'last_s': round(last[0] - a['t0'], 3) if last[0] else None,
            'bodies': bodies, **summary(took, left[0] + wrong[0])}


def probe(a):
    """`count` GETs, one every `every_s` from t0 on; then up to limit_s for the answers."""
    loop = Loop(a['t0'] + a['limit_s'])
    request = get(a['path'], False)
    took, wrong = [], [0]
    left = [a['count']]

    def done(status, seconds, body):
        if status == 200:
            took.append(seconds)
        else:
            wrong[0] += 1
        left[0] -= 1
        if not left[0]:
            loop.stop()

    def fire():
        Asker(loop, a['port'], done).ask(request)

    for i in range(a['count']):
        loop.at(a['t0'] + i * a['every_s'], fire)
    loop.run()
    return {'failed': wrong[0], **summary(took, left[0] + wrong[0])}


def exact(a):
    """n requests over `connections`, `depth` in one write, the next write after all its answers.

    `request`, where it is given, is raw text."""
    loop = Loop(now() + a['limit_s'])
    one = a['request'].encode() if 'request' in a else get('/', True)
    to_send, good, bad = [a['n']], [0], [0]
    open_ = [0]

    class Line:
        def __init__(self):
            self.sock = socket.create_connection(('127.0.0.1', a['port']), timeout=10)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.setblocking(False)
            self.answers = Answers()
            open_[0] += 1
            loop.add(self.sock, IN, self.event)
            self.wait = 0
            self.send()

        def send(self):
            self.wait = min(a['depth'], to_send[0])
            to_send[0] -= self.wait
            if not self.wait:
                self.end()
                return
            self.sock.send(one * self.wait)

        def end(self):
            loop.drop(self.sock)
            open_[0] -= 1
            if not open_[0]:
                loop.stop()

        def event(self):
            try:
                chunk = self.sock.recv(262144)
            except BlockingIOError:
                return
            except OSError:
                chunk = b''
            for status, _ in self.answers.take(chunk, eof=not chunk):
                (good if status == 200 else bad)[0] += 1
                self.wait -= 1
            if not chunk:
                self.end()
            elif not self.wait:
                self.send()

    lines = [Line() for _ in range(a['connections'])]
    loop.run()
    del lines
    return {'answered': good[0], 'failed': bad[0], 'unanswered': a['n'] - good[0] - bad[0]}


def idle(a):
    """Open n keep-alive connections, one GET on each, then nothing; RSS of the server meanwhile."""
    import proc  # beside this file; only this client needs it

    before = proc.rss_kib(a['pid'])
    loop = Loop(now() + a['limit_s'])
    request = get('/', True)
    window = 128
    held, failed, next_ = [], [0], [0]

    def more():
        if next_[0] == a['n']:
            if len(held) + failed[0] == a['n']:
                loop.stop()
            return
        next_[0] += 1

        def done(status, seconds, body):
            if status == 200:
                held.append(asker)
            else:
                failed[0] += 1
                asker.close()
            more()

        asker = Asker(loop, a['port'], done)
        asker.ask(request, keep=True)

    for _ in range(min(window, a['n'])):
        loop.at(0, more)
    loop.run()
    time.sleep(a['settle_s'])
    alive = 0
    for asker in held:
        try:
            if asker.sock and not asker.sock.recv(1):
                continue
        except BlockingIOError:
            pass
        except OSError:
            continue
        alive += bool(asker.sock)
    after = proc.rss_kib(a['pid'])
    fresh = probe({'port': a['port'], 'path': '/', 't0': now() + 0.05, 'count': a['fresh'],
                   'every_s': 0.01, 'limit_s': a['fresh'] * 0.01 + 5})
    return {'opened': len(held), 'alive': alive, 'rss_before_kib': before, 'rss_after_kib': after,
            'each_kib': round((after - before) / alive, 3) if alive else None,
            **{'fresh_' + k: v for k, v in fresh.items()}}


def dribble(a):
    """A byte of a head each second on each of n connections; when does the server end them?"""
    loop = Loop(a['t0'] + a['limit_s'])
    head = b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ' + b'a' * 4096
    cuts, refused, answered = [], [0], [0]
    open_ = [0]

    class Line:
        def __init__(self):
            self.begin, self.at = now(), 0
            self.sock = socket.socket()
            self.sock.setblocking(False)
            self.sock.connect_ex(('127.0.0.1', a['port']))
            open_[0] += 1
            loop.add(self.sock, IN, self.event)
            self.tick()

        def tick(self):
            if self.sock.fileno() < 0:
                return
            try:
                self.sock.send(head[self.at:self.at + 1])
                self.at += 1
            except BlockingIOError:
                pass
            except OSError:
                self.end()
                return
            loop.at(now() + 1.0, self.tick)

        def event(self):
            try:
                chunk = self.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                chunk = b''
            if chunk.startswith(b'HTTP/1.1 408'):
                answered[0] += 1
            if not chunk:
                self.end()

        def end(self):
            loop.drop(self.sock)
            open_[0] -= 1
            if self.at:
                cuts.append(now() - self.begin)
            else:
                refused[0] += 1

    # Spread over the first second, as real ones would be.
    for i in range(a['n']):
        loop.at(a['t0'] + i / a['n'], Line)
    loop.run()
    cuts.sort()
    return {'n': a['n'], 'cut': len(cuts), 'refused': refused[0], 'answered_408': answered[0],
            'open_at_end': open_[0], 'watched_s': a['limit_s'],
            'cut_first_s': round(cuts[0], 2) if cuts else None,
            'cut_median_s': round(cuts[len(cuts) // 2], 2) if cuts else None,
            'cut_last_s': round(cuts[-1], 2) if cuts else None}


def loops(a):
    """Groups of closed loops: {"name", "path", "clients", "pause_s"}; each on its connection.

    The first warm_s are not counted."""
    t0 = now()
    loop = Loop(t0 + a['warm_s'] + a['seconds'])
    out = {}

    class Client:
        def __init__(self, group, took, failed):
            self.group, self.took, self.failed = group, took, failed
            self.request = get(group['path'], True)
            self.asker = Asker(loop, a['port'], self.done)
            self.ask()

        def ask(self):
            self.asker.ask(self.request, keep=True)

        def done(self, status, seconds, body):
            if status != 200:
                self.failed[0] += 1
            elif now() - t0 >= a['warm_s']:
                self.took.append(seconds)
            # Without a pause of its own a failing client would spin.
            loop.at(now() + max(self.group['pause_s'], 0 if status == 200 else 0.01), self.ask)

    groups = [(g, [], [0]) for g in a['groups']]
    for group, took, failed in groups:
        for _ in range(group['clients']):
            Client(group, took, failed)
    loop.run()
    for group, took, failed in groups:
        out[group['name']] = {'failed': failed[0], 'per_s': round(len(took) / a['seconds'], 1),
                              **summary(took)}
    return out


class Phases:
    """Closed loops that go on through several phases; what they were told is kept for each."""

    def __init__(self, loop, port):
        self.loop, self.port = loop, port
        self.took = None  # of the present phase: {group: [seconds]}; None: nothing is counted
        self.failed = {}

    def add(self, group, request, pause_s=0.0, until=None):
        """One client. It ends after an answer for which until() is true."""
        def ask():
            asker.ask(request, keep=True)

        def done(status, seconds, body):
            if status != 200:
                self.failed[group] = self.failed.get(group, 0) + 1
            elif self.took is not None:
                self.took.setdefault(group, []).append(seconds)
            if until and until():
                asker.close()
                return
            self.loop.at(now() + max(pause_s, 0 if status == 200 else 0.01), ask)

        asker = Asker(self.loop, self.port, done)
        ask()

    def measure(self, seconds):
        """Run so long; returns {group: [seconds]} of what was answered meanwhile."""
        self.took = {}
        self.run(seconds)
        took, self.took = self.took, None
        return took

    def run(self, seconds, condition=None):
        """Run so long, or until the condition holds; was that so?"""
        end = now() + seconds
        self.loop.running = True
        while now() < end and not (condition and condition()):
            stop = min(end, now() + 0.05)
            self.loop.deadline = stop
            self.loop.run()
        return bool(condition and condition())


def queued(a):
    """How another route is answered, and how much memory the server has, with n requests waiting.

    They are sent once, wait until `release` is asked for, and must all be answered then. {i} in
    `request` is the number of the user."""
    import proc  # beside this file

    gc.disable()  # ten thousand connections are many objects to look through
    loop = Loop(math.inf)
    phases = Phases(loop, a['port'])
    for _ in range(a['clients']):
        phases.add('other', get(a['other'], True), a['pause_s'])
    phases.run(a['warm_s'])
    before = phases.measure(a['seconds'])['other']
    rss_before = proc.rss_kib(a['pid'])

    answers, sent = {}, [0]

    def queue_one():
        if sent[0] == a['n']:
            return
        request = a['request'].replace('{i}', str(sent[0] % a['users'])).encode()
        sent[0] += 1

        def done(status, seconds, body):
            answers[status] = answers.get(status, 0) + 1

        asker = Asker(loop, a['port'], done)
        asker.ask(request)
        on_event = asker._event

        def event():
            on_event()
            if not asker.request and asker.waiting and not asker.told:
                asker.told = True
                queue_one()

        asker.told = False
        loop.handlers[asker.sock.fileno()] = event

    for _ in range(64):
        queue_one()
    phases.run(60, lambda: sent[0] == a['n'])
    # All have been sent; they have arrived when the server needs no more memory for them.
    steady, rss = [0], [0]

    def is_steady():
        now_kib = proc.rss_kib(a['pid'])
        steady[0] = steady[0] + 1 if now_kib == rss[0] else 0
        rss[0] = now_kib
        return steady[0] >= 10

    phases.run(30, is_steady)
    early = sum(answers.values())
    during = phases.measure(a['seconds'])['other']
    rss_during = proc.rss_kib(a['pid'])
    early_end = sum(answers.values())
    begin = now()
    Asker(loop, a['port'], lambda *answer: None).ask(get(a['release'], False))
    phases.run(60, lambda: sum(answers.values()) == a['n'])
    drained = now() - begin
    phases.run(a['warm_s'])
    after = phases.measure(a['seconds'])['other']
    without = summary(before + after)
    return {'queued': a['n'] - early_end, 'answered_early': early, 'answered': answers.get(200, 0),
            'drained_s': round(drained, 2), 'other_failed': phases.failed.get('other', 0),
            'rss_before_kib': rss_before, 'rss_during_kib': rss_during,
            'with': summary(during), 'without': without}


def greedy(a):
    """`users` users with one request each, over and over; then one more with `greed` of them."""
    gc.disable()
    loop = Loop(math.inf)
    phases = Phases(loop, a['port'])
    for i in range(a['users']):
        phases.add('others', a['request'].replace('{i}', f'user-{i}').encode(), a['pause_s'])
    phases.run(a['warm_s'])
    before = phases.measure(a['seconds'])
    alive, over = [a['greed']], [False]

    def until():
        alive[0] -= over[0]
        return over[0]

    for _ in range(a['greed']):
        phases.add('greedy', a['request'].replace('{i}', 'greedy').encode(), 0.0, until)
    phases.run(a['warm_s'])
    during = phases.measure(a['seconds'])
    over[0] = True
    phases.run(60, lambda: not alive[0])
    phases.run(a['warm_s'])
    after = phases.measure(a['seconds'])
    return {'without': summary(before['others'] + after['others']), 'with': summary(during['others']),
            'greedy': summary(during.get('greedy', [])), 'others_failed': phases.failed.get('others', 0),
            'greedy_refused': phases.failed.get('greedy', 0), 'greedy_left': alive[0],
            'with_per_s': round(len(during['others']) / a['seconds'], 1),
            'greedy_per_s': round(len(during.get('greedy', [])) / a['seconds'], 1),
            'without_per_s': round(len(before['others'] + after['others']) / a['seconds'] / 2, 1)}


def main():
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kind, arguments = sys.argv[1], json.loads(sys.argv[2])
    call = {f.__name__: f for f in (burst, probe, exact, idle, dribble, loops, queued,
                                      greedy)}[kind]
    print(json.dumps(call(arguments)))


if __name__ == '__main__':
    main()
