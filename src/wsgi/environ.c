/*
 * environ: struct call to the dict that the application gets.
 *
 *   base       what is the same for all requests of a listener
 *   template   a thread's copy of a base with the values of its last request: who asked, which
 * host, which URL environ    a copy of the template with what is left: fields, body, request id
 *
 * What is the same for all requests of a listener stands in a base dict that is copied (PyDict_Copy
 * of a compact dict is one allocation and a memcpy; building the dict anew costs 3,000 instructions
 * more). What may be absent (REMOTE_PORT, CONTENT_LENGTH, HTTP_…) is never in a base where it does
 * not hold, so nothing has to be deleted. Keys are interned str; the name of a field is found by
 * its bytes as sent in a small cache.
 *
 * Nothing of the process' own environment is put in.
 */
#include "wsgi/wsgi_private.h"

#include <stdio.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

PyObject *wsgi_keys[WSGI_KEY_COUNT];

/* Longest path that is decoded on the stack. */
#define PATH_BYTES_STACK 1024

static const char *const METHOD_NAMES[] = {"GET",    "POST",  "HEAD",    "PUT",
                                           "DELETE", "PATCH", "OPTIONS", NULL};

/* Fields that browsers, proxies and API clients send. Their keys are interned, so that an
 * application's environ.get('HTTP_…') finds them by identity. */
static const char *const KNOWN_FIELDS[] = {
    "ACCEPT",
    "ACCEPT_CHARSET",
    "ACCEPT_ENCODING",
    "ACCEPT_LANGUAGE",
    "ACCESS_CONTROL_REQUEST_HEADERS",
    "ACCESS_CONTROL_REQUEST_METHOD",
    "AUTHORIZATION",
    "CACHE_CONTROL",
    "CDN_LOOP",
    "CF_CONNECTING_IP",
    "CF_RAY",
    "CONNECTION",
    "CONTENT_DISPOSITION",
    "CONTENT_ENCODING",
    "CONTENT_LANGUAGE",
    "DATE",
    "DNT",
    "EXPECT",
    "FORWARDED",
    "FROM",
    "HTTP2_SETTINGS",
    "IDEMPOTENCY_KEY",
    "IF_MATCH",
    "IF_MODIFIED_SINCE",
    "IF_NONE_MATCH",
    "IF_RANGE",
    "IF_UNMODIFIED_SINCE",
    "KEEP_ALIVE",
    "LAST_EVENT_ID",
    "MAX_FORWARDS",
    "ORIGIN",
    "PRAGMA",
    "PRIORITY",
    "PROXY_AUTHORIZATION",
    "RANGE",
    "REFERER",
    "SAVE_DATA",
    "SEC_CH_UA",
    "SEC_CH_UA_MOBILE",
    "SEC_CH_UA_PLATFORM",
    "SEC_FETCH_DEST",
    "SEC_FETCH_MODE",
    "SEC_FETCH_SITE",
    "SEC_FETCH_USER",
    "SEC_GPC",
    "SEC_WEBSOCKET_KEY",
    "SEC_WEBSOCKET_VERSION",
    "TE",
    "TRACEPARENT",
    "TRACESTATE",
    "TRAILER",
    "UPGRADE",
    "UPGRADE_INSECURE_REQUESTS",
    "USER_AGENT",
    "VIA",
    "X_API_KEY",
    "X_CSRFTOKEN",
    "X_CSRF_TOKEN",
    "X_FORWARDED_BY",
    "X_FORWARDED_FOR",
    "X_FORWARDED_HOST",
    "X_FORWARDED_PORT",
    "X_FORWARDED_PROTO",
    "X_REAL_IP",
    "X_REQUESTED_WITH",
    "X_REQUEST_ID",
};

/* Values that are not kept after their request. */
static const char *const SECRET_FIELDS[] = {"HTTP_AUTHORIZATION",       "HTTP_COOKIE",
                                            "HTTP_PROXY_AUTHORIZATION", "HTTP_X_API_KEY",
                                            "HTTP_X_CSRFTOKEN",         "HTTP_X_CSRF_TOKEN"};

/* With so many fields, what we add to them, and a few keys of the application, the smaller table of
 * a base (42 keys) is full. */
#define FEW_FIELDS 10

/* Longer values are not kept for the next request. */
#define VALUE_BYTES_KEPT 128

/* ---- small things ---- */

/* Bytes as the str of WSGI. New reference or NULL. */
static PyObject *latin1(struct slice s)
{
    return PyUnicode_DecodeLatin1(s.n ? s.p : "", (Py_ssize_t)s.n, NULL);
}

/* Takes `value` (a new reference, or NULL with an exception). 0 or -1. */
static int put(PyObject *dict, PyObject *key, PyObject *value)
{
    if (WEIR_UNLIKELY(!value))
        return -1;
    int rc = PyDict_SetItem(dict, key, value);
    Py_DECREF(value);
    return rc;
}

/* ---- names of fields ---- */

static unsigned name_slot(struct slice s)
{
    uint64_t a, b;
    if (s.n >= 8) {
        memcpy(&a, s.p, 8);
        memcpy(&b, s.p + s.n - 8, 8);
    } else if (s.n >= 4) {
        uint32_t x, y;
        memcpy(&x, s.p, 4);
        memcpy(&y, s.p + s.n - 4, 4);
        a = x;
        b = y;
    } else {
        a = (unsigned char)s.p[0];
        b = (unsigned char)s.p[s.n - 1];
    }
    uint64_t h = (a ^ (b << 7 | b >> 57) ^ s.n) * 0x9e3779b97f4a7c15u;
    return (unsigned)(h >> (64 - 9));
}

