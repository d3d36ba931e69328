"""An application that hangs in the three ways that applications hang. For docs/hung.md, and nothing else.

    GET /           answers at once
    GET /wait       waits for a lock that is never free: a pool without a free connection, a deadlock
    GET /spin       computes in Python for ever: a loop that does not end
    GET /match      computes in C for ever and keeps the interpreter lock: a regular expression that backtracks
"""

import re
import threading

from flask import Flask

app = Flask(__name__)
connections = threading.Semaphore(1)
connections.acquire()  # somebody has taken the last one and does not give it back


def connection():
    connections.acquire()
    return connections


@app.get("/")
def index():
    return "well\n"


@app.get("/wait")
def wait():
    with connection():
        return "never\n"


def steps(n):
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        if n == 1:
            n = 27  # the mistake
    return n


@app.get("/spin")
def spin():
    return f"{steps(27)}\n"


NAMES = re.compile(r"(\w+\s?)+$")


@app.get("/match")
def match():
    text = "the names of all who came to the meeting of the board yesterday!"
    return f"{NAMES.match(text)}\n"
