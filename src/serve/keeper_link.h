/*
 * keeper_link: a worker's connection to the keeper: questions and their answers, on the loop.
 *
 *   spend    the callback gets the answer, or an error: -ETIMEDOUT after ask_ms; what the keeper
 *            says (its store cannot be written: -ENOSPC, -EIO, …); -ECONNREFUSED: there is no
 * keeper and will be none. After an error nothing stays spent: the link refunds by itself what it
 * may have asked for. refund   fire and forget: repeated until it is answered, over a keeper's
 * death too. usage    as spend. refetch  a word to the keeper; may be lost.
 *
 * When the connection breaks the link connects again (the keeper was replaced; meanwhile the
 * supervisor holds the socket) and asks again whatever has no answer.
 *
 * Bounds:  KEEPER_LINK_ASKS questions, of which each has a deadline; KEEPER_LINK_REFUNDS refunds,
 * those that the link makes by itself included. Owner:   new makes, free gives back; what a
 * question needs is copied. Threads: leader only; callbacks are called inside a turn, never from
 * within a call, except by keeper_link_free.
 */
#ifndef WEIR_SERVE_KEEPER_LINK_H
#define WEIR_SERVE_KEEPER_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"
#include "net/loop.h"
#include "store/keeper_door.h"
#include "store/quota.h"

#define KEEPER_LINK_ASKS 20000
#define KEEPER_LINK_REFUNDS 40000
#define KEEPER_LINK_ASK_MS 1000

struct keeper_link;

struct keeper_link_settings {
    const struct keeper_door *door; /* lent; its socket need not be open here */
    int64_t ask_ms;                 /* 0: KEEPER_LINK_ASK_MS */
    uint32_t slot, generation;      /* for the keeper's information */
};

struct keeper_spend {
    struct quota_op op;       /* from keeper_link_op; kept by who may want to refund it */
    struct slice user, route; /* lent for the call; within KEEPER_USER_MAX, KEEPER_ROUTE_MAX */
    struct quota_limits limits;
};

/* error 0: *verdict and *use say what came of it; else they are NULL and the request was not
 * counted. */
typedef void keeper_link_spent(void *arg, int error, const enum quota_verdict *verdict,
                               const struct quota_use *use);
/* `rows` is lent for the call. */
typedef void keeper_link_used(void *arg, int error, const struct quota_row *rows, unsigned n);

/* Connects when something is asked first. */
WEIR_MUST_USE int keeper_link_new(struct keeper_link **out, struct loop *loop,
                                  const struct keeper_link_settings *s);
/* Questions without answer are told -ECANCELED; what was asked for and all refunds are sent once
 * more, as far as the socket takes them. The loop has to turn before loop_fini. */
void keeper_link_free(struct keeper_link **l);

/* An id that nobody else has. */
struct quota_op keeper_link_op(struct keeper_link *l);

/* 0 and the callback follows; *ticket (may be NULL) is for keeper_link_forget. -EBUSY: too many
 * questions are under way; -ENAMETOOLONG; -ENOMEM. */
WEIR_MUST_USE int keeper_link_spend(struct keeper_link *l, const struct keeper_spend *s,
                                    keeper_link_spent *cb, void *arg, uint64_t *ticket);
WEIR_MUST_USE int keeper_link_usage(struct keeper_link *l, struct slice user, keeper_link_used *cb,
                                    void *arg, uint64_t *ticket);
/* Who has asked does not want to know any more: no callback; what is spent is refunded. A ticket
 * that was answered: nothing. */
void keeper_link_forget(struct keeper_link *l, uint64_t ticket);

/* Take back what was spent. -EBUSY, -ENOMEM: it stays spent. */
WEIR_MUST_USE int keeper_link_refund(struct keeper_link *l, struct quota_op op);

void keeper_link_refetch(struct keeper_link *l, unsigned identifier);

struct keeper_link_stats {
    bool connected;
    unsigned asks, refunds;    /* under way */
    uint64_t asked, timed_out; /* totals */
    uint64_t reconnects;
};
void keeper_link_stats(const struct keeper_link *l, struct keeper_link_stats *out);

#endif