/* The key of a field name: a new reference or NULL. */
static PyObject *name_make(const struct environ_state *st, struct slice s, bool *repeats)
{
    char small[256], *text = small;
    *repeats = false;
    if (s.n + 6 > sizeof small && !(text = PyMem_Malloc(s.n + 6)))
        return PyErr_NoMemory();
    memcpy(text, "HTTP_", 5);
    size_t n = 5;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char b = (unsigned char)s.p[i];
        text[n++] = b == '-' ? '_' : (char)(b >= 'a' && b <= 'z' ? b & ~0x20 : b);
    }
    text[n] = '\0';
    /* Content_Length, where it is shown at all, is not Content-Length. */
    bool plain =
        (strcmp(text, "HTTP_CONTENT_TYPE") == 0 || strcmp(text, "HTTP_CONTENT_LENGTH") == 0) &&
        !memchr(s.p, '_', s.n);
    struct slice shown = plain ? slice_of(text + 5, n - 5) : slice_of(text, n);
    PyObject *key = latin1(shown);                                          /* new */
    PyObject *known = key ? PyDict_GetItemWithError(st->known, key) : NULL; /* borrowed */
    if (known) {
        Py_INCREF(known);
        Py_DECREF(key);
        key = known;
        *repeats = true;
        for (unsigned i = 0; i < countof(SECRET_FIELDS); i++)
            *repeats &= strcmp(text, SECRET_FIELDS[i]) != 0;
    } else if (PyErr_Occurred()) {
        Py_CLEAR(key);
    }
    if (text != small)
        PyMem_Free(text);
    return key;
}

/* The place of a field name in the cache, filled in. `other` is used for names that are too long to
 * be kept: then the caller owns its key. NULL and an exception. */
static struct environ_name *name_find(struct environ_state *st, struct slice s,
                                      struct environ_name *other)
{
    struct environ_name *e = &st->names[name_slot(s)];
    if (WEIR_LIKELY(e->key && e->n == s.n && memcmp(e->raw, s.p, s.n) == 0))
        return e;
    bool repeats;
    PyObject *key = name_make(st, s, &repeats); /* new */
    if (!key)
        return NULL;
    if (s.n > sizeof e->raw) {
        *other = (struct environ_name){.key = key};
        return other;
    }
    Py_XDECREF(e->key);
    Py_CLEAR(e->value);
    e->key = key;
    e->repeats = repeats;
    e->n = (unsigned char)s.n;
    memcpy(e->raw, s.p, s.n);
    return e;
}

/* The value of a field: a new reference or NULL. Clients repeat themselves, and each other. */
static PyObject *value_str(struct environ_name *e, struct slice s)
{
    if (!e->repeats || s.n > VALUE_BYTES_KEPT)
        return latin1(s);
    PyObject *last = e->value;
    if (WEIR_LIKELY(last && (size_t)PyUnicode_GET_LENGTH(last) == s.n &&
                    memcmp(PyUnicode_1BYTE_DATA(last), s.p, s.n) == 0)) {
        Py_INCREF(last);
        return last;
    }
    PyObject *value = latin1(s); /* new */
    if (value) {
        Py_INCREF(value);
        Py_XDECREF(e->value);
        e->value = value;
    }
    return value;
}

/* ---- fields ---- */

/* Does identity_put put it there? What the client said of it was taken into account by who made it,
 * or is not to be heard. */
static bool is_ours(const struct call *c, const PyObject *key)
{
    return (key == W_KEY(http_x_request_id) && c->request_id.n) ||
           (key == W_KEY(http_traceparent) && c->trace);
}

/* tracestate belongs to the traceparent that it came with (W3C Trace Context, section 3.3): it goes
 * no further where a new trace was begun. */
static bool is_orphaned(const struct call *c, const PyObject *key)
{
    static const unsigned char nobody[8];
    return key == W_KEY(http_tracestate) && c->trace &&
           memcmp(c->trace->parent_id, nobody, sizeof nobody) == 0;
}

/* A field came again: one value, as RFC 9110 §5.3 joins them (Cookie: RFC 6265 §5.4, HTTP/2
 * §8.2.3). Gunicorn leaves out the space. */
static int join(const struct wsgi_run *run, PyObject *dict, PyObject *key, PyObject *value)
{
    const struct wsgi *w = run->w;
    if (is_ours(run->c, key))
        return 0;
    PyObject *old = PyDict_GetItemWithError(dict, key); /* borrowed */
    if (!old)
        return -1;
    const char *format = key == W_KEY(http_cookie) ? "%U; %U" : w->gunicorn ? "%U,%U" : "%U, %U";
    return put(dict, key, PyUnicode_FromFormat(format, old, value));
}

static int field_put(struct wsgi_run *run, PyObject *dict, const struct field *f, bool whole)
{
    struct environ_name other = {0};
    struct environ_name *e = name_find(&run->w->environ, f->name, &other);
    if (!e)
        return -1;
    int rc = 0;
    /* A chunked body that is here as a whole is shown with its length instead. */
    if (WEIR_LIKELY(!(whole && e->key == W_KEY(http_transfer_encoding)) &&
                    !is_orphaned(run->c, e->key))) {
        PyObject *value = value_str(e, f->value); /* new */
        Py_ssize_t before = PyDict_GET_SIZE(dict);
        if (WEIR_UNLIKELY(!value || !PyDict_SetDefault(dict, e->key, value))) /* borrowed */
            rc = -1;
        else if (WEIR_UNLIKELY(PyDict_GET_SIZE(dict) == before))
            rc = join(run, dict, e->key, value);
        Py_XDECREF(value);
    }
    Py_XDECREF(other.key);
    return rc;
}

