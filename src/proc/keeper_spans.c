/*
 * keeper_spans: records of requests as OTLP in JSON. See keeper_private.h.
 *
 * The names of attributes are those of OpenTelemetry's conventions where there is one, and begin
 * with "weir." where there is none. Who asks (the user) is not told: a collector is another place,
 * kept longer and read by others than the server's own logs.
 */
#include "proc/keeper_private.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#include "admit/refusal.h"
#include "base/buf.h"
#include "base/escape.h"
#include "conf/version.h"
#include "obs/counters.h"
#include "obs/trace.h"

/* opentelemetry-proto, trace.proto */
enum { KIND_SERVER = 2, STATUS_ERROR = 2, FLAG_KNOWS_REMOTE = 0x100, FLAG_REMOTE = 0x200 };

/* ---- values ---- */

/* JSON is UTF-8; a byte that is none becomes U+FFFD. New, or NULL: no memory. */
static json_t *text(const char *s)
{
    json_t *plain = json_string(s);
    if (plain)
        return plain;
    char fixed[3 * sizeof((struct flight *)0)->path];
    size_t n = strlen(s), k = 0;
    for (size_t i = 0; i < n && k + 4 <= sizeof fixed;) {
        size_t more =
            (unsigned char)s[i] < 0x80 ? 1 : escape_utf8_length((const void *)(s + i), n - i);
        memcpy(fixed + k, more ? s + i : "\xef\xbf\xbd", more ? more : 3);
        k += more ? more : 3;
        i += more ? more : 1;
    }
    return json_stringn(fixed, k);
}

/* 64-bit numbers are texts in JSON. */
static json_t *number(uint64_t v)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)v);
    return json_string(digits);
}

static json_t *hex(const unsigned char *p, size_t n)
{
    char digits[32];
    trace_hex(digits, p, n);
    return json_stringn(digits, 2 * n);
}

/* ---- attributes ---- */

/* Takes `value`; without memory it is left out. */
static void add(json_t *to, const char *key, const char *type, json_t *value)
{
    (void)json_array_append_new(to, json_pack("{s:s, s:{s:o}}", "key", key, "value", type, value));
}

static void add_text(json_t *to, const char *key, const char *s)
{
    if (*s)
        add(to, key, "stringValue", text(s));
}

static void add_number(json_t *to, const char *key, uint64_t v)
{
    add(to, key, "intValue", number(v));
}

static void add_ms(json_t *to, const char *key, int64_t ns)
{
    add(to, key, "doubleValue", json_real((double)ns / 1e6));
}

/* Methods that the conventions name; others are "_OTHER", so that nobody can make up names of
 * spans. */
static bool is_known_method(const char *m)
{
    static const char *const KNOWN[] = {"GET",     "POST",  "HEAD",  "PUT",  "DELETE",
                                        "OPTIONS", "PATCH", "TRACE", "QUERY"};
    for (size_t i = 0; i < countof(KNOWN); i++)
        if (strcmp(m, KNOWN[i]) == 0)
            return true;
    return false;
}

/* "" where no route of the file is about it. */
static const char *route_of(const struct telemetry *t, const struct flight *f)
{
    return f->route != TELEMETRY_ROUTE_OTHER && f->route < TELEMETRY_ROUTES_MAX
               ? t->routes[f->route]
               : "";
}

static const char *cut_word(const struct flight *f)
{
    return f->cut && f->cut - 1 < CLOSE_REASONS ? close_reason_word((enum close_reason)(f->cut - 1))
                                                : "";
}

/* What is to blame on the server or the application, in `code` or a literal; "": nothing. That a
 * client left is no error. */
static const char *error_of(const struct flight *f, char code[8])
{
    if (f->cut == CLOSE_ABORTED + 1 || f->cut == CLOSE_DEADLINE + 1 ||
        f->cut == CLOSE_NO_MEMORY + 1)
        return cut_word(f);
    snprintf(code, 8, "%u", (unsigned)f->status);
    return f->status >= 500 ? code : "";
}

/* From the first wait to the application, or to what was answered instead; -1: it did not wait. */
static int64_t queue_ns(const struct flight *f)
{
    const int64_t *at = f->at_ns;
    int64_t ready = at[FLIGHT_QUOTA]    ? at[FLIGHT_QUOTA]
                    : at[FLIGHT_QUEUED] ? at[FLIGHT_QUEUED]
                                        : at[FLIGHT_READY];
    int64_t end = at[FLIGHT_APPLICATION] ? at[FLIGHT_APPLICATION]
                  : at[FLIGHT_WRITING]   ? at[FLIGHT_WRITING]
                                         : at[FLIGHT_NONE];
    return ready && end >= ready ? end - ready : -1;
}

static json_t *attributes(const struct telemetry *t, const struct flight *f)
{
    json_t *a = json_array();
    char code[8];
    bool known = is_known_method(f->method);
    add_text(a, "http.request.method", known ? f->method : "_OTHER");
    if (!known)
        add_text(a, "http.request.method_original", f->method);
    add_text(a, "url.path", f->path);
    add_text(a, "http.route", route_of(t, f));
    if (f->status)
        add_number(a, "http.response.status_code", f->status);
    add_text(a, "client.address", f->address);
    add_text(a, "error.type", error_of(f, code));
    add_text(a, "weir.request_id", f->request_id);
    add_number(a, "weir.request", f->id);
    add_number(a, "weir.worker.pid", (uint64_t)(f->pid > 0 ? f->pid : 0));
    if (queue_ns(f) >= 0)
        add_ms(a, "weir.queue_ms", queue_ns(f));
    if (f->refusal && f->refusal - 1 < REFUSALS)
        add_text(a, "weir.refusal", refusal_word((enum refusal_id)(f->refusal - 1)));
    add_text(a, "weir.close_reason", cut_word(f));
    if (f->slow)
        add(a, "weir.slow", "boolValue", json_true());
    return a;
}

