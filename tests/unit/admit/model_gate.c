/*
 * model_gate SECONDS SEED: rounds of random asks against gates, with everything compared to a plain
 * reference: tickets in an array, flows in a list, turns by looking at all of them.
 *
 * Owners enter with all kinds of deadlines, weights and limits, leave, give up, overstay, learn of
 * grants a few at a time, and die; so do holders of the lock. After each step the gates must say
 * what the reference says: verdict, position, who was granted, who is to be woken, how many run and
 * wait; and all that a route has made from its tickets must fit together (gate_check.h).
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "gate_check.h"

enum { TICKETS = 4096, FLOWS = 64, OWNERS = 24 };

/* In a cookie: it waited when a holder of the lock died. */
static const uint64_t LOST = (uint64_t)1 << 63;

enum plain_state { PLAIN_NONE, PLAIN_WAITING, PLAIN_EXPIRED, PLAIN_GRANTED, PLAIN_HELD };

struct plain {
    enum plain_state state;
    uint32_t ticket; /* what the gates call it */
    uint32_t owner;  /* index */
    uint64_t flow, cookie, arrival;
    uint32_t weight;
    int64_t deadline_ns, until_ns, since_ns;
};

struct plain_flow {
    uint64_t flow;
    uint64_t since, due, stamp; /* rounds, and the order of those that are due in the same */
};

struct model {
    struct gates *g;
    uint32_t route, other; /* the other one only takes and gives chunks back */
    uint32_t other_tickets[2000], other_n;
    struct gate_limits limits;
    struct gate_owner owners[OWNERS];
    struct plain tickets[TICKETS];
    struct plain_flow flows[FLOWS];
    unsigned flows_n;
    uint64_t round, stamp, arrival, cookie, random;
    int64_t now_ns, mean_ns;
    unsigned samples, flows_most, weight_most;
    uint32_t running, waiting, allowed; /* most that may run: what ran when the limit shrank */
    bool to_wake[OWNERS];
};

static uint64_t random_next(struct model *m)
{
    return m->random = mix(m->random + 0x9E3779B97F4A7C15);
}

/* 0 .. n-1 */
static unsigned pick(struct model *m, unsigned n)
{
    return (unsigned)((random_next(m) >> 33) % n);
}

static bool goes_before(const struct plain *a, const struct plain *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns
                                            : a->arrival < b->arrival;
}

static struct plain *plain_first(struct model *m, uint64_t flow)
{
    struct plain *first = NULL;
    for (unsigned i = 0; i < TICKETS; i++) {
        struct plain *p = &m->tickets[i];
        if (p->state == PLAIN_WAITING && p->flow == flow && (!first || goes_before(p, first)))
            first = p;
    }
    return first;
}

static unsigned plain_waiting(struct model *m, uint64_t flow)
{
    unsigned n = 0;
    for (unsigned i = 0; i < TICKETS; i++)
        n += m->tickets[i].state == PLAIN_WAITING && m->tickets[i].flow == flow;
    return n;
}

/* After a change of a flow's tickets: when is its turn? served: it has just had one. */
static void plain_turn(struct model *m, uint64_t flow, bool served)
{
    unsigned i = 0;
    while (i < m->flows_n && m->flows[i].flow != flow)
        i++;
    struct plain *first = plain_first(m, flow);
    struct plain_flow *f = &m->flows[i];
    if (!first) {
        m->flows[i] = m->flows[--m->flows_n];
        return;
    }
    bool is_new = i == m->flows_n;
    if (is_new) {
        must(m->flows_n++ < FLOWS);
        *f = (struct plain_flow){.flow = flow, .since = m->round};
    }
    if (served)
        f->since = m->round;
    uint64_t due = f->since + first->weight;
    due = due > m->round ? due : m->round;
    if (is_new || served || due != f->due) {
        f->due = due;
        f->stamp = ++m->stamp;
    }
}

