/*
 * access: see the header.
 *
 * A format is compiled once into pieces, each a value with the literal text before it; a line is
 * one walk over them into the log's own buffer, which keeps its memory. The buffer has a
 * ceiling, and so has each value, so a hostile head costs a long line, never memory.
 *
 * A put_… function has room for what it writes and returns the end. A value whose length the
 * client chose asks for room itself (put_value and what calls it) and returns NULL where
 * the line is full.
 */
#include "obs/access.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/escape.h"
#include "base/log.h"
#include "obs/trace.h"

/* Bytes of one value before escaping; a longer one is cut and ends in "...". */
#define ACCESS_VALUE_BYTES_MAX ((size_t)8 * 1024)
/* Ceiling of a line. The JSON format has ten texts that a client can make long; all of them in
 * escapes still fit: 10 * (8 KiB * 6 + "..." and quotes) + X-Request-Id and the trace's id, of
 * 64 * 6 + 5 and 32 + 5 bytes + 640 bytes of keys and numbers = 492,654. */
#define ACCESS_LINE_BYTES_MAX ((size_t)512 * 1024)
/* What the line buffer keeps between lines. */
static const size_t ACCESS_KEEP_BYTES = (size_t)64 * 1024;
/* A user name from Basic credentials. */
#define ACCESS_USER_BYTES_MAX 256
/* Of 16 bytes. */
#define TRACE_ID_DIGITS 32
/* Width and precision of an atom. */
static const int ACCESS_WIDTH_MAX = 256;
/* Seconds whose text is kept: lines are dated by the start of their request, so
 * slow and fast requests that end together carry different seconds. */
#define ACCESS_TIMES 4
/* Environ variables in a format. */
#define ACCESS_ENVIRON_MAX 32
/* Literals of up to this many bytes are copied in one move of fixed size. */
#define LITERAL_STEP ((size_t)16)
/* Room that is always there: a short literal, a number or a time (32 bytes at most), the newline.
 */
#define ACCESS_SHORT_BYTES ((size_t)64)

#define ACCESS_COMMON "%(h)s %(l)s %(u)s %(t)s \"%(r)s\" %(s)s %(b)s"
#define ACCESS_COMBINED ACCESS_COMMON " \"%(f)s\" \"%(a)s\""

enum piece_kind {
    P_NONE = 0, /* only the literal */
    P_DASH,     /* always "-" */
    P_REMOTE_ADDR,
    P_REMOTE_PORT,
    P_USER,
    P_TIME_LOCAL,
    P_TIME_UTC,
    P_REQUEST_LINE,
    P_STATUS,
    P_METHOD,
    P_PATH, /* percent-decoded, as PATH_INFO */
    P_QUERY,
    P_TARGET,
    P_PROTOCOL,
    P_BYTES,
    P_TOTAL_S,
    P_TOTAL_MS,
    P_TOTAL_US,
    P_TOTAL_DECIMAL, /* seconds with six digits */
    P_QUEUE_US,
    P_APP_US,
    P_PID,
    P_REQUEST_ID,
    P_X_REQUEST_ID,
    P_TRACE_ID,
    P_CLOSE_REASON,
    P_REQUEST_FIELD,
    P_RESPONSE_FIELD,
    P_ENVIRON, /* of the application's environ; `fallback` where none was made */
};

struct piece {
    enum piece_kind kind;
    struct slice literal;     /* what stands before the value; in access_log.texts */
    struct slice name;        /* of a field, in lower case; in access_log.texts or static */
    enum piece_kind fallback; /* of P_ENVIRON */
    unsigned variable;        /* of P_ENVIRON: index of its name */
    int width;                /* 0 = as long as it is */
    int precision;            /* bytes of the value; -1 = all */
    bool fitted;              /* has a width or a precision */
    bool left;                /* pad at the right */
    bool zero;                /* pad numbers with 0 */
};

/* The texts of one second. */
struct time_text {
    int64_t second; /* Unix; -1 = empty */
    char local[32]; /* [23/Nov/2026:20:42:08 +0000] */
    uint8_t local_n;
    char utc[24]; /* 2026-11-23T20:42:08, without the fraction */
    uint8_t utc_n;
};

struct access_log {
    struct log_sink *sink;                 /* owned */
    bool json;                             /* the pieces are not used then */
    bool gunicorn;                         /* write as Gunicorn does */
    const char *names[ACCESS_ENVIRON_MAX]; /* owned: environ variables */
    unsigned n_names;
    char *texts; /* owned; what pieces point into, with LITERAL_STEP readable bytes behind */
    struct piece *pieces; /* owned */
    size_t n_pieces;
    struct buf line; /* the line being written */
    struct time_text times[ACCESS_TIMES];
};

