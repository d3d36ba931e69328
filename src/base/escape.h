/*
 * escape: bytes from outside as text that stays on one line and inside its quotes.
 *
 * escape_text  for lines read by people and by parsers of the common log format: `"` and `\` get
 *              a backslash, control bytes and all bytes from 0x7f on become \xHH. So a reader
 *              that knows the rule gets the bytes back, and no byte can end a line, close a
 *              quote or move a terminal's cursor.
 * escape_json  for the inside of a JSON string: valid UTF-8 stays, except the characters that some
 *              readers take for a line end (U+0080..U+009F, U+2028, U+2029), which become \uHHHH;
 *              a byte that is not part of valid UTF-8 becomes \u00HH, its Latin-1 reading,
 *              which is also how WSGI hands it to the application.
 *
 * Both write to `out`, which must have room for ESCAPE_GROWTH bytes for each byte of the input,
 * and return the end of what they wrote (no NUL).
 * Source:  RFC 8259 §7; RFC 3629 §4.
 * Threads: pure functions.
 */
#ifndef WEIR_BASE_ESCAPE_H
#define WEIR_BASE_ESCAPE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "base/attr.h"
#include "base/slice.h"

/* "\u00HH" for one byte. */
#define ESCAPE_GROWTH 6

/* Must this byte be looked at? Everything but printable ASCII without `"` and `\`. */
static inline bool escape_special(unsigned char c)
{
    return c < 0x20 || c >= 0x7f || c == '"' || c == '\\';
}

#if defined(__SSE2__)
/* Which of 16 bytes are special, a bit each. As signed bytes those from 0x80 on are below 0x20 too.
 */
static inline unsigned escape_specials(__m128i v)
{
    __m128i hit = _mm_cmplt_epi8(v, _mm_set1_epi8(0x20));
    hit = _mm_or_si128(hit, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));
    hit = _mm_or_si128(hit, _mm_cmpeq_epi8(v, _mm_set1_epi8('"')));
    hit = _mm_or_si128(hit, _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
    return (unsigned)_mm_movemask_epi8(hit);
}

static inline bool escape_special16(const char *p)
{
    return escape_specials(_mm_loadu_si128((const __m128i *)(const void *)p)) != 0;
}

static inline bool escape_special8(const char *p)
{
    return (escape_specials(_mm_loadl_epi64((const __m128i *)(const void *)p)) & 0xff) != 0;
}
#else
/* Any of eight bytes at once. A byte x is zero where (x - 1) & ~x has its high bit, up to a borrow
 * from a lower byte that was itself zero. */
static inline bool escape_special8(const char *p)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t v;
    memcpy(&v, p, 8);
    uint64_t quote = v ^ ones * '"', backslash = v ^ ones * '\\', del = v ^ ones * 0x7f;
    uint64_t hit = (v - ones * 0x20) & ~v;
    hit |= (quote - ones) & ~quote;
    hit |= (backslash - ones) & ~backslash;
    hit |= (del - ones) & ~del;
    return ((hit | v) & high) != 0;
}

static inline bool escape_special16(const char *p)
{
    return escape_special8(p) || escape_special8(p + 8);
}
#endif

/* Copy the ordinary bytes at s[*i..], moving *i behind them. The last step overlaps the one before
 * it, so that the tail of a longer text needs no loop over bytes. */
static inline char *escape_copy_plain(char *out, struct slice s, size_t *i)
{
    size_t n = s.n - *i;
    if (n == 0)
        return out;
    const char *p = s.p + *i, *end = s.p + s.n;
    if (n >= 16) {
        for (; end - p >= 16 && !escape_special16(p); p += 16, out += 16)
            memcpy(out, p, 16);
        size_t left = (size_t)(end - p);
        if (left < 16 && !escape_special16(end - 16)) {
            memcpy(out + left - 16, end - 16, 16);
            *i = s.n;
            return out + left;
        }
    } else if (n >= 8 && !escape_special8(p) && !escape_special8(end - 8)) {
        memcpy(out, p, 8);
        memcpy(out + n - 8, end - 8, 8);
        *i = s.n;
        return out + n;
    }
    while (p < end && !escape_special((unsigned char)*p))
        *out++ = *p++;
    *i = (size_t)(p - s.p);
    return out;
}

static inline char *escape_hex2(char *out, unsigned char c)
{
    static const char digits[] = "0123456789abcdef";
    *out++ = digits[c >> 4];
    *out++ = digits[c & 15];
    return out;
}

static inline char *escape_text(char *out, struct slice s)
{
    size_t i = 0;
    while (out = escape_copy_plain(out, s, &i), i < s.n) {
        unsigned char c = (unsigned char)s.p[i++];
        *out++ = '\\';
        if (c == '"' || c == '\\') {
            *out++ = (char)c;
        } else {
            *out++ = 'x';
            out = escape_hex2(out, c);
        }
    }
    return out;
}

/* Length of the UTF-8 sequence of a character above U+007F at p, 0 where there is none. */
static inline size_t escape_utf8_length(const unsigned char *p, size_t n)
{
    unsigned char c = p[0];
    size_t len = c >= 0xc2 && c <= 0xdf   ? 2
                 : (c & 0xf0) == 0xe0     ? 3
                 : c >= 0xf0 && c <= 0xf4 ? 4
                                          : 0;
    if (!len || n < len)
        return 0;
    /* The second byte excludes what is too long, a surrogate, or above U+10FFFF. */
    unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    unsigned char top = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > top)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

static inline char *escape_json(char *out, struct slice s)
{
    size_t i = 0;
    while (out = escape_copy_plain(out, s, &i), i < s.n) {
        const unsigned char *p = (const unsigned char *)s.p + i;
        size_t len = *p < 0x80 ? 0 : escape_utf8_length(p, s.n - i);
        bool c1 = len == 2 && p[0] == 0xc2 && p[1] < 0xa0;
        bool separator = len == 3 && p[0] == 0xe2 && p[1] == 0x80 && (p[2] & 0xfe) == 0xa8;
        if (c1) {
            memcpy(out, "\\u00", 4);
            out = escape_hex2(out + 4, p[1]);
        } else if (separator) {
            memcpy(out, "\\u20", 4);
            out = escape_hex2(out + 4, (unsigned char)(p[2] - 0x80));
        } else if (len) {
            memcpy(out, p, len);
            out += len;
        } else if (*p == '"' || *p == '\\') {
            *out++ = '\\';
            *out++ = (char)*p;
        } else if (*p == '\n') {
            memcpy(out, "\\n", 2);
            out += 2;
        } else {
            memcpy(out, "\\u00", 4);
            out = escape_hex2(out + 4, *p);
        }
        i += len ? len : 1;
    }
    return out;
}

#endif
