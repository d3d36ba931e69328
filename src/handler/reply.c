/*
 * reply: the one place that decides how a response looks on the wire.
 *
 * Until the head is framed, call->out holds the status line and the handler's own fields.
 * What depends on the whole (Content-Length, Transfer-Encoding, Connection, Date, Server) is only
 * noted and is written by call_begin, so a response can be replaced by cutting `out` to nothing,
 * and no field of the handler has ever to be taken out again.
 */
#include "handler/reply.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/must.h"
#include "handler/date.h"
#include "handler/handler.h"

/* Content-Length (37), Transfer-Encoding (28), Connection (24), Date (37), Server (below 224) and
 * the empty line (2) together. */
#define REPLY_TAIL_BYTES 384
/* X-Request-Id (80), Server-Timing (three times of 24 digits at most, and its names: below 160). */
#define REPLY_SEEN_BYTES 256

/* ---- bytes ---- */

/* RFC 9110 §5.6.2: the bytes of a token. */
static const unsigned char reply_token[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1,
    ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1,  ['~'] = 1, ['0'] = 1,
    ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1, ['6'] = 1,  ['7'] = 1, ['8'] = 1,
    ['9'] = 1, ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1,  ['F'] = 1, ['G'] = 1,
    ['H'] = 1, ['I'] = 1, ['J'] = 1, ['K'] = 1, ['L'] = 1, ['M'] = 1,  ['N'] = 1, ['O'] = 1,
    ['P'] = 1, ['Q'] = 1, ['R'] = 1, ['S'] = 1, ['T'] = 1, ['U'] = 1,  ['V'] = 1, ['W'] = 1,
    ['X'] = 1, ['Y'] = 1, ['Z'] = 1, ['a'] = 1, ['b'] = 1, ['c'] = 1,  ['d'] = 1, ['e'] = 1,
    ['f'] = 1, ['g'] = 1, ['h'] = 1, ['i'] = 1, ['j'] = 1, ['k'] = 1,  ['l'] = 1, ['m'] = 1,
    ['n'] = 1, ['o'] = 1, ['p'] = 1, ['q'] = 1, ['r'] = 1, ['s'] = 1,  ['t'] = 1, ['u'] = 1,
    ['v'] = 1, ['w'] = 1, ['x'] = 1, ['y'] = 1, ['z'] = 1,
};

static bool name_ok(struct slice s)
{
    unsigned ok = s.n > 0;
    for (size_t i = 0; i < s.n; i++)
        ok &= reply_token[(unsigned char)s.p[i]];
    return ok;
}

/* Does any of the eight bytes of `w` lie below 0x20 or equal 0x7f? May say yes for a tab, never
 * says no wrongly: the caller looks again, byte by byte. */
static bool word_suspect(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t high = 0x8080808080808080u;
    uint64_t below = (w - ones * 0x20) & ~w & high;
    uint64_t del = w ^ (ones * 0x7f);
    return (below | ((del - ones) & ~del & high)) != 0;
}

/* RFC 9110 §5.5: no control characters but HTAB; bytes above 0x7f (obs-text) may stand. */
static bool value_ok_slow(struct slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char b = (unsigned char)s.p[i];
        if ((b < 0x20 && b != '\t') || b == 0x7f)
            return false;
    }
    return true;
}

static bool value_ok(struct slice s)
{
    bool suspect;
    if (s.n >= 8) {
        /* Whole words, and the last eight bytes once more. */
        uint64_t w;
        memcpy(&w, s.p + s.n - 8, 8);
        suspect = word_suspect(w);
        for (size_t i = 0; i + 8 < s.n; i += 8) {
            memcpy(&w, s.p + i, 8);
            suspect |= word_suspect(w);
        }
    } else if (s.n >= 4) {
        uint32_t low, high;
        memcpy(&low, s.p, 4);
        memcpy(&high, s.p + s.n - 4, 4);
        suspect = word_suspect((uint64_t)high << 32 | low);
    } else {
        suspect = true;
    }
    return WEIR_LIKELY(!suspect) || value_ok_slow(s);
}

static char *put(char *p, const char *from, size_t n)
{
    memcpy(p, from, n);
    return p + n;
}

#define PUT(p, lit) put(p, lit, sizeof(lit) - 1)

static char *put_decimal(char *p, uint64_t v)
{
    char digits[20];
    size_t i = sizeof digits;
    do
        digits[--i] = (char)('0' + v % 10);
    while (v /= 10);
    return put(p, digits + i, sizeof digits - i);
}