/* ---- atoms ---- */

static const struct {
    const char *name;
    enum piece_kind kind;
    const char *field;
} ATOMS[] = {
    /* Gunicorn's */
    {"h", P_REMOTE_ADDR, NULL},
    {"u", P_USER, NULL},
    {"t", P_TIME_LOCAL, NULL},
    {"r", P_REQUEST_LINE, NULL},
    {"s", P_STATUS, NULL},
    {"m", P_METHOD, NULL},
    {"U", P_PATH, NULL},
    {"q", P_QUERY, NULL},
    {"H", P_PROTOCOL, NULL},
    {"b", P_BYTES, NULL},
    {"B", P_BYTES, NULL},
    {"T", P_TOTAL_S, NULL},
    {"D", P_TOTAL_US, NULL},
    {"M", P_TOTAL_MS, NULL},
    {"L", P_TOTAL_DECIMAL, NULL},
    {"p", P_PID, NULL},
    {"l", P_DASH, NULL},
    {"f", P_REQUEST_FIELD, "referer"},
    {"a", P_REQUEST_FIELD, "user-agent"},
    /* our own: names of more than one letter, so that they never meet a later one of Gunicorn */
    {"request_id", P_REQUEST_ID, NULL},
    {"queue_us", P_QUEUE_US, NULL},
    {"app_us", P_APP_US, NULL},
    {"close_reason", P_CLOSE_REASON, NULL},
    {"remote_port", P_REMOTE_PORT, NULL},
    {"target", P_TARGET, NULL},
    {"time_utc", P_TIME_UTC, NULL},
    {"x_request_id", P_X_REQUEST_ID, NULL},
    {"trace_id", P_TRACE_ID, NULL},
};

/* The environ names that can be told from a request, in lower case; HTTP_* aside. */
static const struct {
    const char *name;
    enum piece_kind kind;
    const char *field;
} ENVIRON[] = {
    {"remote_addr", P_REMOTE_ADDR, NULL},
    {"remote_port", P_REMOTE_PORT, NULL},
    {"request_method", P_METHOD, NULL},
    {"path_info", P_PATH, NULL},
    {"query_string", P_QUERY, NULL},
    {"request_uri", P_TARGET, NULL},
    {"raw_uri", P_TARGET, NULL},
    {"server_protocol", P_PROTOCOL, NULL},
    {"content_type", P_REQUEST_FIELD, "content-type"},
    {"content_length", P_REQUEST_FIELD, "content-length"},
};

/* Atoms that Gunicorn reads from the environ. */
static const struct {
    const char *atom, *variable;
} ENVIRON_ATOMS[] = {
    {"h", "REMOTE_ADDR"},  {"m", "REQUEST_METHOD"}, {"U", "PATH_INFO"},
    {"q", "QUERY_STRING"}, {"r", "REQUEST_METHOD"}, /* of the line; the rest is as sent */
};

static bool is_number(enum piece_kind k)
{
    return k == P_STATUS || k == P_BYTES || k == P_TOTAL_S || k == P_TOTAL_MS || k == P_TOTAL_US ||
           k == P_QUEUE_US || k == P_APP_US || k == P_REQUEST_ID;
}

/* ---- compiling a format ---- */

static int add_piece(struct access_log *a, struct piece p, struct err *e)
{
    /* Doubles at each power of two. */
    if ((a->n_pieces & (a->n_pieces - 1)) == 0) {
        size_t cap = a->n_pieces ? a->n_pieces * 2 : 1;
        struct piece *grown = realloc(a->pieces, cap * sizeof *grown);
        if (!grown)
            return err_set(e, "out of memory");
        a->pieces = grown;
    }
    a->pieces[a->n_pieces++] = p;
    return 0;
}

/* Make *p one of the variable `name`, and what it is so far its fallback. */
static int environ_watch(struct access_log *a, struct piece *p, struct slice name, struct err *e)
{
    unsigned i = 0;
    while (i < a->n_names && !slice_eq(slice_str(a->names[i]), name))
        i++;
    if (i == ACCESS_ENVIRON_MAX)
        return err_set(e, "access-log-format: more than %d environ variables", ACCESS_ENVIRON_MAX);
    if (i == a->n_names) {
        a->names[i] = strndup(name.p, name.n);
        if (!a->names[i])
            return err_set(e, "out of memory");
        a->n_names++;
    }
    p->fallback = p->kind;
    p->kind = P_ENVIRON;
    p->variable = i;
    return 0;
}

