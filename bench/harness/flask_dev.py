"""What `flask run` runs: werkzeug's development server, a thread for each connection.

`flask run` itself wants a Flask object; this takes any application. Its access log is off, as
everybody's here. Arguments: PORT module:app
"""
import importlib
import logging
import os
import sys

from werkzeug.serving import run_simple

logging.getLogger('werkzeug').setLevel(logging.ERROR)
sys.path.insert(0, os.getcwd())
module, _, name = sys.argv[2].partition(':')
run_simple('127.0.0.1', int(sys.argv[1]), getattr(importlib.import_module(module), name),
           threaded=True)
