"""Hello through Flask; `python3 flask_hello.py SECONDS` calls it in a bare loop, no server."""
import io
import sys
import time

from flask import Flask

app = Flask(__name__)


@app.route('/')
def hello():
    return 'hello world\n', 200, {'Content-Type': 'text/plain'}


def bare_loop(seconds):
    """Calls a second of app(environ, start_response): what Flask costs, with no server at all.

    Each call gets a fresh copy of an environ as a server would build it for the same request,
    reads the whole result and closes it.
    """
    base = {
        'REQUEST_METHOD': 'GET', 'SCRIPT_NAME': '', 'PATH_INFO': '/', 'QUERY_STRING': '',
        'SERVER_NAME': '127.0.0.1', 'SERVER_PORT': '8000', 'SERVER_PROTOCOL': 'HTTP/1.1',
        'REMOTE_ADDR': '127.0.0.1', 'HTTP_HOST': '127.0.0.1:8000',
        'wsgi.version': (1, 0), 'wsgi.url_scheme': 'http', 'wsgi.input': io.BytesIO(),
        'wsgi.errors': sys.stderr, 'wsgi.multithread': True, 'wsgi.multiprocess': False,
        'wsgi.run_once': False,
    }
    got = []

    def start_response(status, headers, exc_info=None):
        got[:] = [status]
        return got.append

    calls = 0
    clock = time.perf_counter
    begin = clock()
    end = begin + seconds
    while clock() < end:
        for _ in range(100):
            result = app(base.copy(), start_response)
            body = b''.join(result)
            if hasattr(result, 'close'):
                result.close()
        calls += 100
    took = clock() - begin
    if got[0] != '200 OK' or body != b'hello world\n':
        raise SystemExit(f'unexpected answer: {got[0]} {body!r}')
    return calls / took


if __name__ == '__main__':
    bare_loop(0.3)
    print(bare_loop(float(sys.argv[1])))