/* {name}e with `name` already in lower case; P_DASH where the server itself cannot tell it. */
static void environ_piece(struct piece *p, char *name, size_t n)
{
    struct slice s = slice_of(name, n);
    p->kind = P_DASH;
    for (size_t i = 0; i < countof(ENVIRON); i++)
        if (slice_eq(s, slice_str(ENVIRON[i].name))) {
            p->kind = ENVIRON[i].kind;
            p->name = slice_str(ENVIRON[i].field);
            return;
        }
    if (!slice_starts(s, SLICE("http_")))
        return;
    for (size_t i = 5; i < n; i++)
        if (name[i] == '_')
            name[i] = '-';
    p->kind = P_REQUEST_FIELD;
    p->name = slice_of(name + 5, n - 5);
}

/* A format on its way to pieces. */
struct compiler {
    struct access_log *log;
    const char *format, *at; /* at: the next byte to read */
    char *out;               /* the next byte of log->texts; never more written than read */
    char *literal;           /* where the literal of the next piece begins */
    struct err *e;
};

/* What stands between the parentheses. */
static int atom_kind(struct compiler *c, struct piece *p, const char *name, size_t n)
{
    struct slice s = slice_of(name, n);
    if (n >= 3 && name[0] == '{' && name[n - 2] == '}' && memchr("ioe", name[n - 1], 3)) {
        char *inner = c->out;
        size_t inner_n = n - 3;
        if (inner_n == 0)
            return err_set(c->e, "access-log-format: %%(%.*s) names no field", (int)n, name);
        for (size_t i = 0; i < inner_n; i++)
            inner[i] = (char)slice_lower((unsigned char)name[1 + i]);
        c->out += inner_n;
        p->kind = name[n - 1] == 'i' ? P_REQUEST_FIELD : P_RESPONSE_FIELD;
        p->name = slice_of(inner, inner_n);
        if (name[n - 1] != 'e')
            return 0;
        environ_piece(p, inner, inner_n);
        return environ_watch(c->log, p, slice_of(name + 1, inner_n), c->e);
    }
    for (size_t i = 0; i < countof(ATOMS); i++)
        if (slice_eq(s, slice_str(ATOMS[i].name))) {
            p->kind = ATOMS[i].kind;
            p->name = slice_str(ATOMS[i].field);
            for (size_t k = 0; k < countof(ENVIRON_ATOMS) && c->log->gunicorn; k++)
                if (slice_eq(s, slice_str(ENVIRON_ATOMS[k].atom)))
                    return environ_watch(c->log, p, slice_str(ENVIRON_ATOMS[k].variable), c->e);
            return 0;
        }
    if (c->log->gunicorn) {
        p->kind = P_DASH;
        return 0;
    }
    return err_set(c->e,
                   "access-log-format: unknown atom %%(%.*s)s; known are h l u t r m U q H s B b f "
                   "a T D M L p {field}i {field}o {NAME}e request_id queue_us app_us close_reason "
                   "remote_port target time_utc x_request_id trace_id",
                   (int)(n < 64 ? n : 64), name);
}

/* Digits at *at, at most ACCESS_WIDTH_MAX (-1: more). */
static int parse_digits(const char **at)
{
    int v = 0;
    for (; **at >= '0' && **at <= '9'; ++*at) {
        v = v * 10 + (**at - '0');
        if (v > ACCESS_WIDTH_MAX)
            return -1;
    }
    return v;
}

/* The name of `%(name)…`; c->at stands behind the '%' and moves behind the ')'. */
static int parse_name(struct compiler *c, struct slice *name)
{
    const char *p = c->at;
    if (*p != '(') {
        char shown[2] = {*p, '\0'};
        return err_set(
            c->e, "access-log-format: %%%s at offset %zu; write %%(h)s, or %%%% for a percent sign",
            *p > 0x20 && *p < 0x7f ? shown : "", (size_t)(p - 1 - c->format));
    }
    const char *start = ++p;
    for (int depth = 1; depth; p++) {
        if (!*p)
            return err_set(c->e, "access-log-format: the parenthesis of %%(%.*s is not closed",
                           (int)strnlen(start, 32), start);
        depth += *p == '(' ? 1 : *p == ')' ? -1 : 0;
    }
    *name = slice_of(start, (size_t)(p - 1 - start));
    c->at = p;
    return 0;
}

