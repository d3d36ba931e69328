/*
 * wsgi: a Python application behind struct app (PEP 3333).
 *
 * The only folder, with src/python_module.c, that includes Python.h. Every function here needs the
 * GIL; those in struct app say themselves when they take and give it.
 *
 * Owner:   wsgi_app_new copies the texts of its config and holds a reference to the application.
 * Errors:  -1 with a Python exception set.
 * Source:  PEP 3333; docs/wsgi.md has the table of all points with what Weir does.
 */
#ifndef WEIR_WSGI_WSGI_H
#define WEIR_WSGI_WSGI_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "handler/handler.h"

struct wsgi_config {
    const char *url_scheme; /* wsgi.url_scheme; NULL or "" = http */
    const char *url_prefix; /* SCRIPT_NAME, cut from the path; NULL or "" = none */
    const char
        *server_name; /* SERVER_NAME where the request names no host; in Waitress' dialect always */
    const char *ident;              /* SERVER_SOFTWARE; NULL or "" = weir */
    bool waitress;                  /* Waitress' dialect: see docs/wsgi.md */
    bool gunicorn;                  /* Gunicorn's: the same */
    bool prefix_required;           /* paths that are not below url_prefix are answered with 500 */
    bool multithread, multiprocess; /* what the application is told */
    bool expose_tracebacks;         /* send tracebacks to clients */
    bool errors_to_log;             /* wsgi.errors goes line by line to `log`, not to sys.stderr */
    void (*log)(int level, uint64_t request_id,
                const char *text); /* enum log_level; NULL = the error log */
};

/* Make the types of this folder ready; once, from the module's initialisation. 0 or -1. */
WEIR_MUST_USE int wsgi_module_init(PyObject *module);

/* 0 or -1. *out is owned; the config is copied. */
WEIR_MUST_USE int wsgi_app_new(struct app **out, PyObject *application,
                               const struct wsgi_config *config);

/* After all its threads have stopped. *app becomes NULL. */
void wsgi_app_free(struct app **app);

/* How long a thread keeps the GIL when others wait (sys.setswitchinterval). Failure is not told. */
void wsgi_set_switch_interval(double seconds);

#endif