static void plain_grant(struct model *m)
{
    while (m->running < m->limits.concurrency && m->waiting > 0) {
        struct plain_flow *f = NULL;
        for (unsigned i = 0; i < m->flows_n; i++) {
            struct plain_flow *o = &m->flows[i];
            if (!f || o->due < f->due || (o->due == f->due && o->stamp < f->stamp))
                f = o;
        }
        must(f);
        struct plain *p = plain_first(m, f->flow);
        bool over = m->now_ns > p->until_ns;
        p->state = over ? PLAIN_EXPIRED : PLAIN_GRANTED;
        m->waiting--;
        if (!over) {
            m->round = f->due;
            m->running++;
            p->since_ns = m->now_ns;
            m->to_wake[p->owner] = true;
        }
        plain_turn(m, p->flow, !over);
    }
}

static void plain_end(struct model *m, struct plain *p, bool held)
{
    enum plain_state state = p->state;
    p->state = PLAIN_NONE;
    if (state == PLAIN_WAITING) {
        m->waiting--;
        plain_turn(m, p->flow, false);
    } else if (state == PLAIN_GRANTED || state == PLAIN_HELD) {
        m->running--;
        if (held) {
            int64_t ns = m->now_ns - p->since_ns;
            m->samples += m->samples < MEAN_SHARE;
            m->mean_ns += ((ns < 1 ? 1 : ns) - m->mean_ns) / (int64_t)m->samples;
            m->mean_ns += m->mean_ns == 0;
        }
    }
}

/* So many start until one of `flow` that has `rank` of its own before it; the sum itself. */
static uint32_t plain_position(struct model *m, uint64_t flow, unsigned rank)
{
    uint32_t n = rank + 1;
    for (unsigned i = 0; i < m->flows_n; i++) {
        unsigned w = m->flows[i].flow == flow ? 0 : plain_waiting(m, m->flows[i].flow);
        n += w < rank + 1 ? w : rank + 1;
    }
    return n;
}

static unsigned plain_rank(struct model *m, const struct plain *p)
{
    unsigned rank = 0;
    for (unsigned i = 0; i < TICKETS; i++)
        rank += m->tickets[i].state == PLAIN_WAITING && m->tickets[i].flow == p->flow &&
                goes_before(&m->tickets[i], p);
    return rank;
}

/* Exact, or for those far behind an upper bound. */
static void position_check(struct model *m, uint32_t position, uint64_t flow, unsigned rank)
{
    uint32_t exact = plain_position(m, flow, rank);
    must(rank < DEPTHS ? position == exact : position >= exact && position <= m->waiting + 1);
}

static struct plain *plain_any(struct model *m, bool running)
{
    for (unsigned tries = 0; tries < 200; tries++) {
        struct plain *p = &m->tickets[pick(m, TICKETS)];
        if (p->state != PLAIN_NONE && (!running || p->state == PLAIN_HELD))
            return p;
    }
    for (unsigned i = 0; i < TICKETS; i++)
        if (m->tickets[i].state == PLAIN_HELD)
            return &m->tickets[i];
    return NULL;
}

static void wakes_check(struct model *m, struct gate_wakes *w)
{
    for (;;) {
        must(w->n <= countof(w->slots));
        for (uint32_t i = 0; i < w->n; i++) {
            unsigned o = 0;
            while (o < OWNERS && m->owners[o].slot != w->slots[i])
                o++;
            must(o < OWNERS && m->to_wake[o]);
            m->to_wake[o] = false;
        }
        if (w->n < countof(w->slots))
            break;
        gates_pump(m->g, m->route, &m->limits, m->now_ns, w);
    }
    for (unsigned o = 0; o < OWNERS; o++)
        must(!m->to_wake[o]);
}