/* One `%(name)[-0][width][.precision]conversion`; c->at stands behind the '%'. */
static int parse_atom(struct compiler *c)
{
    struct slice name = {0};
    char *literal_end = c->out;
    struct piece piece = {.literal = slice_of(c->literal, (size_t)(c->out - c->literal))};
    if (parse_name(c, &name) || atom_kind(c, &piece, name.p, name.n))
        return -1;
    const char *p = c->at;
    int shown_n = (int)(name.n < 64 ? name.n : 64);
    for (; *p == '-' || *p == '0'; p++) {
        piece.left |= *p == '-';
        piece.zero |= *p == '0';
    }
    piece.width = parse_digits(&p);
    piece.precision = -1;
    if (*p == '.') {
        p++;
        piece.precision = parse_digits(&p);
        if (piece.precision < 0)
            piece.width = -1;
    }
    if (piece.width < 0)
        return err_set(c->e, "access-log-format: the width of %%(%.*s) is above %d", shown_n,
                       name.p, ACCESS_WIDTH_MAX);
    bool number = *p == 'd' || *p == 'i';
    if (*p != 's' && !number)
        return err_set(c->e, "access-log-format: %%(%.*s) must end in s (or d for a number)",
                       shown_n, name.p);
    if (number && !is_number(piece.kind))
        return err_set(c->e, "access-log-format: %%(%.*s)%c is not a number; write %%(%.*s)s",
                       shown_n, name.p, *p, shown_n, name.p);
    piece.zero &= number && !piece.left;
    c->at = p + 1;
    piece.fitted = piece.width || piece.precision >= 0;
    if (piece.kind == P_DASH && !piece.fitted) {
        c->out = literal_end; /* a part of the literal, which goes on */
        *c->out++ = '-';
        return 0;
    }
    c->literal = c->out;
    return add_piece(c->log, piece, c->e);
}

static int compile(struct access_log *a, const char *format, struct err *e)
{
    if (!*format)
        return err_set(e, "access-log-format is empty; use common, combined, json, or a text with "
                          "atoms such as %%(h)s");
    a->texts = calloc(1, strlen(format) + LITERAL_STEP);
    if (!a->texts)
        return err_set(e, "out of memory");
    struct compiler c = {a, format, format, a->texts, a->texts, e};
    while (*c.at) {
        char byte = *c.at++;
        if (byte == '%' && *c.at != '%') {
            if (parse_atom(&c))
                return -1;
            continue;
        }
        if (((unsigned char)byte < 0x20 && byte != '\t') || byte == 0x7f)
            return err_set(e,
                           "access-log-format has a control character at offset %zu; a line of "
                           "the log is one line",
                           (size_t)(c.at - 1 - format));
        c.at += byte == '%';
        *c.out++ = byte;
    }
    struct piece rest = {.literal = slice_of(c.literal, (size_t)(c.out - c.literal)),
                         .precision = -1};
    return rest.literal.n ? add_piece(a, rest, e) : 0;
}

/* ---- values ---- */

static char *put(char *out, struct slice s)
{
    memcpy(out, s.p, s.n);
    return out + s.n;
}

static char *put_number(char *out, uint64_t v)
{
    size_t n = 1;
    for (uint64_t rest = v; rest >= 10; rest /= 10)
        n++;
    for (size_t i = n; i-- > 0; v /= 10)
        out[i] = (char)('0' + v % 10);
    return out + n;
}

/* `v` with leading zeros. */
static char *put_padded(char *out, uint64_t v, int digits)
{
    for (int i = digits - 1; i >= 0; i--, v /= 10)
        out[i] = (char)('0' + v % 10);
    return out + digits;
}

static uint64_t positive(int64_t ns)
{
    return ns > 0 ? (uint64_t)ns : 0;
}

static void fill_time(struct time_text *t, int64_t second)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t clock = (time_t)second;
    struct tm tm = {0};
    localtime_r(&clock, &tm);
    char *out = t->local;
    *out++ = '[';
    out = put_padded(out, (uint64_t)tm.tm_mday, 2);
    *out++ = '/';
    out = put(out, slice_of(months + 3 * tm.tm_mon, 3));
    *out++ = '/';
    out = put_padded(out, (uint64_t)(tm.tm_year + 1900), 4);
    *out++ = ':';
    out = put_padded(out, (uint64_t)tm.tm_hour, 2);
    *out++ = ':';
    out = put_padded(out, (uint64_t)tm.tm_min, 2);
    *out++ = ':';
    out = put_padded(out, (uint64_t)tm.tm_sec, 2);
    *out++ = ' ';
    long minutes = tm.tm_gmtoff / 60;
    *out++ = minutes < 0 ? '-' : '+';
    minutes = labs(minutes);
    out = put_padded(out, (uint64_t)(minutes / 60), 2);
    out = put_padded(out, (uint64_t)(minutes % 60), 2);
    *out++ = ']';
    t->local_n = (uint8_t)(out - t->local);

    gmtime_r(&clock, &tm);
    out = put_padded(t->utc, (uint64_t)(tm.tm_year + 1900), 4);
    *out++ = '-';
    out = put_padded(out, (uint64_t)(tm.tm_mon + 1), 2);
    *out++ = '-';
    out = put_padded(out, (uint64_t)tm.tm_mday, 2);
    *out++ = 'T';
    out = put_padded(out, (uint64_t)tm.tm_hour, 2);
    *out++ = ':';
    out = put_padded(out, (uint64_t)tm.tm_min, 2);
    *out++ = ':';
    out = put_padded(out, (uint64_t)tm.tm_sec, 2);
    t->utc_n = (uint8_t)(out - t->utc);
    t->second = second;
}