/* "host:port", "[v6]:port" without the port. */
static struct slice host_name(struct slice host)
{
    const char *end = host.n && host.p[0] == '[' ? memchr(host.p, ']', host.n) : NULL;
    if (end)
        return slice_of(host.p, (size_t)(end - host.p) + 1);
    const char *colon = host.n ? memchr(host.p, ':', host.n) : NULL;
    return slice_of(host.p, colon ? (size_t)(colon - host.p) : host.n);
}

static int fields_put(struct wsgi_run *run, PyObject *dict)
{
    const struct req *r = run->c->req;
    /* Gunicorn's applications see a chunked body as one. */
    bool whole = run->c->body->complete && !run->w->gunicorn;
    for (unsigned i = 0; i < r->n_fields; i++) {
        const struct field *f = &r->fields[i];
        if (WEIR_UNLIKELY(f->dropped) || f->id == HDR_HOST) /* HTTP_HOST stands in the template */
            continue;
        if (WEIR_UNLIKELY(field_put(run, dict, f, whole)))
            return -1;
    }
    if (r->framing == REQ_BODY_CHUNKED && whole)
        return put(dict, W_KEY(content_length),
                   PyUnicode_FromFormat("%llu", (unsigned long long)run->c->body->size));
    return 0;
}

/* ---- the request line ---- */

static PyObject *method_str(const struct environ_state *st, struct slice m)
{
    for (unsigned i = 0; METHOD_NAMES[i]; i++)
        if (slice_eq(m, slice_str(METHOD_NAMES[i]))) {
            Py_INCREF(st->methods[i]);
            return st->methods[i];
        }
    return latin1(m);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode %XX; what is malformed stays as it is. `to` has room for s.n bytes. */
static size_t unquote(char *to, struct slice s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '%' && s.n - i > 2) {
            int high = hex(s.p[i + 1]), low = hex(s.p[i + 2]);
            if (high >= 0 && low >= 0) {
                to[n++] = (char)(high << 4 | low);
                i += 2;
                continue;
            }
        }
        to[n++] = s.p[i];
    }
    return n;
}

/* SCRIPT_NAME of all requests. */
static struct slice own_prefix(const struct wsgi *w)
{
    return slice_of((const char *)PyUnicode_1BYTE_DATA(w->prefix),
                    (size_t)PyUnicode_GET_LENGTH(w->prefix));
}

/* What is below `prefix`, as str; it is cut at a segment's end only. New reference or NULL. */
static PyObject *below(struct wsgi_run *run, struct slice prefix, struct slice path)
{
    if (WEIR_LIKELY(!prefix.n))
        return latin1(path);
    if (slice_starts(path, prefix) && (path.n == prefix.n || path.p[prefix.n] == '/'))
        return latin1(slice_of(path.p + prefix.n, path.n - prefix.n));
    if (!run->w->prefix_required)
        return latin1(path);
    run->misplaced = true;
    PyErr_SetString(PyExc_ValueError, "the path is not below SCRIPT_NAME");
    return NULL;
}

static PyObject *path_str(struct wsgi_run *run, struct slice prefix, struct slice path)
{
    if (WEIR_LIKELY(!path.n || !memchr(path.p, '%', path.n)))
        return below(run, prefix, path);
    char small[PATH_BYTES_STACK], *text = small;
    if (path.n > sizeof small && !(text = PyMem_Malloc(path.n)))
        return PyErr_NoMemory();
    PyObject *str = below(run, prefix, slice_of(text, unquote(text, path))); /* new */
    if (text != small)
        PyMem_Free(text);
    return str;
}

/* ---- the template ---- */

/* Put `value` (taken; NULL with an exception is passed on) into the template, where it is not there
 * already. */
static int slot_put(struct environ_template *t, enum environ_slot slot, PyObject *key,
                    PyObject *value)
{
    if (!value)
        return -1;
    int rc = t->now[slot] == value ? 0 : PyDict_SetItem(t->dict, key, value);
    if (rc) {
        Py_DECREF(value);
        return -1;
    }
    Py_XDECREF(t->now[slot]);
    t->now[slot] = value;
    return 0;
}

/* PATH_INFO, QUERY_STRING and both names of the raw target. */
static int target_put(struct wsgi_run *run, struct environ_template *t)
{
    const struct req *r = run->c->req;
    bool known = r->form == REQ_ORIGIN && r->target.n <= sizeof t->target;
    if (known && r->target.n == t->target_n && memcmp(t->target, r->target.p, r->target.n) == 0)
        return 0;
    t->target_n = 0;
    /* A trusted front-end's own SCRIPT_NAME is cut in facts_put. */
    struct slice prefix = own_prefix(run->w);
    if (WEIR_UNLIKELY(run->c->proxy && run->c->proxy->script_name.n)) {
        prefix.n = 0;
        known = false;
    }
    if (slot_put(t, SLOT_TARGET, W_KEY(raw_uri), latin1(r->target)) ||
        PyDict_SetItem(t->dict, W_KEY(request_uri), t->now[SLOT_TARGET]) ||
        put(t->dict, W_KEY(path_info), path_str(run, prefix, r->path)) ||
        put(t->dict, W_KEY(query_string), latin1(r->query)))
        return -1;
    if (known) {
        memcpy(t->target, r->target.p, r->target.n);
        t->target_n = (unsigned char)r->target.n;
    }
    return 0;
}

