"""basic:app behind wsgiref.validate: every breach of PEP 3333, by server or application, is an error."""

from wsgiref.validate import validator

from basic import answer


def inner(environ, start):
    if environ["PATH_INFO"] == "/stream":
        start("200 OK", [("Content-Type", "text/plain")])
        return iter([b"a", b"b"])
    if environ["PATH_INFO"] == "/write":
        start("200 OK", [("Content-Type", "text/plain")])(b"written ")
        return [b"returned"]
    if environ["PATH_INFO"] == "/empty":
        start("204 No Content", [])
        return []
    stream = environ["wsgi.input"]
    body = stream.readline(10) + stream.read(5) + b"".join(stream.readlines(10)) + b"".join(stream) + stream.read(100000)
    environ["wsgi.errors"].write("validated\n")
    environ["wsgi.errors"].writelines(["one\n", "two\n"])
    environ["wsgi.errors"].flush()
    return answer(start, body or b"no body")


app = validator(inner)
