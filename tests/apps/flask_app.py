"""A Flask application: forms, uploads, cookies, sessions, streams, files, errors."""

from __future__ import annotations

import hashlib
import os
import time

import flask

app = flask.Flask(__name__)
app.secret_key = "for tests alone"


@app.get("/")
def index():
    return "flask"


@app.post("/form")
def form():
    return flask.jsonify(flask.request.form.to_dict(flat=False))


@app.post("/json")
def json_echo():
    return flask.jsonify(flask.request.get_json())


@app.post("/upload")
def upload():
    return flask.jsonify({
        name: {"filename": f.filename, "size": len(data := f.read()), "sha": hashlib.sha256(data).hexdigest()}
        for name, f in flask.request.files.items()
    })


@app.get("/cookies")
def cookies():
    answer = flask.jsonify(dict(flask.request.cookies))
    answer.set_cookie("one", "1")
    answer.set_cookie("two", "2", max_age=60, httponly=True)
    return answer


@app.get("/count")
def count():
    flask.session["n"] = flask.session.get("n", 0) + 1
    return str(flask.session["n"])


@app.get("/stream")
def stream():
    @flask.stream_with_context
    def items():
        for i in range(5):
            yield f"{flask.request.args['name']} {i}\n"

    return app.response_class(items(), mimetype="text/plain")


@app.get("/events")
def events():
    def items():
        for i in range(3):
            yield f"data: {time.monotonic()}\n\n"
            time.sleep(0.2)

    return app.response_class(items(), mimetype="text/event-stream")


@app.get("/file")
def file():
    return flask.send_file(os.environ["SERVED_FILE"], mimetype="application/octet-stream", conditional=True)


@app.get("/redirect")
def redirect():
    return flask.redirect(flask.url_for("index", _external=True))


@app.get("/fail")
def fail():
    raise RuntimeError("failed in Flask")


@app.get("/abort")
def abort():
    flask.abort(418)


@app.get("/ünï")
def unicode_path():
    return "unicode"