/* Chunk sizes in capitals and without leading zeros, as Waitress writes them. */
static char *put_hex(char *p, size_t v)
{
    char digits[16];
    size_t i = sizeof digits;
    do
        digits[--i] = "0123456789ABCDEF"[v & 15];
    while (v >>= 4);
    return put(p, digits + i, sizeof digits - i);
}

/* ---- date ---- */

/*
 * The text of one second, behind a sequence number that is odd while it is written. Readers that
 * meet a write, or find another second, make their own text; so nobody ever waits.
 */
static _Atomic uint32_t date_seq;
static _Atomic int64_t date_second = -1;
static _Atomic uint64_t date_words[4]; /* 29 bytes of text */

static void date_renew(int64_t second, char out[REPLY_DATE_BYTES])
{
    uint64_t w[4] = {0};
    date_format(second, (char *)w);
    memcpy(out, w, REPLY_DATE_BYTES);
    uint32_t seq = atomic_load_explicit(&date_seq, memory_order_relaxed);
    if ((seq & 1) || !atomic_compare_exchange_strong(&date_seq, &seq, seq + 1))
        return; /* somebody else is at it */
    /* Release: who sees one of these words also sees the odd number before them. */
    for (int i = 0; i < 4; i++)
        atomic_store_explicit(&date_words[i], w[i], memory_order_release);
    atomic_store_explicit(&date_second, second, memory_order_release);
    atomic_store_explicit(&date_seq, seq + 2, memory_order_release);
}

void reply_date(char out[REPLY_DATE_BYTES])
{
    struct timespec ts;
    /* The coarse clock (a tick of 1..10 ms) is exact enough for whole seconds, and cheaper. */
    clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    uint32_t seq = atomic_load_explicit(&date_seq, memory_order_acquire);
    if (WEIR_LIKELY(!(seq & 1) &&
                    atomic_load_explicit(&date_second, memory_order_acquire) == ts.tv_sec)) {
        uint64_t w[4];
        for (int i = 0; i < 4; i++)
            w[i] = atomic_load_explicit(&date_words[i], memory_order_acquire);
        if (WEIR_LIKELY(atomic_load_explicit(&date_seq, memory_order_relaxed) == seq)) {
            memcpy(out, w, REPLY_DATE_BYTES);
            return;
        }
    }
    date_renew(ts.tv_sec, out);
}

void reply_ident_set(struct reply_ident *out, const char *text)
{
    struct slice s = slice_trim(slice_str(text));
    out->n = 0;
    if (!s.n || s.n > REPLY_IDENT_BYTES_MAX || !value_ok(s))
        return;
    char *p = PUT(out->line, "Server: ");
    p = put(p, s.p, s.n);
    p = PUT(p, "\r\n");
    out->n = (size_t)(p - out->line);
}

/* ---- status and fields ---- */

static bool is_http10(const struct call *c)
{
    return c->req && c->req->minor == 0;
}

enum call_verdict call_status(struct call *c, struct slice status)
{
    if (WEIR_UNLIKELY(c->state != CALL_NEW && c->state != CALL_STATUS))
        return CALL_LATE;
    if (status.n < 3 || (status.n > 3 && status.p[3] != ' '))
        return CALL_BAD_STATUS;
    int code = 0;
    for (int i = 0; i < 3; i++) {
        unsigned digit = (unsigned)(unsigned char)status.p[i] - '0';
        if (digit > 9)
            return CALL_BAD_STATUS;
        code = code * 10 + (int)digit;
    }
    /* 1xx is no final answer (RFC 9110 §15.2); nobody could frame what follows it. */
    if (code < 200 || !value_ok(status))
        return CALL_BAD_STATUS;
    struct slice reason = slice_of(status.p + 3, status.n - 3);
    if (status.n <= 4) /* "404": the reason phrase that belongs to it */
        reason = slice_str(handler_reason(code));
    else
        reason.p++, reason.n--;
    if (reason.n > REPLY_HEAD_BYTES_MAX - 32 || buf_reserve(&c->out, reason.n + 32))
        return CALL_NO_MEMORY;

    char *p = c->out.p;
    p = is_http10(c) ? PUT(p, "HTTP/1.0 ") : PUT(p, "HTTP/1.1 ");
    p = put(p, status.p, 3);
    *p++ = ' ';
    p = put(p, reason.p, reason.n);
    p = PUT(p, "\r\n");
    c->out.n = (size_t)(p - c->out.p);
    c->fields_end = c->out.n;
    c->status = code;
    c->has_length = c->has_date = c->has_server = c->has_via = c->has_origin = c->has_request_id =
        false;
    c->length = 0;
    c->state = CALL_STATUS;
    return CALL_OK;
}