/* The client's address, as the socket or a trusted front-end says. Returns whether its port is
 * known; the port belongs to the address: a front-end's own would be misleading. */
static bool client_of(const struct call *c, const char **addr, char port[8])
{
    const struct proxy_facts *facts = c->proxy;
    if (WEIR_UNLIKELY(facts && facts->client.host[0])) {
        *addr = facts->client.host;
        snprintf(port, 8, "%u", (unsigned)facts->client.port);
        return facts->client.port != 0;
    }
    *addr = c->peer->remote_addr;
    memcpy(port, c->peer->remote_port, 8);
    return port[0] != '\0';
}

static int client_put(struct wsgi_run *run, struct environ_template *t, const char *addr,
                      const char *port)
{
    if (!t->now[SLOT_ADDR] || strcmp(t->addr, addr) != 0) {
        PyObject *str; /* new */
        if (*addr)
            str = latin1(slice_str(addr));
        else
            Py_INCREF(str = run->w->environ.no_addr);
        if (slot_put(t, SLOT_ADDR, W_KEY(remote_addr), str) ||
            PyDict_SetItem(t->dict, W_KEY(remote_host), t->now[SLOT_ADDR]))
            return -1;
        snprintf(t->addr, sizeof t->addr, "%s", addr);
    }
    if (port && (!t->now[SLOT_PORT] || memcmp(t->port, port, sizeof t->port) != 0)) {
        if (slot_put(t, SLOT_PORT, W_KEY(remote_port), latin1(slice_str(port))))
            return -1;
        memcpy(t->port, port, sizeof t->port); /* whole, as it is compared */
    }
    return 0;
}

/* The host in force: what a trusted front-end says goes before the target, and that before Host
 * (RFC 9112 §3.2.2). Returns whether there is one. */
static bool host_of(const struct call *c, struct slice *host)
{
    const struct req *r = c->req;
    if (WEIR_UNLIKELY(c->proxy && c->proxy->host.n)) {
        *host = c->proxy->host;
        return true;
    }
    if (WEIR_UNLIKELY(r->form == REQ_ABSOLUTE)) {
        *host = r->host;
        return true;
    }
    for (unsigned i = 0; i < r->n_fields; i++)
        if (r->fields[i].id == HDR_HOST && !r->fields[i].dropped) {
            *host = r->fields[i].value;
            return true;
        }
    return false;
}

/* wsgi.url_scheme where no front-end says another. */
static struct slice own_scheme(const struct wsgi_run *run)
{
    return run->c->peer->is_tls ? SLICE("https")
                                : slice_of((const char *)PyUnicode_1BYTE_DATA(run->w->scheme),
                                           (size_t)PyUnicode_GET_LENGTH(run->w->scheme));
}

/* SERVER_PORT from Host, for requests of a Unix socket. */
static int port_put(PyObject *dict, struct slice host, struct slice scheme)
{
    struct slice name = host_name(host);
    struct slice port = slice_of(host.p + name.n, host.n - name.n);
    if (port.n > 1)
        return put(dict, W_KEY(server_port), latin1(slice_of(port.p + 1, port.n - 1)));
    bool https = slice_eq(scheme, SLICE("https"));
    return put(dict, W_KEY(server_port), PyUnicode_FromString(https ? "443" : "80"));
}

/* HTTP_HOST, and SERVER_NAME that follows it. In Gunicorn's way that is the listener's, but for
 * Unix sockets, which have no other name. */
static int host_put(struct wsgi_run *run, struct environ_template *t, struct slice host)
{
    if (WEIR_LIKELY(host.n && host.n == t->host_n && memcmp(t->host, host.p, host.n) == 0))
        return 0;
    t->host_n = 0;
    if (slot_put(t, SLOT_HOST, W_KEY(http_host), latin1(host)))
        return -1;
    bool is_unix = run->c->peer->is_unix;
    if (run->w->gunicorn && is_unix && port_put(t->dict, host, own_scheme(run)))
        return -1;
    if (!run->w->waitress && (!run->w->gunicorn || is_unix)) {
        struct slice name = host_name(host);
        PyObject *str; /* new */
        if (name.n)
            str = latin1(name);
        else
            Py_XINCREF(str = PyDict_GetItemWithError(t->base, W_KEY(server_name)));
        if (slot_put(t, SLOT_NAME, W_KEY(server_name), str))
            return -1;
    }
    if (host.n && host.n <= sizeof t->host) {
        memcpy(t->host, host.p, host.n);
        t->host_n = (unsigned char)host.n;
    }
    return 0;
}

/* What TLS was agreed on; both are literals of the library. */
static int tls_put(struct environ_template *t, const struct tls_facts *tls)
{
    if (t->tls_protocol == tls->protocol && t->tls_cipher == tls->cipher)
        return 0;
    t->tls_protocol = NULL;
    if (slot_put(t, SLOT_PROTOCOL, W_KEY(ssl_protocol), latin1(slice_str(tls->protocol))) ||
        slot_put(t, SLOT_CIPHER, W_KEY(ssl_cipher), latin1(slice_str(tls->cipher))))
        return -1;
    t->tls_protocol = tls->protocol;
    t->tls_cipher = tls->cipher;
    return 0;
}

