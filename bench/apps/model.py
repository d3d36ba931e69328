"""A stand-in for an application with a large model: MODEL_MB megabytes, filled so that they are resident."""
import os

MODEL = bytearray(os.urandom(1_000_000) * int(os.environ.get('MODEL_MB', '300')))


def app(environ, start_response):
    body = b'%d' % MODEL[len(MODEL) // 2]
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])
    return [body]
