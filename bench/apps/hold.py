"""/hold waits until somebody has asked for /release; /work takes 20 to 40 ms; everything else answers at once."""
import random
import threading
import time

RELEASED = threading.Event()


def app(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/hold':
        RELEASED.wait()
    elif path == '/release':
        RELEASED.set()
    elif path == '/work':
        time.sleep(random.uniform(0.02, 0.04))
    body = b'ok\n'
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])
    return [body]
