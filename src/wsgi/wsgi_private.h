/*
 * wsgi_private: what the files of this folder share.
 *
 * One run of the application has a `struct wsgi_run` on the stack of its thread. The Python objects
 * that the application gets (start_response, write, wsgi.input, client_disconnected) point to it
 * while it lasts; run_detach sets these pointers to NULL, so that an object the application kept
 * is harmless afterwards. All these pointers are read and written under the GIL.
 *
 * The GIL is given up inside a run in four places only, each between Py_BEGIN_ALLOW_THREADS and
 * Py_END_ALLOW_THREADS of one function: waiting for a slow client, waiting for a body, reading a
 * spilled body, and waiting for other threads at the end. `reading` or `writing` is set
 * meanwhile: another thread of the application that reads (or writes) the same request gets a
 * RuntimeError instead of mixing up its bytes. One thread may read while another writes.
 */
#ifndef WEIR_WSGI_PRIVATE_H
#define WEIR_WSGI_PRIVATE_H

#include "wsgi/wsgi.h"

#include <signal.h>
#include <stdatomic.h>

/* ---- names ---- */

/* Keys of the environ and other names, interned once for the process; W_KEY(x) is borrowed. */
#define WSGI_KEYS(X)                                                                               \
    X(request_method, "REQUEST_METHOD")                                                            \
    X(script_name, "SCRIPT_NAME")                                                                  \
    X(path_info, "PATH_INFO")                                                                      \
    X(query_string, "QUERY_STRING")                                                                \
    X(raw_uri, "RAW_URI")                                                                          \
    X(request_uri, "REQUEST_URI")                                                                  \
    X(server_name, "SERVER_NAME")                                                                  \
    X(server_port, "SERVER_PORT")                                                                  \
    X(server_protocol, "SERVER_PROTOCOL")                                                          \
    X(server_software, "SERVER_SOFTWARE")                                                          \
    X(remote_addr, "REMOTE_ADDR")                                                                  \
    X(remote_host, "REMOTE_HOST")                                                                  \
    X(remote_port, "REMOTE_PORT")                                                                  \
    X(content_type, "CONTENT_TYPE")                                                                \
    X(content_length, "CONTENT_LENGTH")                                                            \
    X(http_host, "HTTP_HOST")                                                                      \
    X(http_cookie, "HTTP_COOKIE")                                                                  \
    X(http_transfer_encoding, "HTTP_TRANSFER_ENCODING")                                            \
    X(http_x_request_id, "HTTP_X_REQUEST_ID")                                                      \
    X(http_traceparent, "HTTP_TRACEPARENT")                                                        \
    X(http_tracestate, "HTTP_TRACESTATE")                                                          \
    X(wsgi_version, "wsgi.version")                                                                \
    X(wsgi_url_scheme, "wsgi.url_scheme")                                                          \
    X(https, "HTTPS")                                                                              \
    X(ssl_protocol, "SSL_PROTOCOL")                                                                \
    X(ssl_cipher, "SSL_CIPHER")                                                                    \
    X(ssl_client_verify, "SSL_CLIENT_VERIFY")                                                      \
    X(ssl_client_s_dn, "SSL_CLIENT_S_DN")                                                          \
    X(ssl_client_i_dn, "SSL_CLIENT_I_DN")                                                          \
    X(ssl_client_cert, "SSL_CLIENT_CERT")                                                          \
    X(wsgi_input, "wsgi.input")                                                                    \
    X(wsgi_errors, "wsgi.errors")                                                                  \
    X(wsgi_multithread, "wsgi.multithread")                                                        \
    X(wsgi_multiprocess, "wsgi.multiprocess")                                                      \
    X(wsgi_run_once, "wsgi.run_once")                                                              \
    X(wsgi_file_wrapper, "wsgi.file_wrapper")                                                      \
    X(wsgi_early_hints, "wsgi.early_hints")                                                        \
    X(wsgi_input_terminated, "wsgi.input_terminated")                                              \
    X(waitress_client_disconnected, "waitress.client_disconnected")                                \
    X(weir_client_disconnected, "weir.client_disconnected")                                        \
    X(weir_request_id, "weir.request_id")                                                          \
    X(weir_user, "weir.user")                                                                      \
    X(weir_user_by, "weir.user_by")                                                                \
    X(weir_tier, "weir.tier")                                                                      \
    X(weir_claims, "weir.claims")                                                                  \
    X(close, "close")