static void step_enter(struct model *m)
{
    struct plain *p = NULL;
    for (unsigned i = 0; i < TICKETS && !p; i++)
        if (m->tickets[i].state == PLAIN_NONE)
            p = &m->tickets[i];
    if (!p)
        return;
    unsigned owner = pick(m, OWNERS), life = pick(m, 4);
    struct gate_ask ask = {
        .route = m->route,
        .limits = m->limits,
        .owner = m->owners[owner],
        .flow = pick(m, 3) ? pick(m, m->flows_most) : 0,
        .weight = 1 + pick(m, m->weight_most),
        .deadline_ns = life == 0 ? INT64_MAX : m->now_ns - 10 + (int64_t)pick(m, life * 1000),
        .cookie = ++m->cookie,
    };
    ask.limits.wait_ns = pick(m, 4000);
    *p = (struct plain){
        .owner = owner,
        .flow = ask.flow,
        .cookie = ask.cookie,
        .weight = ask.weight < GATE_WEIGHT_MAX ? ask.weight : GATE_WEIGHT_MAX,
        .deadline_ns = ask.deadline_ns,
        .since_ns = m->now_ns,
        .arrival = UINT64_MAX,
    };
    p->until_ns = m->now_ns + ask.limits.wait_ns;
    p->until_ns = p->until_ns < p->deadline_ns ? p->until_ns : p->deadline_ns;
    plain_grant(m);
    struct gate_answer a;
    enum gate_verdict v = gates_enter(m->g, &ask, m->now_ns, &a);
    if (m->running < m->limits.concurrency) {
        must(v == GATE_ENTERED && a.position == 0 && m->waiting == 0);
        p->state = PLAIN_HELD;
        m->running++;
    } else if (m->waiting >= ask.limits.queue_size) {
        must(v == GATE_FULL && a.position == m->waiting + 1);
    } else if (p->until_ns < m->now_ns) {
        must(v == GATE_LATE && a.position == m->waiting + 1);
    } else if (v == GATE_LATE) {
        must(a.position == m->waiting + 1 && m->mean_ns > 0);
        must(m->now_ns + a.expected_ns > p->until_ns);
        must(a.expected_ns >= (int64_t)plain_position(m, p->flow, plain_rank(m, p)) * m->mean_ns /
                                  m->limits.concurrency);
    } else {
        must(v == GATE_QUEUED);
        position_check(m, a.position, p->flow, plain_rank(m, p));
        must(a.expected_ns == (int64_t)a.position * m->mean_ns / m->limits.concurrency);
        must(m->now_ns + a.expected_ns <= p->until_ns);
        p->state = PLAIN_WAITING;
        m->waiting++;
    }
    if (p->state != PLAIN_NONE) {
        p->ticket = a.ticket;
        p->arrival = ++m->arrival;
    } else {
        must(a.ticket == GATE_NONE);
    }
    if (p->state == PLAIN_WAITING)
        plain_turn(m, p->flow, false);
}

static void step_leave(struct model *m, bool running)
{
    struct plain *p = plain_any(m, running);
    if (!p)
        return;
    struct gate_wakes w;
    bool held = pick(m, 4) != 0;
    plain_end(m, p, held);
    plain_grant(m);
    gates_leave(m->g, p->ticket, held, m->now_ns, &w);
    wakes_check(m, &w);
}

static void step_learn(struct model *m, unsigned most)
{
    unsigned owner = pick(m, OWNERS);
    uint64_t cookies[8];
    unsigned n = gates_take_granted(m->g, m->owners[owner], cookies, most), left = 0, matched = 0;
    must(n <= most);
    for (unsigned i = 0; i < TICKETS; i++) {
        struct plain *p = &m->tickets[i];
        bool is = p->state == PLAIN_GRANTED && p->owner == owner, told = false;
        for (unsigned j = 0; j < n && is; j++)
            told |= p->cookie == cookies[j];
        matched += told;
        if (told)
            p->state = PLAIN_HELD;
        left += is && !told;
    }
    must(matched == n && (left == 0 || n == most));
}

