/* identify: see the header. */
#include "admit/identify.h"

#include <stdio.h>
#include <stdlib.h>

#include "admit/api_keys.h"
#include "admit/flow.h"
#include "admit/jwt.h"
#include "admit/keybox.h"
#include "admit/token_cache.h"
#include "base/log.h"
#include "base/must.h"
#include "base/siphash.h"
#include "conf/file.h"

/* Tokens that a worker keeps verified. */
static const uint32_t CACHE_ENTRIES = 16384;
static const size_t CACHE_BYTES = (size_t)16 * 1024 * 1024;
/* Wrong tokens of one address that are verified: a hundred at once, ten a second. An office behind
 * one address stays below that; at 0.1 ms each (ES256) an attacker gets a thousandth of a core. */
static const int64_t BAD_UNITS = 10, BAD_PER_NS = 1000000000, BAD_BURST = 100;
static const uint64_t BAD_LIMIT = 0x6261645f746f6b65; /* among the names of limits, see policy.c */

/* What one identifier of the file knows. */
struct source {
    const struct policy_identifier *said;
    struct jwt_keys *keys;     /* owned; NULL: none yet */
    uint64_t generation;       /* of the keybox that `keys` were read at */
    struct api_keys *api_keys; /* owned; NULL: any key is a user */
    bool remote;               /* the keys come from the keybox */
    struct slice header;       /* of api_key */
};

struct identify {
    const struct conf_policy *said; /* lent */
    struct rates *rates;            /* lent */
    struct keybox *box;             /* lent */
    struct source sources[POLICY_IDENTIFIERS_MAX];
    struct token_cache *cache; /* owned; NULL: no jwt */
    struct gcra_rate bad_rate;
    int wanted; /* identifier whose keys are to be fetched; -1: none */
    char challenge[64];
};

/* ---- making ---- */

/* The bytes of a file of a secret, without line ends behind. */
static int read_secret(const struct policy_identifier *said, const char *file, struct source *s,
                       struct err *e)
{
    char source[400], *text;
    size_t n;
    struct err why = {{0}};
    snprintf(source, sizeof source, "%.300s:%u: secret_file", file, said->line);
    if (conf_file_read(source, said->secret_file, &text, &n, e))
        return -1;
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    int rc = jwt_keys_secret(&s->keys, slice_of(text, n), &why);
    explicit_bzero(text, n);
    free(text);
    return rc ? err_set(e, "%s %.300s: %s", source, said->secret_file, why.text) : 0;
}

static int read_set(const struct policy_identifier *said, const char *file, struct source *s,
                    struct err *e)
{
    char source[400], *text;
    size_t n;
    struct err why = {{0}};
    snprintf(source, sizeof source, "%.300s:%u: jwks", file, said->line);
    if (conf_file_read(source, said->jwks, &text, &n, e))
        return -1;
    int rc = jwt_keys_jwks(&s->keys, slice_of(text, n), said->algorithms, &why);
    free(text);
    return rc ? err_set(e, "%s %.300s: %s", source, said->jwks, why.text) : 0;
}

static int source_make(struct identify *id, struct source *s, const struct policy_identifier *said,
                       struct err *e)
{
    const char *file = id->said->file;
    s->said = said;
    switch (said->kind) {
    case IDENTIFY_JWT:
        if (!id->cache && !(id->cache = token_cache_new(CACHE_ENTRIES, CACHE_BYTES)))
            return err_set(e, "out of memory");
        if (*said->secret_file)
            return read_secret(said, file, s, e);
        s->remote = strstr(said->jwks, "://") != NULL;
        return s->remote ? jwt_load(NULL, e) : read_set(said, file, s, e);
    case IDENTIFY_API_KEY:
        s->header = slice_str(said->header);
        return *said->file ? api_keys_read(&s->api_keys, said->file, e) : 0;
    case IDENTIFY_BEARER:
    case IDENTIFY_ADDRESS:
        break;
    }
    return 0;
}

