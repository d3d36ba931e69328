/*
 * keeper_link: see the header.
 *
 * A question is on one of three lists: `waiting` to be sent, `asked` and not answered, or `later`:
 * a refund whose answer was an error, to be sent again at again_ms. It has a deadline unless it is
 * a refund, and all deadlines are equally long, so the one that is due next is the first of `due`.
 *
 * A spend that ends without its answer may have been counted, or may be still: it becomes a refund
 * under another number, and the late answer finds nobody. The keeper lets a refund win also where
 * it comes first.
 */
#include "serve/keeper_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/list.h"
#include "base/must.h"
#include "net/forks.h"
#include "store/keeper_wire.h"

/* Connecting again: at once, then later and later. */
static const uint64_t RETRY_MS = 10;
static const uint64_t RETRY_MS_MAX = 500;
/* Refunds that the keeper could not write. */
static const uint64_t AGAIN_MS = 500;
static const uint64_t AGAIN_MS_MAX = 30000;
/* Answers that are read in one turn. */
#define READ_MAX 1024
#define IDS_MAX 16

struct question {
    struct list node; /* waiting, asked or later */
    struct list due;  /* l->due; on no list: it has no deadline */
    uint64_t number;  /* generation << 32 | index + 1; 0: free */
    enum keeper_kind kind;
    bool sent;       /* the keeper may know it */
    uint64_t due_ms; /* loop time */
    struct quota_op op;
    struct quota_limits limits;
    char *text; /* owned; the user, then the route; NULL: none */
    uint16_t user_bytes, route_bytes;
    keeper_link_spent *spent;
    keeper_link_used *used;
    void *arg;
    uint32_t next_free; /* index + 1 */
};

struct keeper_link {
    struct loop *loop;
    struct keeper_link_settings set;
    int fd;            /* owned; -1: not connected */
    uv_poll_t *poll;   /* of fd; owned, freed when libuv has let go of it */
    bool full;         /* fd took no more: watched for writing */
    uv_timer_t *timer; /* owned, as poll */
    struct list waiting, asked, later, due;
    struct question **questions; /* owned; each is */
    uint32_t n_questions, room;
    uint32_t first_free; /* index + 1; 0: none */
    uint32_t generation; /* of numbers */
    unsigned n_asks, n_refunds;
    uint64_t connect_ms;          /* loop time: not before */
    unsigned failures;            /* connects in a row */
    bool refused;                 /* nobody listens: what was asked is to fail */
    uint64_t again_ms;            /* when `later` is sent; 0: not set */
    unsigned agains;              /* errors in a row */
    struct quota_op ids[IDS_MAX]; /* random */
    unsigned n_ids;
    uint64_t asked_total, timed_out, reconnects;
    struct forks_entry forks;
    unsigned char packet[KEEPER_PACKET_MAX];
    struct quota_row rows[KEEPER_ROWS_MAX];
};

/* ---- questions ---- */

static bool is_refund(const struct question *q)
{
    return q->kind == KEEPER_REFUND;
}

static void number(struct keeper_link *l, struct question *q, uint32_t index)
{
    q->number = (uint64_t)++l->generation << 32 | (index + 1);
}

static uint32_t index_of(const struct question *q)
{
    return (uint32_t)q->number - 1;
}

static struct question *find(const struct keeper_link *l, uint64_t n)
{
    uint32_t index = (uint32_t)n - 1;
    struct question *q = index < l->n_questions ? l->questions[index] : NULL;
    return q && n && q->number == n ? q : NULL;
}

/* A free one with a number, on no list. */
static struct question *take(struct keeper_link *l)
{
    if (l->first_free) {
        uint32_t index = l->first_free - 1;
        struct question *q = l->questions[index];
        l->first_free = q->next_free;
        number(l, q, index);
        return q;
    }
    if (l->n_questions == l->room) {
        uint32_t room = l->room ? l->room * 2 : 64;
        struct question **more = realloc(l->questions, room * sizeof(struct question *));
        if (!more)
            return NULL;
        l->questions = more;
        l->room = room;
    }
    struct question *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    list_init(&q->node);
    list_init(&q->due);
    l->questions[l->n_questions] = q;
    number(l, q, l->n_questions++);
    return q;
}

