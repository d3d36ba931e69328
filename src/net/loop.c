/* loop: libuv, one async handle, one lock-free mailbox (many writers, one reader). */
#include "net/loop.h"

#include <errno.h>
#include <stdlib.h>

#include "base/must.h"

static void deliver_all(struct loop *l)
{
    struct mail *m = atomic_exchange_explicit(&l->mailbox, NULL, memory_order_acquire);
    struct mail *first = NULL;
    while (m) { /* the box is newest first; deliver in the order of posting */
        struct mail *next = m->next;
        m->next = first;
        first = m;
        m = next;
    }
    while (first) {
        struct mail *next = first->next;
        /* From here on it may be posted again. */
        atomic_store_explicit(&first->posted, false, memory_order_release);
        first->deliver(first);
        first = next;
    }
}

static void on_async(uv_async_t *async)
{
    deliver_all(async->data);
}

/* libuv calls timers that are due when it is entered, and then waits. What they want written shall
 * not wait with it: this makes the turn end. */
static void before_wait(uv_prepare_t *prepare)
{
    struct loop *l = prepare->data;
    if (!list_empty(&l->flush))
        uv_stop(&l->uv);
}

int loop_init(struct loop *l)
{
    *l = (struct loop){0};
    list_init(&l->flush);
    l->read_buf = malloc(LOOP_READ_BYTES);
    if (!l->read_buf)
        return -ENOMEM;
    int rc = uv_loop_init(&l->uv);
    if (rc) {
        free(l->read_buf);
        l->read_buf = NULL;
        return rc;
    }
    rc = uv_async_init(&l->uv, &l->async, on_async);
    must(rc == 0);
    l->async.data = l;
    rc = uv_prepare_init(&l->uv, &l->before_wait);
    must(rc == 0);
    l->before_wait.data = l;
    rc = uv_prepare_start(&l->before_wait, before_wait);
    must(rc == 0);
    uv_unref((uv_handle_t *)&l->before_wait); /* loop_fini ends when all others are closed */
    return 0;
}

/* Write what waits now; what is added meanwhile is for the next call, so that one large answer
 * cannot hold the loop. */
static void flush_all(struct loop *l)
{
    if (list_empty(&l->flush))
        return;
    struct list now = l->flush;
    now.next->prev = now.prev->next = &now;
    list_init(&l->flush);
    while (!list_empty(&now)) {
        struct list *node = now.next;
        list_del(node);
        l->flush_one(node);
    }
}

void loop_turn(struct loop *l, bool may_block)
{
    flush_all(l);
    uv_run(&l->uv, may_block && list_empty(&l->flush) ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    flush_all(l);
}

void loop_wake(struct loop *l)
{
    uv_async_send(&l->async);
}

void loop_post(struct loop *l, struct mail *m)
{
    if (atomic_exchange_explicit(&m->posted, true, memory_order_acq_rel))
        return;
    struct mail *head = atomic_load_explicit(&l->mailbox, memory_order_relaxed);
    do
        m->next = head;
    while (!atomic_compare_exchange_weak_explicit(&l->mailbox, &head, m, memory_order_release,
                                                  memory_order_relaxed));
    if (!head)
        uv_async_send(&l->async);
}

void loop_fini(struct loop *l)
{
    uv_close((uv_handle_t *)&l->before_wait, NULL);
    uv_close((uv_handle_t *)&l->async, NULL);
    uv_run(&l->uv, UV_RUN_DEFAULT);
    deliver_all(l);
    int rc = uv_loop_close(&l->uv);
    must(rc == 0);
    free(l->read_buf);
    *l = (struct loop){0};
}