static const char *challenge_of(const struct conf_policy *said)
{
    for (unsigned i = 0; i < said->n_identifiers; i++)
        if (said->identifiers[i].kind == IDENTIFY_API_KEY)
            return "ApiKey realm=\"api\"";
        else if (said->identifiers[i].kind != IDENTIFY_ADDRESS)
            break;
    return "Bearer realm=\"api\"";
}

int identify_new(struct identify **out, const struct conf_policy *said, struct rates *rates,
                 struct keybox *keys, struct err *e)
{
    *out = NULL;
    struct identify *id = calloc(1, sizeof *id);
    if (!id)
        return err_set(e, "out of memory");
    id->said = said;
    id->rates = rates;
    id->box = keys;
    id->wanted = -1;
    int rc = gcra_rate_make(&id->bad_rate, BAD_UNITS, BAD_PER_NS, BAD_BURST);
    must(rc == 0);
    snprintf(id->challenge, sizeof id->challenge, "%s", challenge_of(said));
    for (unsigned i = 0; i < said->n_identifiers; i++)
        if (source_make(id, &id->sources[i], &said->identifiers[i], e)) {
            identify_free(&id);
            return -1;
        }
    *out = id;
    return 0;
}

void identify_free(struct identify **ip)
{
    struct identify *id = *ip;
    *ip = NULL;
    if (!id)
        return;
    for (unsigned i = 0; i < POLICY_IDENTIFIERS_MAX; i++) {
        jwt_keys_free(&id->sources[i].keys);
        api_keys_free(&id->sources[i].api_keys);
    }
    token_cache_free(&id->cache);
    free(id);
}

/* ---- credentials of a request ---- */

/* RFC 6750 §2.1; the scheme without regard to case (RFC 9110 §11.1). */
static struct slice bearer_of(const struct req *req)
{
    for (unsigned i = 0; i < req->n_fields; i++) {
        if (req->fields[i].id != HDR_AUTHORIZATION)
            continue;
        struct slice v = req->fields[i].value;
        if (v.n > 7 && (memcmp(v.p, "Bearer ", 7) == 0 ||
                        (v.p[6] == ' ' && slice_ieq(slice_of(v.p, 6), SLICE("bearer")))))
            return slice_trim(slice_of(v.p + 7, v.n - 7));
        break;
    }
    return (struct slice){0};
}

/* The value of a cookie (RFC 6265 §4.2.1). */
static struct slice cookie_of(const struct req *req, struct slice name)
{
    for (unsigned i = 0; i < req->n_fields; i++) {
        if (req->fields[i].id != HDR_COOKIE)
            continue;
        const char *p = req->fields[i].value.p, *end = p + req->fields[i].value.n;
        while (p < end) {
            const char *next = memchr(p, ';', (size_t)(end - p));
            struct slice pair = slice_trim(slice_of(p, (size_t)((next ? next : end) - p)));
            if (pair.n > name.n && pair.p[name.n] == '=' && memcmp(pair.p, name.p, name.n) == 0)
                return slice_of(pair.p + name.n + 1, pair.n - name.n - 1);
            p = next ? next + 1 : end;
        }
    }
    return (struct slice){0};
}

/* ---- answers ---- */

/* "by:user" in the arena. .p NULL: no memory. */
static struct slice account_of(struct arena *arena, struct slice by, struct slice user)
{
    char *p = arena_alloc(arena, by.n + 1 + user.n);
    if (!p)
        return (struct slice){0};
    memcpy(p, by.p, by.n);
    p[by.n] = ':';
    if (user.n)
        memcpy(p + by.n + 1, user.p, user.n);
    return slice_of(p, by.n + 1 + user.n);
}

/* `user` becomes the user; all texts are copied. The account has what told it in front, so that
 * one's users are not another's. */