static bool is_ascii(struct slice s)
{
    const char *p = s.p, *end = s.p + s.n;
#if defined(__SSE2__)
    __m128i all = _mm_setzero_si128();
    for (; end - p >= 16; p += 16)
        all = _mm_or_si128(all, _mm_loadu_si128((const __m128i *)(const void *)p));
    if (s.n >= 16) { /* the last ones, some of them again */
        all = _mm_or_si128(all, _mm_loadu_si128((const __m128i *)(const void *)(end - 16)));
        return !_mm_movemask_epi8(all);
    }
#endif
    unsigned char rest = 0;
    for (; p < end; p++)
        rest |= (unsigned char)*p;
    return rest < 0x80;
}

/* ASCII as str. New reference or NULL. */
static PyObject *ascii(const char *p, size_t n)
{
    PyObject *text = PyUnicode_New((Py_ssize_t)n, 127); /* new */
    if (WEIR_LIKELY(text != NULL))
        memcpy(PyUnicode_1BYTE_DATA(text), p, n);
    return text;
}

/* A text of ours, which is UTF-8 unless a user's name is not. New reference or NULL. */
static PyObject *text_str(struct slice s)
{
    if (WEIR_UNLIKELY(!is_ascii(s)))
        return PyUnicode_DecodeUTF8(s.p, (Py_ssize_t)s.n, "replace");
    return ascii(s.p, s.n);
}

/* Is something derived from this text kept with it? wchar_t for a caller of PyUnicode_AsUnicode. */
static bool has_shadow(const PyObject *text)
{
#if PY_VERSION_HEX < 0x030C0000
    return ((const PyASCIIObject *)text)->wstr != NULL;
#else
    (void)text;
    return false;
#endif
}

/* Room for `n` bytes of ASCII under `key`: the text of the last request, when nobody but the template
 * has it any more (its own reference and that of its dict), else a new one. NULL: no memory. */
__attribute__((always_inline)) static inline char *
text_again(struct environ_template *t, enum environ_slot slot, PyObject *key, size_t n)
{
    PyObject *text = t->now[slot];
    if (WEIR_UNLIKELY(!text || Py_REFCNT(text) != 2 || PyUnicode_CHECK_INTERNED(text) ||
                      has_shadow(text) || PyUnicode_GET_LENGTH(text) != (Py_ssize_t)n)) {
        text = PyUnicode_New((Py_ssize_t)n, 127); /* new, given to slot_put */
        if (slot_put(t, slot, key, text))
            return NULL;
    }
    ((PyASCIIObject *)text)->hash = -1;
    return (char *)PyUnicode_1BYTE_DATA(text);
}

/* What the request is called here and elsewhere. Its fields cannot replace it: see is_ours. */
static int identity_put(struct environ_template *t, const struct call *c)
{
    char *to;
    if (c->request_id.n) {
        to = text_again(t, SLOT_REQUEST_ID, W_KEY(http_x_request_id), c->request_id.n);
        if (WEIR_UNLIKELY(!to))
            return -1;
        memcpy(to, c->request_id.p, c->request_id.n);
    }
    if (c->trace) {
        to = text_again(t, SLOT_TRACEPARENT, W_KEY(http_traceparent), TRACE_PARENT_BYTES);
        if (WEIR_UNLIKELY(!to))
            return -1;
        trace_write(to, c->trace);
    }
    return 0;
}

/* A text of ours under `key`, as text_again. */
static int text_put(struct environ_template *t, enum environ_slot slot, PyObject *key,
                    struct slice text)
{
    if (WEIR_UNLIKELY(!is_ascii(text)))
        return slot_put(t, slot, key, text_str(text));
    char *to = text_again(t, slot, key, text.n);
    if (WEIR_UNLIKELY(!to))
        return -1;
    memcpy(to, text.p, text.n);
    return 0;
}

/* One that is mostly that of the last request. */
static int same_put(struct environ_template *t, enum environ_slot slot, PyObject *key,
                    struct slice text)
{
    PyObject *old = t->now[slot];
    bool same = old && PyUnicode_IS_ASCII(old) && (size_t)PyUnicode_GET_LENGTH(old) == text.n &&
                memcmp(PyUnicode_1BYTE_DATA(old), text.p, text.n) == 0;
    return same ? 0 : slot_put(t, slot, key, text_str(text));
}

static unsigned who_bits(const struct who *who)
{
    if (!who)
        return 0;
    return WHO_BY | (who->user.n ? WHO_USER : 0u) | (who->tier.n ? WHO_TIER : 0u) |
           (who->claims.n ? WHO_CLAIMS : 0u);
}

/* Who asks, as admission has found it. No field of a request can be named so. */
static int who_put(struct environ_template *t, const struct who *who)
{
    if (WEIR_UNLIKELY(t->by != who->by)) { /* one of four literals */
        t->by = NULL;
        if (slot_put(t, SLOT_BY, W_KEY(weir_user_by), PyUnicode_InternFromString(who->by)))
            return -1;
        t->by = who->by;
    }
    return (who->user.n && text_put(t, SLOT_USER, W_KEY(weir_user), who->user)) ||
                   (who->tier.n && same_put(t, SLOT_TIER, W_KEY(weir_tier), who->tier)) ||
                   (who->claims.n && text_put(t, SLOT_CLAIMS, W_KEY(weir_claims), who->claims))
               ? -1
               : 0;
}

/* Both names of client_disconnected. */
static int gone_put(struct wsgi_run *run, struct environ_template *t)
{
    /* A template that has it holds it twice in its dict and once beside that. */
    Py_ssize_t held = 0;
    for (unsigned i = 0; i < countof(run->t->last); i++)
        held += run->t->gone && run->t->last[i].now[SLOT_GONE] == run->t->gone ? 3 : 0;
    run->gone = wsgi_gone_take(run, held); /* new */
    if (!run->gone)
        return -1;
    if (WEIR_LIKELY(t->now[SLOT_GONE] == run->gone))
        return 0;
    Py_INCREF(run->gone); /* given to slot_put */
    if (slot_put(t, SLOT_GONE, W_KEY(waitress_client_disconnected), run->gone))
        return -1;
    return PyDict_SetItem(t->dict, W_KEY(weir_client_disconnected), run->gone);
}

