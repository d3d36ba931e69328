/*
 * token_cache: see the header. Good and bad tokens stand on a shelf each: a table of entries, an
 * index into it by hash with chains, and a hand that goes round for CLOCK.
 */
#include "admit/token_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "base/secret.h"
#include "base/siphash.h"

#define NONE UINT32_MAX
static const uint32_t ENTRIES_MAX = 1U << 24;
/* Of the signature: HS256 has 43 characters, ES256 86, RS256 342 and more. 16 are 96 bits, in which
 * hardly two tokens are alike by chance, and the whole is compared then. */
static const size_t TAIL_BYTES = 16;
/* What malloc adds to a block, roughly. */
static const size_t BLOCK_BYTES = 16;

struct entry {
    uint64_t hash;       /* no two entries of a shelf have the same */
    uint64_t generation; /* token_cache_key.generation */
    int64_t from_s;      /* good from here */
    int64_t until_s;     /* to before here */
    uint64_t note[2];    /* the caller's */
    char *block;         /* owned: token, user, tier, claims; NULL: the entry is free */
    uint32_t token_n, user_n, tier_n, json_n; /* bytes of each in the block */
    uint32_t identifier;
    uint32_t next; /* in its chain, or of the free ones; NONE ends it */
    enum jwt_verdict verdict;
    bool asked; /* since the hand came by */
};

struct shelf {
    struct entry *entries; /* owned */
    uint32_t *heads;       /* owned; first of each chain */
    uint32_t mask;         /* of heads; their number is a power of two */
    uint32_t room, n;      /* entries; in use */
    uint32_t spare;        /* first free one */
    uint32_t hand;
    size_t bytes, bytes_max;
};

struct token_cache {
    struct siphash_key key; /* random */
    struct shelf good, bad;
    uint64_t hits, misses, bad_hits, evicted;
};

/* ---- shelves ---- */

static bool shelf_init(struct shelf *s, uint32_t room, size_t bytes)
{
    uint32_t heads = 1;
    while (heads < room)
        heads *= 2;
    *s = (struct shelf){.mask = heads - 1, .room = room, .bytes_max = bytes};
    s->entries = calloc(room, sizeof *s->entries);
    s->heads = malloc(heads * sizeof *s->heads);
    if (!s->entries || !s->heads)
        return false;
    memset(s->heads, 0xff, heads * sizeof *s->heads); /* NONE */
    for (uint32_t i = 0; i < room; i++)
        s->entries[i].next = i + 1 < room ? i + 1 : NONE;
    return true;
}

static size_t block_bytes(const struct entry *e)
{
    return (size_t)e->token_n + e->user_n + e->tier_n + e->json_n;
}

static size_t entry_bytes(const struct entry *e)
{
    return sizeof *e + BLOCK_BYTES + block_bytes(e);
}

static void drop(struct shelf *s, uint32_t at)
{
    struct entry *e = &s->entries[at];
    uint32_t *link = &s->heads[e->hash & s->mask];
    while (*link != at)
        link = &s->entries[*link].next;
    *link = e->next;
    s->bytes -= entry_bytes(e);
    s->n--;
    explicit_bzero(e->block, block_bytes(e));
    free(e->block);
    e->block = NULL;
    e->next = s->spare;
    s->spare = at;
}

static void shelf_fini(struct shelf *s)
{
    for (uint32_t i = 0; s->entries && s->n && i < s->room; i++)
        if (s->entries[i].block)
            drop(s, i);
    free(s->entries);
    free(s->heads);
}

/* The entry of the hash, or NONE. */
static uint32_t look(const struct shelf *s, uint64_t hash)
{
    uint32_t at = s->heads[hash & s->mask];
    while (at != NONE && s->entries[at].hash != hash)
        at = s->entries[at].next;
    return at;
}

/* Let the hand go on to one that may go, and drop it. Twice round at most: the first time it takes
 * every mark away. Returns whether it was still good. */
static bool evict(struct shelf *s, int64_t now_s)
{
    must(s->n);
    for (;;) {
        uint32_t at = s->hand;
        struct entry *e = &s->entries[at];
        s->hand = at + 1 < s->room ? at + 1 : 0;
        bool over = now_s >= e->until_s;
        if (e->block && (over || !e->asked)) {
            drop(s, at);
            return !over;
        }
        e->asked = false;
    }
}

/* ---- entries ---- */

static uint64_t hash_of(const struct token_cache *c, const struct token_cache_key *key)
{
    size_t n = key->token.n < TAIL_BYTES ? key->token.n : TAIL_BYTES;
    return siphash64(&c->key, key->token.p + key->token.n - n, n) ^ key->identifier;
}

static bool is_it(const struct entry *e, const struct token_cache_key *key)
{
    return e->identifier == key->identifier && e->token_n == key->token.n &&
           memcmp(e->block, key->token.p, key->token.n) == 0;
}

static bool counts(const struct entry *e, const struct token_cache_key *key, int64_t now_s)
{
    return e->generation == key->generation && now_s >= e->from_s && now_s < e->until_s;
}

static bool find_on(struct shelf *s, uint64_t hash, const struct token_cache_key *key,
                    int64_t now_s, struct token_cache_found *out)
{
    uint32_t at = look(s, hash);
    struct entry *e = at == NONE ? NULL : &s->entries[at];
    if (!e || !is_it(e, key))
        return false;
    if (!counts(e, key, now_s)) {
        drop(s, at);
        return false;
    }
    const char *p = e->block + e->token_n;
    e->asked = true;
    out->verdict = e->verdict;
    out->user = slice_of(p, e->user_n);
    out->tier = slice_of(p + e->user_n, e->tier_n);
    out->json = slice_of(p + e->user_n + e->tier_n, e->json_n);
    out->note = e->note;
    return true;
}