static enum identify_verdict known(struct identify *id, struct admission *a, const char *by,
                                   struct slice user, struct slice tier, struct slice claims,
                                   struct arena *arena)
{
    a->account = account_of(arena, slice_str(by), user);
    if (!tier.n)
        tier = slice_str(id->said->tier_default);
    a->who.by = by;
    a->who.tier = tier.n ? arena_copy(arena, tier) : (struct slice){0};
    a->who.claims = claims.n ? arena_copy(arena, claims) : (struct slice){0};
    if (!a->account.p || (tier.n && !a->who.tier.p) || (claims.n && !a->who.claims.p))
        return IDENTIFY_NO_MEMORY;
    a->who.user = slice_of(a->account.p + (a->account.n - user.n), user.n);
    return IDENTIFY_KNOWN;
}

/* The same by a token that was verified before: what his limits are found by stays with it. */
static enum identify_verdict known_by_token(struct identify *id, struct admission *a,
                                            const struct token_cache_found *f, struct arena *arena)
{
    enum identify_verdict v = known(id, a, "jwt", f->user, f->tier, f->json, arena);
    if (v != IDENTIFY_KNOWN || !id->rates)
        return v;
    if (!f->note[0]) {
        struct rates_key key = rates_who(id->rates, a->account);
        memcpy(f->note, key.h, sizeof key.h);
    }
    memcpy(a->account_key.h, f->note, sizeof a->account_key.h);
    return v;
}

/* A user who is known by what he brings alone: the same everywhere, and no way back to the
 * credential. */
static enum identify_verdict known_by_hash(struct identify *id, struct admission *a, const char *by,
                                           struct slice credential, struct arena *arena)
{
    static const struct siphash_key FIXED = {{0x77656972, 0x6964656e74696679}};
    uint64_t h[2];
    char text[40];
    siphash128(&FIXED, credential.p, credential.n, h);
    int n = snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)h[0],
                     (unsigned long long)h[1]);
    return known(id, a, by, slice_of(text, (size_t)n), (struct slice){0}, (struct slice){0}, arena);
}

/* RFC 6750 §3.1. */
static enum identify_verdict bad_token(enum jwt_verdict v, struct arena *arena, struct refusal *why)
{
    char *text = arena_alloc(arena, 200);
    if (!text)
        return IDENTIFY_NO_MEMORY;
    snprintf(text, 200, "Bearer realm=\"api\", error=\"invalid_token\", error_description=\"%s\"",
             jwt_description(v));
    why->id = REFUSAL_BAD_CREDENTIALS;
    why->detail = jwt_description(v);
    why->limit = NULL;
    why->authenticate = text;
    return IDENTIFY_REFUSED;
}

/* ---- wrong ones by address ---- */

static struct rates_ask bad_ask(const struct identify *id, struct slice network)
{
    return (struct rates_ask){.kind = RATES_ADDRESSES,
                              .key = rates_key(id->rates, BAD_LIMIT, network),
                              .rate = &id->bad_rate,
                              .cost = 1};
}

/* May something of this address be verified? */
static bool may_verify(const struct identify *id, struct slice network, int64_t now_ns,
                       struct refusal *why)
{
    if (!id->rates)
        return true;
    struct rates_ask ask = bad_ask(id, network);
    rates_look(id->rates, &ask, 1, now_ns);
    if (ask.verdict == GCRA_SPENT)
        return true;
    why->id = REFUSAL_BAD_CREDENTIALS_OFTEN;
    why->limit = "address";
    why->retry_after_s = 1 + ask.wait_ns / 1000000000;
    return false;
}

static void count_bad(const struct identify *id, struct slice network, int64_t now_ns)
{
    if (!id->rates)
        return;
    struct rates_ask ask = bad_ask(id, network);
    bool spent = rates_spend(id->rates, &ask, 1, now_ns);
    (void)spent;
}

/* ---- tokens ---- */

/* Keys of a URL as the keeper has published them last. */
static void take_keys(struct identify *id, unsigned i)
{
    struct source *s = &id->sources[i];
    uint64_t generation = keybox_generation(id->box, i);
    if (WEIR_LIKELY(generation == s->generation))
        return;
    struct jwt_keys *keys = NULL;
    struct err e = {{0}};
    size_t n;
    char *text = malloc(JWT_JWKS_BYTES_MAX);
    if (text && keybox_read(id->box, i, text, &n, &generation)) {
        if (jwt_keys_jwks(&keys, slice_of(text, n), s->said->algorithms, &e)) {
            log_flood(LOG_ERROR, 0, "the keys of %s cannot be used: %s; the old ones stay",
                      s->said->jwks, e.text);
        } else {
            jwt_keys_free(&s->keys);
            s->keys = keys;
        }
        s->generation = generation;
    }
    free(text);
}

