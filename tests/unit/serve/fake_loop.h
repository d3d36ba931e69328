/*
 * fake_loop: a loop and an application without sockets and without Python, for the tests of lead.
 *
 * The loop is a mutex and a condition: other threads send it jobs to push and messages of jobs that
 * ended away. The application's lock is a plain mutex. The checks that hold in every test are here:
 * one leader at a time, no more jobs inside than places, one start and one end a job.
 */
#ifndef WEIR_TESTS_FAKE_LOOP_H
#define WEIR_TESTS_FAKE_LOOP_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/must.h"

/* lead.c itself, with a pthread_create that can fail. */
static int fake_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*entry)(void *),
                               void *arg);
#define pthread_create fake_pthread_create
#include "serve/lead.c"
#undef pthread_create

static atomic_uint fake_create_fails;     /* so many of the next calls fail */
static atomic_uint fake_create_failed;    /* how many did */
static atomic_int fake_create_fails_role; /* threads made for this role cannot be made .. */
static atomic_int fake_start_fails_role;  /* .. or cannot start; ROLE_NONE = all can */
static _Thread_local enum role fake_role; /* what this thread was made for */

struct fake_entry {
    void *(*entry)(void *);
    void *arg;
    enum role role;
};

static void *fake_thread(void *arg)
{
    struct fake_entry e = *(struct fake_entry *)arg;
    free(arg);
    fake_role = e.role;
    return e.entry(e.arg);
}

static int fake_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*entry)(void *),
                               void *arg)
{
    struct fake_entry e = {entry, arg, ROLE_NONE};
    if (entry == thread_main)
        e.role = ((struct thread *)arg)->role;
    bool fails = e.role != ROLE_NONE && atomic_load(&fake_create_fails_role) == (int)e.role;
    for (unsigned n = atomic_load(&fake_create_fails); n > 0 && !fails;)
        fails = atomic_compare_exchange_weak(&fake_create_fails, &n, n - 1);
    if (fails) {
        atomic_fetch_add(&fake_create_failed, 1);
        return EAGAIN;
    }
    struct fake_entry *copy = malloc(sizeof *copy);
    must(copy != NULL);
    *copy = e;
    int rc = pthread_create(id, attr, fake_thread, copy);
    if (rc)
        free(copy);
    return rc;
}

struct fake;

struct fake_job {
    struct lead_job job;
    struct list post;     /* on fake.inbox, then on fake.mail */
    struct fake *fake;    /* the loop it was sent to */
    atomic_uint started;  /* calls of ops->run */
    atomic_uint ended;    /* calls of done_leading and done_away */
    unsigned answered;    /* by the leader: done_leading, or the mail of done_away read */
    atomic_bool finished; /* answered, for the test's thread */
    int cancelled;        /* by the leader: 1 = was taken back, -1 = was not, 0 = not tried */
    unsigned order;       /* the n-th that started */
    void (*body)(struct fake_job *j); /* what it does inside the application */
    void *arg;                        /* of body */
};

struct fake {
    struct lead *lead;
    struct lead_config config;
    pthread_mutex_t mutex;   /* inbox, mail, woken */
    pthread_cond_t event;    /* one of them changed */
    struct list inbox;       /* jobs that the leader is to push */
    struct list mail;        /* jobs that ended away */
    bool woken;              /* ops->wake was called */
    pthread_mutex_t app;     /* the application's lock */
    bool use_app_lock;       /* else enter and leave do nothing */
    atomic_int leaders;      /* threads in turn or done_leading: 0 or 1 */
    atomic_uint inside;      /* jobs in ops->run */
    atomic_uint common;      /* those of them that are not reserved */
    atomic_uint inside_most; /* the most at once */
    atomic_uint order;       /* jobs started */
    atomic_uint turns;       /* calls of turn */
    atomic_uint threads;     /* thread_start minus thread_stop */
    atomic_uint starts;      /* calls of thread_start */
    atomic_uint start_fails; /* so many of the next calls of thread_start fail */
    /* Leader, each turn; may be NULL. */
    void (*on_turn)(struct fake *f);
    /* Leader, for each answer; may be NULL. */
    void (*on_answer)(struct fake *f, struct fake_job *j);
    void *arg; /* of the test */
};

static inline struct fake_job *fake_job_of(struct lead_job *job)
{
    return container_of(job, struct fake_job, job);
}

static inline void fake_job_init(struct fake_job *j, void (*body)(struct fake_job *), void *arg)
{
    memset(j, 0, sizeof *j);
    list_init(&j->job.node);
    list_init(&j->post);
    j->body = body;
    j->arg = arg;
}

static inline void fake_leads(struct fake *f)
{
    must(atomic_fetch_add(&f->leaders, 1) == 0);
}