void wsgi_template_clear(struct environ_template *t)
{
    for (unsigned i = 0; i < SLOTS; i++)
        Py_CLEAR(t->now[i]);
    Py_CLEAR(t->dict);
    Py_CLEAR(t->base);
    t->host_n = t->target_n = 0;
    t->by = t->tls_protocol = t->tls_cipher = NULL;
}

static int template_new(struct environ_template *t, PyObject *base)
{
    wsgi_template_clear(t);
    t->dict = PyDict_Copy(base); /* new */
    if (!t->dict)
        return -1;
    Py_INCREF(base);
    t->base = base;
    return 0;
}

/* ---- the base ---- */

/* SERVER_NAME where the request says nothing better. */
static PyObject *base_name(const struct wsgi *w, const struct call_peer *peer)
{
    if (PyUnicode_GET_LENGTH(w->server_name)) {
        Py_INCREF(w->server_name);
        return w->server_name;
    }
    if (w->waitress)
        return PyUnicode_FromString("waitress.invalid");
    return latin1(peer->is_unix || !peer->server_addr[0] ? SLICE("localhost")
                                                         : slice_str(peer->server_addr));
}

static PyObject *base_port(const struct wsgi *w, const struct call_peer *peer)
{
    if (peer->server_port[0])
        return latin1(slice_str(peer->server_port));
    bool tls = peer->is_tls || PyUnicode_CompareWithASCIIString(w->scheme, "https") == 0;
    return PyUnicode_FromString(tls ? "443" : "80");
}

static int put_same(PyObject *dict, PyObject *key, PyObject *value)
{
    return PyDict_SetItem(dict, key, value);
}

/*
 * Let the table of `d` grow once, so that the fields of an ordinary browser's request fit without a
 * resize (1,300 instructions and a second block of memory) in each copy. A dict grows when its room
 * is used up, also by keys that are gone again; what stays is compact, which PyDict_Copy needs for
 * its fast way. 0 or -1.
 */
static int grow(PyObject *d)
{
    PyObject *sizeof_name = PyUnicode_FromString("__sizeof__"); /* new */
    Py_ssize_t first = 0;
    int rc = sizeof_name ? 0 : -1;
    for (int i = 0; !rc && i < 128; i++) {
        PyObject *key = PyUnicode_FromFormat("weir.room.%d", i); /* new */
        rc = key ? PyDict_SetItem(d, key, Py_None) : -1;
        PyObject *size = rc ? NULL : PyObject_CallMethodNoArgs(d, sizeof_name); /* new */
        Py_ssize_t bytes = size ? PyLong_AsSsize_t(size) : -1;
        Py_XDECREF(size);
        if (!rc)
            rc = bytes < 0 ? -1 : PyDict_DelItem(d, key);
        Py_XDECREF(key);
        if (first && bytes > first)
            break;
        first = bytes;
    }
    Py_XDECREF(sizeof_name);
    return rc;
}

/* A new dict. Everything in it holds for each request, or is replaced for each. */
static PyObject *base_new(const struct wsgi *w, const struct call *c, bool has_port, bool has_host,
                          bool roomy)
{
    const struct call_peer *peer = c->peer;
    unsigned who = who_bits(c->who);
    PyObject *d = PyDict_New(); /* new */
    if (!d)
        return NULL;
    PyObject *empty = latin1((struct slice){0}); /* new */
    bool bad = !empty || put(d, W_KEY(request_method), latin1(SLICE("GET"))) ||
               put_same(d, W_KEY(script_name), w->prefix) || put_same(d, W_KEY(path_info), empty) ||
               put_same(d, W_KEY(query_string), empty) || put_same(d, W_KEY(raw_uri), empty) ||
               put_same(d, W_KEY(request_uri), empty) ||
               put(d, W_KEY(server_name), base_name(w, peer)) ||
               put(d, W_KEY(server_port), base_port(w, peer)) ||
               put(d, W_KEY(server_protocol), latin1(SLICE("HTTP/1.1"))) ||
               put_same(d, W_KEY(server_software), w->software) ||
               put_same(d, W_KEY(remote_addr), empty) || put_same(d, W_KEY(remote_host), empty) ||
               put(d, W_KEY(wsgi_version), Py_BuildValue("(ii)", 1, 0)) ||
               (peer->is_tls ? put(d, W_KEY(wsgi_url_scheme), latin1(SLICE("https")))
                             : put_same(d, W_KEY(wsgi_url_scheme), w->scheme)) ||
               put_same(d, W_KEY(wsgi_input), wsgi_input_empty) ||
               put_same(d, W_KEY(wsgi_errors), w->errors) ||
               put_same(d, W_KEY(wsgi_multithread), w->multithread ? Py_True : Py_False) ||
               put_same(d, W_KEY(wsgi_multiprocess), w->multiprocess ? Py_True : Py_False) ||
               put_same(d, W_KEY(wsgi_run_once), Py_False) ||
               put_same(d, W_KEY(wsgi_file_wrapper), (PyObject *)&wsgi_file_type) ||
               put_same(d, W_KEY(wsgi_early_hints), w->hints) ||
               put_same(d, W_KEY(wsgi_input_terminated), Py_True) ||
               put_same(d, W_KEY(waitress_client_disconnected), Py_None) ||
               put_same(d, W_KEY(weir_client_disconnected), Py_None) ||
               put_same(d, W_KEY(weir_request_id), Py_None) ||
               (c->request_id.n && put_same(d, W_KEY(http_x_request_id), Py_None)) ||
               (c->trace && put_same(d, W_KEY(http_traceparent), Py_None)) ||
               ((who & WHO_BY) && put_same(d, W_KEY(weir_user_by), Py_None)) ||
               ((who & WHO_USER) && put_same(d, W_KEY(weir_user), Py_None)) ||
               ((who & WHO_TIER) && put_same(d, W_KEY(weir_tier), Py_None)) ||
               ((who & WHO_CLAIMS) && put_same(d, W_KEY(weir_claims), Py_None)) ||
               (peer->is_tls &&
                (put(d, W_KEY(https), latin1(SLICE("on"))) ||
                 put_same(d, W_KEY(ssl_protocol), empty) || put_same(d, W_KEY(ssl_cipher), empty) ||
                 put(d, W_KEY(ssl_client_verify), latin1(SLICE("NONE"))))) ||
               (has_port && put_same(d, W_KEY(remote_port), empty)) ||
               (has_host && put_same(d, W_KEY(http_host), empty)) || (roomy && grow(d));
    Py_XDECREF(empty);
    if (bad)
        Py_CLEAR(d);
    return d;
}

