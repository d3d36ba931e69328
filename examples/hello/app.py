"""The smallest WSGI applications: `app` is pure WSGI, `flask_app` is Flask.

    weir app:app
    weir app:flask_app
"""

import time

try:
    from flask import Flask, jsonify
except ImportError:  # `app` does not need it
    Flask = None


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"Hello from Weir\n"]


if Flask:
    flask_app = Flask(__name__)

    @flask_app.get("/")
    def hello():
        return jsonify(hello="from Flask")

    @flask_app.get("/slow")
    def slow():
        time.sleep(1)  # stands for a model or a database that takes its time
        return jsonify(slept=1)
