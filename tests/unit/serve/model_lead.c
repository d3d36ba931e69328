/*
 * model_lead SECONDS SEED: rounds of a random server against lead, with everything compared.
 *
 * Connections, owned by the leader, have at most one job outstanding, and each answer must be the
 * one of its last request. Jobs return at once, compute, sleep without the application's lock or
 * with it; strangers take that lock too; the leader cancels at random, threads fail to start at
 * random, and lead is stopped at a random moment or after all was answered. Some jobs may use the
 * reserved lane, if there is one. Held at the end of each
 * round: pushed = answered + taken back + never started; nothing ran twice; all places and threads
 * are back.
 */
#include "fake_loop.h"

enum { CONNS = 200, STRANGERS = 2 };

enum kind { KIND_NOTHING, KIND_BUSY, KIND_SLEEP, KIND_HOG, KIND_N };

struct conn {
    struct fake_job job;
    uint32_t request; /* the n-th of this connection */
    enum kind kind;   /* of this request */
    unsigned us;      /* how long it takes */
    uint64_t answer;  /* written by the job */
    bool out;         /* a job is outstanding; the leader's */
};

struct model {
    struct fake fake;
    struct conn conns[CONNS];
    unsigned conns_n;
    uint64_t random;         /* the leader's */
    unsigned weight[KIND_N]; /* how often each kind comes */
    unsigned weight_sum;
    unsigned sleep_us_max, hog_us_max;
    unsigned cancel_1_in;             /* turns; 0 = never */
    unsigned next_1_in;               /* an answer pushes the next request at once; 0 = never */
    unsigned push_most;               /* new requests a turn */
    unsigned reserved_1_in;           /* requests that are reserved; 0 = none */
    atomic_bool feed;                 /* new requests are made */
    uint64_t pushed, answered, taken; /* the leader's */
    atomic_uint out;                  /* pushed - answered - taken */
    uint64_t strangers_random;
    atomic_bool strangers_go;
};

static uint64_t random_next(uint64_t *state)
{
    /* xorshift64* */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1D;
}

/* 0 .. n-1 */
static unsigned pick(uint64_t *state, unsigned n)
{
    return (unsigned)((random_next(state) >> 33) % n);
}

static uint64_t answer_of(unsigned conn, uint32_t request)
{
    return ((uint64_t)conn << 32 | request) * 0x9E3779B97F4A7C15;
}

static void burn_us(unsigned us)
{
    int64_t end = clock_mono_ns() + (int64_t)us * 1000;
    while (clock_mono_ns() < end)
        ;
}

static void body(struct fake_job *j)
{
    struct conn *c = container_of(j, struct conn, job);
    struct model *m = j->arg;
    must(c->out && c->answer == 0);
    switch (c->kind) {
    case KIND_NOTHING:
    case KIND_N:
        break;
    case KIND_BUSY:
        burn_us(c->us);
        break;
    case KIND_SLEEP:
        fake_unlock_app(&m->fake);
        fake_sleep_us(c->us);
        fake_lock_app(&m->fake);
        break;
    case KIND_HOG:
        fake_sleep_us(c->us);
        break;
    }
    c->answer = answer_of((unsigned)(c - m->conns), c->request);
}

static void push(struct model *m, struct conn *c)
{
    must(!c->out);
    unsigned n = pick(&m->random, m->weight_sum);
    c->kind = KIND_NOTHING;
    while (n >= m->weight[c->kind])
        n -= m->weight[c->kind++];
    c->us = c->kind == KIND_BUSY    ? 1 + pick(&m->random, 30)
            : c->kind == KIND_SLEEP ? 1 + pick(&m->random, m->sleep_us_max)
                                    : 1 + pick(&m->random, m->hog_us_max);
    c->request++;
    c->job.job.reserved = m->reserved_1_in && pick(&m->random, m->reserved_1_in) == 0;
    c->answer = 0;
    c->out = true;
    m->pushed++;
    atomic_fetch_add(&m->out, 1);
    lead_push(m->fake.lead, &c->job.job);
}