/* A key that is not here: it may be on its way. */
static void want_keys(struct identify *id, unsigned i)
{
    keybox_want(id->box, i);
    id->wanted = (int)i;
}

static struct slice token_of(const struct req *req, const struct policy_identifier *said)
{
    struct slice found = bearer_of(req);
    return found.n || !*said->cookie ? found : cookie_of(req, slice_str(said->cookie));
}

static enum identify_verdict verified(struct identify *id, struct admission *a,
                                      const struct token_cache_key *key, struct jwt_claims *claims,
                                      struct arena *arena, int64_t now_s)
{
    char tier[API_KEY_TIER_BYTES_MAX + 1];
    bool has_tier = *id->said->tier_from &&
                    jwt_claim_text(claims->json, id->said->tier_from, tier, sizeof tier);
    struct slice tier_text = has_tier ? slice_str(tier) : (struct slice){0};
    token_cache_put(id->cache, key, claims, tier_text, id->sources[key->identifier].said->leeway_s,
                    now_s);
    enum identify_verdict got = known(id, a, "jwt", claims->user, tier_text, claims->json, arena);
    jwt_claims_fini(claims);
    return got;
}

static bool has_bearer(const struct identify *id)
{
    for (unsigned i = 0; i < id->said->n_identifiers; i++)
        if (id->said->identifiers[i].kind == IDENTIFY_BEARER)
            return true;
    return false;
}

/* A token may be of any issuer of the file, so all from `first` on are tried (`token` is what that
 * one takes), and the first that verifies it counts. Who has verified it before is asked before
 * anything is computed. If none does, the client is told the verdict that got furthest, which is
 * the largest: jwt_verdicts.def has them in the order of the checks. */
static enum identify_verdict by_token(struct identify *id, struct admission *a, unsigned first,
                                      struct slice token, const struct req *req,
                                      struct slice network, struct arena *arena,
                                      struct policy_now now, struct refusal *why)
{
    WEIR_UNINITIALIZED struct token_cache_key unseen[POLICY_IDENTIFIERS_MAX];
    unsigned n_unseen = 0;
    enum jwt_verdict furthest = JWT_OK;
    bool awaited = false;
    for (unsigned i = first; i < id->said->n_identifiers; i++) {
        struct source *s = &id->sources[i];
        if (s->said->kind != IDENTIFY_JWT)
            continue;
        struct token_cache_key key = {.token = i == first ? token : token_of(req, s->said),
                                      .identifier = i};
        if (!key.token.n)
            continue;
        if (s->remote)
            take_keys(id, i);
        if (!s->keys) {
            want_keys(id, i);
            awaited = true;
            continue;
        }
        struct token_cache_found found;
        key.generation = s->generation;
        if (!token_cache_find(id->cache, &key, now.wall_s, &found))
            unseen[n_unseen++] = key;
        else if (found.verdict == JWT_OK)
            return known_by_token(id, a, &found, arena);
        else if (found.verdict > furthest)
            furthest = found.verdict;
    }
    if (n_unseen && !may_verify(id, network, now.mono_ns, why))
        return IDENTIFY_REFUSED;