/* A wall time before 1970 is shown as 1970. */
static const struct time_text *time_of(struct access_log *a, int64_t wall_ns)
{
    static_assert(INT64_MAX / 1000000000 < 253402300800, "the year has four digits");
    int64_t second = (int64_t)(positive(wall_ns) / 1000000000);
    struct time_text *t = &a->times[(size_t)second % ACCESS_TIMES];
    if (t->second != second)
        fill_time(t, second);
    return t;
}

static char *put_utc(char *out, struct access_log *a, int64_t wall_ns)
{
    const struct time_text *t = time_of(a, wall_ns);
    out = put(out, slice_of(t->utc, t->utc_n));
    *out++ = '.';
    out = put_padded(out, positive(wall_ns) / 1000000 % 1000, 3);
    *out++ = 'Z';
    return out;
}

static struct slice request_field(const struct access_facts *f, struct slice name)
{
    return f->request_field ? f->request_field(f->arg, name) : (struct slice){0};
}

static struct slice response_field(const struct access_facts *f, struct slice name)
{
    return f->response_field ? f->response_field(f->arg, name) : (struct slice){0};
}

static int base64_value(unsigned char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The user name of Basic credentials (RFC 7617 §2), decoded into `out` up to its colon, which
 * must be there. The password is never decoded further than the three bytes around the colon. */
static struct slice basic_user(const struct access_facts *f, char out[ACCESS_USER_BYTES_MAX])
{
    struct slice none = {0};
    struct slice s = request_field(f, SLICE("authorization"));
    if (s.n < 6 || !slice_ieq(slice_of(s.p, 6), SLICE("basic ")))
        return none;
    s = slice_trim(slice_of(s.p + 6, s.n - 6));
    size_t n = 0;
    uint32_t bits = 0;
    unsigned n_bits = 0;
    for (size_t i = 0; i < s.n && n < ACCESS_USER_BYTES_MAX; i++) {
        int v = base64_value((unsigned char)s.p[i]);
        if (v < 0)
            return none;
        bits = (bits << 6 | (uint32_t)v) & 0xffff;
        n_bits += 6;
        if (n_bits < 8)
            continue;
        n_bits -= 8;
        char c = (char)(bits >> n_bits & 0xff);
        if (c == ':')
            return slice_of(out, n);
        out[n++] = c;
    }
    return none;
}

/* Percent-decoded in place of WSGI's PATH_INFO; `out` has room for s.n bytes. */
static struct slice percent_decode(char *out, struct slice s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        int v[2] = {-1, -1};
        for (size_t k = 0; k < 2 && s.p[i] == '%' && i + 2 < s.n; k++) {
            unsigned char c = slice_lower((unsigned char)s.p[i + 1 + k]);
            v[k] = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        }
        bool escape = v[0] >= 0 && v[1] >= 0;
        out[n++] = (char)(escape ? v[0] << 4 | v[1] : s.p[i]);
        i += escape ? 2 : 0;
    }
    return slice_of(out, n);
}

/* ---- lines of pieces ---- */

WEIR_COLD static char *room_slow(struct access_log *a, char *out, size_t bytes)
{
    a->line.n = (size_t)(out - a->line.p);
    return buf_reserve(&a->line, bytes) ? NULL : a->line.p + a->line.n;
}

/* `out`, or where it moved to, with room for `bytes`, one more number, and the newline. NULL: full.
 */
static inline char *room(struct access_log *a, char *out, size_t bytes)
{
    bytes += ACCESS_SHORT_BYTES;
    return WEIR_LIKELY((size_t)(a->line.p + a->line.cap - out) >= bytes) ? out
                                                                         : room_slow(a, out, bytes);
}

/* A value of the client's, cut where it is too long; "-" when empty. */
static char *put_value(struct access_log *a, char *out, struct slice s, int precision)
{
    size_t max = precision >= 0 ? (size_t)precision : ACCESS_VALUE_BYTES_MAX;
    if (s.n == 0) {
        *out = '-';
        return out + (max > 0);
    }
    bool cut = s.n > max;
    if (cut)
        s.n = max;
    out = room(a, out, s.n * ESCAPE_GROWTH + 3);
    if (!out)
        return NULL;
    out = escape_text(out, s);
    return cut && precision < 0 ? put(out, SLICE("...")) : out;
}

