/*
 * wsgi_harness: an extension module that runs applications through src/wsgi without a server.
 *
 * Heads are parsed by the real parser; the serving layer (struct call_ops) is a fake that keeps all
 * bytes in memory and does what the test tells it: refuse, be slow, let the client vanish, feed a
 * body in pieces.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/log.h"
#include "handler/reply.h"
#include "http/h1_parse.h"
#include "serve/identity.h"
#include "wsgi/wsgi.h"

#define PIECES_MAX 64

struct piece {
    char *p; /* owned */
    size_t n;
    int err;   /* negative errno instead of bytes */
    bool wait; /* -EAGAIN first */
};

static struct reply_ident g_ident; /* of the application made last */

/* One request as the test describes it, and what came of it. */
struct job {
    char *raw; /* owned: the head */
    size_t raw_n;
    struct field fields[128];
    struct req req;
    struct call_peer peer;
    struct proxy_facts facts;
    bool has_facts;
    struct body body;
    struct piece pieces[PIECES_MAX];
    unsigned n_pieces, next_piece;
    int flush_plan[32];
    unsigned n_flush, next_flush;
    struct arena arena;
    struct identity identity;
    struct call call;
    struct buf sent;         /* all flushed bytes */
    size_t flush_ends[4096]; /* length of `sent` after each flush */
    unsigned n_flushes;
    unsigned waits, body_waits;
    _Atomic bool gone;
    struct job *next;
};

static struct job *now; /* for gone() and flushed() */
static PyObject *lines; /* owned: the log */

static struct job *of(const struct call *c)
{
    return (struct job *)((char *)(uintptr_t)c - offsetof(struct job, call));
}

static int op_flush(struct call *c)
{
    struct job *j = of(c);
    if (atomic_load(&j->gone))
        return -EPIPE;
    int rc = j->next_flush < j->n_flush ? j->flush_plan[j->next_flush++] : 0;
    if (rc == 0 || rc == -EAGAIN) {
        if (buf_add(&j->sent, c->out.p, c->out.n))
            abort();
        c->out.n = 0;
        if (j->n_flushes < 4096)
            j->flush_ends[j->n_flushes++] = j->sent.n;
    } else {
        atomic_store(&j->gone, true);
    }
    return rc;
}

static int op_wait(struct call *c)
{
    struct job *j = of(c);
    usleep(20000);
    j->waits++;
    return atomic_load(&j->gone) ? -EPIPE : 0;
}

static ssize_t op_body_read(struct call *c, void *p, size_t n)
{
    struct job *j = of(c);
    if (j->next_piece == j->n_pieces)
        return 0;
    struct piece *q = &j->pieces[j->next_piece];
    if (q->wait)
        return -EAGAIN;
    if (q->err)
        return q->err;
    if (n > q->n)
        n = q->n;
    memcpy(p, q->p, n);
    q->n -= n;
    memmove(q->p, q->p + n, q->n);
    if (!q->n)
        j->next_piece++;
    return (ssize_t)n;
}

static int op_body_wait(struct call *c)
{
    struct job *j = of(c);
    usleep(20000);
    j->body_waits++;
    if (j->next_piece < j->n_pieces)
        j->pieces[j->next_piece].wait = false;
    return 0;
}

static bool op_gone(const struct call *c)
{
    return atomic_load(&of(c)->gone);
}

static int op_hint(struct call *c, struct slice bytes)
{
    struct job *j = of(c);
    if (atomic_load(&j->gone))
        return -EPIPE;
    if (buf_add_slice(&j->sent, bytes))
        abort();
    return 0;
}

static const struct call_ops OPS = {op_flush,     op_wait, op_body_read,
                                    op_body_wait, op_gone, op_hint};

static void on_log(int level, uint64_t id, const char *text)
{
    PyObject *row = Py_BuildValue("(iKs)", level, (unsigned long long)id, text); /* new */
    if (!row || PyList_Append(lines, row))
        PyErr_Clear();
    Py_XDECREF(row);
}

/* ---- jobs ---- */

static void job_reset(struct job *j, uint64_t id, bool keep_alive)
{
    struct call *c = &j->call;
    struct buf out = c->out;
    *c = (struct call){.req = &j->req,
                       .peer = &j->peer,
                       .proxy = j->has_facts ? &j->facts : NULL,
                       .body = &j->body,
                       .arena = &j->arena,
                       .id = id,
                       .keep_alive = j->req.keep_alive && keep_alive,
                       .file_fd = -1,
                       .ops = &OPS,
                       .ident = &g_ident};
    c->out = out;
    c->out.n = 0;
}