/* RFC 9110 §8.6: digits only. */
static bool length_parse(struct slice s, uint64_t *out)
{
    s = slice_trim(s);
    if (s.n < 1 || s.n > 18)
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned)(unsigned char)s.p[i] - '0';
        if (digit > 9)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

/*
 * Is the token `p` the name `lower`, both of `n` bytes, without regard to case? Names are letters
 * and hyphens, and the only token bytes that 0x20 turns into one of these are the same letters in
 * capitals.
 */
static inline bool name_is(const char *p, const char *lower, size_t n)
{
    const uint64_t fold = 0x2020202020202020u;
    uint64_t a, b;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&a, p + i, 8);
        memcpy(&b, lower + i, 8);
        if ((a | fold) != b)
            return false;
    }
    if (n >= 8) {
        memcpy(&a, p + n - 8, 8);
        memcpy(&b, lower + n - 8, 8);
        return (a | fold) == b;
    }
    for (; i < n; i++)
        if ((p[i] | 0x20) != lower[i])
            return false;
    return true;
}

/* For a name whose length was compared already. */
#define NAME_IS(name, lit) name_is((name).p, lit, sizeof(lit) - 1)

enum field_kind { FIELD_PLAIN = 0, FIELD_NOTED, FIELD_REFUSED, FIELD_BAD_LENGTH };

/* Names that mean something to the framing; the length of the name decides first. FIELD_NOTED: the
 * field is remembered and written by call_begin. */
static enum field_kind field_look(struct call *c, struct slice name, struct slice value)
{
    switch (name.n) {
    case 2:
        return NAME_IS(name, "te") ? FIELD_REFUSED : FIELD_PLAIN;
    case 3:
        if (NAME_IS(name, "via"))
            c->has_via = true;
        return FIELD_PLAIN;
    case 4:
        if (!NAME_IS(name, "date"))
            return FIELD_PLAIN;
        c->has_date = !c->drop_reserved;
        return c->drop_reserved ? FIELD_REFUSED : FIELD_PLAIN;
    case 6:
        if (!NAME_IS(name, "server"))
            return FIELD_PLAIN;
        c->has_server = !c->drop_reserved;
        return c->drop_reserved ? FIELD_REFUSED : FIELD_PLAIN;
    case 7:
        if (NAME_IS(name, "upgrade") || NAME_IS(name, "trailer"))
            return FIELD_REFUSED;
        return FIELD_PLAIN;
    case 8:
        return NAME_IS(name, "trailers") ? FIELD_REFUSED : FIELD_PLAIN;
    case 10:
        if (NAME_IS(name, "keep-alive"))
            return FIELD_REFUSED;
        if (!NAME_IS(name, "connection"))
            return FIELD_PLAIN;
        if (!slice_ieq(slice_trim(value), SLICE("close")))
            return FIELD_REFUSED;
        c->close_wanted = true;
        return FIELD_NOTED;
    case 12:
        if (NAME_IS(name, "x-request-id"))
            c->has_request_id = true;
        return FIELD_PLAIN;
    case 14: {
        if (!NAME_IS(name, "content-length"))
            return FIELD_PLAIN;
        uint64_t length;
        if (!length_parse(value, &length) || (c->has_length && c->length != length))
            return FIELD_BAD_LENGTH;
        c->has_length = true;
        c->length = length;
        return FIELD_NOTED;
    }
    case 16:
        return NAME_IS(name, "proxy-connection") ? FIELD_REFUSED : FIELD_PLAIN;
    case 17:
        return NAME_IS(name, "transfer-encoding") ? FIELD_REFUSED : FIELD_PLAIN;
    case 18:
        return NAME_IS(name, "proxy-authenticate") ? FIELD_REFUSED : FIELD_PLAIN;
    case 19:
        return NAME_IS(name, "proxy-authorization") ? FIELD_REFUSED : FIELD_PLAIN;
    case 25:
        return NAME_IS(name, "proxy-authentication-info") ? FIELD_REFUSED : FIELD_PLAIN;
    case 27:
        if (NAME_IS(name, "access-control-allow-origin"))
            c->has_origin = true;
        return FIELD_PLAIN;
    default:
        return FIELD_PLAIN;
    }
}

