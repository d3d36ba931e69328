"""bench/run: choose scenarios, go through the rounds, write and print the results."""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from . import load, machine, picture, proc, report, servers
from .catalogue import ALL

RESULTS = os.path.join(machine.ROOT, 'bench', 'results')


class Context:
    """What a sample needs to know about this run."""

    def __init__(self, options, tmp):
        self.quick = options.quick
        self.seconds = options.seconds or (2 if options.quick else 4)
        self.instr_peers = options.instr_peers
        self.tmp = tmp
        self.cores = machine.cores()
        self.command = None
        self.begin = time.monotonic()
        self._busy_loops = None
        self._prefix = ''

    def busy_loops(self):
        """Loops of Python that take 50 ms alone; measured once in a run."""
        if self._busy_loops is None:
            done = subprocess.run([machine.PYTHON, 'busy.py'], cwd=servers.APPS, check=True,
                                  capture_output=True, text=True, timeout=30,
                                  env=servers.environment(self.tmp))
            self._busy_loops = int(done.stdout)
        return self._busy_loops

    def head(self, prefix):
        self._prefix = prefix

    def say(self, text):
        minutes, seconds = divmod(int(time.monotonic() - self.begin), 60)
        print(f'[{minutes:02d}:{seconds:02d}] {self._prefix}{text}', flush=True)


def _arguments(argv):
    parser = argparse.ArgumentParser(
        prog='bench/run', description='Measure Weir against its peers; see bench/README.md.')
    names = [s.name for s in ALL]
    parser.add_argument('--quick', action='store_true',
                        help='about three minutes: one round, few peers, short samples; the '
                             'results go to bench/results/quick')
    parser.add_argument('--only', nargs='+', metavar='NAME', action='extend', choices=names,
                        help='only these scenarios; the other results are kept')
    parser.add_argument('--rounds', type=int, metavar='N', help='rounds over all servers (3)')
    parser.add_argument('--seconds', type=int, metavar='N', help='length of a wrk sample (4)')
    parser.add_argument('--servers', nargs='+', metavar='KEY',
                        help='only these contenders, such as weir waitress; not for the record: '
                             'the results go to bench/results/quick')
    parser.add_argument('--instr-peers', nargs='+', metavar='KEY', default=[],
                        choices=[k for k in servers.KINDS if k != 'weir'],
                        help='count instructions of these too')
    parser.add_argument('--wait-quiet', type=float, metavar='S',
                        help='wait at most so long for a quiet machine before a sample (10)')
    parser.add_argument('--max-minutes', type=float, metavar='M',
                        help='start nothing more after so long (90, quick 8)')
    parser.add_argument('--out', metavar='DIR', help='another folder for the results')
    parser.add_argument('--list', action='store_true', help='say what there is, and end')
    parser.add_argument('--report', action='store_true',
                        help='measure nothing: write table and picture from the JSON files again')
    options = parser.parse_args(argv)
    for name in ('rounds', 'seconds'):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= 100:
            parser.error(f'--{name}: give 1 to 100')
    return options


def _list():
    print(f'{"name":<14} {"full, s":>8} {"quick, s":>8}  what')
    for s in ALL:
        print(f'{s.name:<14} {s.est_s[0]:>8} {s.est_s[1] or "-":>8}  {s.title}')
    full, quick = (sum(s.est_s[i] for s in ALL) for i in (0, 1))
    print(f'{"all":<14} {full:>8} {quick:>8}  about {full // 60} and {quick / 60:.1f} minutes')
    for key, (name, _) in servers.KINDS.items():
        print(f'    {key:<18} {name}{"" if servers.available(key) else ": not here"}')


def _one(ctx, scenario, contender, wait_s):
    """One sample; measured a second time where others used the machine during the first."""
    tries = 1 if ctx.quick or not scenario.retry_busy else 2
    best = None
    for _ in range(tries):
        machine.wait_quiet(wait_s)
        got = scenario.sample(ctx, contender)
        if best is None or got.get('foreign_cores', 0) < best.get('foreign_cores', 0):
            best = got
        if not best.get('busy'):
            break
    return best


def _headline(scenario, got):
    parts = []
    for metric, heading, form in scenario.columns:
        if metric in got:
            value = got[metric]
            parts.append(f'{heading} {"-" if value is None else form.format(value)}')
    if got.get('busy'):
        parts.append('(machine busy)')
    return ', '.join(parts)