static void job_free(struct job *j)
{
    for (unsigned i = 0; i < j->n_pieces; i++)
        free(j->pieces[i].p);
    if (j->call.file_fd >= 0)
        close(j->call.file_fd);
    if (j->body.fd >= 0)
        close(j->body.fd);
    buf_fini(&j->body.mem);
    buf_fini(&j->call.out);
    buf_fini(&j->sent);
    arena_fini(&j->arena);
    free(j->raw);
    free(j);
}

static int text_into(char *to, size_t size, PyObject *spec, const char *name)
{
    PyObject *v = PyDict_GetItemString(spec, name); /* borrowed */
    if (!v)
        return 0;
    const char *s = PyUnicode_AsUTF8(v);
    if (!s)
        return -1;
    snprintf(to, size, "%s", s);
    return 0;
}

/* The dict's keys: raw, body (bytes: complete), spill (bool), pieces (list of bytes, int or None =
 * wait), peer facts, gone, flush (list of negative errnos), identity (of "ite": request id, trace
 * context, spans are exported). */
static struct job *job_new(PyObject *spec, uint64_t id)
{
    struct job *j = calloc(1, sizeof *j);
    j->body.fd = -1;
    j->call.file_fd = -1;
    PyObject *raw = PyDict_GetItemString(spec, "raw"); /* borrowed */
    char *p;
    Py_ssize_t n;
    if (!raw || PyBytes_AsStringAndSize(raw, &p, &n))
        goto bad;
    j->raw = malloc((size_t)n);
    memcpy(j->raw, p, (size_t)n);
    j->raw_n = (size_t)n;
    struct h1_limits limits = {.head_bytes = 1 << 20, .fields = 128};
    struct h1_error error = {0};
    size_t seen = 0, used = 0;
    if (h1_head(j->raw, j->raw_n, &seen, &limits, j->fields, &j->req, &used, &error) != H1_DONE) {
        PyErr_Format(PyExc_ValueError, "the parser refuses it: %d %s", error.status,
                     error.reason ? error.reason : "incomplete");
        goto bad;
    }
    snprintf(j->peer.remote_addr, sizeof j->peer.remote_addr, "127.0.0.1");
    snprintf(j->peer.remote_port, sizeof j->peer.remote_port, "40000");
    snprintf(j->peer.server_addr, sizeof j->peer.server_addr, "127.0.0.1");
    snprintf(j->peer.server_port, sizeof j->peer.server_port, "8000");
    if (text_into(j->peer.remote_addr, sizeof j->peer.remote_addr, spec, "remote_addr") ||
        text_into(j->peer.remote_port, sizeof j->peer.remote_port, spec, "remote_port") ||
        text_into(j->peer.server_port, sizeof j->peer.server_port, spec, "server_port"))
        goto bad;
    PyObject *o = PyDict_GetItemString(spec, "unix"); /* borrowed, as all below */
    j->peer.is_unix = o && PyObject_IsTrue(o);
    if (j->peer.is_unix)
        j->peer.remote_addr[0] = j->peer.remote_port[0] = j->peer.server_port[0] = '\0';
    j->body.complete = true;
    if ((o = PyDict_GetItemString(spec, "body"))) {
        if (PyBytes_AsStringAndSize(o, &p, &n))
            goto bad;
        j->body.size = (uint64_t)n;
        PyObject *spill = PyDict_GetItemString(spec, "spill");
        if (spill && PyObject_IsTrue(spill)) {
            char path[] = "/tmp/wsgi-harness-XXXXXX";
            j->body.fd = mkstemp(path);
            unlink(path);
            if (write(j->body.fd, p, (size_t)n) != n)
                abort();
        } else if (buf_add(&j->body.mem, p, (size_t)n)) {
            abort();
        }
    }
    if ((o = PyDict_GetItemString(spec, "pieces"))) {
        j->body.complete = false;
        bool wait = false;
        for (Py_ssize_t i = 0; i < PyList_Size(o); i++) {
            PyObject *x = PyList_GetItem(o, i);
            struct piece *q = &j->pieces[j->n_pieces];
            if (x == Py_None) {
                wait = true;
                continue;
            }
            if (PyLong_Check(x)) {
                q->err = (int)PyLong_AsLong(x);
            } else {
                if (PyBytes_AsStringAndSize(x, &p, &n))
                    goto bad;
                q->p = malloc((size_t)n);
                memcpy(q->p, p, (size_t)n);
                q->n = (size_t)n;
            }
            q->wait = wait;
            wait = false;
            j->n_pieces++;
        }
    }
    if ((o = PyDict_GetItemString(spec, "flush")))
        for (Py_ssize_t i = 0; i < PyList_Size(o); i++)
            j->flush_plan[j->n_flush++] = (int)PyLong_AsLong(PyList_GetItem(o, i));
    if ((o = PyDict_GetItemString(spec, "gone")))
        atomic_store(&j->gone, PyObject_IsTrue(o));
    if ((o = PyDict_GetItemString(spec, "facts"))) {
        j->has_facts = true;
        PyObject *v;
        if (text_into(j->facts.client.host, sizeof j->facts.client.host, o, "client"))
            goto bad;
        if ((v = PyDict_GetItemString(o, "client_port")))
            j->facts.client.port = (uint16_t)PyLong_AsLong(v);
        if ((v = PyDict_GetItemString(o, "server_port")))
            j->facts.server_port = (uint32_t)PyLong_AsLong(v);
        if ((v = PyDict_GetItemString(o, "scheme")))
            j->facts.scheme = arena_copy(&j->arena, slice_str(PyUnicode_AsUTF8(v)));
        if ((v = PyDict_GetItemString(o, "server_name")))
            j->facts.server_name = arena_copy(&j->arena, slice_str(PyUnicode_AsUTF8(v)));
        if ((v = PyDict_GetItemString(o, "host")))
            j->facts.host = arena_copy(&j->arena, slice_str(PyUnicode_AsUTF8(v)));
    }
    if ((o = PyDict_GetItemString(spec, "drop")))
        for (unsigned i = 0; i < j->req.n_fields; i++)
            if (slice_ieq(j->req.fields[i].name, slice_str(PyUnicode_AsUTF8(o))))
                j->req.fields[i].dropped = true;
    o = PyDict_GetItemString(spec, "keep_alive");
    job_reset(j, id, !o || PyObject_IsTrue(o));
    if ((o = PyDict_GetItemString(spec, "identity"))) {
        static struct trace_source source = {.s = {1, 2}};
        const char *what = PyUnicode_AsUTF8(o);
        const struct identity_rules rules = {strchr(what, 'i') != NULL, strchr(what, 't') != NULL,
                                             strchr(what, 'e') != NULL, 1000};
        identity_take(&j->identity, &j->req, &rules, &source);
        j->call.request_id = j->identity.request_id;
        j->call.trace = j->identity.traced ? &j->identity.trace : NULL;
    }
    return PyErr_Occurred() ? (job_free(j), NULL) : j;
bad:
    job_free(j);
    return NULL;
}