enum call_verdict call_field(struct call *c, struct slice name, struct slice value)
{
    if (WEIR_UNLIKELY(c->state != CALL_STATUS))
        return CALL_LATE;
    if (WEIR_UNLIKELY(!name_ok(name)))
        return CALL_BAD_NAME;
    if (WEIR_UNLIKELY(!value_ok(value)))
        return CALL_BAD_VALUE;
    switch (field_look(c, name, value)) {
    case FIELD_PLAIN:
        break;
    case FIELD_NOTED:
        return CALL_OK;
    case FIELD_REFUSED:
        return c->drop_reserved ? CALL_OK : CALL_HOP_BY_HOP;
    case FIELD_BAD_LENGTH:
        return CALL_BAD_LENGTH;
    }
    size_t room = REPLY_HEAD_BYTES_MAX - c->out.n;
    if (name.n > room || value.n > room - name.n || room - name.n - value.n < 4)
        return CALL_NO_MEMORY;
    if (buf_reserve(&c->out, name.n + value.n + 4))
        return CALL_NO_MEMORY;
    char *p = put(c->out.p + c->out.n, name.p, name.n);
    p = PUT(p, ": ");
    if (value.n)
        p = put(p, value.p, value.n);
    p = PUT(p, "\r\n");
    c->out.n = (size_t)(p - c->out.p);
    c->fields_end = c->out.n;
    return CALL_OK;
}

/* ---- interim responses ---- */

/* Of one response; it is a list of links, not content. */
#define HINT_BYTES_MAX ((size_t)16 * 1024)

enum call_verdict call_hint_field(struct buf *hints, struct slice name, struct slice value)
{
    struct call c = {.state = CALL_STATUS, .out = *hints};
    enum call_verdict v = call_field(&c, name, slice_trim(value));
    bool written = c.out.n > hints->n; /* not only noted, as Content-Length is */
    *hints = c.out;
    if (v == CALL_OK && hints->n > HINT_BYTES_MAX)
        return CALL_NO_MEMORY;
    return v == CALL_OK && !written ? CALL_HOP_BY_HOP : v;
}

int call_hint(struct call *c, const struct buf *hints)
{
    struct buf out = {0};
    if (c->state != CALL_NEW && c->state != CALL_STATUS)
        return -EALREADY;
    if (is_http10(c)) /* RFC 9110 §15.2: it knows no interim responses */
        return 0;
    if (c->hint_bytes + hints->n > HINT_BYTES_MAX)
        return -EMSGSIZE;
    int rc = -ENOMEM;
    if (!buf_add_slice(&out, SLICE("HTTP/1.1 103 Early Hints\r\n")) &&
        !buf_add_slice(&out, buf_slice(hints)) && !buf_add(&out, "\r\n", 2))
        rc = c->ops->hint(c, buf_slice(&out));
    c->hint_bytes += hints->n;
    buf_fini(&out);
    return rc == -ENOMEM ? rc : 0;
}

/* ---- framing and content ---- */

/* Decide how the end of the content is told, and whether there is content at all.
 * Returns whether a Content-Length line is written. */
static bool framing_decide(struct call *c, int64_t total)
{
    bool head = c->req && c->req->head;
    bool tunnel = c->req && c->req->form == REQ_AUTHORITY && c->status < 300;
    bool empty = c->status == 204 || c->status == 304 || tunnel;

    if (WEIR_LIKELY(!head && !empty && c->status != 205)) {
        c->bodyless = false;
        if (c->has_length || total >= 0) {
            if (!c->has_length)
                c->length = (uint64_t)total;
            c->framing = CALL_LENGTH;
            return true;
        }
        c->framing = is_http10(c) ? CALL_CLOSE : CALL_CHUNKED;
        c->close_wanted |= c->close_unknown;
        return false;
    }

    c->bodyless = true;
    c->framing = CALL_NO_BODY;
    if (tunnel) /* RFC 9110 §9.3.6: what follows would be a tunnel, which nobody opens here */
        c->close_wanted = true;
    if (c->status == 204 || tunnel)
        return false;       /* RFC 9110 §8.6: no Content-Length */
    if (c->status == 205) { /* RFC 9110 §15.3.6: an explicit zero is the safe form */
        c->length = 0;
        return true;
    }
    /* HEAD and 304: only what a GET would have got. An empty body says nothing about that. */
    if (!c->has_length && head && c->status != 304 && total > 0) {
        c->length = (uint64_t)total;
        return true;
    }
    return c->has_length;
}

