"""The machine: what it is, which versions run on it, and whether it is quiet."""
import os
import platform
import re
import shlex
import subprocess
import time

from . import proc

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '..', '..'))
PYTHON = '/usr/bin/python3'

# Of one core: more than this used by others, or taken by the hypervisor, makes a sample "busy".
FOREIGN_MAX = 0.15

PACKAGES = ('python3', 'python3-waitress', 'gunicorn', 'python3-gevent', 'uwsgi-core',
            'nginx-light', 'python3-flask', 'python3-werkzeug', 'wrk', 'valgrind')


def weir_command():
    """The command, or None where it is not built yet. WEIR overrides it."""
    if os.environ.get('WEIR'):
        return shlex.split(os.environ['WEIR'])
    path = os.path.join(ROOT, 'build', 'weir')
    return [path] if os.access(path, os.X_OK) else None


def other_command():
    """Another build of Weir to compare with, from WEIR_OTHER; None where there is none."""
    command = shlex.split(os.environ.get('WEIR_OTHER', ''))
    return [os.path.abspath(command[0]), *command[1:]] if command else None


def _output(argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return done.stdout.strip() if done.returncode == 0 else ''


def describe():
    """Facts for the record: processor, memory, kernel, versions."""
    cpu = {}
    with open('/proc/cpuinfo') as file:
        for line in file:
            key, _, value = line.partition(':')
            cpu.setdefault(key.strip(), value.strip())
    with open('/proc/meminfo') as file:
        mem_kib = int(file.readline().split()[1])
    versions = {}
    for line in _output(['dpkg-query', '-W', '-f', '${Package} ${Version}\n',
                         *PACKAGES]).splitlines():
        package, _, version = line.partition(' ')
        if version:
            versions[package] = version
    weir = weir_command()
    if weir:
        text = _output(weir + ['--version']).splitlines()
        versions['weir'] = re.sub(r'^weir\s+', '', text[0]) if text else 'built, version unknown'
        commit = _output(['git', 'rev-parse', '--short', 'HEAD'])
        if commit:
            changed = _output(['git', 'status', '--porcelain', '--untracked-files=no'])
            versions['weir'] += f' (commit {commit}{", changed since" if changed else ""})'
    virtual = 'hypervisor' in cpu.get('flags', '').split()
    return {
        'cpu': cpu.get('model name', platform.processor()) +
               (f', family {cpu.get("cpu family")} model {cpu.get("model")}'),
        'cores': os.cpu_count(),
        'virtual': virtual,
        'memory_gib': round(mem_kib / 1048576, 1),
        'kernel': platform.release(),
        'system': _os_name(),
        'versions': versions,
    }


def _os_name():
    try:
        return platform.freedesktop_os_release().get('PRETTY_NAME', 'Linux')
    except OSError:
        return 'Linux'


def cores():
    """(core of the server, core of the load generator) or None on a machine with one core."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else None


def _jiffies():
    """(used by processes, stolen by the hypervisor) of all cores since boot, in seconds.

    Interrupt time is left out: no process accounts for it."""
    with open('/proc/stat') as file:
        f = [int(x) for x in file.readline().split()[1:9]]
    user, nice, system, steal = f[0], f[1], f[2], f[7]
    return (user + nice + system) / proc.TICKS, steal / proc.TICKS


class Watch:
    """Says after a measurement how much of a core others used, and how much was stolen.

    with Watch(server_pid) as w: ...   then w.foreign, w.stolen, w.server_cpu, w.wall_s, w.load1
    """

    def __init__(self, pid=None):
        self.pid = pid

    def _now(self):
        own = os.times()
        ours = own.user + own.system + own.children_user + own.children_system
        return time.monotonic(), *_jiffies(), ours, proc.cpu_s(self.pid) if self.pid else 0.0

    def __enter__(self):
        self.begin = self._now()
        return self

    def __exit__(self, *exc):
        wall, used, stolen, ours, server = (b - a for a, b in zip(self.begin, self._now()))
        wall = max(wall, 1e-9)
        self.wall_s = wall
        self.server_cpu = max(0.0, server / wall)
        self.foreign = max(0.0, (used - ours - server) / wall)
        self.stolen = stolen / wall
        self.load1 = os.getloadavg()[0]

    @property
    def busy(self):
        return self.foreign > FOREIGN_MAX or self.stolen > FOREIGN_MAX

    def record(self):
        return {'load1': round(self.load1, 2), 'foreign_cores': round(self.foreign, 3),
                'stolen_cores': round(self.stolen, 3), 'server_cores': round(self.server_cpu, 3),
                'busy': self.busy}


def wait_quiet(limit_s):
    """Wait, at most limit_s, for a third of a second in which nobody else uses the machine."""
    end = time.monotonic() + limit_s
    while True:
        with Watch() as watch:
            time.sleep(0.3)
        if not watch.busy:
            return True
        if time.monotonic() > end:
            return False