enum wsgi_key {
#define WSGI_KEY_ENUM(id, text) W_##id,
    WSGI_KEYS(WSGI_KEY_ENUM)
#undef WSGI_KEY_ENUM
        WSGI_KEY_COUNT
};
extern PyObject *wsgi_keys[WSGI_KEY_COUNT];
#define W_KEY(id) (wsgi_keys[W_##id])

/* ---- environ ---- */

/* One base environ for each listener and shape of request; the newest few are kept. */
struct environ_base {
    PyObject *dict; /* owned; NULL = unused */
    char server_addr[112];
    char server_port[8];
    bool is_unix, is_tls;
    bool has_port, has_host; /* REMOTE_PORT and HTTP_HOST stand in it */
    bool roomy;              /* its table has room for many fields */
    bool has_id, has_trace;  /* HTTP_X_REQUEST_ID and HTTP_TRACEPARENT stand in it, as ours */
    unsigned who;            /* bits of enum environ_who: which of weir.user, … stand in it */
};

/* What is known of who asks. */
enum environ_who { WHO_BY = 1, WHO_USER = 2, WHO_TIER = 4, WHO_CLAIMS = 8 };

/* Values of the template that change less often than requests come: with their connection, or their
 * URL. */
enum environ_slot {
    SLOT_REQUEST_ID = 0, /* these four are new each time: see text_again */
    SLOT_TRACEPARENT,
    SLOT_USER,
    SLOT_CLAIMS,
    SLOT_TIER,
    SLOT_BY,
    SLOT_ADDR,
    SLOT_PORT,
    SLOT_HOST,
    SLOT_NAME,
    SLOT_GONE,
    SLOT_TARGET,
    SLOT_PROTOCOL, /* of TLS, as the next */
    SLOT_CIPHER,
    SLOTS
};

/* A thread's own copy of a base, with the values of its last request. Only what differs is stored
 * before it is copied for the next one: a dict store costs as much as fifteen bytes of text. */
struct environ_template {
    PyObject *base;                        /* owned: what it was copied from; NULL = none yet */
    PyObject *dict;                        /* owned */
    PyObject *now[SLOTS];                  /* owned: value that stands in `dict`, or NULL */
    char addr[64];                         /* of SLOT_ADDR */
    char port[8];                          /* of SLOT_PORT */
    char host[96];                         /* of SLOT_HOST */
    char target[128];                      /* of SLOT_TARGET, an origin form */
    unsigned char host_n, target_n;        /* 0 = the texts above are not known */
    const char *by;                        /* literal: of SLOT_BY; NULL = not known */
    const char *tls_protocol, *tls_cipher; /* literals: of the slots; NULL = not known */
};

/* From the bytes of a field name to its key. Direct-mapped; a collision replaces. */
struct environ_name {
    PyObject *key;   /* owned; NULL = unused */
    PyObject *value; /* owned: the last value, used again when it comes again; or NULL */
    bool repeats;    /* a well-known field that is no secret: its value may be kept */
    unsigned char n;
    char raw[46];
};

struct environ_state {
    struct environ_base bases[16];
    unsigned next_base;
    PyObject *known;      /* owned dict: well-known keys, interned; nothing a client can add to */
    PyObject *http_1_0;   /* owned str */
    PyObject *no_addr;    /* owned str: REMOTE_ADDR of a Unix socket's peer in this dialect */
    PyObject *methods[8]; /* owned str, in the order of METHOD_NAMES */
    struct environ_name names[512];
};

/* ---- application, thread, run ---- */

