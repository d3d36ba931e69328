/* file_ask: see the header. */
#include "handler/file_ask.h"

/* ---- paths ---- */

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One byte of a path at s.p[*i]: itself, or what an escape says, or -1 for a bad escape. Moves *i.
 */
static int path_byte(struct slice s, size_t *i, bool *escaped)
{
    char b = s.p[(*i)++];
    *escaped = b == '%';
    if (!*escaped)
        return (unsigned char)b;
    if (s.n - *i < 2)
        return -1;
    int high = hex(s.p[*i]), low = hex(s.p[*i + 1]);
    *i += 2;
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

size_t file_prefix(struct slice path, struct slice prefix)
{
    size_t at = 0;
    for (size_t i = 0; i < prefix.n; i++) {
        bool escaped;
        if (at == path.n)
            return SIZE_MAX;
        int b = path_byte(path, &at, &escaped);
        if (b != (unsigned char)prefix.p[i] || (escaped && b == '/'))
            return SIZE_MAX;
    }
    return at == path.n || path.p[at] == '/' ? at : SIZE_MAX;
}

/* Names with a dot in front are for the machine's own use; this one is public by its RFC. */
static bool segment_ok(const char *p, size_t n)
{
    return n && (p[0] != '.' || slice_eq(slice_of(p, n), SLICE(".well-known")));
}

bool file_path(struct slice raw, char *out)
{
    size_t n = 0, segment = 0;
    if (raw.n && raw.p[0] != '/')
        return false;
    for (size_t i = raw.n ? 1 : 0; i < raw.n;) {
        bool escaped;
        int b = path_byte(raw, &i, &escaped);
        if (b < ' ' || b == 0x7f || b == '\\' || (escaped && b == '/') ||
            n + 1 == FILE_PATH_BYTES_MAX)
            return false;
        if (b == '/') {
            if (!segment_ok(out + segment, n - segment))
                return false;
            segment = n + 1;
        }
        out[n++] = (char)b;
    }
    out[n] = 0;
    return segment == n || segment_ok(out + segment, n - segment);
}

/* ---- ranges ---- */

/* Digits into *out, UINT64_MAX where they do not fit; how many there were. */
static size_t take_digits(struct slice *s, uint64_t *out)
{
    size_t n = 0;
    *out = 0;
    for (; n < s->n && s->p[n] >= '0' && s->p[n] <= '9'; n++)
        if (__builtin_mul_overflow(*out, (uint64_t)10, out) ||
            __builtin_add_overflow(*out, (uint64_t)(s->p[n] - '0'), out))
            *out = UINT64_MAX;
    *s = slice_of(s->p + n, s->n - n);
    return n;
}

/* Cut `s` at its next comma; the item without blanks. */
static struct slice take_item(struct slice *s)
{
    const char *comma = s->n ? memchr(s->p, ',', s->n) : NULL;
    size_t n = comma ? (size_t)(comma - s->p) : s->n;
    struct slice item = slice_trim(slice_of(s->p, n));
    n += comma != NULL;
    *s = slice_of(s->p + n, s->n - n);
    return item;
}

enum file_range file_range(struct slice value, uint64_t size, uint64_t *first, uint64_t *n)
{
    struct slice spec = {0};
    if (value.n < 6 || !slice_ieq(slice_of(value.p, 6), SLICE("bytes=")))
        return FILE_WHOLE;
    for (struct slice rest = slice_of(value.p + 6, value.n - 6); rest.n;) {
        struct slice item = take_item(&rest);
        if (item.n && spec.n)
            return FILE_WHOLE; /* several: RFC 9110 §14.2 leaves the choice */
        if (item.n)
            spec = item;
    }
    uint64_t last;
    if (spec.n && spec.p[0] == '-') { /* the last so many bytes */
        spec = slice_of(spec.p + 1, spec.n - 1);
        if (!take_digits(&spec, &last) || spec.n)
            return FILE_WHOLE;
        if (last == 0)
            return FILE_NO_PART;
        if (size == 0)
            return FILE_WHOLE;
        *n = last < size ? last : size;
        *first = size - *n;
        return FILE_PART;
    }
    if (!take_digits(&spec, first) || !spec.n || spec.p[0] != '-')
        return FILE_WHOLE;
    spec = slice_of(spec.p + 1, spec.n - 1);
    bool bounded = take_digits(&spec, &last) > 0;
    if (spec.n || (bounded && last < *first))
        return FILE_WHOLE;
    if (*first >= size)
        return FILE_NO_PART;
    *n = bounded && last < size ? last - *first + 1 : size - *first;
    return FILE_PART;
}

/* ---- codings ---- */

/* "1", "0.5", "0.123": thousandths; -1 for anything else (RFC 9110 §12.4.2). */
static int parse_weight(struct slice s)
{
    if (!s.n || (s.p[0] != '0' && s.p[0] != '1') || s.n > 5 || (s.n > 1 && s.p[1] != '.'))
        return -1;
    int weight = s.p[0] == '1' ? 1000 : 0, step = 100;
    for (size_t i = 2; i < s.n; i++, step /= 10) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return -1;
        weight += (s.p[i] - '0') * step;
    }
    return weight > 1000 ? -1 : weight;
}