static PyObject *job_result(struct job *j)
{
    struct call *c = &j->call;
    static const char *const STATES[] = {"new", "status", "body", "ended", "aborted"};
    static const char *const FRAMINGS[] = {"length", "chunked", "close", "none"};
    if (buf_add(&j->sent, c->out.p, c->out.n))
        abort();
    PyObject *file = Py_None; /* new */
    Py_INCREF(file);
    if (c->file_fd >= 0) {
        char *p = malloc(c->file_length + 1);
        ssize_t n = pread(c->file_fd, p, c->file_length, c->file_offset);
        if (n > 0 && buf_add(&j->sent, p, (size_t)n))
            abort();
        free(p);
        Py_SETREF(file, PyLong_FromUnsignedLongLong(c->file_length));
    }
    PyObject *ends = PyList_New(0); /* new */
    for (unsigned i = 0; i < j->n_flushes; i++) {
        PyObject *v = PyLong_FromSize_t(j->flush_ends[i]); /* new */
        PyList_Append(ends, v);
        Py_DECREF(v);
    }
    return Py_BuildValue(
        "{s:y#,s:s,s:s,s:i,s:O,s:O,s:N,s:N,s:I,s:I,s:K,s:K,s:s}", "sent",
        j->sent.p ? j->sent.p : "", (Py_ssize_t)j->sent.n, "state", STATES[c->state], "framing",
        FRAMINGS[c->framing], "status", c->status, "keep_alive", c->keep_alive ? Py_True : Py_False,
        "close_wanted", c->close_wanted ? Py_True : Py_False, "file", file, "flushes", ends,
        "waits", j->waits, "body_waits", j->body_waits, "bytes", (unsigned long long)c->sent,
        "excess", (unsigned long long)c->excess, "reason", c->abort_reason ? c->abort_reason : "");
}

