/*
 * route_match: see the header.
 *
 * Matches are looked at one after the other: a policy has a handful. What decides soonest is the
 * end of a match's literal text, because many begin alike (/api/…): eight bytes compared at once
 * tell nearly all others apart. Shorter texts and shorter paths are compared under a mask.
 */
#include "admit/route_match.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "base/must.h"

#define WORD ((size_t)8) /* bytes compared at once */
/* All that POLICY_METHODS_MAX methods take, and HEAD, and one bit for all others. */
static const uint64_t OTHER_METHODS = (uint64_t)1 << 63;
/* Any rest. Half of all numbers, so that "shorter than the text" is more than it. */
static const size_t REST = SIZE_MAX / 2;
static_assert(POLICY_METHODS_MAX + 1 < 63, "a bit for each method");
/* Of a method that is compared without regard to case; longer ones are not. */
#define METHOD_BYTES_MAX 64

struct match {
    size_t n;         /* bytes of text */
    size_t more;      /* bytes that may follow: 0, or REST */
    uint64_t tail;    /* the last WORD bytes of text, or all */
    uint64_t mask;    /* which bytes of the tail count */
    uint64_t methods; /* bits of the methods that it takes: k of route_match.methods */
    const char *text; /* the literal bytes; owned */
    uint32_t tail_at; /* where the tail begins */
    uint32_t route;   /* index */
};

struct method {
    uint64_t word;    /* its bytes; 0 = more than WORD (none of them is 0) */
    const char *name; /* owned */
};

struct route_match {
    unsigned n_matches, n_methods;
    struct match *matches;                         /* owned, in the order of the routes */
    struct method methods[POLICY_METHODS_MAX + 1]; /* bit k of match.methods */
};

static uint64_t load_word(const char *p)
{
    uint64_t v;
    memcpy(&v, p, WORD);
    return v;
}

/* The first `n` <= WORD bytes as one number, the rest 0. Copies of a constant size are a load or
 * two; a loop costs more than all the rest of a search. */
static inline uint64_t word_of(const char *p, size_t n)
{
    uint64_t v = 0;
    switch (n) {
    case 1:
        memcpy(&v, p, 1);
        break;
    case 2:
        memcpy(&v, p, 2);
        break;
    case 3:
        memcpy(&v, p, 3);
        break;
    case 4:
        memcpy(&v, p, 4);
        break;
    case 5:
        memcpy(&v, p, 5);
        break;
    case 6:
        memcpy(&v, p, 6);
        break;
    case 7:
        memcpy(&v, p, 7);
        break;
    case 8:
        memcpy(&v, p, 8);
        break;
    }
    return v;
}

/* ---- making ---- */

static unsigned method_index(struct route_match *m, const char *name)
{
    unsigned k = 0;
    while (k < m->n_methods && strcmp(m->methods[k].name, name) != 0)
        k++;
    if (k < m->n_methods)
        return k;
    must(k < POLICY_METHODS_MAX + 1); /* conf has counted */
    size_t n = strlen(name);
    char *copy = strdup(name);
    if (!copy)
        return UINT_MAX;
    m->methods[m->n_methods++] = (struct method){n > WORD ? 0 : word_of(name, n), copy};
    return k;
}

/* 0: no memory. */
static uint64_t method_bits(struct route_match *m, const char *name)
{
    if (!*name)
        return UINT64_MAX;
    unsigned k = method_index(m, name);
    if (k == UINT_MAX)
        return 0;
    if (strcmp(name, "GET") != 0)
        return (uint64_t)1 << k;
    unsigned head = method_index(m, "HEAD");
    return head == UINT_MAX ? 0 : (uint64_t)1 << k | (uint64_t)1 << head;
}