void file_codings_add(struct file_codings *c, struct slice value)
{
    while (value.n) {
        struct slice item = take_item(&value);
        const char *semicolon = item.n ? memchr(item.p, ';', item.n) : NULL;
        int weight = 1000;
        if (semicolon) {
            struct slice q =
                slice_trim(slice_of(semicolon + 1, item.n - (size_t)(semicolon - item.p) - 1));
            bool named = q.n > 2 && slice_lower((unsigned char)q.p[0]) == 'q' && q.p[1] == '=';
            weight = named ? parse_weight(slice_of(q.p + 2, q.n - 2)) : -1;
            item = slice_trim(slice_of(item.p, (size_t)(semicolon - item.p)));
        }
        if (weight < 0)
            continue;
        if (slice_ieq(item, SLICE("br")))
            c->br = weight;
        else if (slice_ieq(item, SLICE("gzip")) || slice_ieq(item, SLICE("x-gzip")))
            c->gzip = weight;
        else if (slice_ieq(item, SLICE("identity")))
            c->identity = weight;
        else if (slice_eq(item, SLICE("*")))
            c->any = weight;
    }
}

int file_coding_weight(const struct file_codings *c, enum file_coding coding)
{
    int own = coding == FILE_BR ? c->br : coding == FILE_GZIP ? c->gzip : c->identity;
    if (own >= 0)
        return own;
    if (c->any >= 0)
        return c->any;
    return coding == FILE_IDENTITY ? 1 : 0; /* acceptable, after all that is named */
}

/* ---- entity tags ---- */

bool file_etag_listed(struct slice value, struct slice etag, bool weak)
{
    bool is_weak = slice_starts(etag, SLICE("W/"));
    struct slice opaque = is_weak ? slice_of(etag.p + 2, etag.n - 2) : etag;
    value = slice_trim(value);
    if (slice_eq(value, SLICE("*")))
        return true;
    for (size_t i = 0; i < value.n;) {
        if (value.p[i] == ',' || value.p[i] == ' ' || value.p[i] == '\t') {
            i++;
            continue;
        }
        bool theirs_weak = slice_starts(slice_of(value.p + i, value.n - i), SLICE("W/"));
        i += theirs_weak ? 2 : 0;
        if (i == value.n || value.p[i] != '"')
            return false; /* not well-formed: what follows means nothing */
        const char *from = value.p + i;
        const char *close = memchr(from + 1, '"', value.n - i - 1);
        if (!close)
            return false;
        size_t n = (size_t)(close - from) + 1;
        if (slice_eq(slice_of(from, n), opaque) && (weak || (!is_weak && !theirs_weak)))
            return true;
        i += n;
    }
    return false;
}