static inline void fake_led(struct fake *f)
{
    must(atomic_fetch_sub(&f->leaders, 1) == 1);
}

static inline void fake_answer(struct fake *f, struct fake_job *j)
{
    must(j->cancelled != 1);
    must(atomic_load(&j->started) == atomic_load(&j->ended));
    must(++j->answered == atomic_load(&j->started));
    if (f->on_answer)
        f->on_answer(f, j);
    atomic_store(&j->finished, true);
}

static inline void fake_turn(void *ctx, bool may_block)
{
    struct fake *f = ctx;
    fake_leads(f);
    atomic_fetch_add(&f->turns, 1);
    struct list in, mail;
    list_init(&in);
    list_init(&mail);
    pthread_mutex_lock(&f->mutex);
    while (may_block && !f->woken && list_empty(&f->inbox) && list_empty(&f->mail))
        pthread_cond_wait(&f->event, &f->mutex);
    f->woken = false;
    for (struct list *i; (i = f->inbox.next) != &f->inbox;)
        list_del(i), list_add(&in, i);
    for (struct list *i; (i = f->mail.next) != &f->mail;)
        list_del(i), list_add(&mail, i);
    pthread_mutex_unlock(&f->mutex);
    for (struct list *i; (i = mail.next) != &mail;) {
        list_del(i);
        fake_answer(f, container_of(i, struct fake_job, post));
    }
    for (struct list *i; (i = in.next) != &in;) {
        list_del(i);
        lead_push(f->lead, &container_of(i, struct fake_job, post)->job);
    }
    if (f->on_turn)
        f->on_turn(f);
    fake_led(f);
}

static inline void fake_wake(void *ctx)
{
    struct fake *f = ctx;
    pthread_mutex_lock(&f->mutex);
    f->woken = true;
    pthread_cond_signal(&f->event);
    pthread_mutex_unlock(&f->mutex);
}

static inline int fake_thread_start(void *ctx, void **local)
{
    struct fake *f = ctx;
    atomic_fetch_add(&f->starts, 1);
    if (fake_role != ROLE_NONE && atomic_load(&fake_start_fails_role) == (int)fake_role)
        return -ENOMEM;
    for (unsigned n = atomic_load(&f->start_fails); n > 0;)
        if (atomic_compare_exchange_weak(&f->start_fails, &n, n - 1))
            return -ENOMEM;
    atomic_fetch_add(&f->threads, 1);
    *local = f;
    return 0;
}

static inline void fake_thread_stop(void *ctx, void *local)
{
    struct fake *f = ctx;
    must(local == f);
    atomic_fetch_sub(&f->threads, 1);
}

static inline void fake_enter(void *ctx, void *local)
{
    struct fake *f = ctx;
    must(local == f);
    if (f->use_app_lock)
        pthread_mutex_lock(&f->app);
}

static inline void fake_leave(void *ctx, void *local)
{
    struct fake *f = ctx;
    must(local == f);
    if (f->use_app_lock)
        pthread_mutex_unlock(&f->app);
}

static inline void fake_run(void *ctx, void *local, struct lead_job *job)
{
    struct fake *f = ctx;
    struct fake_job *j = fake_job_of(job);
    must(local == f);
    must(j->cancelled != 1);
    unsigned inside = atomic_fetch_add(&f->inside, 1) + 1;
    must(inside <= f->config.places_max + (f->config.reserved_lane && f->config.places_max > 1));
    if (!job->reserved)
        must(atomic_fetch_add(&f->common, 1) < f->config.places_max);
    for (unsigned most = atomic_load(&f->inside_most);
         most < inside && !atomic_compare_exchange_weak(&f->inside_most, &most, inside);)
        ;
    must(atomic_fetch_add(&j->started, 1) == atomic_load(&j->ended));
    j->order = atomic_fetch_add(&f->order, 1) + 1;
    j->fake = f;
    if (j->body)
        j->body(j);
    if (!job->reserved)
        atomic_fetch_sub(&f->common, 1);
    atomic_fetch_sub(&f->inside, 1);
}

static inline void fake_done_leading(void *ctx, struct lead_job *job)
{
    struct fake *f = ctx;
    fake_leads(f);
    atomic_fetch_add(&fake_job_of(job)->ended, 1);
    fake_answer(f, fake_job_of(job));
    fake_led(f);
}

static inline void fake_done_away(void *ctx, struct lead_job *job)
{
    struct fake *f = ctx;
    struct fake_job *j = fake_job_of(job);
    atomic_fetch_add(&j->ended, 1);
    pthread_mutex_lock(&f->mutex);
    list_add(&f->mail, &j->post);
    pthread_cond_signal(&f->event);
    pthread_mutex_unlock(&f->mutex);
}