/* Borrowed. */
static PyObject *base_find(struct wsgi *w, const struct call *c, bool has_port, bool has_host,
                           bool roomy)
{
    struct environ_state *st = &w->environ;
    const struct call_peer *peer = c->peer;
    bool has_id = c->request_id.n != 0, has_trace = c->trace != NULL;
    unsigned who = who_bits(c->who);
    for (unsigned i = 0; i < countof(st->bases); i++) {
        const struct environ_base *b = &st->bases[i];
        if (b->dict && b->is_unix == peer->is_unix && b->is_tls == peer->is_tls &&
            b->has_port == has_port && b->has_host == has_host && b->roomy == roomy &&
            b->has_id == has_id && b->has_trace == has_trace && b->who == who &&
            memcmp(b->server_port, peer->server_port, sizeof b->server_port) == 0 &&
            strcmp(b->server_addr, peer->server_addr) == 0)
            return b->dict;
    }
    PyObject *dict = base_new(w, c, has_port, has_host, roomy); /* new */
    if (!dict)
        return NULL;
    struct environ_base *b = &st->bases[st->next_base++ % countof(st->bases)];
    Py_XDECREF(b->dict);
    b->dict = dict;
    b->is_unix = peer->is_unix;
    b->is_tls = peer->is_tls;
    b->has_port = has_port;
    b->has_host = has_host;
    b->roomy = roomy;
    b->has_id = has_id;
    b->has_trace = has_trace;
    b->who = who;
    memcpy(b->server_port, peer->server_port, sizeof b->server_port); /* whole, as it is compared */
    snprintf(b->server_addr, sizeof b->server_addr, "%s", peer->server_addr);
    return dict;
}

/* ---- whole ---- */

static int facts_put(struct wsgi_run *run, PyObject *dict, const struct proxy_facts *facts)
{
    struct slice host;
    struct slice prefix = facts->script_name;
    if (facts->scheme.n && put(dict, W_KEY(wsgi_url_scheme), latin1(facts->scheme)))
        return -1;
    if (facts->scheme.n && run->w->gunicorn && run->c->peer->is_unix && host_of(run->c, &host) &&
        port_put(dict, host, facts->scheme))
        return -1;
    while (prefix.n && prefix.p[prefix.n - 1] == '/')
        prefix.n--;
    if (facts->script_name.n &&
        (put(dict, W_KEY(script_name), latin1(prefix)) ||
         put(dict, W_KEY(path_info), path_str(run, prefix, run->c->req->path))))
        return -1;
    if (facts->server_name.n && put(dict, W_KEY(server_name), latin1(facts->server_name)))
        return -1;
    if (facts->server_port &&
        put(dict, W_KEY(server_port), PyUnicode_FromFormat("%u", (unsigned)facts->server_port)))
        return -1;
    return 0;
}

/* A client that showed a certificate: the base says that there is none. */
static int client_cert_put(PyObject *dict, const struct tls_facts *tls)
{
    if (strcmp(tls->verify, "NONE") == 0)
        return 0;
    if (put(dict, W_KEY(ssl_client_verify), latin1(slice_str(tls->verify))))
        return -1;
    if (!tls->cert.n) /* it was refused: nothing that it says counts */
        return 0;
    return put(dict, W_KEY(ssl_client_s_dn), latin1(tls->subject)) ||
                   put(dict, W_KEY(ssl_client_i_dn), latin1(tls->issuer)) ||
                   put(dict, W_KEY(ssl_client_cert), latin1(tls->cert))
               ? -1
               : 0;
}

/* What belongs to this request alone. */
static int request_put(struct wsgi_run *run, PyObject *dict)
{
    const struct call *c = run->c;
    const struct req *r = c->req;
    if (put(dict, W_KEY(weir_request_id), PyLong_FromUnsignedLongLong(c->id)))
        return -1;
    /* The base says GET and HTTP/1.1, and has the shared empty input. */
    if (!slice_eq(r->method, SLICE("GET")) &&
        put(dict, W_KEY(request_method), method_str(&run->w->environ, r->method)))
        return -1;
    if (r->minor == 0 && PyDict_SetItem(dict, W_KEY(server_protocol), run->w->environ.http_1_0))
        return -1;
    if (c->body->complete ? c->body->size == 0 : r->framing == REQ_BODY_NONE)
        return 0;
    run->input = wsgi_input_new(run); /* new */
    return run->input ? PyDict_SetItem(dict, W_KEY(wsgi_input), run->input) : -1;
}

