"""An answer of 1 MiB, and the small one of hello for the start."""

import hello
import os

BODY = os.urandom(1 << 20)
HEADERS = [('Content-Type', 'application/octet-stream'), ('Content-Length', str(len(BODY)))]


def app(environ, start_response):
    if environ['PATH_INFO'] == '/':
        return hello.app(environ, start_response)
    start_response('200 OK', HEADERS)
    return [BODY]