def _measure(ctx, scenario, options, facts, deadline):
    contenders = scenario.contenders(ctx)
    if options.servers:
        contenders = [c for c in contenders if c.key in options.servers or
                      c.kind in options.servers]
    rounds = 1 if ctx.quick else scenario.rounds
    if options.rounds:
        rounds = options.rounds
    samples, commands, failures = {}, {}, {}
    for c in contenders:
        if c.kind != 'bare' and not servers.available(c.kind):
            failures[c.key] = ('not built: make build, or set WEIR' if c.kind == 'weir' else
                               'WEIR_OTHER does not name it' if c.kind == 'weir-other' else
                               'not installed')
            ctx.head(f'{scenario.name}  ')
            ctx.say(f'{c.label}: {failures[c.key]}')
    for number in range(1, rounds + 1):
        for c in contenders:
            if c.key in failures or (c.rounds and number > c.rounds and not options.rounds):
                continue
            ctx.head(f'{scenario.name}  round {number}/{rounds}  {c.label}: ')
            if time.monotonic() > deadline:
                failures.setdefault(c.key, 'left out: the time of the run was over')
                continue
            ctx.command = None
            try:
                got = _one(ctx, scenario, c, options.wait_quiet)
            except (servers.StartError, load.LoadError, OSError, ValueError, KeyError,
                    subprocess.SubprocessError) as error:
                failures[c.key] = f'{type(error).__name__}: {error}'.replace('\n', ' ').replace(
                    ctx.tmp, 'TMP').replace(machine.ROOT + '/', '')[:300]
                ctx.say(failures[c.key])
                continue
            commands[c.key] = ctx.command or commands.get(c.key)
            samples.setdefault(c.key, []).append({'round': number, **got})
            ctx.say(_headline(scenario, got))
    said = {'quick': ctx.quick, 'rounds': rounds, 'seconds': ctx.seconds}
    if options.servers:
        said['servers'] = options.servers
    return report.build(scenario, contenders, samples, commands, failures, facts, said)


def _write(folder):
    records = report.load_all(folder)
    with open(os.path.join(folder, 'README.md'), 'w') as file:
        file.write(report.markdown(records))
    try:
        drawn = picture.draw(records, folder)
    except Exception as error:  # the figures must not be lost for the picture's sake
        print(f'bench: no picture: {type(error).__name__}: {error}', file=sys.stderr)
        return
    if not drawn:
        print('bench: no picture (nothing measured, or python3-matplotlib is missing)',
              file=sys.stderr)


def _interrupt(signum, frame):
    raise KeyboardInterrupt


def main(argv=None):
    options = _arguments(argv)
    if options.list:
        _list()
        return 0
    folder = options.out or (os.path.join(RESULTS, 'quick')
                             if options.quick or options.servers else RESULTS)
    if options.report:
        _write(folder)
        return 0
    if options.wait_quiet is None:
        options.wait_quiet = 0.5 if options.quick else 10.0
    minutes = options.max_minutes or (8 if options.quick else 90)
    chosen = [s for s in ALL if not options.only or s.name in options.only]
    if options.quick and not options.only:
        chosen = [s for s in chosen if s.est_s[1]]
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _interrupt)
    proc.raise_nofile()
    tmp = tempfile.mkdtemp(prefix='weir-bench-')
    os.chmod(tmp, 0o755)  # nginx' worker is not root
    ctx = Context(options, tmp)
    facts = machine.describe()
    if not ctx.cores:
        print('bench: one core only: servers and load generator share it', file=sys.stderr)
    if os.getloadavg()[0] > 0.5:
        ctx.say(f'the load average is {os.getloadavg()[0]:.1f}: this machine is not quiet')
    deadline = time.monotonic() + minutes * 60
    status, done = 0, []
    try:
        for scenario in chosen:
            record = _measure(ctx, scenario, options, facts, deadline)
            report.save(record, folder)
            done.append(record)
            if any(r['failure'] for r in record['rows'] if r['key'] == 'weir'):
                status = 1
        ctx.head('')
    except KeyboardInterrupt:
        ctx.head('')
        ctx.say('interrupted; the scenarios that ended are kept')
        status = 130
    finally:
        # A second Ctrl-C must not leave servers behind.
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        proc.stop_all()
        shutil.rmtree(tmp, ignore_errors=True)
    if done:
        _write(folder)
        print()
        print(report.terminal(done))
        print()
        shown = os.path.relpath(folder)
        print(f'{shown}/README.md has the whole table, {shown}/summary.svg the picture.')
    return status
