/*
 * loop: the event loop behind a few functions, and its mailbox for other threads.
 *
 * libuv is entered only through loop_turn and from the callbacks it calls, by the one thread that leads
 * (serve/lead). Leadership changes only between two turns, so the loop needs no lock.
 * Everybody else uses loop_post and loop_wake.
 */
#ifndef WEIR_NET_LOOP_H
#define WEIR_NET_LOOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/attr.h"
#include "base/list.h"

/* A message to the loop: embedded in what it is about. Posted again while it is still
 * under way it is delivered once. */
struct mail {
    struct mail *next;               /* private */
    _Atomic bool posted;             /* private */
    void (*deliver)(struct mail *m); /* called by the leader inside a turn */
};

/* Input buffer shared by all connections of the loop: what is not consumed at once is copied. */
#define LOOP_READ_BYTES (64 * 1024)

struct loop {
    uv_loop_t uv;
    uv_async_t async;
    uv_prepare_t before_wait;
    _Atomic(struct mail *) mailbox;  /* newest first */
    struct list flush;               /* connections with bytes to write */
    void (*flush_one)(struct list *node);
    char *read_buf;                  /* LOOP_READ_BYTES, owned */
};

WEIR_MUST_USE int loop_init(struct loop *l);

/* Leader: write what waits, then handle events; blocks only with may_block. */
void loop_turn(struct loop *l, bool may_block);

/* Any thread: end a blocked turn. */
void loop_wake(struct loop *l);

/* Any thread: deliver `m` in a turn soon. The mail must live until it is delivered. */
void loop_post(struct loop *l, struct mail *m);

/* Leader: milliseconds of the loop's clock (monotonic, cached for the turn). */
static inline uint64_t loop_now_ms(struct loop *l)
{
    return uv_now(&l->uv);
}

/* After all handles were closed by their owners; turns the loop until libuv has let go of them. */
void loop_fini(struct loop *l);

#endif
