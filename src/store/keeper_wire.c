/* keeper_wire: see the header. Packets lie anywhere in a buffer, so structs are copied out. */
#include "store/keeper_wire.h"

#include <assert.h>

#include "base/must.h"

static_assert(sizeof(struct keeper_usage) + KEEPER_ROWS_MAX * sizeof(struct quota_row) <=
                  KEEPER_PACKET_MAX,
              "the largest answer fits in a packet");
static_assert(sizeof(struct keeper_hello) <= KEEPER_ASK_BYTES_MAX, "an ask is the largest");

/* A packet of just this struct, or with something behind it. */
static bool take(void *to, size_t size, const void *p, size_t n)
{
    if (n < size)
        return false;
    memcpy(to, p, size);
    return true;
}

static bool said_hello(const void *p, size_t n, struct keeper_said *out)
{
    struct keeper_hello h;
    if (n != sizeof h || !take(&h, sizeof h, p, n))
        return false;
    out->cookie =
        slice_of((const char *)p + offsetof(struct keeper_hello, cookie), sizeof h.cookie);
    out->slot = h.slot;
    out->generation = h.generation;
    return true;
}

static bool said_ask(const void *p, size_t n, struct keeper_said *out)
{
    struct keeper_ask a;
    if (!take(&a, sizeof a, p, n) || a.user_bytes > KEEPER_USER_MAX ||
        a.route_bytes > KEEPER_ROUTE_MAX || n != sizeof a + a.user_bytes + a.route_bytes)
        return false;
    out->op = a.op;
    out->limits = a.limits;
    out->user = slice_of((const char *)p + sizeof a, a.user_bytes);
    out->route = slice_of((const char *)p + sizeof a + a.user_bytes, a.route_bytes);
    return true;
}

static bool said_refetch(const void *p, size_t n, struct keeper_said *out)
{
    struct keeper_refetch r;
    if (n != sizeof r || !take(&r, sizeof r, p, n))
        return false;
    out->identifier = r.identifier;
    return true;
}

bool keeper_wire_said(const void *p, size_t n, struct keeper_said *out)
{
    struct keeper_head head;
    *out = (struct keeper_said){0};
    if (!take(&head, sizeof head, p, n) || head.size != n || head.kind < KEEPER_HELLO ||
        head.kind > KEEPER_USED)
        return false;
    out->kind = (enum keeper_kind)head.kind;
    out->question = head.question;
    switch (out->kind) {
    case KEEPER_HELLO:
        return said_hello(p, n, out);
    case KEEPER_SPEND:
    case KEEPER_REFUND:
    case KEEPER_USAGE:
        return said_ask(p, n, out);
    case KEEPER_REFETCH:
        return said_refetch(p, n, out);
    case KEEPER_ANSWER:
    case KEEPER_USED:
        break; /* ours to say */
    }
    return false;
}

size_t keeper_wire_say(const struct keeper_said *s, void *to)
{
    struct keeper_head head = {.kind = s->kind, .question = s->question};
    switch (s->kind) {
    case KEEPER_HELLO: {
        struct keeper_hello h = {.head = head, .slot = s->slot, .generation = s->generation};
        must(s->cookie.n == sizeof h.cookie);
        h.head.size = sizeof h;
        memcpy(h.cookie, s->cookie.p, sizeof h.cookie);
        memcpy(to, &h, sizeof h);
        return sizeof h;
    }
    case KEEPER_SPEND:
    case KEEPER_REFUND:
    case KEEPER_USAGE: {
        must(s->user.n <= KEEPER_USER_MAX && s->route.n <= KEEPER_ROUTE_MAX);
        struct keeper_ask a = {.head = head,
                               .op = s->op,
                               .limits = s->limits,
                               .user_bytes = (uint16_t)s->user.n,
                               .route_bytes = (uint16_t)s->route.n};
        a.head.size = (uint32_t)(sizeof a + s->user.n + s->route.n);
        memcpy(to, &a, sizeof a);
        if (s->user.n)
            memcpy((char *)to + sizeof a, s->user.p, s->user.n);
        if (s->route.n)
            memcpy((char *)to + sizeof a + s->user.n, s->route.p, s->route.n);
        return a.head.size;
    }
    case KEEPER_REFETCH: {
        struct keeper_refetch r = {.head = head, .identifier = s->identifier};
        r.head.size = sizeof r;
        memcpy(to, &r, sizeof r);
        return sizeof r;
    }
    case KEEPER_ANSWER:
    case KEEPER_USED:
        break;
    }
    must(s->kind < KEEPER_ANSWER); /* a worker does not answer */
    return 0;
}

bool keeper_wire_told(const void *p, size_t n, struct keeper_told *out)
{
    struct keeper_head head;
    *out = (struct keeper_told){0};
    if (!take(&head, sizeof head, p, n) || head.size != n)
        return false;
    out->question = head.question;
    if (head.kind == KEEPER_ANSWER) {
        struct keeper_answer a;
        if (n != sizeof a || !take(&a, sizeof a, p, n) || a.error > 0 || a.verdict < QUOTA_SPENT ||
            a.verdict > QUOTA_MONTH_OVER)
            return false;
        out->kind = KEEPER_ANSWER;
        out->error = a.error;
        out->verdict = (enum quota_verdict)a.verdict;
        out->use = a.use;
        return true;
    }
    struct keeper_usage u;
    if (head.kind != KEEPER_USED || !take(&u, sizeof u, p, n) || u.error > 0 ||
        u.n > KEEPER_ROWS_MAX || n != sizeof u + u.n * sizeof(struct quota_row))
        return false;
    out->kind = KEEPER_USED;
    out->error = u.error;
    out->rows = (const char *)p + sizeof u;
    out->n_rows = u.n;
    return true;
}
