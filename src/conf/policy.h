/*
 * policy: what the YAML file says of admission: who asks (`identify`, `tiers`), which origins may
 * (`cors`), and what each route allows (`routes`). Only data; admit/ gives it its meaning.
 *
 *   identify:
 *     - jwt: {secret_file: /run/secrets/jwt, issuer: https://x/auth/v1, audience: authenticated}
 *     - api_key: {header: X-API-Key, file: keys.txt}
 *     - address
 *   tiers: {from: jwt.app_metadata.tier, default: free}
 *   cors: {origins: [https://app.example.org, "http://localhost:3000"], credentials: true}
 *   routes:
 *     - match: POST /api/ai/…
 *       require: user
 *       deadline: 90s
 *       concurrency: 8
 *       queue: {size: 100, wait: 30s, fair_by: user}
 *       rate: {user: 10/min burst 3, address: 30/min}
 *       quota: {free: 0, test: 20/day, premium: 200/day and 2000/month, pro: unlimited}
 *
 * Units:   _ms milliseconds, _ns nanoseconds, _s seconds.
 * Owner:   everything lives in the conf's arena; read-only after conf_finish.
 * Threads: none inside.
 */
#ifndef WEIR_CONF_POLICY_H
#define WEIR_CONF_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/* Bounds; what exceeds one is an error with its line. */
#define POLICY_IDENTIFIERS_MAX 8
#define POLICY_ROUTES_MAX 64
#define POLICY_MATCHES_MAX 16
#define POLICY_RATES_MAX 32   /* of a route, its tiers counted one by one */
#define POLICY_METHODS_MAX 32 /* different ones in all matches */
#define POLICY_NAME_MAX 127   /* bytes of a route's name */
#define POLICY_PATH_MAX 512   /* bytes of a decoded match */
#define POLICY_AUDIENCES_MAX 16
#define POLICY_BURST_NS_MAX (10LL * 365 * 86400 * 1000000000) /* what admit/gcra can count */
#define POLICY_TIERS_MAX 32
#define POLICY_ORIGINS_MAX 64

enum policy_identify {
    IDENTIFY_JWT = 0, /* a signed token: Authorization: Bearer, or a cookie */
    IDENTIFY_BEARER,  /* any bearer token is a user, named by its hash: for development, says so at
                         start */
    IDENTIFY_API_KEY, /* a field; with `file` only keys of it, without any key is a user, named by
                         its hash */
    IDENTIFY_ADDRESS, /* the client's address (an IPv6 network of 64 bits), always there; no user */
};

/* Algorithms of JWT as bits; a key has those that suit its kind and are in the list. */
enum policy_alg { ALG_HS256 = 1, ALG_RS256 = 2, ALG_ES256 = 4 };

struct policy_identifier {
    enum policy_identify kind;
    unsigned line; /* of the YAML file, for messages */
    /* jwt: one of secret_file, jwks */
    const char *secret_file; /* "" = none; bytes of the file without a final line end */
    const char *jwks;   /* "" = none; https://…, http://… of a loopback address, or a path */
    const char *issuer; /* "" = any */
    const char *const *audiences; /* one of them must be in aud; n = 0: aud is not looked at */
    unsigned n_audiences;
    unsigned algorithms;    /* of enum policy_alg; default: all that suit the keys */
    int64_t leeway_s;       /* default 30 */
    const char *user_claim; /* default "sub" */
    const char *cookie;     /* "" = Authorization only; else a cookie that may hold the token too */
    /* api_key */
    const char *header; /* default "X-API-Key" */
    const char *file;   /* "" = none; lines "NAME KEY [TIER]", # comments */
};

struct policy_cors {
    bool given;
    /* https://app.example.org; with a star in place of the port, or of the first label; or a star
     * alone */
    const char *const *origins;
    unsigned n_origins;
    bool credentials;    /* refused together with "*" */
    const char *methods; /* default "GET, HEAD, POST, PUT, PATCH, DELETE" */
    const char *headers; /* "" = what the preflight asks for */
    const char *expose;  /* more response fields that scripts may read, "" = none */
    int64_t max_age_s;   /* default 600 */
};

enum policy_by {
    BY_ROUTE = 0, /* all requests of the route together (`route:`) */
    BY_USER,      /* each user (who has none is limited by address) */
    BY_ADDRESS,   /* each client address */
};

struct policy_rate {
    enum policy_by by;
    const char *tier;  /* "" = tiers that are not named (`default`, or a rate for all) */
    int64_t units;     /* >= 1 a period */
    int64_t period_ns; /* /s /min /h /day */
    int64_t burst;     /* >= 1; default: units */
};

#define QUOTA_UNLIMITED (-1)
struct policy_quota {
    const char *tier;   /* "" = tiers that are not named (`default`, or a quota for all) */
    int64_t day, month; /* requests; QUOTA_UNLIMITED: no such limit. 0 a day: may not at all */
};

struct policy_match {
    const char *method; /* "" = every method; GET also stands for HEAD */
    const char *path;   /* percent-decoded; exact, or a final * stands for any rest */
};

enum policy_require { REQUIRE_NOBODY = 0, REQUIRE_USER };
enum policy_on_deadline { ON_DEADLINE_TELL = 0, ON_DEADLINE_INTERRUPT };
enum policy_lane { LANE_COMMON = 0, LANE_RESERVED };
enum policy_store_down { STORE_DOWN_CLOSED = 0, STORE_DOWN_OPEN };
enum policy_errors {
    ERRORS_AUTO = 0,
    ERRORS_PROBLEM,
    ERRORS_OPENAI
}; /* auto: openai below /v1/, else problem+json */

struct policy_route {
    /* Default: the text of its first match. Names counters, logs, metrics; printable ASCII without
     * " and \, so that it needs no escape there. */
    const char *name;
    unsigned line;
    const struct policy_match *matches;
    unsigned n_matches; /* >= 1 */
    enum policy_require require;
    int64_t deadline_ms;    /* 0 = that of --deadline */
    bool on_deadline_given; /* else conf_finish puts that of --on-deadline here */
    enum policy_on_deadline on_deadline;
    int64_t concurrency;          /* 0 = no bound but that of threads */
    int64_t queue_size;           /* 0 = what finds no place is refused */
    int64_t queue_wait_ms;        /* default 30 s */
    enum policy_by queue_fair_by; /* default BY_USER; BY_ROUTE: first come */
    const struct policy_rate *rates;
    unsigned n_rates;
    const struct policy_quota *quotas;
    unsigned n_quotas; /* 0 = none. A tier that is not named, when "" is not, is refused as `0` */
    enum policy_store_down quota_store_down; /* `quota_when_down: open|closed`, default closed */
    enum policy_lane lane;
    bool dry_run; /* limits count and log, and let pass */
    enum policy_errors errors;
    struct policy_cors cors; /* given: in place of the general one; n_origins 0: no origin may */
};

struct conf_policy {
    const struct policy_identifier *identifiers;
    unsigned n_identifiers;   /* IDENTIFY_ADDRESS is the last, if there */
    const char *tier_from;    /* "jwt.app_metadata.tier" without "jwt."; "" = nowhere */
    const char *tier_default; /* "" = none */
    struct policy_cors cors;
    const struct policy_route *routes; /* the first that matches counts */
    unsigned n_routes;
    const char *file; /* for messages; "" = there is none */
    int64_t read_ns;  /* monotonic: when; of two policies the one that was read later holds */
};

/* Does the file say anything of admission? */
bool policy_is_given(const struct conf_policy *p);

#endif