static void give_back(struct keeper_link *l, struct question *q)
{
    uint32_t index = index_of(q);
    list_del(&q->node);
    list_del(&q->due);
    if (is_refund(q))
        l->n_refunds--;
    else
        l->n_asks--;
    free(q->text);
    struct list node = q->node, due = q->due; /* on no list: they point to themselves */
    *q = (struct question){.node = node, .due = due, .next_free = l->first_free};
    l->first_free = index + 1;
}

static void drop_text(struct question *q)
{
    free(q->text);
    q->text = NULL;
    q->user_bytes = q->route_bytes = 0;
}

static void on_timer(uv_timer_t *t);

/* Wake up for what is next: a deadline, a connection, a repetition. */
static void set_timer(struct keeper_link *l)
{
    uint64_t at_ms = UINT64_MAX, now_ms = loop_now_ms(l->loop);
    if (!list_empty(&l->due))
        at_ms = container_of(l->due.next, struct question, due)->due_ms;
    if (l->fd < 0 && !list_empty(&l->waiting) && l->connect_ms < at_ms)
        at_ms = l->connect_ms;
    if (!list_empty(&l->later) && l->again_ms < at_ms)
        at_ms = l->again_ms;
    if (l->refused)
        at_ms = now_ms;
    if (at_ms == UINT64_MAX)
        (void)uv_timer_stop(l->timer);
    else
        (void)uv_timer_start(l->timer, on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

/* A spend whose answer nobody waits for. Where the keeper cannot know it nothing is to be done. */
static void turn_to_refund(struct keeper_link *l, struct question *q, struct list *to)
{
    if (!q->sent) {
        give_back(l, q);
        return;
    }
    list_del(&q->node);
    list_del(&q->due);
    drop_text(q);
    l->n_asks--;
    l->n_refunds++;
    number(l, q, index_of(q));
    q->kind = KEEPER_REFUND;
    q->spent = NULL;
    q->sent = false;
    list_add(to, &q->node);
}

/* Its end without an answer that counts. */
static void fail(struct keeper_link *l, struct question *q, int error, struct list *refund_to)
{
    keeper_link_spent *spent = q->spent;
    keeper_link_used *used = q->used;
    void *arg = q->arg;
    if (q->kind == KEEPER_SPEND)
        turn_to_refund(l, q, refund_to);
    else
        give_back(l, q);
    if (spent)
        spent(arg, error, NULL, NULL);
    if (used)
        used(arg, error, NULL, 0);
}

/* ---- the connection ---- */

static void on_closed(uv_handle_t *h)
{
    free(h);
}

static void disconnect(struct keeper_link *l)
{
    if (l->fd < 0)
        return;
    forks_leave(&l->forks);
    uv_close((uv_handle_t *)l->poll, on_closed);
    l->poll = NULL;
    close(l->fd);
    l->fd = -1;
    l->full = false;
    l->reconnects++;
    /* Everything without an answer again, in front of what was not sent yet. */
    while (!list_empty(&l->asked)) {
        struct list *last = l->asked.prev;
        list_del(last);
        list_add(l->waiting.next, last); /* before its first */
    }
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void watch(struct keeper_link *l)
{
    (void)uv_poll_start(l->poll, UV_READABLE | (l->full ? UV_WRITABLE : 0), on_poll);
}

static void in_child(struct forks_entry *e)
{
    struct keeper_link *l = container_of(e, struct keeper_link, forks);
    close(l->fd);
}

/* True: connected. */
static bool ensure(struct keeper_link *l)
{
    uint64_t now_ms = loop_now_ms(l->loop);
    if (l->fd >= 0)
        return true;
    if (now_ms < l->connect_ms)
        return false;
    int fd = keeper_door_connect(l->set.door, l->set.slot, l->set.generation);
    uv_poll_t *poll = fd >= 0 ? malloc(sizeof *poll) : NULL;
    if (poll && uv_poll_init(&l->loop->uv, poll, fd) == 0) {
        poll->data = l;
        l->fd = fd;
        l->poll = poll;
        l->forks = (struct forks_entry){0};
        forks_join(&l->forks, in_child);
        watch(l);
        return true;
    }
    free(poll);
    if (fd >= 0)
        close(fd);
    l->refused = fd == -ECONNREFUSED;
    uint64_t wait_ms = RETRY_MS;
    for (unsigned i = 0; i < l->failures && wait_ms < RETRY_MS_MAX; i++)
        wait_ms *= 2;
    l->failures++;
    l->connect_ms = now_ms + (wait_ms < RETRY_MS_MAX ? wait_ms : RETRY_MS_MAX);
    return false;
}

static bool try_later(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR || error == ENOBUFS;
}

/* Send what waits, as far as it goes. */
static void flush(struct keeper_link *l)
{
    unsigned char packet[KEEPER_ASK_BYTES_MAX];
    while (!list_empty(&l->waiting) && !l->full && ensure(l)) {
        struct question *q = container_of(l->waiting.next, struct question, node);
        const struct keeper_said said = {
            .kind = q->kind,
            .question = q->number,
            .op = q->op,
            .limits = q->limits,
            .user = slice_of(q->text, q->user_bytes),
            .route = slice_of(q->text ? q->text + q->user_bytes : NULL, q->route_bytes),
        };
        size_t n = keeper_wire_say(&said, packet);
        if (send(l->fd, packet, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n) {
            q->sent = true;
            list_del(&q->node);
            list_add(&l->asked, &q->node);
        } else if (try_later(errno)) {
            l->full = true;
            watch(l);
        } else {
            disconnect(l); /* and once more, now or at connect_ms */
            l->connect_ms = loop_now_ms(l->loop) + RETRY_MS;
        }
    }
    set_timer(l);
}

/* ---- answers ---- */

static void told_error(struct keeper_link *l)
{
    if (l->again_ms)
        return;
    uint64_t wait_ms = AGAIN_MS;
    for (unsigned i = 0; i < l->agains && wait_ms < AGAIN_MS_MAX; i++)
        wait_ms *= 2;
    l->agains++;
    l->again_ms = loop_now_ms(l->loop) + (wait_ms < AGAIN_MS_MAX ? wait_ms : AGAIN_MS_MAX);
}

static void send_later(struct keeper_link *l)
{
    while (!list_empty(&l->later)) {
        struct list *node = l->later.next;
        list_del(node);
        list_add(&l->waiting, node);
    }
    l->again_ms = 0;
}

static void answered(struct keeper_link *l, struct question *q, const struct keeper_told *t)
{
    keeper_link_spent *spent = q->spent;
    keeper_link_used *used = q->used;
    void *arg = q->arg;
    if (t->error) {
        told_error(l);
        if (!is_refund(
                q)) { /* a spend is refunded: its group may have reached the disk after all */
            fail(l, q, t->error, &l->later);
            return;
        }
        list_del(&q->node);
        list_add(&l->later, &q->node);
        return;
    }
    l->agains = 0;
    l->failures = 0;
    give_back(l, q);
    if (spent)
        spent(arg, 0, &t->verdict, &t->use);
    if (used) {
        if (t->n_rows)
            memcpy(l->rows, t->rows, t->n_rows * sizeof l->rows[0]);
        for (unsigned i = 0; i < t->n_rows; i++)
            l->rows[i].route[sizeof l->rows[i].route - 1] = '\0';
        used(arg, 0, l->rows, t->n_rows);
    }
}

/* False: the connection is of no use any more. */
static bool hear(struct keeper_link *l)
{
    for (unsigned i = 0; i < READ_MAX && l->fd >= 0; i++) {
        struct keeper_told told;
        ssize_t n = recv(l->fd, l->packet, sizeof l->packet, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return true;
        if (n <= 0 || !keeper_wire_told(l->packet, (size_t)n, &told))
            return false;
        struct question *q = find(l, told.question);
        if (q && (told.kind == KEEPER_USED) == (q->kind == KEEPER_USAGE))
            answered(l, q, &told);
    }
    return true;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct keeper_link *l = poll->data;
    if (events & UV_WRITABLE && l->full) {
        l->full = false;
        watch(l);
    }
    /* What was answered before the end is read first. */
    if (!hear(l) || status) {
        disconnect(l);
        l->connect_ms = l->failures ? loop_now_ms(l->loop) + RETRY_MS : 0;
        l->failures++;
    }
    flush(l);
}

/* Nobody listens any more, and nobody will. */
static void fail_all(struct keeper_link *l, int error)
{
    struct list *lists[] = {&l->waiting, &l->asked};
    for (unsigned i = 0; i < countof(lists); i++) {
        struct list rest;
        list_init(&rest);
        while (!list_empty(lists[i])) {
            struct question *q = container_of(lists[i]->next, struct question, node);
            if (is_refund(q)) {
                list_del(&q->node);
                list_add(&rest, &q->node);
            } else {
                fail(l, q, error, &l->later);
            }
        }
        while (!list_empty(&rest)) {
            struct list *node = rest.next;
            list_del(node);
            list_add(&l->later, node);
        }
    }
    if (!list_empty(&l->later))
        told_error(l);
}

static void on_timer(uv_timer_t *t)
{
    struct keeper_link *l = t->data;
    uint64_t now_ms = loop_now_ms(l->loop);
    bool told = l->refused;
    while (!list_empty(&l->due)) {
        struct question *q = container_of(l->due.next, struct question, due);
        if (q->due_ms > now_ms)
            break;
        told = true;
        l->timed_out++;
        fail(l, q, -ETIMEDOUT, &l->waiting);
    }
    if (l->refused) {
        l->refused = false;
        fail_all(l, -ECONNREFUSED);
    }
    if (l->again_ms && now_ms >= l->again_ms)
        send_later(l);
    flush(l);
    /* libuv runs timers before it waits: what a callback began shall not wait with it. */
    if (told)
        loop_wake(l->loop);
}

/* ---- public ---- */

int keeper_link_new(struct keeper_link **out, struct loop *loop,
                    const struct keeper_link_settings *s)
{
    struct keeper_link *l = *out = calloc(1, sizeof *l);
    if (l)
        l->timer = calloc(1, sizeof *l->timer);
    if (!l || !l->timer) {
        free(l);
        *out = NULL;
        return -ENOMEM;
    }
    l->loop = loop;
    l->set = *s;
    if (!l->set.ask_ms)
        l->set.ask_ms = KEEPER_LINK_ASK_MS;
    l->fd = -1;
    list_init(&l->waiting);
    list_init(&l->asked);
    list_init(&l->later);
    list_init(&l->due);
    int rc = uv_timer_init(&loop->uv, l->timer);
    must(rc == 0);
    l->timer->data = l;
    return 0;
}

void keeper_link_free(struct keeper_link **lp)
{
    struct keeper_link *l = *lp;
    if (!l)
        return;
    send_later(l);
    struct list *lists[] = {&l->asked, &l->waiting};
    for (unsigned i = 0; i < countof(lists); i++) {
        struct list all = *lists[i];
        if (list_empty(lists[i]))
            continue;
        all.next->prev = all.prev->next = &all;
        list_init(lists[i]);
        while (!list_empty(&all)) {
            struct question *q = container_of(all.next, struct question, node);
            list_del(&q->node);
            if (is_refund(q))
                list_add(&l->waiting, &q->node);
            else
                fail(l, q, -ECANCELED, &l->waiting);
        }
    }
    l->connect_ms = 0;
    flush(l);
    disconnect(l);
    uv_close((uv_handle_t *)l->timer, on_closed);
    for (uint32_t i = 0; i < l->n_questions; i++) {
        free(l->questions[i]->text);
        free(l->questions[i]);
    }
    free(l->questions);
    free(l);
    *lp = NULL;
}

struct quota_op keeper_link_op(struct keeper_link *l)
{
    if (l->n_ids == 0) {
        ssize_t n;
        do
            n = getrandom(l->ids, sizeof l->ids, 0);
        while (n < 0 && errno == EINTR);
        must(n == (ssize_t)sizeof l->ids); /* up to 256 bytes always come, getrandom(2) */
        l->n_ids = IDS_MAX;
    }
    return l->ids[--l->n_ids];
}

static void ask(struct keeper_link *l, struct question *q, uint64_t *ticket)
{
    if (ticket)
        *ticket = q->number;
    q->due_ms = loop_now_ms(l->loop) + (uint64_t)l->set.ask_ms;
    l->n_asks++;
    l->asked_total++;
    list_add(&l->due, &q->due);
    list_add(&l->waiting, &q->node);
    flush(l);
}

int keeper_link_spend(struct keeper_link *l, const struct keeper_spend *s, keeper_link_spent *cb,
                      void *arg, uint64_t *ticket)
{
    if (s->user.n > KEEPER_USER_MAX || s->route.n > KEEPER_ROUTE_MAX)
        return -ENAMETOOLONG;
    /* Each may become a refund. */
    if (l->n_asks >= KEEPER_LINK_ASKS || l->n_refunds >= KEEPER_LINK_REFUNDS / 2 ||
        l->n_asks + l->n_refunds >= KEEPER_LINK_REFUNDS)
        return -EBUSY;
    char *text = malloc(s->user.n + s->route.n + 1);
    struct question *q = text ? take(l) : NULL;
    if (!q) {
        free(text);
        return -ENOMEM;
    }
    if (s->user.n)
        memcpy(text, s->user.p, s->user.n);
    if (s->route.n)
        memcpy(text + s->user.n, s->route.p, s->route.n);
    q->kind = KEEPER_SPEND;
    q->op = s->op;
    q->limits = s->limits;
    q->text = text;
    q->user_bytes = (uint16_t)s->user.n;
    q->route_bytes = (uint16_t)s->route.n;
    q->spent = cb;
    q->arg = arg;
    ask(l, q, ticket);
    return 0;
}

int keeper_link_usage(struct keeper_link *l, struct slice user, keeper_link_used *cb, void *arg,
                      uint64_t *ticket)
{
    if (user.n > KEEPER_USER_MAX)
        return -ENAMETOOLONG;
    if (l->n_asks >= KEEPER_LINK_ASKS)
        return -EBUSY;
    char *text = malloc(user.n + 1);
    struct question *q = text ? take(l) : NULL;
    if (!q) {
        free(text);
        return -ENOMEM;
    }
    if (user.n)
        memcpy(text, user.p, user.n);
    q->kind = KEEPER_USAGE;
    q->text = text;
    q->user_bytes = (uint16_t)user.n;
    q->used = cb;
    q->arg = arg;
    ask(l, q, ticket);
    return 0;
}

void keeper_link_forget(struct keeper_link *l, uint64_t ticket)
{
    struct question *q = find(l, ticket);
    if (!q || is_refund(q))
        return;
    if (q->kind == KEEPER_SPEND)
        turn_to_refund(l, q, &l->waiting);
    else
        give_back(l, q);
    flush(l);
}

int keeper_link_refund(struct keeper_link *l, struct quota_op op)
{
    if (l->n_asks + l->n_refunds >= KEEPER_LINK_REFUNDS)
        return -EBUSY;
    struct question *q = take(l);
    if (!q)
        return -ENOMEM;
    q->kind = KEEPER_REFUND;
    q->op = op;
    l->n_refunds++;
    list_add(&l->waiting, &q->node);
    flush(l);
    return 0;
}

void keeper_link_refetch(struct keeper_link *l, unsigned identifier)
{
    unsigned char packet[KEEPER_ASK_BYTES_MAX];
    const struct keeper_said said = {.kind = KEEPER_REFETCH, .identifier = identifier};
    size_t n = keeper_wire_say(&said, packet);
    if (ensure(l))
        (void)!send(l->fd, packet, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void keeper_link_stats(const struct keeper_link *l, struct keeper_link_stats *out)
{
    *out = (struct keeper_link_stats){
        .connected = l->fd >= 0,
        .asks = l->n_asks,
        .refunds = l->n_refunds,
        .asked = l->asked_total,
        .timed_out = l->timed_out,
        .reconnects = l->reconnects,
    };
}