static void on_answer(struct fake *f, struct fake_job *j)
{
    struct model *m = f->arg;
    struct conn *c = container_of(j, struct conn, job);
    must(c->out && c->answer == answer_of((unsigned)(c - m->conns), c->request));
    c->out = false;
    m->answered++;
    atomic_fetch_sub(&m->out, 1);
    if (m->next_1_in && atomic_load(&m->feed) && pick(&m->random, m->next_1_in) == 0)
        push(m, c);
}

static void on_turn(struct fake *f)
{
    struct model *m = f->arg;
    if (m->cancel_1_in && pick(&m->random, m->cancel_1_in) == 0) {
        struct conn *c = &m->conns[pick(&m->random, m->conns_n)];
        bool was_out = c->out;
        if (lead_cancel(f->lead, &c->job.job)) {
            must(was_out && c->answer == 0);
            c->out = false;
            m->taken++;
            atomic_fetch_sub(&m->out, 1);
        }
    }
    if (!atomic_load(&m->feed))
        return;
    for (unsigned n = pick(&m->random, m->push_most + 1); n > 0; n--) {
        struct conn *c = &m->conns[pick(&m->random, m->conns_n)];
        if (!c->out)
            push(m, c);
    }
}

/* A thread of the application's own that computes: it holds the lock most of the time. */
static void *stranger(void *arg)
{
    struct model *m = arg;
    uint64_t random = m->strangers_random;
    while (atomic_load(&m->strangers_go)) {
        pthread_mutex_lock(&m->fake.app);
        fake_sleep_us(100 + pick(&random, 4000));
        pthread_mutex_unlock(&m->fake.app);
        if (pick(&random, 3))
            fake_sleep_us(pick(&random, 3000));
    }
    return NULL;
}

static uint64_t total_answered, total_taken, total_left, total_deposed, total_gil, total_burst,
    total_away, total_lane, total_rounds, total_stopped_busy;

static void check_idle(struct lead *l)
{
    lead_lock(l);
    must(!l->lane_taken);
    must(count_of(l->busy) == 0 && count_of(&l->starters) == 0 && l->launch == 0);
    must(list_empty(&l->ready) && count_of(l->ready_n) == 0 && count_of(&l->lead_n) == 0);
    must(state_of(atomic_load(&l->runner)) == STATE_VACANT);
    lead_unlock(l);
}

static bool places_back(struct model *m)
{
    struct lead_stats s = fake_stats(&m->fake);
    return s.busy == 0 && s.reserved == 0 && s.waiting == 0;
}

