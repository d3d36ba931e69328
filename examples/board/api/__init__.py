"""The board's web application; `api.index:app` is its WSGI callable."""