static bool add(struct route_match *m, const struct policy_match *from, unsigned route)
{
    must(m->matches);
    struct match *to = &m->matches[m->n_matches];
    size_t n = strlen(from->path);
    must(n <= POLICY_PATH_MAX);
    bool prefix = n && from->path[n - 1] == '*';
    n -= prefix;
    size_t tail_n = n < WORD ? n : WORD;
    char *text = strdup(from->path);
    *to = (struct match){.text = text,
                         .methods = method_bits(m, from->method),
                         .n = n,
                         .more = prefix ? REST : 0,
                         .tail_at = (uint32_t)(n - tail_n),
                         .route = route};
    m->n_matches++;
    if (!text || !to->methods)
        return false;
    char mask[WORD] = {0};
    memset(mask, 0xff, tail_n);
    to->mask = load_word(mask);
    to->tail = word_of(text + to->tail_at, tail_n);
    return true;
}

struct route_match *route_match_new(const struct conf_policy *p)
{
    unsigned n = 0;
    struct route_match *m = calloc(1, sizeof *m);
    for (unsigned i = 0; i < p->n_routes; i++)
        n += p->routes[i].n_matches;
    if (m && n && !(m->matches = calloc(n, sizeof *m->matches)))
        route_match_free(&m);
    for (unsigned i = 0; m && i < p->n_routes; i++)
        for (unsigned k = 0; m && k < p->routes[i].n_matches; k++)
            if (!add(m, &p->routes[i].matches[k], i))
                route_match_free(&m);
    return m;
}

void route_match_free(struct route_match **m)
{
    if (!*m)
        return;
    for (unsigned i = 0; i < (*m)->n_matches; i++)
        free((char *)(uintptr_t)(*m)->matches[i].text);
    for (unsigned i = 0; i < (*m)->n_methods; i++)
        free((char *)(uintptr_t)(*m)->methods[i].name);
    free((*m)->matches);
    free(*m);
    *m = NULL;
}

/* ---- finding ---- */

static uint64_t bits_of_same(const struct route_match *m, struct slice method)
{
    for (unsigned k = 0; k < m->n_methods; k++)
        if (slice_eq(method, slice_str(m->methods[k].name)))
            return (uint64_t)1 << k;
    return OTHER_METHODS;
}

/* For a name longer than WORD, or with small letters: an application may write it in capitals
 * before it looks, as Werkzeug does. */
__attribute__((noinline)) static uint64_t bits_of_rare(const struct route_match *m,
                                                       struct slice method)
{
    char capitals[METHOD_BYTES_MAX];
    uint64_t bits = bits_of_same(m, method);
    if (bits != OTHER_METHODS || method.n > sizeof capitals)
        return bits;
    for (size_t i = 0; i < method.n; i++) {
        char b = method.p[i];
        capitals[i] = (char)(b >= 'a' && b <= 'z' ? b & ~0x20 : b);
    }
    return bits_of_same(m, slice_of(capitals, method.n));
}

/* Is a byte of it 0x60 or above? */
static inline bool has_small(uint64_t word)
{
    return (word & 0x2020202020202020 & (word >> 1)) != 0;
}

/* The bits that a match must have one of. */
static inline uint64_t bits_of(const struct route_match *m, struct slice method)
{
    uint64_t word = WEIR_LIKELY(method.n <= WORD) ? word_of(method.p, method.n) : 0;
    for (unsigned k = 0; word && k < m->n_methods; k++)
        if (word == m->methods[k].word)
            return (uint64_t)1 << k;
    return word && !has_small(word) ? OTHER_METHODS : bits_of_rare(m, method);
}

/* `p` has WORD bytes that may be read, also where n is less. */
static inline unsigned find(const struct route_match *m, uint64_t bits, const char *p, size_t n)
{
    for (const struct match *t = m->matches, *end = t + m->n_matches; t < end; t++) {
        if (n - t->n > t->more)
            continue;
        if (((load_word(p + t->tail_at) ^ t->tail) & t->mask) || !(t->methods & bits))
            continue;
        if (!t->tail_at || memcmp(p, t->text, t->tail_at) == 0)
            return t->route;
    }
    return ROUTE_NONE;
}

static int hex_digit(char b)
{
    unsigned digit = (unsigned)(unsigned char)b - '0';
    unsigned letter = ((unsigned)(unsigned char)b | 0x20) - 'a';
    return digit < 10 ? (int)digit : letter < 6 ? (int)letter + 10 : -1;
}

