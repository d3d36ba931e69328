/*
 * access: see the header.
 *
 * A format is compiled once into pieces, each a literal text or a value with its
 * width; a line is one walk over them into the log's own buffer, which keeps its memory. The
 * buffer has a ceiling, and so has each value, so a hostile head costs a long line, never memory.
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

/* Bytes of one value before escaping; a longer one is cut and ends in "...". */
#define ACCESS_VALUE_BYTES_MAX ((size_t)8 * 1024)
/* Ceiling of a line. The JSON format has ten texts; all of them in escapes still fit:
 * 10 * (8 KiB * 6 + "..." and quotes) + 512 bytes of keys and numbers = 492,100. */
#define ACCESS_LINE_BYTES_MAX ((size_t)512 * 1024)
/* What the line buffer keeps between lines. */
static const size_t ACCESS_KEEP_BYTES = 64 * 1024;
/* A user name from Basic credentials. */
#define ACCESS_USER_BYTES_MAX 256
/* Width and precision of an atom. */
static const int ACCESS_WIDTH_MAX = 256;
/* Seconds whose text is kept: lines are dated by the start of their request, so
 * slow and fast requests that end together carry different seconds. */
#define ACCESS_TIMES 4

#define ACCESS_COMMON "%(h)s %(l)s %(u)s %(t)s \"%(r)s\" %(s)s %(b)s"
#define ACCESS_COMBINED ACCESS_COMMON " \"%(f)s\" \"%(a)s\""

enum piece_kind {
    P_LITERAL = 0,
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
    P_CLOSE_REASON,
    P_REQUEST_FIELD,
    P_RESPONSE_FIELD,
};

struct piece {
    enum piece_kind kind;
    struct slice text; /* the literal, or the field's lower-case name; in access_log.texts */
    int width;         /* 0 = as long as it is */
    int precision;     /* bytes of the value; -1 = all */
    bool left;         /* pad at the right */
    bool zero;         /* pad numbers with 0 */
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
    struct log_sink *sink; /* owned */
    bool json;             /* the pieces are not used then */
    char *texts;           /* owned; what pieces point into */
    struct piece *pieces;  /* owned */
    size_t n_pieces;
    struct buf line; /* the line being written */
    struct time_text times[ACCESS_TIMES];
};

/* ---- atoms ---- */

