"""The servers: their command lines, and a context manager that starts and ends one."""
import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import time

from . import machine, proc

APPS = os.path.join(machine.ROOT, 'bench', 'apps')

NGINX_CONF = '''\
worker_processes 1;
daemon off;
pid {tmp}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
    client_body_temp_path {tmp}; proxy_temp_path {tmp}; fastcgi_temp_path {tmp};
    uwsgi_temp_path {tmp}; scgi_temp_path {tmp};
    default_type text/plain;
    sendfile on; tcp_nopush on;
    server {{
        listen 127.0.0.1:{port} {tls} backlog=4096;
        {certificate}
        location / {{ return 200 "hello world\\n"; }}
        location /files/ {{ root {tmp}; }}
    }}
}}
'''


class StartError(Exception):
    pass


KEYS = {'rsa': ['RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
        'ecdsa': ['EC', '-pkeyopt', 'ec_paramgen_curve:P-256']}


def certificate(key, tmp):
    """(certificate, key) of one of KEYS as files, made once in a run."""
    pem, private = (os.path.join(tmp, f'{key}.{end}') for end in ('pem', 'key'))
    if not os.path.exists(pem):
        for argv in (['genpkey', '-algorithm', *KEYS[key], '-out', private],
                     ['req', '-x509', '-key', private, '-subj', '/CN=localhost', '-days', '7',
                      '-out', pem]):
            subprocess.run(['/usr/bin/openssl', *argv], check=True, capture_output=True, timeout=60)
    return pem, private


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


def _gunicorn(kind):
    def command(port, app, threads, extra, tmp):
        argv = ['/usr/bin/gunicorn', '-b', f'127.0.0.1:{port}', '-k', kind, '--keep-alive', '75',
                '--log-level', 'warning']
        if kind == 'gthread':
            argv += ['--threads', str(threads or 4)]
        if '-w' not in extra:
            argv += ['-w', '1']
        return argv + extra + [app]
    return command


def _uwsgi(default_threads):
    def command(port, app, threads, extra, tmp):
        argv = ['/usr/bin/uwsgi', '--plugin', 'python3', '--http-socket', f'127.0.0.1:{port}',
                '--processes', '1', '--listen', '1024', '--disable-logging', '--die-on-term',
                '--need-app', '--module', app,
                # It closes after each answer without saying so, which clients take for an error.
                '--add-header', 'Connection: close']
        count = threads or default_threads
        return argv + (['--threads', str(count)] if count else []) + extra
    return command


def _waitress(port, app, threads, extra, tmp):
    launcher = os.path.join(machine.ROOT, 'bench', 'harness', 'waitress_quiet.py')
    argv = [machine.PYTHON, launcher, '--listen', f'127.0.0.1:{port}']
    return argv + (['--threads', str(threads)] if threads else []) + extra + [app]


def _flask(port, app, threads, extra, tmp):
    launcher = os.path.join(machine.ROOT, 'bench', 'harness', 'flask_dev.py')
    return [machine.PYTHON, launcher, str(port), app]


def _nginx(port, app, threads, extra, tmp):
    # extra: nothing, or the key of certificate(), for TLS with everything else as nginx has it.
    path = os.path.join(tmp, 'nginx.conf')
    tls = lines = ''
    if extra:
        pem, key = certificate(extra[0], tmp)
        tls, lines = 'ssl', f'ssl_certificate {pem}; ssl_certificate_key {key};'
    with open(path, 'w') as file:
        file.write(NGINX_CONF.format(port=port, tmp=tmp, tls=tls, certificate=lines))
    return ['/usr/sbin/nginx', '-c', path, '-p', tmp]


def _weir(command):
    def line(port, app, threads, extra, tmp):
        argv = command() + ['--bind', f'127.0.0.1:{port}']
        return argv + (['--threads', str(threads)] if threads else []) + extra + [app]
    return line


# key -> (name in tables, command line)
KINDS = {
    'weir': ('Weir', _weir(machine.weir_command)),
    'weir-other': ('another build of Weir', _weir(machine.other_command)),
    'waitress': ('Waitress', _waitress),
    'gunicorn-sync': ('Gunicorn sync', _gunicorn('sync')),
    'gunicorn-gthread': ('Gunicorn gthread', _gunicorn('gthread')),
    'gunicorn-gevent': ('Gunicorn gevent', _gunicorn('gevent')),
    'uwsgi': ('uWSGI', _uwsgi(0)),
    'uwsgi-threads': ('uWSGI threads', _uwsgi(4)),
    'flask-dev': ('Flask development server', _flask),
    'nginx': ('nginx return 200', _nginx),
}

NEEDS = {
    'waitress': '/usr/bin/waitress-serve', 'gunicorn-sync': '/usr/bin/gunicorn',
    'gunicorn-gthread': '/usr/bin/gunicorn', 'gunicorn-gevent': '/usr/bin/gunicorn',
    'uwsgi': '/usr/bin/uwsgi', 'uwsgi-threads': '/usr/bin/uwsgi', 'nginx': '/usr/sbin/nginx',
}


def available(kind):
    if kind == 'weir':
        return machine.weir_command() is not None
    if kind == 'weir-other':
        return machine.other_command() is not None
    return kind not in NEEDS or os.access(NEEDS[kind], os.X_OK)


def environment(tmp, extra=None):
    """The caller's environment without what would steer a peer; bytecode stays out of the tree.

    It must be written, though: without it every worker compiles what it imports, for seconds, and
    a reload measures the compiler.
    """
    env = {k: v for k, v in os.environ.items()
           if k not in ('PORT', 'WEB_CONCURRENCY', 'GUNICORN_CMD_ARGS', 'PYTHONPATH',
                        'PYTHONDONTWRITEBYTECODE', 'PYTHONOPTIMIZE')
           and not k.startswith('UWSGI_')}
    env['PYTHONPYCACHEPREFIX'] = os.path.join(tmp, 'pycache')
    env.update(extra or {})
    return env


class Server:
    """A running server: .port, .pid, .command (as recorded: no path of this machine in it)."""

    def __init__(self, child, port, command):
        self.child, self.port, self.command = child, port, command
        self.pid = child.pid

    def rss_kib(self):
        return proc.rss_kib(self.pid)


def shown(argv, port, tmp):
    """The command line for the record."""
    for weir in (machine.weir_command(), machine.other_command()):
        if weir and argv[:len(weir)] == weir:
            argv = ['weir'] + argv[len(weir):]
            break
    out = []
    for arg in argv:
        arg = arg.replace(tmp, 'TMP').replace(machine.ROOT + '/', '')
        arg = arg.replace(str(port), 'PORT') if port else arg
        out.append(os.path.basename(arg) if arg.startswith(('/usr/', '/bin/')) else arg)
    return ' '.join(out)


def version_note(kind):
    """Which build of Weir that is: the commit of the tree that its command stands in."""
    command = machine.other_command() if kind == 'weir-other' else machine.weir_command()
    done = subprocess.run(['git', '-C', os.path.dirname(os.path.realpath(command[0])), 'rev-parse', '--short', 'HEAD'],
                          capture_output=True, text=True, timeout=20)
    return f'commit {done.stdout.strip()}' if done.returncode == 0 else 'of an unknown commit'


def get(port, path='/', timeout=2.0, tls=False):
    """(status, body) of one GET on a fresh connection."""
    conn = http.client.HTTPConnection('127.0.0.1', port, timeout=timeout)
    if tls:
        conn = http.client.HTTPSConnection('127.0.0.1', port, timeout=timeout,
                                           context=ssl._create_unverified_context())
    try:
        conn.request('GET', path)
        answer = conn.getresponse()
        return answer.status, answer.read()
    finally:
        conn.close()


def wait_ready(child, port, path, limit_s, log, tls=False):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if child.poll() is not None:
            break
        try:
            status, _ = get(port, path, tls=tls)
            if status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    log.seek(0)
    tail = log.read()[-600:].decode(errors='replace').strip()
    what = f'ended with {child.returncode}' if child.poll() is not None else 'did not answer'
    raise StartError(f'{what} within {limit_s:.0f} s: {tail}')


@contextlib.contextmanager
def running(kind, app, tmp, threads=None, extra=(), core=None, env=None, cwd=APPS, ready='/',
            prefix=(), limit_s=15.0, grace_s=3.0, tls=False):
    """Start the server on a free port, wait until `ready` answers 200, end it afterwards."""
    port = free_port()
    argv = KINDS[kind][1](port, app, threads, list(extra), tmp)
    command = shown(argv, port, tmp)
    argv = list(prefix) + argv
    if core is not None:
        argv = ['/usr/bin/taskset', '-c', str(core)] + argv
    with open(os.path.join(tmp, f'{kind}.log'), 'w+b') as log:
        child = proc.start(argv, cwd=cwd, env=environment(tmp, env), stdin=subprocess.DEVNULL,
                           stdout=log, stderr=log)
        try:
            wait_ready(child, port, ready, limit_s, log, tls)
            yield Server(child, port, command)
        finally:
            proc.stop(child, grace_s)
