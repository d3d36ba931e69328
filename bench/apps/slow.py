"""/slow blocks for two seconds, as a call to a model does; everything else answers at once."""
import time

SLOW_S = 2.0


def app(environ, start_response):
    if environ['PATH_INFO'] == '/slow':
        time.sleep(SLOW_S)
        body = b'slow\n'
    else:
        body = b'ok\n'
    start_response('200 OK', [('Content-Type', 'text/plain'),
                              ('Content-Length', str(len(body)))])
    return [body]
