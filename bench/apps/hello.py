"""The smallest useful answer: 12 bytes of text."""

BODY = b'hello world\n'
HEADERS = [('Content-Type', 'text/plain'), ('Content-Length', str(len(BODY)))]


def app(environ, start_response):
    start_response('200 OK', HEADERS)
    return [BODY]