struct wsgi {
    struct app app;        /* first */
    PyObject *application; /* owned */
    PyInterpreterState *interp;
    PyObject *threading;                                /* owned module */
    PyObject *format_exception;                         /* owned: traceback.format_exception */
    PyObject *errors;                                   /* owned: wsgi.errors */
    PyObject *hints;                                    /* owned: wsgi.early_hints */
    PyObject *scheme, *prefix, *server_name, *software; /* owned str */
    bool waitress, gunicorn, prefix_required, multithread, multiprocess, expose_tracebacks,
        errors_to_log;
    void (*log)(int level, uint64_t request_id, const char *text);
    struct wsgi_inspector *inspector; /* owned; NULL until something was to be looked at */
    struct wsgi_thread *threads;      /* that ran something; under the GIL */
    _Atomic unsigned next_number;
    sigset_t
        signals; /* blocked in the thread that made the application, and so in all of its threads */
    struct environ_state environ;
};

struct wsgi_thread {
    PyThreadState *ts;        /* owned */
    unsigned long ident;      /* of the thread, as Python counts it */
    int32_t tid;              /* the same, as the kernel counts it */
    struct wsgi_thread *next; /* on wsgi->threads */
    struct wsgi_run *run;     /* the present one, or NULL */
    unsigned number;          /* in its name */
    bool known;               /* on wsgi->threads, named */
    PyObject *start;          /* owned: start_response kept for reuse, or NULL */
    PyObject *gone;           /* owned: client_disconnected kept for reuse, or NULL */
    struct buf line;          /* unfinished line of wsgi.errors */
    /* For heads of few fields, and of many; and the same with a user that is known. */
    struct environ_template last[4];
};

struct wsgi_run {
    struct wsgi *w;
    struct wsgi_thread *t;
    struct call *c;
    PyObject *start;  /* owned: start_response */
    PyObject *gone;   /* owned: client_disconnected */
    PyObject *input;  /* owned: wsgi.input, or NULL where it is the shared empty one */
    bool started;     /* start_response was called and was right */
    bool streamed;    /* bytes were flushed before the end */
    bool client_gone; /* a flush said so */
    bool ended_early; /* write() told the application that its response is to end */
    bool reading;     /* a thread is inside a read without the GIL */
    bool writing;     /* a thread waits for the client without the GIL */
    bool window;      /* the application's code is called: it may be interrupted. See inspect.c */
    bool interrupted; /* it was, once */
    bool may_raise;   /* and that may not have been noticed yet */
    bool misplaced;   /* the path is not below SCRIPT_NAME, which is required: no call */
    int body_error;   /* negative errno that a read met, or 0 */
};

/* The bytes of a str in latin-1, which are what goes over the wire (PEP 3333). False: it is none,
 * or has other characters. */
__attribute__((always_inline)) static inline bool wsgi_text_lend(PyObject *o, struct slice *out)
{
    if (!PyUnicode_Check(o))
        return false;
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(o)) {
        PyErr_Clear();
        return false;
    }
#endif
    if (PyUnicode_KIND(o) != PyUnicode_1BYTE_KIND)
        return false;
    *out = slice_of((const char *)PyUnicode_1BYTE_DATA(o), (size_t)PyUnicode_GET_LENGTH(o));
    return true;
}

/* environ.c */
WEIR_MUST_USE int wsgi_environ_setup(struct wsgi *w);
void wsgi_environ_clear(struct wsgi *w);
void wsgi_template_clear(struct environ_template *t);
/* A new environ (new reference) or NULL; sets run->gone and run->input. */
PyObject *wsgi_environ_new(struct wsgi_run *run);

/* The variable `name`, or the same in capitals, as text in `arena`: latin-1 as it came, else UTF-8.
 * .p NULL: not there. Errors are cleared. */
struct slice wsgi_environ_text(PyObject *env, const char *name, struct arena *arena);

/* input.c */
extern PyTypeObject wsgi_input_type;
extern PyObject *wsgi_input_empty; /* owned for the process */
PyObject *wsgi_input_new(struct wsgi_run *run);
void wsgi_input_detach(PyObject *input);

