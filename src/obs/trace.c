/* trace: see the header. */
#include "obs/trace.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "base/secret.h"

static inline uint64_t turn(uint64_t v, unsigned by)
{
    return v << by | v >> (64 - by);
}

/* xoshiro256++ of Blackman and Vigna. */
static inline uint64_t next_64(struct trace_source *src)
{
    uint64_t *s = src->s, out = turn(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = turn(s[3], 45);
    return out;
}

static inline void next_128(struct trace_source *s, uint64_t out[2])
{
    out[0] = next_64(s);
    out[1] = next_64(s);
}

int trace_source_init(struct trace_source *s)
{
    return secret_random(s->s, sizeof s->s) ? 0 : -EIO;
}

/* ---- hexadecimal digits ---- */

/* The value of a digit, RFC 5234's HEXDIG in lower case (HEXDIGLC of the recommendation); above 15:
 * none. */
static unsigned digit(char c)
{
    unsigned char b = (unsigned char)c;
    if ((unsigned)(b - '0') < 10)
        return (unsigned)(b - '0');
    return (unsigned)(b - 'a') < 6 ? (unsigned)(b - 'a') + 10 : 16;
}

/* False: one of the 2 * n digits is none. */
static bool read_hex(unsigned char *to, const char *from, size_t n)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned high = digit(from[2 * i]), low = digit(from[2 * i + 1]);
        bad |= high | low;
        to[i] = (unsigned char)(high << 4 | low);
    }
    return !(bad & 16);
}

/* The digits of half bytes: one above 9 gets what lies between '9' and 'a' more. */
#if defined(__SSE2__)
static inline __m128i digits_of(__m128i halves)
{
    __m128i above = _mm_cmpgt_epi8(halves, _mm_set1_epi8(9));
    __m128i more = _mm_and_si128(above, _mm_set1_epi8('a' - '9' - 1));
    return _mm_add_epi8(_mm_add_epi8(halves, _mm_set1_epi8('0')), more);
}

static inline void write_hex_8(char *to, const unsigned char *from)
{
    __m128i v = _mm_loadl_epi64((const __m128i *)(const void *)from);
    __m128i high = _mm_and_si128(_mm_srli_epi16(v, 4), _mm_set1_epi8(15));
    __m128i low = _mm_and_si128(v, _mm_set1_epi8(15));
    _mm_storeu_si128((__m128i *)(void *)to, digits_of(_mm_unpacklo_epi8(high, low)));
}
#else
static inline void write_hex_8(char *to, const unsigned char *from)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < 8; i++) {
        to[2 * i] = digits[from[i] >> 4];
        to[2 * i + 1] = digits[from[i] & 15];
    }
}
#endif

void trace_hex(char *to, const unsigned char *from, size_t n)
{
    for (size_t i = 0; i < n; i += 8)
        write_hex_8(to + 2 * i, from + i);
}

/* ---- W3C trace context ---- */

static bool is_zero(const unsigned char *p, size_t n)
{
    unsigned any = 0;
    for (size_t i = 0; i < n; i++)
        any |= p[i];
    return !any;
}

/* Section 3.2.2: where the parts of version 00 stand; a later version begins with the same ones. */
enum { AT_TRACE = 3, AT_PARENT = 36, AT_FLAGS = 53 };

bool trace_parse(struct trace_context *t, struct slice s)
{
    unsigned char version, flags;
    *t = (struct trace_context){0};
    if (s.n < TRACE_PARENT_BYTES || s.p[AT_TRACE - 1] != '-' || s.p[AT_PARENT - 1] != '-' ||
        s.p[AT_FLAGS - 1] != '-' || !read_hex(&version, s.p, 1))
        return false;
    if (version == 0xff || (version == 0 && s.n != TRACE_PARENT_BYTES) ||
        (s.n > TRACE_PARENT_BYTES && s.p[TRACE_PARENT_BYTES] != '-'))
        return false;
    if (!read_hex(t->trace_id, s.p + AT_TRACE, sizeof t->trace_id) ||
        !read_hex(t->parent_id, s.p + AT_PARENT, sizeof t->parent_id) ||
        !read_hex(&flags, s.p + AT_FLAGS, 1) || is_zero(t->trace_id, sizeof t->trace_id) ||
        is_zero(t->parent_id, sizeof t->parent_id)) {
        *t = (struct trace_context){0};
        return false;
    }
    t->sampled = flags & 1;
    return true;
}

