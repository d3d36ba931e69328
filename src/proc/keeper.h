/*
 * keeper: the one process that writes the quota store and fetches key sets for all workers, and
 * that has the admin listener.
 *
 * One loop, no Python. What has arrived in a turn of the loop is one transaction; answers go out
 * after its commit. While the store cannot be written every question is answered with an error, and
 * the store is tried again with the next ones. SQLite and libcurl are in _keeper.so, which is
 * loaded here and by nobody else (docs/decisions/0008).
 *
 *   stop   SIGTERM (only with `process`), or `stop_fd` readable or closed at its other end. Then
 *          nobody new is taken, and who is connected is served until he leaves, at most drain_ms:
 *          workers end before their keeper, and their last refunds arrive.
 *
 * Key sets: each URL is fetched at the start, then every 10 minutes, or as Cache-Control: max-age
 * says (1 minute to 1 hour); on KEEPER_REFETCH, at most once a minute; after a failure again and
 * again, later and later, up to 5 minutes. At most 64 KiB, 10 s, 3 redirects that stay with the
 * scheme; http only to loopback addresses, certificates are verified.
 *
 * Owner:   everything in the config is lent for the time of keeper_run.
 * Threads: keeper_run has the calling thread for itself; callbacks are called on it. libcurl may
 *          make threads of its own to resolve names.
 * Crash:   answers were given after their commit, so a kill loses nothing that was answered.
 */
#ifndef WEIR_PROC_KEEPER_H
#define WEIR_PROC_KEEPER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/attr.h"
#include "base/err.h"
#include "base/log.h"
#include "base/slice.h"
#include "conf/conf.h"
#include "obs/telemetry.h"
#include "store/keeper_door.h"

struct keeper_jwks {
    unsigned identifier; /* index in conf_policy.identifiers */
    const char *url;     /* https://…, or http://… of a loopback address */
};

/* Where server spans go: those that workers put into the rings of `telemetry` (obs/telemetry.h) are sent in
 * batches, and dropped and counted where the collector does not take them. */
struct keeper_otlp {
    const char *endpoint;            /* URL; "" = nowhere */
    const struct conf_list *headers; /* "NAME=VALUE"; NULL = none */
    const char *service;
    struct telemetry *telemetry;
};

struct uv_loop_s;

struct keeper_config {
    const struct keeper_door *door;
    const char *store; /* path; "" = none: spends are answered with -ENOENT */
    struct keeper_jwks jwks[POLICY_IDENTIFIERS_MAX];
    unsigned n_jwks;
    uid_t uid;           /* of the workers; connections of others are closed, but the own uid's */
    int stop_fd;         /* -1: none */
    bool process;        /* a process of its own: takes SIGTERM, and ignores what is for others */
    int64_t drain_ms;    /* see stop */
    const char *ca_file; /* certificates to trust; "" = the system's */
    /* A key set has come (error NULL), or could not be had (jwks empty, one sentence). False: what
     * came cannot be used, and is fetched again as after a failure. */
    bool (*publish)(void *arg, unsigned identifier, struct slice jwks, const char *error);
    void *arg;
    void (*log)(enum log_level level, const char *text);
    void (*reopen)(void);   /* USR1, with `process`: open the logs again; NULL: nothing */
    int64_t (*now_s)(void); /* wall clock; NULL: the real one */
    /* More that lives on its loop: the admin listener. begin before the first turn (-1 and a
     * sentence: the keeper goes on without it, and logs that), end as soon as it is to stop: the loop turns after
     * it, and what it closes is closed before keeper_run returns. NULL: nothing. */
    int (*begin)(void *host, struct uv_loop_s *loop, struct err *e);
    void (*end)(void *host);
    void *host;
    struct keeper_otlp otlp;
};

/* Does anything in it need a keeper: a quota, a key set with a URL, the admin listener, a collector of spans? NULL:
 * no. */
bool keeper_wanted(const struct conf *c);
/* The key sets of *p that have a URL. */
void keeper_config_jwks(struct keeper_config *c, const struct conf_policy *p);

/* Load _keeper.so, once. `path` NULL: beside this one. */
WEIR_MUST_USE int keeper_load(const char *path, struct err *e);

/* Run until stop. 0, or -1 and a sentence: it could not begin. */
WEIR_MUST_USE int keeper_run(const struct keeper_config *c, struct err *e);

/* The same as a thread, where one process serves alone; signals are left alone. c->stop_fd is set
 * here. */
struct keeper_thread;
WEIR_MUST_USE int keeper_thread_start(struct keeper_thread **out, const struct keeper_config *c,
                                      struct err *e);
/* Stop and join: returns when all connections are gone, at most after drain_ms. */
void keeper_thread_stop(struct keeper_thread **t);

/* ---- what _keeper.so offers ---- */

struct keeper_lib {
    const char *version; /* WEIR_VERSION that it was built from */
    size_t config_bytes; /* sizeof(struct keeper_config) there */
    int (*run)(const struct keeper_config *c, struct err *e);
};
#define KEEPER_LIB_SYMBOL "weir_keeper_lib"

#endif