static void step_sweep(struct model *m)
{
    unsigned owner = pick(m, OWNERS);
    /* The gates go by their numbers. */
    for (uint32_t n = CHUNK; n < GATE_TICKETS_MAX; n++) {
        if (state_of(&m->g->tickets[n]) == TICKET_FREE)
            continue;
        for (unsigned i = 0; i < TICKETS; i++) {
            struct plain *p = &m->tickets[i];
            if (p->state != PLAIN_NONE && p->ticket == n) {
                if (p->owner == owner)
                    plain_end(m, p, false);
                else if (p->state == PLAIN_GRANTED)
                    m->to_wake[p->owner] = true;
            }
        }
    }
    plain_grant(m);
    struct gate_wakes w;
    gates_sweep(m->g, m->owners[owner], m->now_ns, &w);
    wakes_check(m, &w);
    m->owners[owner].generation++;
}

static void step_limits(struct model *m)
{
    m->limits.concurrency = 1 + pick(m, pick(m, 2) ? 4 : 40);
    m->limits.queue_size = pick(m, pick(m, 4) ? 300 : 10);
    plain_grant(m);
    struct gate_wakes w;
    gates_pump(m->g, m->route, &m->limits, m->now_ns, &w);
    wakes_check(m, &w);
}

static void *die_inside(void *arg)
{
    struct model *m = arg;
    struct route *r = &m->g->routes[m->route];
    must(!robust_lock(&r->lock));
    size_t from = offsetof(struct route, running);
    memset((char *)r + from, 0xA5, sizeof *r - from);
    for (uint32_t c = 1; c < CHUNKS; c++)
        if (is_of(m->g, c, r))
            memset(m->g->chunks[c].of, 0xA5, sizeof m->g->chunks[c].of);
    memset(m->g->buckets[m->route], 0xA5, sizeof m->g->buckets[0]);
    return NULL;
}

/* A thread dies with the lock. All that waits comes anew, in the order of the tickets' numbers. */
static void step_death(struct model *m)
{
    pthread_t thread;
    must(pthread_create(&thread, NULL, die_inside, m) == 0);
    pthread_join(thread, NULL);
    m->flows_n = 0;
    for (unsigned i = 0; i < TICKETS; i++) {
        if (m->tickets[i].state == PLAIN_WAITING)
            m->tickets[i].state = PLAIN_NONE, m->tickets[i].cookie |= LOST;
        else if (m->tickets[i].state == PLAIN_GRANTED)
            m->to_wake[m->tickets[i].owner] = true;
    }
    for (uint32_t n = CHUNK; n < GATE_TICKETS_MAX; n++) {
        if (state_of(&m->g->tickets[n]) != TICKET_WAITING)
            continue;
        for (unsigned i = 0; i < TICKETS; i++) {
            struct plain *p = &m->tickets[i];
            if (p->ticket == n && p->state == PLAIN_NONE && (p->cookie & LOST) != 0) {
                p->state = PLAIN_WAITING;
                p->cookie &= ~LOST;
                plain_turn(m, p->flow, false);
            }
        }
    }
    check_route(m->g, m->route); /* whoever comes next repairs */
    struct gate_wakes w;
    plain_grant(m);
    gates_pump(m->g, m->route, &m->limits, m->now_ns, &w);
    wakes_check(m, &w);
}

/* The other route takes and gives back many, so that chunks change hands. */
static void step_other(struct model *m)
{
    struct gate_ask ask = {
        .route = m->other,
        .limits = {.concurrency = UINT32_MAX},
        .owner = {GATE_SLOTS_MAX - 1, 1},
        .weight = 1,
        .deadline_ns = INT64_MAX,
    };
    for (unsigned i = pick(m, 200); i > 0; i--) {
        struct gate_answer a;
        struct gate_wakes w;
        if (pick(m, 2) && m->other_n < countof(m->other_tickets)) {
            must(gates_enter(m->g, &ask, m->now_ns, &a) == GATE_ENTERED);
            m->other_tickets[m->other_n++] = a.ticket;
        } else if (m->other_n > 0) {
            uint32_t at = pick(m, m->other_n);
            gates_leave(m->g, m->other_tickets[at], true, m->now_ns, &w);
            wakes_check(m, &w);
            m->other_tickets[at] = m->other_tickets[--m->other_n];
        }
    }
}