void trace_span(struct trace_context *t, struct trace_source *s)
{
    uint64_t id;
    do
        id = next_64(s);
    while (!id);
    memcpy(t->span_id, &id, sizeof id);
}

void trace_begin(struct trace_context *t, struct trace_source *s, unsigned permille)
{
    uint64_t id[2];
    do
        next_128(s, id);
    while (!(id[0] | id[1]));
    *t = (struct trace_context){0};
    memcpy(t->trace_id, id, sizeof id);
    /* By the last bytes of the id, as samplers of other services do, so that all of them come to
     * the same where they are told the same part. */
    uint64_t last = be64toh(id[1]) & 0xffffffffffffu;
    t->sampled = (last * 1000 >> 48) + permille >= 1000;
    trace_span(t, s);
}

void trace_pass(struct trace_context *t)
{
    memcpy(t->span_id, t->parent_id, sizeof t->span_id);
}

void trace_write(char out[TRACE_PARENT_BYTES], const struct trace_context *t)
{
    out[0] = out[1] = '0';
    out[AT_TRACE - 1] = out[AT_PARENT - 1] = out[AT_FLAGS - 1] = '-';
    trace_hex(out + AT_TRACE, t->trace_id, sizeof t->trace_id);
    trace_hex(out + AT_PARENT, t->span_id, sizeof t->span_id);
    out[AT_FLAGS] = '0';
    out[AT_FLAGS + 1] = t->sampled ? '1' : '0';
}

/* ---- X-Request-Id ---- */

static const bool ID_BYTE[256] = {
    ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1, ['f'] = 1, ['g'] = 1, ['h'] = 1,
    ['i'] = 1, ['j'] = 1, ['k'] = 1, ['l'] = 1, ['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1,
    ['q'] = 1, ['r'] = 1, ['s'] = 1, ['t'] = 1, ['u'] = 1, ['v'] = 1, ['w'] = 1, ['x'] = 1,
    ['y'] = 1, ['z'] = 1, ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1, ['F'] = 1,
    ['G'] = 1, ['H'] = 1, ['I'] = 1, ['J'] = 1, ['K'] = 1, ['L'] = 1, ['M'] = 1, ['N'] = 1,
    ['O'] = 1, ['P'] = 1, ['Q'] = 1, ['R'] = 1, ['S'] = 1, ['T'] = 1, ['U'] = 1, ['V'] = 1,
    ['W'] = 1, ['X'] = 1, ['Y'] = 1, ['Z'] = 1, ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1,
    ['4'] = 1, ['5'] = 1, ['6'] = 1, ['7'] = 1, ['8'] = 1, ['9'] = 1, ['-'] = 1, ['_'] = 1,
    ['.'] = 1, [':'] = 1, ['/'] = 1, ['+'] = 1, ['='] = 1, ['@'] = 1,
};

bool request_id_is_good(struct slice s)
{
    bool good = s.n >= 1 && s.n <= REQUEST_ID_BYTES_MAX;
    for (size_t i = 0; good && i < s.n; i++)
        good = ID_BYTE[(unsigned char)s.p[i]];
    return good;
}

void request_id_write(char out[REQUEST_ID_BYTES], struct trace_source *s)
{
    uint64_t id[2];
    unsigned char bytes[16];
    next_128(s, id);
    memcpy(bytes, id, sizeof bytes);
    trace_hex(out, bytes, sizeof bytes);
}