static void round_run(uint64_t *random)
{
    static struct model model;
    struct model *m = &model;
    memset(m, 0, sizeof *m);
    static const unsigned places[] = {1, 1, 2, 3, 4, 8, 16, 32, 64};
    static const unsigned ticks[] = {100, 200, 500, 1000, 1000, 5000};
    static const unsigned batches[] = {1, 2, 3, 16, 100};
    struct lead_config config = {0};
    config.places_max = places[pick(random, countof(places))];
    config.places_min = 1 + pick(random, config.places_max);
    config.tick_us = ticks[pick(random, countof(ticks))];
    config.idle_ms = 1 + pick(random, 50);
    config.batch = batches[pick(random, countof(batches))];
    config.stack_bytes = 262144;
    m->conns_n = 1 + pick(random, pick(random, 2) ? CONNS : 10);
    m->random = random_next(random) | 1;
    m->weight[KIND_NOTHING] = pick(random, 3) * pick(random, 100);
    m->weight[KIND_BUSY] = pick(random, 20);
    m->weight[KIND_SLEEP] = 1 + pick(random, 4) * pick(random, 20);
    m->weight[KIND_HOG] = pick(random, 3) == 0 ? pick(random, 10) : 0;
    for (unsigned i = 0; i < KIND_N; i++)
        m->weight_sum += m->weight[i];
    m->sleep_us_max = pick(random, 2) ? 20000 : 2000;
    m->hog_us_max = 5000;
    m->cancel_1_in = pick(random, 2) ? 1 + pick(random, 10) : 0;
    m->next_1_in = pick(random, 2) ? 1 + pick(random, 3) : 0;
    m->push_most = 1 + pick(random, m->conns_n);
    m->reserved_1_in = pick(random, 3) ? 1 + pick(random, 10) : 0;
    config.reserved_lane = pick(random, 3) != 0;
    fake_init(&m->fake, &config);
    m->fake.arg = m;
    m->fake.on_turn = on_turn;
    m->fake.on_answer = on_answer;
    m->fake.use_app_lock = pick(random, 4) != 0;
    for (unsigned i = 0; i < CONNS; i++)
        fake_job_init(&m->conns[i].job, body, m);
    bool faults = pick(random, 4) == 0;
    if (faults && pick(random, 2))
        atomic_store(&m->fake.start_fails, pick(random, 3));
    atomic_store(&m->feed, true);
    fake_start(&m->fake);

    pthread_t strangers[STRANGERS];
    unsigned strangers_n = m->fake.use_app_lock ? pick(random, STRANGERS + 1) : 0;
    m->strangers_random = random_next(random) | 1;
    atomic_store(&m->strangers_go, true);
    for (unsigned i = 0; i < strangers_n; i++)
        must(pthread_create(&strangers[i], NULL, stranger, m) == 0);

    int64_t end = clock_mono_ns() + (int64_t)pick(random, 300) * 1000000;
    while (clock_mono_ns() < end) {
        fake_wake(&m->fake);
        if (faults && pick(random, 20) == 0)
            atomic_store(pick(random, 2) ? &fake_create_fails : &m->fake.start_fails,
                         1 + pick(random, 3));
        if (pick(random, 30) == 0) /* a pause, so that the monitor falls asleep */
            fake_sleep_us(pick(random, 60000));
        else
            fake_sleep_us(pick(random, 2000));
    }
    if (pick(random, 2)) {
        /* Everything is answered. */
        atomic_store(&m->feed, false);
        fake_until(atomic_load(&m->out) == 0);
        fake_until(places_back(m));
        check_idle(m->fake.lead);
    }
    lead_stop(m->fake.lead);
    if (pick(random, 2))
        total_stopped_busy += lead_join(m->fake.lead, (int)pick(random, 5)) != 0;
    must(lead_join(m->fake.lead, 60000) == 0);
    atomic_store(&m->strangers_go, false);
    for (unsigned i = 0; i < strangers_n; i++)
        pthread_join(strangers[i], NULL);
    atomic_store(&fake_create_fails, 0);
    atomic_store(&m->feed, false);
    fake_read_mail(&m->fake);

    struct lead_stats s = fake_stats(&m->fake);
    unsigned left = 0;
    for (unsigned i = 0; i < m->conns_n; i++) {
        struct conn *c = &m->conns[i];
        if (c->out) {
            left++;
            must(c->answer == 0 && !list_empty(&c->job.job.node));
        }
        must(atomic_load(&c->job.started) == c->job.answered);
    }
    must(left == s.waiting && left == atomic_load(&m->out));
    must(m->pushed == m->answered + m->taken + left);
    must(s.inline_runs + s.away_runs == m->answered);
    must(s.busy == 0 && s.reserved == 0 && s.threads == 0);
    must(s.lane_runs == 0 || (config.reserved_lane && config.places_max > 1));
    total_rounds++;
    total_answered += m->answered;
    total_taken += m->taken;
    total_left += left;
    total_deposed += s.deposed;
    total_gil += s.deposed_gil;
    total_burst += s.burst;
    total_away += s.away_runs;
    total_lane += s.lane_runs;
    fake_fini(&m->fake);
}

int main(int argc, char **argv)
{
    int seconds = argc > 1 ? atoi(argv[1]) : 5;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    int64_t end = clock_mono_ns() + (int64_t)seconds * 1000000000;
    uint64_t random = (seed + 1) * 0x9E3779B97F4A7C15;
    do
        round_run(&random);
    while (clock_mono_ns() < end);
    printf("seed %llu: %llu rounds, %llu answered, %llu away, %llu taken back, %llu never started, "
           "%llu deposed, %llu in the lock, %llu by burst, %llu in the lane, %llu stopped busy, %u creates failed\n",
           (unsigned long long)seed, (unsigned long long)total_rounds,
           (unsigned long long)total_answered, (unsigned long long)total_away,
           (unsigned long long)total_taken, (unsigned long long)total_left,
           (unsigned long long)total_deposed, (unsigned long long)total_gil,
           (unsigned long long)total_burst, (unsigned long long)total_lane, (unsigned long long)total_stopped_busy,
           atomic_load(&fake_create_failed));
    return 0;
}