/* Spaces in a user name would move the columns of a line whose %(u)s is not quoted. */
static char *put_user(struct access_log *a, char *out, const struct access_facts *f, int precision)
{
    char user[ACCESS_USER_BYTES_MAX];
    struct slice s = basic_user(f, user);
    if (s.n == 0)
        return put_value(a, out, s, precision);
    if (precision >= 0 && s.n > (size_t)precision)
        s.n = (size_t)precision;
    out = room(a, out, s.n * ESCAPE_GROWTH);
    for (size_t i = 0; out && i < s.n; i++)
        out = s.p[i] == ' ' ? put(out, SLICE("\\x20")) : escape_text(out, slice_of(s.p + i, 1));
    return out;
}

static char *put_path(struct access_log *a, char *out, const struct access_facts *f, int precision)
{
    char decoded[ACCESS_VALUE_BYTES_MAX];
    struct slice path = f->path;
    if (path.n && path.n <= sizeof decoded && memchr(path.p, '%', path.n))
        path = percent_decode(decoded, path);
    return put_value(a, out, path, precision);
}

/* Method, target and protocol; one "-" when none of them is known. */
static char *put_request_line(struct access_log *a, char *out, const struct access_facts *f,
                              struct slice method, int precision)
{
    if (!method.n && !f->target.n)
        return put_value(a, out, (struct slice){0}, precision);
    if (precision >= 0) {
        /* It counts bytes of the whole, before escaping. */
        const struct slice parts[] = {method, SLICE(" "), f->target, SLICE(" "), f->protocol};
        for (size_t i = 0; out && i < countof(parts) && precision > 0; i++) {
            if (parts[i].n)
                out = put_value(a, out, parts[i], precision);
            precision -= parts[i].n < (size_t)precision ? (int)parts[i].n : precision;
        }
        return out;
    }
    out = put_value(a, out, method, -1);
    if (!out)
        return NULL;
    *out++ = ' ';
    out = put_value(a, out, f->target, -1);
    if (!out)
        return NULL;
    *out++ = ' ';
    return put_value(a, out, f->protocol, -1);
}

/* Seconds with six digits. */
static char *put_decimal(char *out, int64_t ns)
{
    out = put_number(out, positive(ns) / 1000000000);
    *out++ = '.';
    return put_padded(out, positive(ns) / 1000 % 1000000, 6);
}

static char *put_pid(char *out)
{
    *out++ = '<';
    out = put_number(out, (uint64_t)getpid());
    *out++ = '>';
    return out;
}

/* Empty: there is no trace. */
static struct slice trace_id(const struct access_facts *f, char hex[TRACE_ID_DIGITS])
{
    if (!f->trace_id)
        return (struct slice){0};
    trace_hex(hex, f->trace_id, TRACE_ID_DIGITS / 2);
    return slice_of(hex, TRACE_ID_DIGITS);
}

/* The same for what may be there and empty. */
static char *put_present(struct access_log *a, char *out, struct slice s, int precision)
{
    return a->gunicorn && s.p && !s.n ? out : put_value(a, out, s, precision);
}