static const struct {
    const char *name;
    enum piece_kind kind;
} ATOMS[] = {
    /* Gunicorn's */
    {"h", P_REMOTE_ADDR},
    {"u", P_USER},
    {"t", P_TIME_LOCAL},
    {"r", P_REQUEST_LINE},
    {"s", P_STATUS},
    {"m", P_METHOD},
    {"U", P_PATH},
    {"q", P_QUERY},
    {"H", P_PROTOCOL},
    {"b", P_BYTES},
    {"B", P_BYTES},
    {"T", P_TOTAL_S},
    {"D", P_TOTAL_US},
    {"M", P_TOTAL_MS},
    {"L", P_TOTAL_DECIMAL},
    {"p", P_PID},
    /* our own: names of more than one letter, so that they never meet a later one of Gunicorn */
    {"request_id", P_REQUEST_ID},
    {"queue_us", P_QUEUE_US},
    {"app_us", P_APP_US},
    {"close_reason", P_CLOSE_REASON},
    {"remote_port", P_REMOTE_PORT},
    {"target", P_TARGET},
    {"time_utc", P_TIME_UTC},
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

static void lower_in_place(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (char)slice_lower((unsigned char)p[i]);
}

/* {name}e with `name` already in lower case: what it means, or "-" where it cannot be told. */
static void environ_piece(struct piece *p, char *name, size_t n)
{
    struct slice s = slice_of(name, n);
    *p = (struct piece){.kind = P_LITERAL, .text = SLICE("-"), .precision = -1};
    for (size_t i = 0; i < countof(ENVIRON); i++)
        if (slice_eq(s, slice_str(ENVIRON[i].name))) {
            p->kind = ENVIRON[i].kind;
            p->text = slice_str(ENVIRON[i].field);
            return;
        }
    if (!slice_starts(s, SLICE("http_")))
        return;
    for (size_t i = 5; i < n; i++)
        if (name[i] == '_')
            name[i] = '-';
    p->kind = P_REQUEST_FIELD;
    p->text = slice_of(name + 5, n - 5);
}

/* What stands between the parentheses. */
static int name_piece(struct piece *p, char *name, size_t n, struct err *e)
{
    *p = (struct piece){.precision = -1};
    if (n >= 3 && name[0] == '{' && name[n - 2] == '}' &&
        (name[n - 1] == 'i' || name[n - 1] == 'o' || name[n - 1] == 'e')) {
        char *inner = name + 1;
        size_t inner_n = n - 3;
        if (inner_n == 0)
            return err_set(e, "access-log-format: %%(%.*s) names no field", (int)n, name);
        lower_in_place(inner, inner_n);
        if (name[n - 1] == 'e') {
            environ_piece(p, inner, inner_n);
        } else {
            p->kind = name[n - 1] == 'i' ? P_REQUEST_FIELD : P_RESPONSE_FIELD;
            p->text = slice_of(inner, inner_n);
        }
        return 0;
    }
    struct slice s = slice_of(name, n);
    for (size_t i = 0; i < countof(ATOMS); i++)
        if (slice_eq(s, slice_str(ATOMS[i].name))) {
            p->kind = ATOMS[i].kind;
            return 0;
        }
    if (slice_eq(s, SLICE("l"))) {
        p->text = SLICE("-");
    } else if (slice_eq(s, SLICE("f")) || slice_eq(s, SLICE("a"))) {
        p->kind = P_REQUEST_FIELD;
        p->text = name[0] == 'f' ? SLICE("referer") : SLICE("user-agent");
    } else {
        return err_set(e,
                       "access-log-format: unknown atom %%(%.*s)s; known are h l u t r m U q H s B "
                       "b f a T D M L p {field}i {field}o {NAME}e request_id queue_us app_us "
                       "close_reason remote_port target time_utc",
                       (int)(n < 64 ? n : 64), name);
    }
    return 0;
}

/* Digits at *at, at most ACCESS_WIDTH_MAX (-1: more). */
static int parse_digits(char **at)
{
    int v = 0;
    for (; **at >= '0' && **at <= '9'; ++*at) {
        v = v * 10 + (**at - '0');
        if (v > ACCESS_WIDTH_MAX)
            return -1;
    }
    return v;
}

/* One `%(name)[-0][width][.precision]conversion`; *at stands behind the '%'. */
static int parse_atom(struct access_log *a, char **at, struct err *e)
{
    char *p = *at;
    if (*p != '(') {
        char shown[2] = {*p, '\0'};
        return err_set(
            e, "access-log-format: %%%s at offset %zu; write %%(h)s, or %%%% for a percent sign",
            *p > 0x20 && *p < 0x7f ? shown : "", (size_t)(p - 1 - a->texts));
    }
    char *name = ++p;
    for (int depth = 1; depth; p++) {
        if (!*p)
            return err_set(e, "access-log-format: the parenthesis of %%(%.*s is not closed",
                           (int)strnlen(name, 32), name);
        depth += *p == '(' ? 1 : *p == ')' ? -1 : 0;
    }
    size_t name_n = (size_t)(p - 1 - name);
    struct piece piece;
    if (name_piece(&piece, name, name_n, e))
        return -1;
    int shown_n = (int)(name_n < 64 ? name_n : 64);
    for (; *p == '-' || *p == '0'; p++) {
        piece.left |= *p == '-';
        piece.zero |= *p == '0';
    }
    piece.width = parse_digits(&p);
    if (*p == '.') {
        p++;
        piece.precision = parse_digits(&p);
        if (piece.precision < 0)
            piece.width = -1;
    }
    if (piece.width < 0)
        return err_set(e, "access-log-format: the width of %%(%.*s) is above %d", shown_n, name,
                       ACCESS_WIDTH_MAX);
    bool number = *p == 'd' || *p == 'i';
    if (*p != 's' && !number)
        return err_set(e, "access-log-format: %%(%.*s) must end in s (or d for a number)", shown_n,
                       name);
    if (number && !is_number(piece.kind))
        return err_set(e, "access-log-format: %%(%.*s)%c is not a number; write %%(%.*s)s", shown_n,
                       name, *p, shown_n, name);
    piece.zero &= number && !piece.left;
    *at = p + 1;
    return add_piece(a, piece, e);
}

static int compile(struct access_log *a, const char *format, struct err *e)
{
    if (!*format)
        return err_set(e, "access-log-format is empty; use common, combined, json, or a text with "
                          "atoms such as %%(h)s");
    a->texts = strdup(format);
    if (!a->texts)
        return err_set(e, "out of memory");
    char *at = a->texts;
    while (*at) {
        char *start = at;
        for (; *at && *at != '%'; at++)
            if (((unsigned char)*at < 0x20 && *at != '\t') || *at == 0x7f)
                return err_set(e,
                               "access-log-format has a control character at offset %zu; a line "
                               "of the log is one line",
                               (size_t)(at - a->texts));
        size_t n = (size_t)(at - start);
        if (*at == '%' && at[1] == '%') {
            n++; /* the literal takes the first of the two */
            at += 2;
        } else if (*at) {
            at++;
            struct piece literal = {.text = slice_of(start, n), .precision = -1};
            if ((n && add_piece(a, literal, e)) || parse_atom(a, &at, e))
                return -1;
            continue;
        }
        struct piece literal = {.text = slice_of(start, n), .precision = -1};
        if (add_piece(a, literal, e))
            return -1;
    }
    return 0;
}

/* ---- values ---- */

static char *put(char *out, struct slice s)
{
    memcpy(out, s.p, s.n);
    return out + s.n;
}

static char *put_number(char *out, uint64_t v)
{
    char digits[20];
    size_t n = 0;
    do
        digits[sizeof digits - ++n] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    memcpy(out, digits + sizeof digits - n, n);
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

/* Where the next `bytes` of the line go; NULL: the line is full. */
static char *room(struct access_log *a, size_t bytes)
{
    /* One byte more: the line's newline always fits. */
    return buf_reserve(&a->line, bytes + 1) ? NULL : a->line.p + a->line.n;
}

/* A value of the client's, cut where it is too long; "-" when empty. Like all add_…: false = full.
 */
static bool add_value(struct access_log *a, struct slice s, int precision)
{
    size_t max = precision >= 0 ? (size_t)precision : ACCESS_VALUE_BYTES_MAX;
    bool cut = s.n > max;
    if (!s.n)
        s = SLICE("-");
    if (s.n > max)
        s.n = max;
    char *out = room(a, s.n * ESCAPE_GROWTH + 3);
    if (!out)
        return false;
    out = escape_text(out, s);
    if (cut && precision < 0)
        out = put(out, SLICE("..."));
    a->line.n = (size_t)(out - a->line.p);
    return true;
}

/* A text of ours: nothing to escape. */
static bool add_own(struct access_log *a, struct slice s, int precision)
{
    if (precision >= 0 && s.n > (size_t)precision)
        s.n = (size_t)precision;
    char *out = room(a, s.n);
    if (!out)
        return false;
    if (s.n)
        memcpy(out, s.p, s.n);
    a->line.n += s.n;
    return true;
}

/* Spaces in a user name would move the columns of a line whose %(u)s is not quoted. */
static bool add_user(struct access_log *a, const struct access_facts *f, int precision)
{
    char user[ACCESS_USER_BYTES_MAX], safe[4 * ACCESS_USER_BYTES_MAX];
    struct slice s = basic_user(f, user);
    if (!memchr(s.n ? s.p : "", ' ', s.n))
        return add_value(a, s, precision);
    size_t n = 0;
    if (precision >= 0 && s.n > (size_t)precision)
        s.n = (size_t)precision;
    for (size_t i = 0; i < s.n; i++) {
        char one[ESCAPE_GROWTH];
        struct slice c =
            s.p[i] == ' ' ? SLICE("\\x20")
                          : slice_of(one, (size_t)(escape_text(one, slice_of(s.p + i, 1)) - one));
        memcpy(safe + n, c.p, c.n);
        n += c.n;
    }
    return add_own(a, slice_of(safe, n), -1);
}

static bool add_path(struct access_log *a, const struct access_facts *f, int precision)
{
    char decoded[ACCESS_VALUE_BYTES_MAX];
    if (f->path.n > sizeof decoded || !memchr(f->path.n ? f->path.p : "", '%', f->path.n))
        return add_value(a, f->path, precision);
    return add_value(a, percent_decode(decoded, f->path), precision);
}

/* Method, target and protocol; one "-" when none of them is known. */
static bool add_request_line(struct access_log *a, const struct access_facts *f, int precision)
{
    if (!f->method.n && !f->target.n)
        return add_value(a, (struct slice){0}, precision);
    if (precision < 0)
        return add_value(a, f->method, -1) && add_own(a, SLICE(" "), -1) &&
               add_value(a, f->target, -1) && add_own(a, SLICE(" "), -1) &&
               add_value(a, f->protocol, -1);
    /* The precision counts bytes of the whole, before escaping. */
    struct slice parts[] = {f->method, SLICE(" "), f->target, SLICE(" "), f->protocol};
    for (size_t i = 0; i < countof(parts) && precision > 0; i++) {
        if (parts[i].n && !add_value(a, parts[i], precision))
            return false;
        precision -= parts[i].n < (size_t)precision ? (int)parts[i].n : precision;
    }
    return true;
}

static bool add_number(struct access_log *a, uint64_t v, int precision)
{
    char text[20];
    return add_own(a, slice_of(text, (size_t)(put_number(text, v) - text)), precision);
}

static bool add_decimal(struct access_log *a, int64_t ns, int precision)
{
    char text[32], *out = put_number(text, positive(ns) / 1000000000);
    *out++ = '.';
    out = put_padded(out, positive(ns) / 1000 % 1000000, 6);
    return add_own(a, slice_of(text, (size_t)(out - text)), precision);
}

static bool add_time_utc(struct access_log *a, int64_t wall_ns, int precision)
{
    char text[32];
    return add_own(a, slice_of(text, (size_t)(put_utc(text, a, wall_ns) - text)), precision);
}

static bool add_pid(struct access_log *a, int precision)
{
    char text[24], *out = text;
    *out++ = '<';
    out = put_number(out, (uint64_t)getpid());
    *out++ = '>';
    return add_own(a, slice_of(text, (size_t)(out - text)), precision);
}

static bool add_piece_value(struct access_log *a, const struct piece *p,
                            const struct access_facts *f)
{
    switch (p->kind) {
    case P_LITERAL:
        return add_own(a, p->text, p->precision);
    case P_REMOTE_ADDR:
        return add_value(a, f->remote_addr, p->precision);
    case P_REMOTE_PORT:
        return add_value(a, f->remote_port, p->precision);
    case P_USER:
        return add_user(a, f, p->precision);
    case P_TIME_LOCAL: {
        const struct time_text *t = time_of(a, f->wall_ns);
        return add_own(a, slice_of(t->local, t->local_n), p->precision);
    }
    case P_TIME_UTC:
        return add_time_utc(a, f->wall_ns, p->precision);
    case P_REQUEST_LINE:
        return add_request_line(a, f, p->precision);
    case P_STATUS:
        return f->status > 0 ? add_number(a, (uint64_t)f->status, p->precision)
                             : add_own(a, SLICE("-"), p->precision);
    case P_METHOD:
        return add_value(a, f->method, p->precision);
    case P_PATH:
        return add_path(a, f, p->precision);
    case P_QUERY:
        /* Not "-": Gunicorn's QUERY_STRING is there and empty, and "?%(q)s" would show "?-". */
        return f->query.n ? add_value(a, f->query, p->precision) : true;
    case P_TARGET:
        return add_value(a, f->target, p->precision);
    case P_PROTOCOL:
        return add_value(a, f->protocol, p->precision);
    case P_BYTES:
        return add_number(a, f->body_bytes, p->precision);
    case P_TOTAL_S:
        return add_number(a, positive(f->total_ns) / 1000000000, p->precision);
    case P_TOTAL_MS:
        return add_number(a, positive(f->total_ns) / 1000000, p->precision);
    case P_TOTAL_US:
        return add_number(a, positive(f->total_ns) / 1000, p->precision);
    case P_TOTAL_DECIMAL:
        return add_decimal(a, f->total_ns, p->precision);
    case P_QUEUE_US:
        return add_number(a, positive(f->queue_ns) / 1000, p->precision);
    case P_APP_US:
        return add_number(a, positive(f->app_ns) / 1000, p->precision);
    case P_PID:
        return add_pid(a, p->precision);
    case P_REQUEST_ID:
        return add_number(a, f->request_id, p->precision);
    case P_CLOSE_REASON:
        return add_value(a, slice_str(f->close_reason), p->precision);
    case P_REQUEST_FIELD:
        return add_value(a, request_field(f, p->text), p->precision);
    case P_RESPONSE_FIELD:
        return add_value(a, response_field(f, p->text), p->precision);
    }
    return true;
}

/* Fill the piece that begins at `start` up to its width. */
static bool pad(struct access_log *a, const struct piece *p, size_t start)
{
    size_t n = a->line.n - start, width = (size_t)p->width;
    if (n >= width)
        return true;
    if (!room(a, width - n))
        return false;
    char *at = a->line.p + start;
    if (!p->left)
        memmove(at + width - n, at, n);
    memset(p->left ? at + n : at, p->zero ? '0' : ' ', width - n);
    a->line.n += width - n;
    return true;
}

static void write_pieces(struct access_log *a, const struct access_facts *f)
{
    for (size_t i = 0; i < a->n_pieces; i++) {
        const struct piece *p = &a->pieces[i];
        size_t start = a->line.n;
        if (!add_piece_value(a, p, f) || (p->width && !pad(a, p, start)))
            return;
    }
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

/* False: no memory for the line. */
static bool write_json(struct access_log *a, const struct access_facts *f)
{
    char user_text[ACCESS_USER_BYTES_MAX];
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
    };
    /* Keys and numbers take less than 512 bytes, quotes and "..." 5 a text. */
    size_t most = 512;
    for (size_t i = 0; i < countof(texts); i++)
        most += 5 + ESCAPE_GROWTH * (texts[i].value.n < ACCESS_VALUE_BYTES_MAX
                                         ? texts[i].value.n
                                         : ACCESS_VALUE_BYTES_MAX);
    char *out = room(a, most);
    if (!out)
        return false;
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
    a->line.n = (size_t)(out - a->line.p);
    return true;
}

/* ---- public ---- */

int access_new(struct access_log **out, const char *path, const char *format, struct err *e)
{
    *out = NULL;
    struct access_log *a = calloc(1, sizeof *a);
    if (!a)
        return err_set(e, "out of memory");
    a->line.max = ACCESS_LINE_BYTES_MAX;
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

void access_write(struct access_log *a, const struct access_facts *f)
{
    bool whole = true;
    if (a->json)
        whole = write_json(a, f);
    else
        write_pieces(a, f);
    /* Half an object is none; half a text line is still of use. Out of memory loses a line, no
     * more. */
    if (whole && buf_add(&a->line, "\n", 1) == 0)
        log_sink_write(a->sink, buf_slice(&a->line));
    buf_clear(&a->line, ACCESS_KEEP_BYTES);
}

void access_free(struct access_log **a)
{
    if (!*a)
        return;
    log_sink_close(&(*a)->sink);
    buf_fini(&(*a)->line);
    free((*a)->pieces);
    free((*a)->texts);
    free(*a);
    *a = NULL;
}