/* Decode into `out`, which has room for `most` + 1 bytes. */
static size_t decode(struct slice path, char *out, size_t most)
{
    size_t n = 0;
    for (size_t i = 0; i < path.n && n <= most; i++) {
        char b = path.p[i];
        if (b == '%' && path.n - i > 2) {
            int high = hex_digit(path.p[i + 1]), low = hex_digit(path.p[i + 2]);
            if (high >= 0 && low >= 0) {
                b = (char)(high << 4 | low);
                i += 2;
            }
        }
        if (b != '/' || !n || out[n - 1] != '/')
            out[n++] = b;
    }
    return n;
}

/* Not inline: its buffer is nothing that other paths should pay for. */
__attribute__((noinline)) static unsigned find_decoded(const struct route_match *m, uint64_t bits,
                                                       struct slice path)
{
    char out[POLICY_PATH_MAX + 1 + WORD];
    size_t n = decode(path, out, POLICY_PATH_MAX);
    memset(out + n, 0, WORD);
    return find(m, bits, out, n);
}

#if defined(__SSE2__)
/* A percent sign, or two slashes in a row, among 16 bytes. */
static bool special(__m128i v)
{
    unsigned slash = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('/')));
    unsigned percent = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('%')));
    return ((slash & slash >> 1) | percent) != 0;
}

static bool special_word(const char *p)
{
    return special(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

/* Blocks overlap by a byte at least, so that none cuts two slashes apart. */
static bool must_decode(const char *p, size_t n)
{
    if (n < 2 * WORD)
        return special_word(p) || special_word(p + n - WORD);
    const char *last = p + n - 16;
    for (; p < last; p += 15)
        if (special(_mm_loadu_si128((const __m128i *)(const void *)p)))
            return true;
    return special(_mm_loadu_si128((const __m128i *)(const void *)last));
}
#else
static bool must_decode(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] == '%' || (p[i] == '/' && i && p[i - 1] == '/'))
            return true;
    return false;
}
#endif

unsigned route_match_find(const struct route_match *m, struct slice method, struct slice path)
{
    if (!m->n_matches || !path.n || !method.n)
        return ROUTE_NONE;
    uint64_t bits = bits_of(m, method);
    uint64_t padded;
    const char *p = path.p;
    size_t n = path.n;
    if (WEIR_UNLIKELY(n < WORD)) {
        padded = word_of(p, n);
        p = (const char *)&padded;
        n = WORD;
    }
    if (WEIR_UNLIKELY(must_decode(p, n)))
        return find_decoded(m, bits, path);
    return find(m, bits, p, path.n);
}

unsigned route_match_below(const struct route_match *m, struct slice method, struct slice path,
                           struct slice prefix)
{
    unsigned whole = route_match_find(m, method, path);
    while (prefix.n && prefix.p[prefix.n - 1] == '/')
        prefix.n--;
    if (WEIR_LIKELY(!prefix.n) || prefix.n > ROUTE_PREFIX_MAX || !path.n || path.p[0] != '/' ||
        !method.n)
        return whole;
    char out[2 * ROUTE_PREFIX_MAX + POLICY_PATH_MAX + 1 + WORD];
    size_t before = prefix.n, n = decode(path, out + before, prefix.n + POLICY_PATH_MAX);
    char *p = out + before;
    if (n >= prefix.n && memcmp(p, prefix.p, prefix.n) == 0 &&
        (n == prefix.n || p[prefix.n] == '/')) { /* the application sees what is behind */
        p += prefix.n;
        n -= prefix.n;
    } else { /* it sees the same as of the path below the prefix */
        memcpy(out, prefix.p, prefix.n);
        p = out;
        n += prefix.n;
    }
    if (!n) /* "" is the same as "/" to an application */
        p[n++] = '/';
    memset(p + n, 0, WORD);
    unsigned other = find(m, bits_of(m, method), p, n);
    return other < whole ? other : whole;
}