/* ---- a span ---- */

/* The wall clock's time of an instant of the monotonic clock. */
static uint64_t wall_of(const struct flight *f, int64_t at_ns)
{
    int64_t ns = f->wall_ns + (at_ns - f->at_ns[FLIGHT_READING]);
    return ns > 0 ? (uint64_t)ns : 0;
}

/* When it entered each state. */
static json_t *events(const struct flight *f)
{
    json_t *list = json_array();
    for (unsigned s = FLIGHT_READING + 1; s < FLIGHT_STATES; s++)
        if (f->at_ns[s])
            (void)json_array_append_new(list, json_pack("{s:o, s:s}", "timeUnixNano",
                                                        number(wall_of(f, f->at_ns[s])), "name",
                                                        flight_state_word((enum flight_state)s)));
    return list;
}

static json_t *span_name(const struct telemetry *t, const struct flight *f)
{
    char name[TELEMETRY_ROUTE_BYTES + 16];
    const char *route = route_of(t, f);
    snprintf(name, sizeof name, "%s%s%s", is_known_method(f->method) ? f->method : "HTTP",
             *route ? " " : "", route);
    return text(name);
}

static json_t *span_of(const struct telemetry *t, const struct flight *f)
{
    static const unsigned char nobody[8];
    bool has_parent = memcmp(f->parent_id, nobody, sizeof nobody) != 0;
    int flags = FLAG_KNOWS_REMOTE | (has_parent ? FLAG_REMOTE : 0) | f->sampled;
    json_t *o = json_object();
    char code[8];
    (void)json_object_set_new(o, "traceId", hex(f->trace_id, sizeof f->trace_id));
    (void)json_object_set_new(o, "spanId", hex(f->span_id, sizeof f->span_id));
    if (has_parent)
        (void)json_object_set_new(o, "parentSpanId", hex(f->parent_id, sizeof f->parent_id));
    (void)json_object_set_new(o, "flags", json_integer(flags));
    (void)json_object_set_new(o, "name", span_name(t, f));
    (void)json_object_set_new(o, "kind", json_integer(KIND_SERVER));
    (void)json_object_set_new(o, "startTimeUnixNano", number(wall_of(f, f->at_ns[FLIGHT_READING])));
    (void)json_object_set_new(o, "endTimeUnixNano", number(wall_of(f, f->at_ns[FLIGHT_NONE])));
    (void)json_object_set_new(o, "attributes", attributes(t, f));
    (void)json_object_set_new(o, "events", events(f));
    (void)json_object_set_new(
        o, "status", *error_of(f, code) ? json_pack("{s:i}", "code", STATUS_ERROR) : json_object());
    return o;
}

/* ---- a request ---- */

/* Takes `o`; NULL is no memory. */
static int dump(struct buf *out, json_t *o)
{
    int rc = o ? buf_reserve(out, SPAN_BYTES_MAX) : -ENOMEM;
    if (!rc) {
        size_t n = json_dumpb(o, out->p + out->n, SPAN_BYTES_MAX, JSON_COMPACT);
        rc = !n ? -ENOMEM : n > SPAN_BYTES_MAX ? -EMSGSIZE : 0;
        out->n += rc ? 0 : n;
    }
    json_decref(o);
    return rc;
}

int spans_begin(struct buf *out, const char *service)
{
    char host[256] = "";
    json_t *about = json_array();
    if (gethostname(host, sizeof host - 1))
        host[0] = '\0';
    add_text(about, "service.name", service);
    add_text(about, "host.name", host);
    int rc = buf_add_slice(out, SLICE("{\"resourceSpans\":[{\"resource\":"));
    rc = rc ? (json_decref(about), rc) : dump(out, json_pack("{s:o}", "attributes", about));
    rc = rc ? rc
            : buf_add_slice(out, SLICE(",\"scopeSpans\":[{\"scope\":{\"name\":\"weir\",\"version\":"
                                       "\"" WEIR_VERSION "\"},\"spans\":["));
    return rc;
}

int spans_add(struct buf *out, const struct telemetry *t, const struct flight *f)
{
    size_t before = out->n;
    int rc = out->p[out->n - 1] == '[' ? 0 : buf_add(out, ",", 1);
    rc = rc ? rc : dump(out, span_of(t, f));
    if (rc)
        out->n = before;
    return rc;
}

int spans_end(struct buf *out)
{
    return buf_add_slice(out, SLICE("]}]}]}"));
}

uint64_t spans_rejected(struct slice answer, char *why, size_t room)
{
    json_error_t ignored;
    json_t *o = answer.n ? json_loadb(answer.p, answer.n, JSON_REJECT_DUPLICATES, &ignored) : NULL;
    const json_t *part = json_object_get(o, "partialSuccess");
    const json_t *n = json_object_get(part, "rejectedSpans");
    const char *text_of_n = json_string_value(n), *message = "";
    uint64_t rejected = 0;
    if (json_is_integer(n) && json_integer_value(n) > 0)
        rejected = (uint64_t)json_integer_value(n);
    for (; text_of_n && *text_of_n >= '0' && *text_of_n <= '9' && rejected < UINT32_MAX;
         text_of_n++)
        rejected = rejected * 10 + (uint64_t)(*text_of_n - '0');
    if (json_is_string(json_object_get(part, "errorMessage")))
        message = json_string_value(json_object_get(part, "errorMessage"));
    snprintf(why, room, "%s", message);
    json_decref(o);
    return rejected;
}