/* ---- App ---- */

struct app_object {
    PyObject_HEAD struct app *app;
    uint64_t next_id;
};

/* ---- the n-th allocation of Python fails ---- */

static PyMemAllocatorEx real_mem, real_obj;
static _Thread_local long fail_in; /* allocations until the one that fails; 0 = none does */

static bool fails(void)
{
    return fail_in && --fail_in == 0;
}

#define HOOKS(domain)                                                                              \
    static void *domain##_malloc(void *ctx, size_t n)                                              \
    {                                                                                              \
        (void)ctx;                                                                                 \
        return fails() ? NULL : real_##domain.malloc(real_##domain.ctx, n);                        \
    }                                                                                              \
    static void *domain##_calloc(void *ctx, size_t k, size_t n)                                    \
    {                                                                                              \
        (void)ctx;                                                                                 \
        return fails() ? NULL : real_##domain.calloc(real_##domain.ctx, k, n);                     \
    }                                                                                              \
    static void *domain##_realloc(void *ctx, void *p, size_t n)                                    \
    {                                                                                              \
        (void)ctx;                                                                                 \
        return fails() ? NULL : real_##domain.realloc(real_##domain.ctx, p, n);                    \
    }                                                                                              \
    static void domain##_free(void *ctx, void *p)                                                  \
    {                                                                                              \
        (void)ctx;                                                                                 \
        real_##domain.free(real_##domain.ctx, p);                                                  \
    }

HOOKS(mem)
HOOKS(obj)

static void hooks(bool on)
{
    PyMemAllocatorEx m = {NULL, mem_malloc, mem_calloc, mem_realloc, mem_free};
    PyMemAllocatorEx o = {NULL, obj_malloc, obj_calloc, obj_realloc, obj_free};
    if (on) {
        PyMem_GetAllocator(PYMEM_DOMAIN_MEM, &real_mem);
        PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &real_obj);
    }
    PyMem_SetAllocator(PYMEM_DOMAIN_MEM, on ? &m : &real_mem);
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, on ? &o : &real_obj);
}

struct work {
    struct app *app;
    struct job *jobs;
    long fail_at; /* allocation of the first run that fails, or 0 */
    bool failed;
    unsigned repeat; /* for counting instructions: run the first job again */
};

static void *thread_main(void *arg)
{
    struct work *w = arg;
    struct app *a = w->app;
    void *local = NULL;
    if (a->thread_start(a, &local))
        abort();
    a->enter(a, local);
    for (struct job *j = w->jobs; j; j = j->next) {
        now = j;
        fail_in = w->fail_at;
        a->run(a, local, &j->call);
        w->failed |= w->fail_at && !fail_in;
        w->fail_at = fail_in = 0;
        for (unsigned i = 1; i < w->repeat; i++) {
            job_reset(j, i, true);
            a->run(a, local, &j->call);
        }
        now = NULL;
        if (j->call.state != CALL_ENDED && j->call.state != CALL_ABORTED)
            abort(); /* the one promise of run() */
    }
    a->leave(a, local);
    a->thread_stop(a, local);
    return NULL;
}

static void work(struct work *w)
{
    pthread_t t;
    Py_BEGIN_ALLOW_THREADS if (pthread_create(&t, NULL, thread_main, w)) abort();
    pthread_join(t, NULL);
    Py_END_ALLOW_THREADS
}

static PyObject *app_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"app",         "url_scheme", "url_prefix",        "server_name",
                            "ident",       "waitress",   "expose_tracebacks", "errors_to_log",
                            "multithread", NULL};
    struct wsgi_config config = {.log = on_log};
    PyObject *application;
    int waitress = 0, expose = 0, errors = 0, multithread = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|sssspppp", names, &application,
                                     &config.url_scheme, &config.url_prefix, &config.server_name,
                                     &config.ident, &waitress, &expose, &errors, &multithread))
        return NULL;
    config.waitress = waitress;
    config.expose_tracebacks = expose;
    config.errors_to_log = errors;
    config.multithread = multithread;
    reply_ident_set(&g_ident, config.ident ? config.ident : "weir");
    struct app_object *o = (struct app_object *)type->tp_alloc(type, 0);
    if (o && wsgi_app_new(&o->app, application, &config))
        Py_CLEAR(o);
    return (PyObject *)o;
}