/* Milliseconds with three digits behind the point; what the clock cannot tell is 0. */
static char *put_ms(char *p, int64_t ns)
{
    uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;
    unsigned part = (unsigned)(us % 1000);
    if (WEIR_LIKELY(us < 10000))
        *p++ = (char)('0' + us / 1000);
    else
        p = put_decimal(p, us / 1000);
    p[0] = '.';
    p[1] = (char)('0' + part / 100);
    p[2] = (char)('0' + part / 10 % 10);
    p[3] = (char)('0' + part % 10);
    return p + 4;
}

/* What the client may know of where its time went, up to this moment. */
static char *put_timing(char *p, const struct call *c)
{
    int64_t now_ns = clock_mono_ns();
    p = PUT(p, "Server-Timing: ");
    if (c->ready_ns) {
        p = PUT(p, "queue;dur=");
        p = put_ms(p, (c->run_ns ? c->run_ns : now_ns) - c->ready_ns);
        p = PUT(p, ", ");
    }
    if (c->run_ns) {
        p = PUT(p, "app;dur=");
        p = put_ms(p, now_ns - c->run_ns);
        p = PUT(p, ", ");
    }
    p = PUT(p, "total;dur=");
    p = put_ms(p, now_ns - c->start_ns);
    return PUT(p, "\r\n");
}

/* What makes the request known elsewhere. */
static char *put_seen(char *p, const struct call *c)
{
    if (c->request_id.n && !c->has_request_id) {
        must(c->request_id.n <= REQUEST_ID_BYTES_MAX);
        p = PUT(p, "X-Request-Id: ");
        p = put(p, c->request_id.p, c->request_id.n);
        p = PUT(p, "\r\n");
    }
    return c->server_timing && c->start_ns ? put_timing(p, c) : p;
}

int call_begin(struct call *c, int64_t total)
{
    if (c->state == CALL_BODY)
        return 0;
    if (c->state == CALL_NEW && call_status(c, SLICE("200 OK")) != CALL_OK)
        return -ENOMEM;
    if (c->state != CALL_STATUS)
        return -EINVAL;
    size_t more = c->extra.n + c->cors.n;
    if (buf_reserve(&c->out, REPLY_TAIL_BYTES + REPLY_SEEN_BYTES + more))
        return -ENOMEM;

    bool length_line = framing_decide(c, total);
    if (c->close_wanted || c->framing == CALL_CLOSE ||
        (c->last && atomic_load_explicit(c->last, memory_order_relaxed)))
        c->keep_alive = false;

    char *p = c->out.p + c->out.n;
    if (WEIR_UNLIKELY(more)) {
        if (c->extra.n)
            p = put(p, c->extra.p, c->extra.n);
        if (c->cors.n && !c->has_origin)
            p = put(p, c->cors.p, c->cors.n);
    }
    if (c->request_id.n || c->server_timing)
        p = put_seen(p, c);
    if (length_line) {
        p = PUT(p, "Content-Length: ");
        p = put_decimal(p, c->length);
        p = PUT(p, "\r\n");
    } else if (c->framing == CALL_CHUNKED) {
        p = PUT(p, "Transfer-Encoding: chunked\r\n");
    }
    if (!c->has_server && c->ident)
        p = put(p, c->ident->line, c->ident->n);
    if (!c->has_date) {
        p = PUT(p, "Date: ");
        reply_date(p);
        p += REPLY_DATE_BYTES;
        p = PUT(p, "\r\n");
    }
    if (!c->keep_alive)
        p = PUT(p, "Connection: close\r\n");
    else if (is_http10(c)) /* the old extension needs its answer (RFC 9112 §C.2.2) */
        p = PUT(p, "Connection: Keep-Alive\r\n");
    p = PUT(p, "\r\n");
    c->out.n = (size_t)(p - c->out.p);
    c->state = CALL_BODY;
    return 0;
}

/* How much of `n` more bytes may be sent; the rest is counted as excess. */
static uint64_t content_clip(struct call *c, uint64_t n)
{
    if (c->framing == CALL_LENGTH) {
        uint64_t room = c->length - c->sent; /* sent never passes length */
        if (n > room) {
            c->excess += n - room;
            n = room;
        }
    }
    c->sent += n;
    return n;
}

