/* json_read: see the header. */
#include "base/json_read.h"

#include <errno.h>

static void skip_blanks(struct slice *s)
{
    while (s->n && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++, s->n--;
}

static bool take_char(struct slice *s, char c)
{
    if (!s->n || *s->p != c)
        return false;
    s->p++, s->n--;
    return true;
}

static int hex_of(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

static bool take_hex4(struct slice *s, unsigned *out)
{
    unsigned v = 0;
    if (s->n < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        int h = hex_of(s->p[i]);
        if (h < 0)
            return false;
        v = v << 4 | (unsigned)h;
    }
    s->p += 4, s->n -= 4;
    *out = v;
    return true;
}

static bool skip_string(struct slice *s)
{
    unsigned unused;
    if (!take_char(s, '"'))
        return false;
    while (s->n) {
        unsigned char c = (unsigned char)*s->p++;
        s->n--;
        if (c == '"')
            return true;
        if (c < 0x20)
            return false;
        if (c != '\\')
            continue;
        if (!s->n || !*s->p || !memchr("\"\\/bfnrtu", *s->p, 9))
            return false;
        char escape = *s->p++;
        s->n--;
        if (escape == 'u' && !take_hex4(s, &unused))
            return false;
    }
    return false;
}

static bool skip_digits(struct slice *s)
{
    size_t before = s->n;
    while (s->n && *s->p >= '0' && *s->p <= '9')
        s->p++, s->n--;
    return s->n != before;
}

static bool skip_number(struct slice *s)
{
    (void)take_char(s, '-');
    if (!take_char(s, '0') && !skip_digits(s))
        return false;
    if (take_char(s, '.') && !skip_digits(s))
        return false;
    if (take_char(s, 'e') || take_char(s, 'E')) {
        if (!take_char(s, '-'))
            (void)take_char(s, '+');
        return skip_digits(s);
    }
    return true;
}

static bool skip_word(struct slice *s, struct slice word)
{
    if (!slice_starts(*s, word))
        return false;
    s->p += word.n, s->n -= word.n;
    return true;
}

static bool skip_value(struct slice *s, unsigned depth);

static bool skip_all(struct slice *s, char open, unsigned depth)
{
    char close = open == '{' ? '}' : ']';
    if (depth >= JSON_DEPTH_MAX)
        return false;
    s->p++, s->n--;
    skip_blanks(s);
    if (take_char(s, close))
        return true;
    do {
        skip_blanks(s);
        if (open == '{') {
            if (!skip_string(s))
                return false;
            skip_blanks(s);
            if (!take_char(s, ':'))
                return false;
        }
        if (!skip_value(s, depth + 1))
            return false;
        skip_blanks(s);
    } while (take_char(s, ','));
    return take_char(s, close);
}

static bool skip_value(struct slice *s, unsigned depth)
{
    skip_blanks(s);
    if (!s->n)
        return false;
    switch (*s->p) {
    case '{':
    case '[':
        return skip_all(s, *s->p, depth);
    case '"':
        return skip_string(s);
    case 't':
        return skip_word(s, SLICE("true"));
    case 'f':
        return skip_word(s, SLICE("false"));
    case 'n':
        return skip_word(s, SLICE("null"));
    default:
        return skip_number(s);
    }
}

bool json_take(struct slice *rest, struct slice *value)
{
    skip_blanks(rest);
    const char *begin = rest->p;
    if (!skip_value(rest, 0))
        return false;
    *value = slice_of(begin, (size_t)(rest->p - begin));
    return true;
}

bool json_whole(struct slice text)
{
    struct slice value;
    if (!json_take(&text, &value))
        return false;
    skip_blanks(&text);
    return !text.n;
}

struct json_walk json_walk(struct slice value)
{
    struct json_walk w = {.rest = value};
    if (take_char(&w.rest, '{'))
        w.close = '}';
    else if (take_char(&w.rest, '['))
        w.close = ']';
    return w;
}

bool json_next(struct json_walk *w, struct slice *key, struct slice *value)
{
    struct slice *s = &w->rest;
    *key = (struct slice){0};
    skip_blanks(s);
    if (!w->close || take_char(s, w->close) || (w->begun && !take_char(s, ','))) {
        w->close = 0;
        return false;
    }
    w->begun = true;
    bool good = true;
    if (w->close == '}') {
        skip_blanks(s);
        const char *begin = s->p;
        good = skip_string(s);
        *key = slice_of(begin, (size_t)(s->p - begin));
        skip_blanks(s);
        good = good && take_char(s, ':');
    }
    good = good && json_take(s, value);
    if (!good)
        w->close = 0;
    return good;
}

bool json_member(struct slice object, const char *name, struct slice *value)
{
    struct json_walk w = json_walk(object);
    struct slice key, found;
    size_t n = strlen(name);
    while (w.close == '}' && json_next(&w, &key, &found))
        if (key.n == n + 2 && !memcmp(key.p + 1, name, n)) {
            *value = found;
            return true;
        }
    *value = (struct slice){0};
    return false;
}

static int add_utf8(struct buf *out, unsigned c)
{
    unsigned char b[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    if (n == 1) {
        b[0] = (unsigned char)c;
    } else {
        static const unsigned char FIRST[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = n - 1; i > 0; i--, c >>= 6)
            b[i] = (unsigned char)(0x80 | (c & 0x3f));
        b[0] = (unsigned char)(FIRST[n] | c);
    }
    return buf_add(out, b, n);
}

/* Behind "\u": one character, of one or two such escapes. */
static bool take_escaped(struct slice *s, unsigned *out)
{
    unsigned second;
    if (!take_hex4(s, out))
        return false;
    if (*out < 0xd800 || *out > 0xdfff)
        return true;
    struct slice ahead = *s;
    bool pair = *out <= 0xdbff && take_char(&ahead, '\\') && take_char(&ahead, 'u') &&
                take_hex4(&ahead, &second) && second >= 0xdc00 && second <= 0xdfff;
    if (pair) {
        *out = 0x10000 + ((*out - 0xd800) << 10) + (second - 0xdc00);
        *s = ahead;
    } else {
        *out = 0xfffd;
    }
    return true;
}

int json_unescape(struct slice s, struct buf *out)
{
    static const char FROM[] = "bfnrt", TO[] = "\b\f\n\r\t";
    struct slice check = s;
    if (!skip_string(&check) || check.n)
        return -EINVAL;
    s = slice_of(s.p + 1, s.n - 2);
    while (s.n) {
        unsigned c = (unsigned char)*s.p++;
        int rc;
        s.n--;
        if (c != '\\') {
            char byte = (char)c;
            rc = buf_add(out, &byte, 1);
        } else {
            char escape = *s.p++;
            s.n--;
            const char *known = strchr(FROM, escape);
            if (escape == 'u') {
                if (!take_escaped(&s, &c))
                    return -EINVAL;
                rc = add_utf8(out, c);
            } else {
                rc = buf_add(out, known ? &TO[known - FROM] : &escape, 1);
            }
        }
        if (rc)
            return -ENOMEM;
    }
    return 0;
}

bool json_to_integer(struct slice v, int64_t *out)
{
    bool negative = take_char(&v, '-');
    int64_t sum = 0;
    if (!v.n || v.n > 18)
        return false;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return false;
        sum = sum * 10 + (v.p[i] - '0');
    }
    *out = negative ? -sum : sum;
    return true;
}