    bool bad = false;
    for (unsigned k = 0; k < n_unseen; k++) {
        const struct token_cache_key *key = &unseen[k];
        struct source *s = &id->sources[key->identifier];
        struct jwt_claims claims;
        enum jwt_verdict v = jwt_verify(s->keys, s->said, key->token, now.wall_s, &claims);
        if (v == JWT_OK)
            return verified(id, a, key, &claims, arena, now.wall_s);
        if (v == JWT_UNKNOWN_KEY && s->remote) {
            want_keys(id, key->identifier);
            /* Else it was looked for less than a minute ago. */
            if (keybox_wanted(id->box, key->identifier, now.mono_ns)) {
                awaited = true;
                continue;
            }
        }
        token_cache_put_bad(id->cache, key, v, now.wall_s);
        furthest = v > furthest ? v : furthest;
        bad = true;
    }
    if (awaited && furthest <= JWT_BAD_SIGNATURE) { /* it may be of an issuer whose keys come */
        why->id = REFUSAL_NOT_READY;
        why->retry_after_s = 1;
        return IDENTIFY_REFUSED;
    }
    if (furthest == JWT_MALFORMED && bearer_of(req).n && has_bearer(id)) /* no such token at all */
        return known_by_hash(id, a, "bearer", bearer_of(req), arena);
    if (bad)
        count_bad(id, network, now.mono_ns);
    return bad_token(furthest, arena, why);
}

static enum identify_verdict by_key(struct identify *id, struct admission *a,
                                    const struct source *s, struct slice key, struct slice network,
                                    struct arena *arena, struct policy_now now, struct refusal *why)
{
    struct api_key found;
    if (!s->api_keys)
        return known_by_hash(id, a, "api_key", key, arena);
    if (api_keys_find(s->api_keys, key, &found))
        return known(id, a, "api_key", found.name, found.tier, (struct slice){0}, arena);
    if (!may_verify(id, network, now.mono_ns, why))
        return IDENTIFY_REFUSED;
    count_bad(id, network, now.mono_ns);
    why->id = REFUSAL_BAD_CREDENTIALS;
    why->detail = "the key is not known here";
    why->authenticate = "ApiKey realm=\"api\"";
    return IDENTIFY_REFUSED;
}

enum identify_verdict identify_who(struct identify *id, struct admission *a, const struct req *req,
                                   struct slice network, struct arena *arena, struct policy_now now,
                                   struct refusal *why)
{
    for (unsigned i = 0; i < id->said->n_identifiers; i++) {
        const struct source *s = &id->sources[i];
        struct slice found;
        switch (s->said->kind) {
        case IDENTIFY_JWT:
            found = token_of(req, s->said);
            if (found.n)
                return by_token(id, a, i, found, req, network, arena, now, why);
            break;
        case IDENTIFY_BEARER:
            found = bearer_of(req);
            if (found.n)
                return known_by_hash(id, a, "bearer", found, arena);
            break;
        case IDENTIFY_API_KEY:
            found = req_field(req, s->header);
            if (found.n)
                return by_key(id, a, s, found, network, arena, now, why);
            break;
        case IDENTIFY_ADDRESS:
            a->who.by = "address";
            return IDENTIFY_NOBODY;
        }
    }
    return IDENTIFY_NOBODY;
}

/* Nobody is told his own network: it is only a key. */
struct slice identify_network(struct slice address, char *to, size_t n)
{
    if (!address.n)
        return SLICE("unix");
    if (!memchr(address.p, ':', address.n) || address.n >= n)
        return address;
    memcpy(to, address.p, address.n);
    to[address.n] = '\0';
    struct flow_net net = flow_net(to);
    if (net.n == 4)
        return slice_of(to,
                        (size_t)snprintf(to, n, "%u.%u.%u.%u", (unsigned char)net.bytes[0],
                                         (unsigned char)net.bytes[1], (unsigned char)net.bytes[2],
                                         (unsigned char)net.bytes[3]));
    if (net.n != 8)
        return address;
    size_t length = 0;
    for (size_t i = 0; i < 8; i += 2)
        length +=
            (size_t)snprintf(to + length, n - length, "%02x%02x:", (unsigned char)net.bytes[i],
                             (unsigned char)net.bytes[i + 1]);
    length += (size_t)snprintf(to + length, n - length, ":/64");
    return slice_of(to, length);
}

const char *identify_challenge(const struct identify *id)
{
    return id->challenge;
}

int identify_wanted(struct identify *id)
{
    int wanted = id->wanted;
    id->wanted = -1;
    return wanted;
}