static void app_dealloc(PyObject *self)
{
    wsgi_app_free(&((struct app_object *)self)->app);
    Py_TYPE(self)->tp_free(self);
}

/* run(spec, …) -> one result each; all of them in one new thread. */
static PyObject *app_run(PyObject *self, PyObject *args)
{
    struct app_object *o = (struct app_object *)self;
    struct work w = {.app = o->app, .repeat = 1};
    struct job **end = &w.jobs;
    PyObject *results = PyList_New(0);
    for (Py_ssize_t i = 0; results && i < PyTuple_Size(args); i++) {
        struct job *j = job_new(PyTuple_GetItem(args, i), ++o->next_id);
        if (!j)
            Py_CLEAR(results);
        else
            *end = j, end = &j->next;
    }
    if (results)
        work(&w);
    for (struct job *j = w.jobs, *next; j; j = next) {
        next = j->next;
        PyObject *r = results ? job_result(j) : NULL;
        if (!r || PyList_Append(results, r))
            Py_CLEAR(results);
        Py_XDECREF(r);
        job_free(j);
    }
    return results;
}

/* repeat(spec, n): run one request n times in one thread. */
static PyObject *app_repeat(PyObject *self, PyObject *args)
{
    struct app_object *o = (struct app_object *)self;
    PyObject *spec;
    unsigned n;
    if (!PyArg_ParseTuple(args, "OI", &spec, &n))
        return NULL;
    struct job *j = job_new(spec, ++o->next_id);
    if (!j)
        return NULL;
    struct work w = {.app = o->app, .jobs = j, .repeat = n};
    work(&w);
    job_free(j);
    Py_RETURN_NONE;
}

/* fail(n, spec) -> did a run with n allocations or more take place? The n-th one failed. A second,
 * ordinary run in the same thread must give the same answer as ever. */
static PyObject *app_fail(PyObject *self, PyObject *args)
{
    struct app_object *o = (struct app_object *)self;
    PyObject *spec;
    long n;
    if (!PyArg_ParseTuple(args, "lO", &n, &spec))
        return NULL;
    struct job *j = job_new(spec, 1), *k = job_new(spec, 2);
    if (!j || !k)
        abort();
    j->next = k;
    struct work w = {.app = o->app, .jobs = j, .repeat = 1, .fail_at = n};
    hooks(true);
    work(&w);
    hooks(false);
    PyObject *first = job_result(j), *second = job_result(k);
    job_free(j);
    job_free(k);
    return Py_BuildValue("(NNN)", PyBool_FromLong(w.failed), first, second);
}

static PyMethodDef app_methods[] = {
    {"fail", app_fail, METH_VARARGS, ""},
    {"run", app_run, METH_VARARGS, ""},
    {"repeat", app_repeat, METH_VARARGS, ""},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject app_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsgi_harness.App",
    .tp_basicsize = sizeof(struct app_object),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = app_new,
    .tp_dealloc = app_dealloc,
    .tp_methods = app_methods,
};

/* ---- for applications under test ---- */

static PyObject *set_gone(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    atomic_store(&now->gone, true);
    Py_RETURN_NONE;
}

static PyObject *flushed(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBytes_FromStringAndSize(now->sent.p, (Py_ssize_t)now->sent.n);
}

static PyMethodDef methods[] = {
    {"set_gone", set_gone, METH_NOARGS, "the client of the present request leaves"},
    {"flushed", flushed, METH_NOARGS, "bytes of the present request flushed so far"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "wsgi_harness", .m_size = -1,
                                    .m_methods = methods};

PyMODINIT_FUNC PyInit_wsgi_harness(void);
__attribute__((visibility("default"))) PyMODINIT_FUNC PyInit_wsgi_harness(void)
{
    PyObject *m = PyModule_Create(&module);
    lines = PyList_New(0);
    if (!m || !lines || PyType_Ready(&app_type) || wsgi_module_init(m) ||
        PyModule_AddObject(m, "App", (PyObject *)&app_type) ||
        PyModule_AddObject(m, "lines", lines))
        return NULL;
    return m;
}