int call_data(struct call *c, struct slice data)
{
    if (!data.n)
        return 0;
    if (c->state != CALL_BODY) {
        int rc = call_begin(c, -1);
        if (rc)
            return rc;
    }
    data.n = (size_t)content_clip(c, data.n);
    if (c->bodyless || !data.n)
        return 0;
    if (c->framing != CALL_CHUNKED)
        return buf_add(&c->out, data.p, data.n) ? -ENOMEM : 0;
    if (data.n > SIZE_MAX - 20 || buf_reserve(&c->out, data.n + 20))
        return -ENOMEM;
    char *p = put_hex(c->out.p + c->out.n, data.n);
    p = PUT(p, "\r\n");
    p = put(p, data.p, data.n);
    p = PUT(p, "\r\n");
    c->out.n = (size_t)(p - c->out.p);
    return 0;
}

int call_file(struct call *c, int fd, int64_t offset, uint64_t length)
{
    int rc = 0;
    if (c->state != CALL_BODY)
        rc = call_begin(c, (int64_t)length);
    if (!rc && (c->file_fd >= 0 || c->framing == CALL_CHUNKED))
        rc = -EINVAL;
    if (!rc)
        length = content_clip(c, length);
    if (rc || c->bodyless || !length) {
        close(fd);
        return rc;
    }
    c->file_fd = fd;
    c->file_offset = offset;
    c->file_length = length;
    return 0;
}

int call_end(struct call *c)
{
    switch (c->state) {
    case CALL_NEW:
    case CALL_STATUS: {
        int rc = call_begin(c, 0);
        if (rc)
            return rc;
        break;
    }
    case CALL_BODY:
        break;
    case CALL_ENDED:
        return 0;
    case CALL_ABORTED:
        return -EMSGSIZE;
    }
    if (c->framing == CALL_LENGTH && c->sent < c->length) {
        call_abort(c, "response shorter than its Content-Length");
        return -EMSGSIZE;
    }
    if (c->framing == CALL_CHUNKED && buf_add(&c->out, "0\r\n\r\n", 5))
        return -ENOMEM;
    c->state = CALL_ENDED;
    return 0;
}

void call_abort(struct call *c, const char *reason)
{
    if (c->state == CALL_ABORTED)
        return;
    c->state = CALL_ABORTED;
    c->keep_alive = false;
    c->close_wanted = true;
    c->abort_reason = reason;
    c->out.n = 0;
    if (c->file_fd >= 0) {
        close(c->file_fd);
        c->file_fd = -1;
    }
}

/* The plain-text answer: the phrase, an empty line, the reason. False where memory is exhausted. */
static bool error_build(struct call *c, int status, struct slice reason)
{
    char line[64];
    char *p = put_decimal(line, (uint64_t)status);
    *p++ = ' ';
    struct slice phrase = slice_str(handler_reason(status)); /* all are below 40 bytes */
    p = put(p, phrase.p, phrase.n);

    if (call_status(c, slice_of(line, (size_t)(p - line))) != CALL_OK ||
        call_field(c, SLICE("Content-Type"), SLICE("text/plain; charset=utf-8")) != CALL_OK)
        return false;
    size_t total = phrase.n + 1 + (reason.n ? reason.n + 2 : 0);
    if (call_begin(c, (int64_t)total) || call_data(c, phrase) || call_data(c, SLICE("\n")))
        return false;
    if (reason.n &&
        (call_data(c, SLICE("\n")) || call_data(c, reason) || call_data(c, SLICE("\n"))))
        return false;
    return call_end(c) == 0;
}

void call_error(struct call *c, int status, const char *reason)
{
    if (c->state != CALL_NEW && c->state != CALL_STATUS) {
        call_abort(c, "error after the head was sent");
        return;
    }
    if (!error_build(c, status, slice_str(reason)))
        call_abort(c, "no memory for an error page");
}

/* One row a line reads better. */
/* clang-format off */
const char *handler_reason(int status)
{
    switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 103: return "Early Hints";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 203: return "Non-Authoritative Information";
    case 204: return "No Content";
    case 205: return "Reset Content";
    case 206: return "Partial Content";
    case 300: return "Multiple Choices";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 402: return "Payment Required";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 407: return "Proxy Authentication Required";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Request Entity Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 423: return "Locked";
    case 425: return "Too Early";
    case 426: return "Upgrade Required";
    case 428: return "Precondition Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 451: return "Unavailable For Legal Reasons";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 507: return "Insufficient Storage";
    case 511: return "Network Authentication Required";
    default: return "Unknown";
    }
}
/* clang-format on */
