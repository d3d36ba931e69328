/* siphash: see the header. */
#include "base/siphash.h"

#include <endian.h>
#include <string.h>

struct sip {
    uint64_t a, b, c, d;
};

static inline uint64_t load64(const unsigned char *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return le64toh(x);
}

static inline uint64_t turn(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void sip_round(struct sip *s)
{
    s->a += s->b;
    s->c += s->d;
    s->b = turn(s->b, 13) ^ s->a;
    s->d = turn(s->d, 16) ^ s->c;
    s->a = turn(s->a, 32) + s->d;
    s->c += s->b;
    s->d = turn(s->d, 21) ^ s->a;
    s->b = turn(s->b, 17) ^ s->c;
    s->c = turn(s->c, 32);
}

static inline void sip_word(struct sip *s, uint64_t word)
{
    s->d ^= word;
    sip_round(s);
    sip_round(s);
    s->a ^= word;
}

static inline uint64_t sip_end(struct sip *s)
{
    for (unsigned i = 0; i < 4; i++)
        sip_round(s);
    return s->a ^ s->b ^ s->c ^ s->d;
}

/* The 128-bit form differs from the other from the start. */
enum form { FORM_64 = 0, FORM_128 = 0xee };

static inline struct sip sip_begin(const struct siphash_key *key, enum form form)
{
    /* The constants spell "somepseudorandomlygeneratedbytes". */
    return (struct sip){key->k[0] ^ 0x736f6d6570736575,
                        key->k[1] ^ 0x646f72616e646f6d ^ (uint64_t)form,
                        key->k[0] ^ 0x6c7967656e657261, key->k[1] ^ 0x7465646279746573};
}

static inline void sip_message(struct sip *s, const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t last = (uint64_t)n << 56; /* the length modulo 256; the last bytes below */
    for (; n >= 8; p += 8, n -= 8)
        sip_word(s, load64(p));
    for (size_t i = 0; i < n; i++)
        last |= (uint64_t)p[i] << 8 * i;
    sip_word(s, last);
}

static inline void sip_end_128(struct sip *s, uint64_t out[2])
{
    s->c ^= 0xee;
    out[0] = sip_end(s);
    s->b ^= 0xdd;
    out[1] = sip_end(s);
}

struct siphash_key siphash_key(const unsigned char bytes[SIPHASH_KEY_BYTES])
{
    return (struct siphash_key){{load64(bytes), load64(bytes + 8)}};
}

uint64_t siphash64(const struct siphash_key *key, const void *data, size_t n)
{
    struct sip s = sip_begin(key, FORM_64);
    sip_message(&s, data, n);
    s.c ^= 0xff;
    return sip_end(&s);
}

void siphash128(const struct siphash_key *key, const void *data, size_t n, uint64_t out[2])
{
    struct sip s = sip_begin(key, FORM_128);
    sip_message(&s, data, n);
    sip_end_128(&s, out);
}