PyObject *wsgi_environ_new(struct wsgi_run *run)
{
    unsigned ours = (run->c->request_id.n ? 1u : 0u) + (run->c->trace ? 1u : 0u);
    bool roomy = run->c->req->n_fields + ours > FEW_FIELDS;
    bool known = run->c->who && run->c->who->user.n;
    struct environ_template *t = &run->t->last[roomy + 2 * known];
    struct slice host = {0};
    const char *addr;
    char port[8] = {0};
    bool has_port = client_of(run->c, &addr, port);
    bool has_host = host_of(run->c, &host);
    PyObject *base = base_find(run->w, run->c, has_port, has_host, roomy); /* borrowed */
    if (!base || (WEIR_UNLIKELY(t->base != base) && template_new(t, base)))
        return NULL;
    if (WEIR_UNLIKELY(client_put(run, t, addr, has_port ? port : NULL) ||
                      (has_host && host_put(run, t, host)) || target_put(run, t) ||
                      (run->c->tls && tls_put(t, run->c->tls)) || identity_put(t, run->c) ||
                      (run->c->who && who_put(t, run->c->who)) || gone_put(run, t))) {
        wsgi_template_clear(t); /* half filled */
        return NULL;
    }
    PyObject *dict = PyDict_Copy(t->dict); /* new */
    if (!dict)
        return NULL;
    if (WEIR_UNLIKELY(request_put(run, dict) || fields_put(run, dict) ||
                      (run->c->proxy && facts_put(run, dict, run->c->proxy)) ||
                      (run->c->tls && client_cert_put(dict, run->c->tls)))) {
        Py_DECREF(dict);
        return NULL;
    }
    return dict;
}

/* More than this of a value is not for a log. */
#define WATCHED_BYTES_MAX 8192

struct slice wsgi_environ_text(PyObject *env, const char *name, struct arena *arena)
{
    char capitals[128];
    size_t n = 0;
    for (; name[n] && n < sizeof capitals - 1; n++)
        capitals[n] = (char)(name[n] >= 'a' && name[n] <= 'z' ? name[n] & ~0x20 : name[n]);
    capitals[n] = '\0';
    PyObject *value = PyDict_GetItemString(env, name); /* borrowed */
    if (!value)
        value = PyDict_GetItemString(env, capitals);
    Py_XINCREF(value);
    PyObject *str = value ? PyObject_Str(value) : NULL; /* new */
    struct slice text = {0}, copy = {0};
    Py_ssize_t bytes = 0;
    if (str && !wsgi_text_lend(str, &text)) {
        text.p = PyUnicode_AsUTF8AndSize(str, &bytes);
        text.n = (size_t)bytes;
    }
    if (text.p) {
        text.n = text.n < WATCHED_BYTES_MAX ? text.n : WATCHED_BYTES_MAX;
        copy.p = text.n ? arena_copy(arena, text).p : "";
        copy.n = copy.p ? text.n : 0;
    }
    PyErr_Clear();
    Py_XDECREF(str);
    Py_XDECREF(value);
    return copy;
}

/* 0 or -1: one more interned key that fields may use. */
static int known_add(PyObject *known, PyObject *key)
{
    return PyDict_SetItem(known, key, key);
}

int wsgi_environ_setup(struct wsgi *w)
{
    struct environ_state *st = &w->environ;
    st->known = PyDict_New();                                           /* new */
    st->http_1_0 = PyUnicode_InternFromString("HTTP/1.0");              /* new */
    st->no_addr = PyUnicode_FromString(w->waitress ? "localhost" : ""); /* new */
    if (!st->known || !st->http_1_0 || !st->no_addr)
        return -1;
    for (unsigned i = 0; METHOD_NAMES[i]; i++) {
        st->methods[i] = PyUnicode_InternFromString(METHOD_NAMES[i]); /* new */
        if (!st->methods[i])
            return -1;
    }
    if (known_add(st->known, W_KEY(content_type)) || known_add(st->known, W_KEY(content_length)) ||
        known_add(st->known, W_KEY(http_host)) || known_add(st->known, W_KEY(http_cookie)) ||
        known_add(st->known, W_KEY(http_transfer_encoding)))
        return -1;
    for (unsigned i = 0; i < countof(KNOWN_FIELDS); i++) {
        char text[64];
        snprintf(text, sizeof text, "HTTP_%s", KNOWN_FIELDS[i]);
        PyObject *key = PyUnicode_InternFromString(text); /* new */
        int rc = key ? known_add(st->known, key) : -1;
        Py_XDECREF(key);
        if (rc)
            return -1;
    }
    return 0;
}

void wsgi_environ_clear(struct wsgi *w)
{
    struct environ_state *st = &w->environ;
    for (unsigned i = 0; i < countof(st->bases); i++)
        Py_CLEAR(st->bases[i].dict);
    for (unsigned i = 0; i < countof(st->names); i++) {
        Py_CLEAR(st->names[i].key);
        Py_CLEAR(st->names[i].value);
    }
    for (unsigned i = 0; i < countof(st->methods); i++)
        Py_CLEAR(st->methods[i]);
    Py_CLEAR(st->known);
    Py_CLEAR(st->http_1_0);
    Py_CLEAR(st->no_addr);
}
