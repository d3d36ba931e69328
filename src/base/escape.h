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

#include "base/attr.h"
#include "base/slice.h"

/* "\u00HH" for one byte. */
#define ESCAPE_GROWTH 6

/* Must this byte be looked at? Everything but printable ASCII without `"` and `\`. */
static inline bool escape_special(unsigned char c)
{
    return c < 0x20 || c >= 0x7f || c == '"' || c == '\\';
}

/* The same for eight bytes at once: true if any of them is special. A byte x is zero exactly
 * where (x - 1) & ~x has its high bit, up to a borrow from a lower byte that was itself zero. */
static inline bool escape_special8(uint64_t v)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t quote = v ^ ones * '"', backslash = v ^ ones * '\\', del = v ^ ones * 0x7f;
    uint64_t hit = (v - ones * 0x20) & ~v;
    hit |= (quote - ones) & ~quote;
    hit |= (backslash - ones) & ~backslash;
    hit |= (del - ones) & ~del;
    return ((hit | v) & high) != 0;
}

/* Copy the ordinary bytes at s[*i..], moving *i behind them. */
static inline char *escape_copy_plain(char *out, struct slice s, size_t *i)
{
    size_t at = *i;
    while (s.n - at >= 8) {
        uint64_t v;
        memcpy(&v, s.p + at, 8);
        if (escape_special8(v))
            break;
        memcpy(out, &v, 8);
        out += 8;
        at += 8;
    }
    while (at < s.n && !escape_special((unsigned char)s.p[at]))
        *out++ = s.p[at++];
    *i = at;
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