/* Any thread: have the leader push it. */
static inline void fake_send(struct fake *f, struct fake_job *j)
{
    j->fake = f;
    pthread_mutex_lock(&f->mutex);
    list_add(&f->inbox, &j->post);
    pthread_cond_signal(&f->event);
    pthread_mutex_unlock(&f->mutex);
}

/* The same for many, which then are pushed in one turn. */
static inline void fake_send_all(struct fake *f, struct fake_job *j, size_t n)
{
    pthread_mutex_lock(&f->mutex);
    for (size_t i = 0; i < n; i++) {
        j[i].fake = f;
        list_add(&f->inbox, &j[i].post);
    }
    pthread_cond_signal(&f->event);
    pthread_mutex_unlock(&f->mutex);
}

static inline void fake_init(struct fake *f, const struct lead_config *config)
{
    static const struct lead_ops ops = {
        .turn = fake_turn,
        .wake = fake_wake,
        .thread_start = fake_thread_start,
        .thread_stop = fake_thread_stop,
        .enter = fake_enter,
        .leave = fake_leave,
        .run = fake_run,
        .done_leading = fake_done_leading,
        .done_away = fake_done_away,
    };
    memset(f, 0, sizeof *f);
    f->config = *config;
    pthread_mutex_init(&f->mutex, NULL);
    pthread_mutex_init(&f->app, NULL);
    pthread_cond_init(&f->event, NULL);
    list_init(&f->inbox);
    list_init(&f->mail);
    struct err e = {0};
    if (lead_new(&f->lead, config, &ops, f, &e) != 0)
        must(f->lead != NULL && e.text[0] == 0);
}

static inline void fake_start(struct fake *f)
{
    struct err e = {0};
    if (lead_start(f->lead, &e) != 0)
        must(e.text[0] == 0);
}

/* What ended away after the last turn. */
static inline void fake_read_mail(struct fake *f)
{
    for (struct list *i; (i = f->mail.next) != &f->mail;) {
        list_del(i);
        fake_answer(f, container_of(i, struct fake_job, post));
    }
}

static inline void fake_fini(struct fake *f)
{
    lead_stop(f->lead);
    must(lead_join(f->lead, 60000) == 0);
    must(atomic_load(&f->threads) == 0 && atomic_load(&f->inside) == 0);
    fake_read_mail(f);
    lead_free(&f->lead);
    must(f->lead == NULL);
    pthread_cond_destroy(&f->event);
    pthread_mutex_destroy(&f->app);
    pthread_mutex_destroy(&f->mutex);
}

static inline struct lead_stats fake_stats(struct fake *f)
{
    struct lead_stats s;
    lead_stats(f->lead, &s);
    return s;
}

static inline void fake_sleep_us(unsigned us)
{
    struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000};
    nanosleep(&ts, NULL);
}

/* Wait for a condition; a minute without it is a failure. */
#define fake_until(cond)                                                                           \
    do {                                                                                           \
        int64_t until_end = clock_mono_ns() + 60 * (int64_t)1000000000;                            \
        while (!(cond)) {                                                                          \
            must(clock_mono_ns() < until_end);                                                     \
            fake_sleep_us(200);                                                                    \
        }                                                                                          \
    } while (0)

/* A gate: jobs wait in front of it until the test opens it. */
struct fake_gate {
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    bool open;
};

static inline void fake_gate_init(struct fake_gate *g)
{
    pthread_mutex_init(&g->mutex, NULL);
    pthread_cond_init(&g->opened, NULL);
    g->open = false;
}

static inline void fake_gate_open(struct fake_gate *g)
{
    pthread_mutex_lock(&g->mutex);
    g->open = true;
    pthread_cond_broadcast(&g->opened);
    pthread_mutex_unlock(&g->mutex);
}

static inline void fake_gate_fini(struct fake_gate *g)
{
    pthread_cond_destroy(&g->opened);
    pthread_mutex_destroy(&g->mutex);
}

/* A blocking call: give the application's lock away, wait, take it again. */
static inline void fake_unlock_app(struct fake *f)
{
    if (f->use_app_lock)
        pthread_mutex_unlock(&f->app);
}

static inline void fake_lock_app(struct fake *f)
{
    if (f->use_app_lock)
        pthread_mutex_lock(&f->app);
}

/* body: wait for the gate `arg`, without the application's lock. */
static inline void fake_body_gate(struct fake_job *j)
{
    struct fake_gate *g = j->arg;
    fake_unlock_app(j->fake);
    pthread_mutex_lock(&g->mutex);
    while (!g->open)
        pthread_cond_wait(&g->opened, &g->mutex);
    pthread_mutex_unlock(&g->mutex);
    fake_lock_app(j->fake);
}

#endif