static char *append(char *to, struct slice s)
{
    if (s.n)
        memcpy(to, s.p, s.n);
    return to + s.n;
}

static void put_on(struct token_cache *c, struct shelf *s, const struct token_cache_key *key,
                   const struct token_cache_found *what, int64_t now_s, int64_t until_s)
{
    struct entry e = {
        .hash = hash_of(c, key),
        .generation = key->generation,
        .from_s = now_s,
        .until_s = until_s,
        .token_n = (uint32_t)key->token.n,
        .user_n = (uint32_t)what->user.n,
        .tier_n = (uint32_t)what->tier.n,
        .json_n = (uint32_t)what->json.n,
        .identifier = key->identifier,
        .verdict = what->verdict,
    };
    uint32_t at = look(s, e.hash);
    if (at != NONE)
        drop(s, at);
    if (now_s >= until_s || entry_bytes(&e) > s->bytes_max)
        return;
    e.block = malloc(block_bytes(&e));
    if (!e.block)
        return;
    append(append(append(append(e.block, key->token), what->user), what->tier), what->json);
    while (s->n == s->room || s->bytes + entry_bytes(&e) > s->bytes_max)
        c->evicted += evict(s, now_s);

    at = s->spare;
    s->spare = s->entries[at].next;
    e.next = s->heads[e.hash & s->mask];
    s->heads[e.hash & s->mask] = at;
    s->bytes += entry_bytes(&e);
    s->n++;
    s->entries[at] = e;
}

/* ---- public ---- */

struct token_cache *token_cache_new(uint32_t entries, size_t bytes)
{
    unsigned char key[SIPHASH_KEY_BYTES];
    must(entries >= 1 && entries <= ENTRIES_MAX);
    struct token_cache *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    if (!secret_random(key, sizeof key) || !shelf_init(&c->good, entries, bytes) ||
        !shelf_init(&c->bad, (entries + 7) / 8, bytes / 8))
        token_cache_free(&c);
    else
        c->key = siphash_key(key);
    return c;
}

void token_cache_free(struct token_cache **c)
{
    if (!*c)
        return;
    shelf_fini(&(*c)->good);
    shelf_fini(&(*c)->bad);
    free(*c);
    *c = NULL;
}

bool token_cache_find(struct token_cache *c, const struct token_cache_key *key, int64_t now_s,
                      struct token_cache_found *out)
{
    *out = (struct token_cache_found){.verdict = JWT_MALFORMED};
    if (key->token.n && key->token.n <= JWT_BYTES_MAX) {
        uint64_t hash = hash_of(c, key);
        if (find_on(&c->good, hash, key, now_s, out)) {
            c->hits++;
            return true;
        }
        if (find_on(&c->bad, hash, key, now_s, out)) {
            c->hits++;
            c->bad_hits++;
            return true;
        }
    }
    c->misses++;
    return false;
}

void token_cache_put(struct token_cache *c, const struct token_cache_key *key,
                     const struct jwt_claims *claims, struct slice tier, int64_t leeway_s,
                     int64_t now_s)
{
    struct token_cache_found what = {
        .verdict = JWT_OK, .user = claims->user, .tier = tier, .json = claims->json};
    int64_t until_s = now_s + TOKEN_CACHE_GOOD_S;
    must(key->token.n <= JWT_BYTES_MAX && claims->user.n <= JWT_USER_BYTES_MAX &&
         claims->json.n <= JWT_BYTES_MAX && tier.n <= JWT_BYTES_MAX);
    /* Without a sum that could overflow. */
    if (claims->exp_s < until_s - leeway_s)
        until_s = claims->exp_s + leeway_s;
    if (key->token.n)
        put_on(c, &c->good, key, &what, now_s, until_s);
}

static bool worth_keeping(enum jwt_verdict v)
{
    switch (v) {
    case JWT_UNKNOWN_KEY:
    case JWT_BAD_SIGNATURE:
    case JWT_EXPIRED:
    case JWT_ISSUER:
    case JWT_AUDIENCE:
    case JWT_NO_USER:
        return true;
    case JWT_OK:
    case JWT_MALFORMED:
    case JWT_TOO_LARGE:
    case JWT_ALG_REFUSED:
    case JWT_NOT_YET:
    case JWT_VERDICTS:
        break;
    }
    return false;
}

void token_cache_put_bad(struct token_cache *c, const struct token_cache_key *key,
                         enum jwt_verdict verdict, int64_t now_s)
{
    struct token_cache_found what = {.verdict = verdict};
    if (worth_keeping(verdict) && key->token.n && key->token.n <= JWT_BYTES_MAX)
        put_on(c, &c->bad, key, &what, now_s, now_s + TOKEN_CACHE_BAD_S);
}

void token_cache_stats(const struct token_cache *c, struct token_cache_stats *out)
{
    *out = (struct token_cache_stats){
        .good = c->good.n,
        .bad = c->bad.n,
        .good_bytes = c->good.bytes,
        .bad_bytes = c->bad.bytes,
        .hits = c->hits,
        .misses = c->misses,
        .bad_hits = c->bad_hits,
        .evicted = c->evicted,
    };
}