/* There are ACCESS_SHORT_BYTES of room. */
static char *put_piece(struct access_log *a, char *out, const struct piece *p,
                       const struct access_facts *f)
{
    switch (p->kind) {
    case P_NONE:
        return out;
    case P_DASH:
        return put(out, SLICE("-"));
    case P_REMOTE_ADDR:
        return put_present(a, out, f->remote_addr, p->precision);
    case P_REMOTE_PORT:
        return put_value(a, out, f->remote_port, p->precision);
    case P_USER:
        return put_user(a, out, f, p->precision);
    case P_TIME_LOCAL: {
        const struct time_text *t = time_of(a, f->wall_ns);
        memcpy(out, t->local, sizeof t->local);
        return out + t->local_n;
    }
    case P_TIME_UTC:
        return put_utc(out, a, f->wall_ns);
    case P_REQUEST_LINE:
        return put_request_line(a, out, f, f->method, p->precision);
    case P_STATUS:
        return f->status > 0 ? put_number(out, (uint64_t)f->status) : put(out, SLICE("-"));
    case P_METHOD:
        return put_value(a, out, f->method, p->precision);
    case P_PATH:
        return put_path(a, out, f, p->precision);
    case P_QUERY:
        /* Not "-": Gunicorn's QUERY_STRING is there and empty, and "?%(q)s" would show "?-". */
        return f->query.n ? put_value(a, out, f->query, p->precision) : out;
    case P_TARGET:
        return put_value(a, out, f->target, p->precision);
    case P_PROTOCOL:
        return put_value(a, out, f->protocol, p->precision);
    case P_BYTES:
        return put_number(out, f->body_bytes);
    case P_TOTAL_S:
        return put_number(out, positive(f->total_ns) / 1000000000);
    case P_TOTAL_MS:
        return put_number(out, positive(f->total_ns) / 1000000);
    case P_TOTAL_US:
        return put_number(out, positive(f->total_ns) / 1000);
    case P_TOTAL_DECIMAL:
        return put_decimal(out, f->total_ns);
    case P_QUEUE_US:
        return put_number(out, positive(f->queue_ns) / 1000);
    case P_APP_US:
        return put_number(out, positive(f->app_ns) / 1000);
    case P_PID:
        return put_pid(out);
    case P_REQUEST_ID:
        return put_number(out, f->request_id);
    case P_X_REQUEST_ID:
        return put_value(a, out, f->x_request_id, p->precision);
    case P_TRACE_ID: {
        char hex[TRACE_ID_DIGITS];
        return put_value(a, out, trace_id(f, hex), p->precision);
    }
    case P_CLOSE_REASON:
        return put_value(a, out, slice_str(f->close_reason), p->precision);
    case P_REQUEST_FIELD:
        return put_present(a, out, request_field(f, p->name), p->precision);
    case P_RESPONSE_FIELD:
        return put_present(a, out, response_field(f, p->name), p->precision);
    case P_ENVIRON: {
        struct piece other = *p;
        struct slice value = f->environ_values ? f->environ_values[p->variable] : f->method;
        if (p->fallback == P_REQUEST_LINE)
            return put_request_line(a, out, f, value, p->precision);
        if (f->environ_values)
            return put_present(a, out, value, p->precision);
        other.kind = p->fallback;
        return put_piece(a, out, &other, f);
    }
    }
    return out;
}

/* Is the value one of ours, which put_piece does not cut to its precision? */
static bool is_own(enum piece_kind k)
{
    return is_number(k) || k == P_DASH || k == P_TIME_LOCAL || k == P_TIME_UTC ||
           k == P_TOTAL_DECIMAL || k == P_PID;
}

/* Cut what begins `n` bytes before `out` to its precision, or fill it up to its width. */
static char *fit(struct access_log *a, char *out, const struct piece *p, size_t n)
{
    if (p->precision >= 0 && is_own(p->kind) && n > (size_t)p->precision) {
        out -= n - (size_t)p->precision;
        n = (size_t)p->precision;
    }
    size_t width = (size_t)p->width;
    if (n >= width || !(out = room(a, out, width - n)))
        return out;
    char *start = out - n;
    if (!p->left)
        memmove(start + width - n, start, n);
    memset(p->left ? out : start, p->zero ? '0' : ' ', width - n);
    return start + width;
}

static char *put_literal(struct access_log *a, char *out, struct slice s)
{
    if (s.n <= LITERAL_STEP) {
        memcpy(out, s.p, LITERAL_STEP); /* both sides have that much */
        return out + s.n;
    }
    out = room(a, out, s.n);
    return out ? put(out, s) : NULL;
}

/* The end of the line, which may be cut; NULL: no memory for it. */
static char *write_pieces(struct access_log *a, const struct access_facts *f)
{
    if (buf_reserve(&a->line, ACCESS_SHORT_BYTES))
        return NULL;
    char *out = a->line.p;
    for (const struct piece *p = a->pieces, *end = p + a->n_pieces; p < end; p++) {
        size_t kept_n = (size_t)(out - a->line.p);
        out = put_literal(a, out, p->literal);
        size_t start_n = out ? (size_t)(out - a->line.p) : 0;
        if (out)
            out = put_piece(a, out, p, f);
        if (out && p->fitted)
            out = fit(a, out, p, (size_t)(out - a->line.p) - start_n);
        if (out)
            out = room(a, out, 0);
        if (!out)
            return a->line.p + kept_n; /* full: whole pieces, and the newline fits */
    }
    return out;
}

/* ---- JSON lines ---- */

static char *put_json_text(char *out, struct slice key, struct slice s)
{
    out = put(out, key);
    if (!s.n)
        return put(out, SLICE("null"));
    bool cut = s.n > ACCESS_VALUE_BYTES_MAX;
    if (cut)
        s.n = ACCESS_VALUE_BYTES_MAX;
    *out++ = '"';
    out = escape_json(out, s);
    if (cut)
        out = put(out, SLICE("..."));
    *out++ = '"';
    return out;
}