static void compare(struct model *m)
{
    struct gate_stats s;
    gates_stats(m->g, m->route, &s);
    must(s.running == m->running && s.waiting == m->waiting && s.flows == m->flows_n);
    must(s.mean_held_ns == m->mean_ns);
    m->allowed = m->running < m->allowed ? m->running : m->allowed;
    m->allowed = m->limits.concurrency > m->allowed ? m->limits.concurrency : m->allowed;
    must(s.running <= m->allowed);
    struct plain *p = plain_any(m, false);
    int64_t expected_ns;
    if (p && p->state == PLAIN_WAITING)
        position_check(m, gates_position(m->g, p->ticket, &expected_ns), p->flow, plain_rank(m, p));
    else if (p)
        must(gates_position(m->g, p->ticket, &expected_ns) == 0);
}

static uint64_t total_steps, total_rounds;

static void round_run(uint64_t random)
{
    static struct model model;
    struct model *m = &model;
    memset(m, 0, sizeof *m);
    m->random = random;
    m->g = gates_new();
    must(m->g);
    m->route = gates_route(m->g, "model");
    m->other = gates_route(m->g, "other");
    m->limits = (struct gate_limits){1 + pick(m, 20), pick(m, 300), 0, 0};
    for (unsigned i = 0; i < OWNERS; i++)
        m->owners[i] = (struct gate_owner){i * 171, 1 + pick(m, 5)};
    m->flows_most = 1 + pick(m, pick(m, 2) ? FLOWS : 4);
    m->weight_most = pick(m, 2) ? 1 : 1 + pick(m, 100);
    unsigned flood = 1 + pick(m, 6);
    for (unsigned steps = 200 + pick(m, 800); steps > 0; steps--, total_steps++) {
        m->now_ns += pick(m, 4) ? pick(m, 20) : pick(m, 300);
        unsigned what = pick(m, 100);
        if (what < 30 + 5 * flood)
            step_enter(m);
        else if (what < 70)
            step_leave(m, true);
        else if (what < 78)
            step_leave(m, false);
        else if (what < 94)
            step_learn(m, 1 + pick(m, 8));
        else if (what < 96)
            step_limits(m);
        else if (what < 97)
            step_sweep(m);
        else if (what < 98)
            step_death(m);
        else
            step_other(m);
        if (pick(m, 8) == 0) {
            check_route(m->g, m->route);
            check_route(m->g, m->other);
        }
        compare(m);
    }
    for (unsigned i = 0; i < TICKETS; i++) {
        struct gate_wakes w;
        if (m->tickets[i].state == PLAIN_NONE)
            continue;
        plain_end(m, &m->tickets[i], true);
        plain_grant(m);
        gates_leave(m->g, m->tickets[i].ticket, true, m->now_ns, &w);
        wakes_check(m, &w);
    }
    compare(m);
    must(m->running == 0 && m->waiting == 0 && m->g->routes[m->route].used == 0);
    gates_free(&m->g);
    total_rounds++;
}

int main(int argc, char **argv)
{
    int seconds = argc > 1 ? atoi(argv[1]) : 5;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1, n = 0;
    time_t end = time(NULL) + seconds;
    do
        round_run(mix(seed * 1000003 + n++));
    while (time(NULL) < end);
    printf("seed %llu: %llu rounds, %llu steps\n", (unsigned long long)seed,
           (unsigned long long)total_rounds, (unsigned long long)total_steps);
    return 0;
}
