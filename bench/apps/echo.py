"""Reads a JSON body, decodes it, encodes it again and sends it back."""
import json


def app(environ, start_response):
    length = int(environ.get('CONTENT_LENGTH') or 0)
    if not length:  # the readiness probe is a bare GET
        body = b'{}'
    else:
        body = json.dumps(json.loads(environ['wsgi.input'].read(length))).encode()
    start_response('200 OK', [('Content-Type', 'application/json'),
                              ('Content-Length', str(len(body)))])
    return [body]