/* errors.c */
extern PyTypeObject wsgi_errors_type;
PyObject *wsgi_errors_new(struct wsgi *w);
void wsgi_errors_detach(PyObject *errors);

/* hints.c */
extern PyTypeObject wsgi_hints_type;
PyObject *wsgi_hints_new(struct wsgi *w);
void wsgi_hints_detach(PyObject *hints);

/* gone.c */
extern PyTypeObject wsgi_gone_type;
/* A client_disconnected for the run: a new reference. The thread's last one is used again where
 * nobody holds it but the thread, and `others` more references that the caller knows of. */
PyObject *wsgi_gone_take(struct wsgi_run *run, Py_ssize_t others);
void wsgi_gone_detach(PyObject *gone);

/* start.c */
extern PyTypeObject wsgi_start_type, wsgi_write_type;
PyObject *wsgi_start_take(struct wsgi_run *run);
void wsgi_start_detach(PyObject *start);

/* file.c */
extern PyTypeObject wsgi_file_type;
enum wsgi_file_verdict {
    WSGI_FILE_FAILED = -1, /* an exception is set */
    WSGI_FILE_ITERATE = 0, /* nothing was done: iterate it */
    WSGI_FILE_SENT,        /* head and content stand in the call */
};
enum wsgi_file_verdict wsgi_file_send(struct wsgi_run *run, PyObject *wrapper);

/* send.c: content on its way out. 0; 1: the client is gone, stop; -1: an exception is set. */
enum { WSGI_SENT = 0, WSGI_STOP = 1, WSGI_FAILED = -1 };
/* One item of the application's iterable, or of write(); `flush`: hand it to the loop at once. */
WEIR_MUST_USE int wsgi_send_item(struct wsgi_run *run, PyObject *item, bool flush);
WEIR_MUST_USE int wsgi_send(struct wsgi_run *run, struct slice data, bool flush);
int wsgi_flush(struct wsgi_run *run);
/* -1 with an exception when another thread is writing this response right now. */
WEIR_MUST_USE int wsgi_run_claim(const struct wsgi_run *run);

/* trouble.c: exceptions and other lines for the log. */
/* Log the exception that is set, with its traceback, and clear it. `what` begins the entry. *text
 * (may be NULL) gets a new reference to the whole entry as bytes, or NULL. */
void wsgi_log_exception(struct wsgi_run *run, const char *what, PyObject **text);
/* One line about the request. */
void wsgi_log(struct wsgi_run *run, int level, const char *fmt, ...) WEIR_PRINTF(3, 4);

/* inspect.c; the functions of struct app say more in handler.h */
extern PyObject *wsgi_deadline_exceeded; /* owned for the process */
WEIR_MUST_USE int wsgi_inspect_init(PyObject *module);
bool wsgi_inspect(struct app *a, const struct inspect_ask *ask);
void wsgi_inspect_late(struct app *a, uint64_t id);
/* End its thread and wait for it; the GIL is given up meanwhile. */
void wsgi_inspect_stop(struct wsgi *w);

/* From now on the run may be interrupted; until here. What was not noticed by then is taken back.
 */
static inline void wsgi_window_open(struct wsgi_run *run)
{
    run->window = true;
}
void wsgi_window_shut_slowly(struct wsgi_run *run);
static inline void wsgi_window_shut(struct wsgi_run *run)
{
    run->window = false;
    if (WEIR_UNLIKELY(run->may_raise))
        wsgi_window_shut_slowly(run);
}

/* call.c */
void wsgi_run(struct app *a, void *local, struct call *c);

/* threads.c */
void wsgi_threads_setup(struct wsgi *w);
/* First run of a thread: on the list, with a name. Errors are cleared. */
void wsgi_thread_introduce(struct wsgi *w, struct wsgi_thread *t);
struct wsgi_thread *wsgi_thread_here(const struct wsgi *w);

#endif
