"""An application that does what applications do: asks services, a database, computes, holds the GIL."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable

import numpy
import psycopg2
import psycopg2.pool
import requests

from basic import answer, answer_json, app as basic_app

session = requests.Session()
libc_holding_the_gil = ctypes.PyDLL(None)
pool: psycopg2.pool.ThreadedConnectionPool | None = None
pool_lock = threading.Lock()


def database() -> psycopg2.pool.ThreadedConnectionPool:
    global pool
    with pool_lock:
        if pool is None:
            pool = psycopg2.pool.ThreadedConnectionPool(1, 40, os.environ["DATABASE"])
        return pool


def app(environ: dict, start: Callable) -> Iterable[bytes]:
    name, _, arg = environ["PATH_INFO"].strip("/").partition("/")
    query = environ["QUERY_STRING"]
    if name == "fetch":  # one blocking HTTP request to another server
        with requests.get(f"{os.environ['UPSTREAM']}/{arg}?{query}", timeout=30) as r:
            return answer(start, r.text)
    if name == "fetch-shared":  # the same over a session that all threads share
        return answer(start, session.get(f"{os.environ['UPSTREAM']}/{arg}?{query}", timeout=30).text)
    if name == "query":  # blocks inside the database
        connection = database().getconn()
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("select %s::text, pg_sleep(%s)", (query, int(arg) / 1000))
                return answer(start, cursor.fetchone()[0])
        finally:
            database().putconn(connection)
    if name == "numpy":  # a matrix product releases the GIL, sorting objects does not
        a = numpy.random.default_rng(int(query or 0)).random((int(arg), int(arg)))
        words = numpy.array([str(x) for x in a.ravel()], dtype=object)
        words.sort()
        return answer_json(start, {"trace": float((a @ a.T).trace()), "first": words[0]})
    if name == "hold":  # keeps the GIL without running Python at all
        libc_holding_the_gil.usleep(int(arg) * 1000)
        return answer(start, "held\n")
    if name == "descriptors":  # takes all that are left
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        basic_app({**environ, "PATH_INFO": "/wait/" + arg}, lambda *a: None)
        for fd in held:
            os.close(fd)
        return answer(start, f"{len(held)} were held\n")
    return basic_app(environ, start)
