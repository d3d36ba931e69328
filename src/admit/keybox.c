/*
 * keybox: see the header. A seqlock of two halves: generation g stands in half g & 1, and the
 * writer touches that half again only after it has made g + 1 known. So a copy is whole if the
 * generation is the same before and after. Words are atomic, since a reader may read them while
 * they are written; it throws away what it has then.
 */
#include "admit/keybox.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "base/must.h"
#include "base/robust.h"

#define WORDS(bytes) (((bytes) + 7) / 8)
static const int TRIES = 8;

/* The head of both kinds of text; the halves follow. */
struct text {
    _Atomic uint64_t generation; /* 0 = none yet */
    _Atomic uint64_t bytes[2];   /* in each half */
};

struct identifier {
    struct text jwks_head;
    _Atomic uint64_t jwks[2][WORDS(JWT_JWKS_BYTES_MAX)];
    struct text state_head;
    _Atomic uint64_t state[2][WORDS(sizeof(struct keybox_state))];
    _Atomic uint32_t wanted;  /* since the last fetch began */
    _Atomic int64_t begun_ns; /* the last fetch */
    _Atomic uint32_t begun;   /* there was one */
};

struct keybox {
    struct identifier of[POLICY_IDENTIFIERS_MAX];
};

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words that processes share need no lock");

/* ---- texts; `halves` has twice `words` ---- */

static void put_words(_Atomic uint64_t *to, const char *p, size_t n)
{
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        atomic_store_explicit(to++, word, memory_order_relaxed);
    }
    if (n) {
        uint64_t word = 0;
        memcpy(&word, p, n);
        atomic_store_explicit(to, word, memory_order_relaxed);
    }
}

static void get_words(const _Atomic uint64_t *from, char *p, size_t n)
{
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word = atomic_load_explicit(from++, memory_order_relaxed);
        memcpy(p, &word, 8);
    }
    if (n) {
        uint64_t word = atomic_load_explicit(from, memory_order_relaxed);
        memcpy(p, &word, n);
    }
}

static void text_put(struct text *t, _Atomic uint64_t *halves, size_t words, const char *p,
                     size_t n)
{
    must(n <= words * 8);
    uint64_t generation = atomic_load_explicit(&t->generation, memory_order_relaxed) + 1;
    size_t half = generation & 1;
    /* Who sees a word of this half sees the generation that took readers away from it. */
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&t->bytes[half], n, memory_order_relaxed);
    put_words(halves + half * words, p, n);
    atomic_store_explicit(&t->generation, generation, memory_order_release);
}

static bool text_get(const struct text *t, const _Atomic uint64_t *halves, size_t words, char *to,
                     size_t room, size_t *n, uint64_t *generation)
{
    for (int i = 0; i < TRIES; i++) {
        uint64_t before = atomic_load_explicit(&t->generation, memory_order_acquire);
        if (!before)
            return false;
        size_t half = before & 1;
        uint64_t bytes = atomic_load_explicit(&t->bytes[half], memory_order_relaxed);
        *n = bytes < room ? (size_t)bytes : room;
        get_words(halves + half * words, to, *n);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&t->generation, memory_order_relaxed) == before) {
            *generation = before;
            return true;
        }
    }
    return false;
}

/* Is it what stands there already? For the writer, who changes it alone. */
static bool text_is(const struct text *t, const _Atomic uint64_t *halves, size_t words,
                    struct slice s)
{
    uint64_t generation = atomic_load_explicit(&t->generation, memory_order_relaxed);
    size_t half = generation & 1;
    const _Atomic uint64_t *from = halves + half * words;
    if (!generation || atomic_load_explicit(&t->bytes[half], memory_order_relaxed) != s.n)
        return false;
    for (size_t at = 0; at < s.n; at += 8) {
        char bytes[8];
        size_t n = s.n - at < 8 ? s.n - at : 8;
        get_words(from++, bytes, n);
        if (memcmp(bytes, s.p + at, n) != 0)
            return false;
    }
    return true;
}

static void put_state(struct identifier *id, const struct keybox_state *state)
{
    text_put(&id->state_head, id->state[0], WORDS(sizeof *state), (const char *)state,
             sizeof *state);
}

static struct identifier *at(const struct keybox *b, unsigned identifier)
{
    must(identifier < POLICY_IDENTIFIERS_MAX);
    return (struct identifier *)(uintptr_t)&b->of[identifier];
}

/* ---- public ---- */

struct keybox *keybox_new(void)
{
    return shared_map(sizeof(struct keybox));
}

void keybox_free(struct keybox **b)
{
    shared_unmap((void **)b, sizeof **b);
}

void keybox_begin(struct keybox *b, unsigned identifier, int64_t now_ns)
{
    struct identifier *id = at(b, identifier);
    atomic_store(&id->wanted, 0);
    atomic_store(&id->begun_ns, now_ns);
    atomic_store(&id->begun, 1);
}

bool keybox_wanted(const struct keybox *b, unsigned identifier, int64_t now_ns)
{
    const struct identifier *id = at(b, identifier);
    return atomic_load(&id->wanted) &&
           (!atomic_load(&id->begun) || now_ns - atomic_load(&id->begun_ns) >= KEYBOX_WANTED_NS);
}

void keybox_publish(struct keybox *b, unsigned identifier, struct slice jwks, int64_t now_s)
{
    struct identifier *id = at(b, identifier);
    struct keybox_state state;
    must(jwks.n <= JWT_JWKS_BYTES_MAX);
    if (!text_is(&id->jwks_head, id->jwks[0], countof(id->jwks[0]), jwks))
        text_put(&id->jwks_head, id->jwks[0], countof(id->jwks[0]), jwks.p, jwks.n);
    keybox_look(b, identifier, &state);
    state.good_s = now_s;
    put_state(id, &state);
}

void keybox_failed(struct keybox *b, unsigned identifier, const char *why, int64_t now_s)
{
    struct keybox_state state;
    keybox_look(b, identifier, &state);
    state.failed_s = now_s;
    memset(state.why, 0, sizeof state.why);
    memcpy(state.why, why, strnlen(why, sizeof state.why - 1));
    put_state(at(b, identifier), &state);
}

uint64_t keybox_generation(const struct keybox *b, unsigned identifier)
{
    return atomic_load_explicit(&at(b, identifier)->jwks_head.generation, memory_order_acquire);
}

bool keybox_read(const struct keybox *b, unsigned identifier, char *to, size_t *n,
                 uint64_t *generation)
{
    const struct identifier *id = at(b, identifier);
    return text_get(&id->jwks_head, id->jwks[0], countof(id->jwks[0]), to, JWT_JWKS_BYTES_MAX, n,
                    generation);
}

void keybox_want(struct keybox *b, unsigned identifier)
{
    struct identifier *id = at(b, identifier);
    /* Most find it set; then the line stays shared between processors. */
    if (!atomic_load_explicit(&id->wanted, memory_order_relaxed))
        atomic_store(&id->wanted, 1);
}

bool keybox_look(const struct keybox *b, unsigned identifier, struct keybox_state *out)
{
    const struct identifier *id = at(b, identifier);
    uint64_t generation;
    size_t n = 0;
    if (text_get(&id->state_head, id->state[0], countof(id->state[0]), (char *)out, sizeof *out, &n,
                 &generation) &&
        n == sizeof *out)
        return true;
    *out = (struct keybox_state){0};
    return false;
}