static char *put_json_number(char *out, struct slice key, uint64_t v)
{
    return put_number(put(out, key), v);
}

/* The end of the line; NULL: no memory for it. */
static char *write_json(struct access_log *a, const struct access_facts *f)
{
    char user_text[ACCESS_USER_BYTES_MAX], trace_text[TRACE_ID_DIGITS];
    const struct {
        struct slice key, value;
    } texts[] = {
        {SLICE(",\"remote_addr\":"), f->remote_addr},
        {SLICE(",\"remote_port\":"), f->remote_port},
        {SLICE(",\"user\":"), basic_user(f, user_text)},
        {SLICE(",\"method\":"), f->method},
        {SLICE(",\"path\":"), f->path},
        {SLICE(",\"query\":"), f->query},
        {SLICE(",\"protocol\":"), f->protocol},
        {SLICE(",\"referer\":"), request_field(f, SLICE("referer"))},
        {SLICE(",\"user_agent\":"), request_field(f, SLICE("user-agent"))},
        {SLICE(",\"close_reason\":"), slice_str(f->close_reason)},
        {SLICE(",\"x_request_id\":"), f->x_request_id},
        {SLICE(",\"trace_id\":"), trace_id(f, trace_text)},
    };
    /* Keys and numbers take less than 640 bytes, quotes and "..." 5 a text. */
    size_t most = 640;
    for (size_t i = 0; i < countof(texts); i++)
        most += 5 + ESCAPE_GROWTH * (texts[i].value.n < ACCESS_VALUE_BYTES_MAX
                                         ? texts[i].value.n
                                         : ACCESS_VALUE_BYTES_MAX);
    if (buf_reserve(&a->line, most))
        return NULL;
    char *out = a->line.p;
    out = put(out, SLICE("{\"time\":\""));
    out = put_utc(out, a, f->wall_ns);
    *out++ = '"';
    out = put_json_number(out, SLICE(",\"request\":"), f->request_id);
    out = put_json_number(out, SLICE(",\"status\":"), f->status > 0 ? (uint64_t)f->status : 0);
    out = put_json_number(out, SLICE(",\"bytes\":"), f->body_bytes);
    out = put_json_number(out, SLICE(",\"total_us\":"), positive(f->total_ns) / 1000);
    out = put_json_number(out, SLICE(",\"queue_us\":"), positive(f->queue_ns) / 1000);
    out = put_json_number(out, SLICE(",\"app_us\":"), positive(f->app_ns) / 1000);
    for (size_t i = 0; i < countof(texts); i++)
        out = put_json_text(out, texts[i].key, texts[i].value);
    *out++ = '}';
    return out;
}

/* ---- public ---- */

int access_new(struct access_log **out, const char *path, const char *format, bool gunicorn,
               struct err *e)
{
    *out = NULL;
    struct access_log *a = calloc(1, sizeof *a);
    if (!a)
        return err_set(e, "out of memory");
    a->line.max = ACCESS_LINE_BYTES_MAX;
    a->gunicorn = gunicorn;
    for (size_t i = 0; i < ACCESS_TIMES; i++)
        a->times[i].second = -1;
    int rc = 0;
    if (strcmp(format, "json") == 0)
        a->json = true;
    else if (strcmp(format, "common") == 0)
        rc = compile(a, ACCESS_COMMON, e);
    else if (strcmp(format, "combined") == 0)
        rc = compile(a, ACCESS_COMBINED, e);
    else
        rc = compile(a, format, e);
    if (rc || log_sink_open(&a->sink, path, STDOUT_FILENO, e)) {
        access_free(&a);
        return -1;
    }
    *out = a;
    return 0;
}

unsigned access_environ(const struct access_log *a, const char *const **names)
{
    *names = a->names;
    return a->n_names;
}

void access_write(struct access_log *a, const struct access_facts *f)
{
    char *out = a->json ? write_json(a, f) : write_pieces(a, f);
    /* Without memory a line is lost and the server goes on. */
    if (out) {
        *out++ = '\n';
        log_sink_write(a->sink, slice_of(a->line.p, (size_t)(out - a->line.p)));
    }
    buf_clear(&a->line, ACCESS_KEEP_BYTES);
}

void access_free(struct access_log **a)
{
    if (!*a)
        return;
    log_sink_close(&(*a)->sink);
    buf_fini(&(*a)->line);
    for (unsigned i = 0; i < (*a)->n_names; i++)
        free((char *)(uintptr_t)(*a)->names[i]);
    free((*a)->pieces);
    free((*a)->texts);
    free(*a);
    *a = NULL;
}
