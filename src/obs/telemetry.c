/* telemetry: see the header. */
#include "obs/telemetry.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/must.h"
#include "obs/counters.h"

/* Records of all slots together, about; each slot has some in any case. */
#define FLIGHTS_ALL 262144
#define FLIGHTS_MIN 1024
#define FLIGHTS_MAX 16384
/* Spans that wait for the exporter, of one worker: a second at 4,000 requests/s. */
#define SPANS_MAX 4096
#define MINUTE_NS (60 * INT64_C(1000000000))
/* A reader tries again so often where a record is being written. */
#define COPY_TRIES 3
/* In place of a thread's number: the owner was quicker to enter LATE than a thread to begin. */
#define THREAD_TOO_LATE (-1)

static const char *const WORDS[] = {
    "",
#define FLIGHT_STATE(id, word, help) word,
#include "obs/flight_states.def"
#undef FLIGHT_STATE
};
static const char *const HELPS[] = {
    "",
#define FLIGHT_STATE(id, word, help) help,
#include "obs/flight_states.def"
#undef FLIGHT_STATE
};

const char *flight_state_word(enum flight_state s)
{
    return s < FLIGHT_STATES ? WORDS[s] : "";
}

const char *flight_state_help(enum flight_state s)
{
    return s < FLIGHT_STATES ? HELPS[s] : "";
}

/* ---- histograms ---- */

const int64_t telemetry_bounds[TELEMETRY_BOUNDS] = {
#define DURATION(ns) (ns),
#include "obs/durations.def"
#undef DURATION
};

/* The first bound that is not below a power of two: where to begin. Filled in by telemetry_new,
 * before anything is counted; the same whoever fills it. */
static uint8_t begin_at[64];

static void fill_begins(void)
{
    for (unsigned power = 0, i = 0; power < countof(begin_at); power++) {
        while (i < TELEMETRY_BOUNDS && (uint64_t)telemetry_bounds[i] < (uint64_t)1 << power)
            i++;
        begin_at[power] = (uint8_t)i;
    }
}

/* The first bound that is not below; TELEMETRY_BOUNDS: none. Two or three steps. */
static inline unsigned bound_of(int64_t ns)
{
    unsigned i = begin_at[63 - __builtin_clzll((uint64_t)ns | 1)];
    while (i < TELEMETRY_BOUNDS && ns > telemetry_bounds[i])
        i++;
    return i;
}

static void add32(_Atomic uint32_t *c, int n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + (uint32_t)n,
                          memory_order_relaxed);
}

/* How many are in a state. Of two of them a thread of the application may be counting, too. */
static void count_state(struct telemetry_worker *w, enum flight_state s, int n)
{
    if (s == FLIGHT_READY || s == FLIGHT_APPLICATION)
        atomic_fetch_add_explicit(&w->states[s], (uint32_t)n, memory_order_relaxed);
    else
        add32(&w->states[s], n);
}

void telemetry_observe(struct telemetry_hist *h, int64_t ns)
{
    ns = ns < 0 ? 0 : ns;
    counter_add(&h->counts[bound_of(ns)], 1);
    counter_add(&h->sum_ns, (uint64_t)ns);
}

void telemetry_observe_shared(struct telemetry_hist *h, int64_t ns)
{
    ns = ns < 0 ? 0 : ns;
    atomic_fetch_add_explicit(&h->counts[bound_of(ns)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum_ns, (uint64_t)ns, memory_order_relaxed);
}

void telemetry_sum(struct telemetry_counts *to, const struct telemetry_hist *h)
{
    for (unsigned i = 0; i <= TELEMETRY_BOUNDS; i++) {
        uint64_t n = atomic_load_explicit(&h->counts[i], memory_order_relaxed);
        to->counts[i] += n;
        to->n += n;
    }
    to->sum_ns += atomic_load_explicit(&h->sum_ns, memory_order_relaxed);
}

void telemetry_minus(struct telemetry_counts *after, const struct telemetry_counts *before)
{
    for (unsigned i = 0; i <= TELEMETRY_BOUNDS; i++)
        after->counts[i] -= before->counts[i];
    after->sum_ns -= before->sum_ns;
    after->n -= before->n;
}

int64_t telemetry_quantile(const struct telemetry_counts *c, double q)
{
    if (!c->n)
        return 0;
    double rank = q * (double)c->n, below = 0;
    for (unsigned i = 0; i < TELEMETRY_BOUNDS; i++) {
        double here = (double)c->counts[i];
        if (here > 0 && below + here >= rank) {
            double low = i ? (double)telemetry_bounds[i - 1] : 0;
            double part = (rank - below) / here;
            return (int64_t)(low + ((double)telemetry_bounds[i] - low) * (part < 0 ? 0 : part));
        }
        below += here;
    }
    return telemetry_bounds[TELEMETRY_BOUNDS - 1];
}

/* ---- statuses ---- */

/* [0]: none was sent; [1..5]: the rest of each hundred. */
static const uint16_t STATUSES[TELEMETRY_STATUSES] = {
    0,   1,   2,   3,   4,   5,   100, 101, 103, 200, 201, 202, 203, 204, 205, 206,
    207, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407,
    408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425,
    426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 507, 508, 510, 511,
};

unsigned telemetry_status_index(int status)
{
    if (status == 200)
        return 9;
    if (status < 100 || status > 599)
        return 0;
    unsigned low = 6, n = TELEMETRY_STATUSES - 6;
    while (n) {
        unsigned half = n / 2;
        bool above = status > STATUSES[low + half];
        low = above ? low + half + 1 : low;
        n = above ? n - half - 1 : half;
    }
    return low < TELEMETRY_STATUSES && STATUSES[low] == status ? low : (unsigned)status / 100;
}

const char *telemetry_status_text(unsigned index)
{
    static char texts[TELEMETRY_STATUSES][4];
    static const char *const few[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    if (index < countof(few))
        return few[index];
    if (index >= TELEMETRY_STATUSES)
        return NULL;
    char *t = texts[index]; /* the same bytes, whoever writes them */
    for (unsigned i = 3, v = STATUSES[index]; i-- > 0; v /= 10)
        t[i] = (char)('0' + v % 10);
    return t;
}

/* ---- the mapping ---- */

static size_t align(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

static size_t worker_bytes(const struct telemetry *t)
{
    return align(sizeof(struct telemetry_worker)) +
           align(sizeof(struct flight) * ((size_t)t->flights_max + t->spans_max));
}

static size_t all_bytes(const struct telemetry *t)
{
    return align(sizeof *t) + t->n_slots * worker_bytes(t);
}

struct telemetry *telemetry_new(unsigned n_slots, bool spans)
{
    must(n_slots);
    fill_begins();
    struct telemetry head = {.n_slots = n_slots, .spans_max = spans ? SPANS_MAX : 0};
    head.flights_max = FLIGHTS_ALL / n_slots;
    head.flights_max = head.flights_max > FLIGHTS_MAX   ? FLIGHTS_MAX
                       : head.flights_max < FLIGHTS_MIN ? FLIGHTS_MIN
                                                        : head.flights_max;
    /* Taken page by page, where something is written. */
    void *p = mmap(NULL, all_bytes(&head), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    struct telemetry *t = p;
    if (robust_init(&t->exporter)) {
        munmap(p, all_bytes(&head));
        return NULL;
    }
    t->n_slots = head.n_slots;
    t->spans_max = head.spans_max;
    t->flights_max = head.flights_max;
    t->started_ns = clock_mono_ns();
    t->started_wall_ns = clock_wall_ns();
    (void)telemetry_route(t, "*");
    (void)telemetry_route(t, "/-/");
    return t;
}

void telemetry_free(struct telemetry **t)
{
    if (*t)
        munmap(*t, all_bytes(*t));
    *t = NULL;
}

struct telemetry_worker *telemetry_slot(const struct telemetry *t, unsigned slot)
{
    must(slot < t->n_slots);
    return (void *)((char *)(uintptr_t)t + align(sizeof *t) + slot * worker_bytes(t));
}

struct flight *telemetry_flights(const struct telemetry *t, unsigned slot)
{
    return (void *)((char *)telemetry_slot(t, slot) + align(sizeof(struct telemetry_worker)));
}

struct flight *telemetry_spans(const struct telemetry *t, unsigned slot)
{
    return telemetry_flights(t, slot) + t->flights_max;
}

unsigned telemetry_find_route(const struct telemetry *t, const char *name)
{
    uint32_t n = atomic_load_explicit(&t->n_routes, memory_order_acquire);
    for (unsigned i = 0; i < n; i++)
        if (strncmp(t->routes[i], name, TELEMETRY_ROUTE_BYTES - 1) == 0)
            return i;
    return TELEMETRY_ROUTE_OTHER;
}

unsigned telemetry_route(struct telemetry *t, const char *name)
{
    uint32_t n = atomic_load_explicit(&t->n_routes, memory_order_relaxed);
    unsigned at = telemetry_find_route(t, name);
    if (at || (n && strcmp(name, t->routes[0]) == 0) || n == TELEMETRY_ROUTES_MAX)
        return at;
    snprintf(t->routes[n], TELEMETRY_ROUTE_BYTES, "%s", name);
    atomic_store_explicit(&t->n_routes, n + 1, memory_order_release);
    return n;
}

/* ---- records ---- */

void flight_edit(struct flight *f)
{
    uint32_t seq = atomic_load_explicit(&f->seq, memory_order_relaxed);
    atomic_store_explicit(&f->seq, seq + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

void flight_edited(struct flight *f)
{
    uint32_t seq = atomic_load_explicit(&f->seq, memory_order_relaxed);
    atomic_store_explicit(&f->seq, seq + 1, memory_order_release);
}

struct flight *flight_begin(struct telemetry *t, unsigned slot, int64_t now_ns)
{
    struct telemetry_worker *w = telemetry_slot(t, slot);
    struct flight *all = telemetry_flights(t, slot), *f;
    uint32_t top = atomic_load_explicit(&w->top, memory_order_relaxed);
    if (w->free_first) {
        f = &all[w->free_first - 1];
        w->free_first = f->next;
    } else if (top < t->flights_max) {
        f = &all[top];
        atomic_store_explicit(&w->top, top + 1, memory_order_release);
    } else {
        counter_add(&w->unlisted, 1);
        return NULL;
    }
    flight_edit(f);
    atomic_store_explicit(&f->thread, 0, memory_order_relaxed);
    /* One by one: a memset of them all is a call, and costs more than the rest. */
    f->refusal = f->cut = 0;
    f->slow = f->sampled = false;
    f->route = f->status = 0;
    f->generation = f->next = 0;
    f->pid = 0;
    f->id = f->flow = f->bytes_in = f->bytes_out = 0;
    f->wall_ns = 0;
    memset(f->at_ns, 0, sizeof f->at_ns);
    memset(f->trace_id, 0, sizeof f->trace_id);
    memset(f->parent_id, 0, sizeof f->parent_id);
    memset(f->span_id, 0, sizeof f->span_id);
    f->method[0] = f->path[0] = f->user[0] = f->address[0] = f->request_id[0] = '\0';
    f->state = FLIGHT_READING;
    f->at_ns[FLIGHT_READING] = now_ns;
    f->slot = (uint16_t)slot;
    flight_edited(f);
    add32(&w->in_flight, 1);
    add32(&w->states[FLIGHT_READING], 1);
    return f;
}

/* Whoever runs it says so by `thread`, and leaves the rest to the owner. */
static enum flight_state state_of(const struct flight *f)
{
    bool runs =
        f->state == FLIGHT_READY && atomic_load_explicit(&f->thread, memory_order_acquire) > 0;
    return runs ? FLIGHT_APPLICATION : (enum flight_state)f->state;
}

void flight_run(struct telemetry_worker *w, struct flight *f, int32_t thread, int64_t now_ns)
{
    int32_t nobody = 0;
    __atomic_store_n(&f->at_ns[FLIGHT_APPLICATION], now_ns, __ATOMIC_RELAXED);
    if (WEIR_UNLIKELY(!atomic_compare_exchange_strong_explicit(
            &f->thread, &nobody, thread, memory_order_release, memory_order_relaxed))) {
        atomic_store_explicit(&f->thread, thread, memory_order_release);
        return; /* it is LATE already */
    }
    count_state(w, FLIGHT_READY, -1);
    count_state(w, FLIGHT_APPLICATION, 1);
}

void flight_enter(struct telemetry_worker *w, struct flight *f, enum flight_state s, int64_t now_ns)
{
    int32_t nobody = 0;
    /* A thread may be about to begin: one of the two takes it out of READY. */
    if (s == FLIGHT_LATE && f->state == FLIGHT_READY)
        (void)atomic_compare_exchange_strong_explicit(&f->thread, &nobody, THREAD_TOO_LATE,
                                                      memory_order_relaxed, memory_order_relaxed);
    count_state(w, state_of(f), -1);
    count_state(w, s, 1);
    flight_edit(f);
    f->state = (uint8_t)s;
    f->at_ns[s] = now_ns;
    if (s == FLIGHT_WRITING)
        atomic_store_explicit(&f->thread, 0, memory_order_relaxed);
    flight_edited(f);
}

/* Copy a record into a ring or the table of the slowest; both belong to the owner of the slot. */
static void keep_copy(struct flight *to, const struct flight *f)
{
    uint32_t seq = atomic_load_explicit(&to->seq, memory_order_relaxed);
    seq += seq & 1; /* whoever wrote it last may have died */
    atomic_store_explicit(&to->seq, seq + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    memcpy((char *)to + offsetof(struct flight, state),
           (const char *)f + offsetof(struct flight, state),
           sizeof *f - offsetof(struct flight, state));
    atomic_store_explicit(&to->thread, atomic_load_explicit(&f->thread, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&to->seq, seq + 2, memory_order_release);
}

static int64_t total_of(const struct flight *f)
{
    return f->at_ns[FLIGHT_NONE] - f->at_ns[FLIGHT_READING];
}

/* One of the slowest of its minute, perhaps. */
static WEIR_COLD void keep_slow(struct telemetry_worker *w, const struct flight *f, int64_t end_ns)
{
    int64_t minute = end_ns / MINUTE_NS, least_ns = INT64_MAX;
    struct telemetry_minute *m = &w->minutes[minute % TELEMETRY_MINUTES];
    if (atomic_load_explicit(&m->minute, memory_order_relaxed) != minute) {
        static const struct flight nothing;
        for (unsigned i = 0; i < TELEMETRY_SLOWEST; i++)
            keep_copy(&m->slowest[i], &nothing);
        atomic_store_explicit(&m->minute, minute, memory_order_release);
    }
    struct flight *least = NULL;
    for (unsigned i = 0; i < TELEMETRY_SLOWEST; i++) {
        int64_t ns = m->slowest[i].id ? total_of(&m->slowest[i]) : -1;
        if (!least || ns < least_ns) {
            least = &m->slowest[i];
            least_ns = ns;
        }
    }
    if (total_of(f) > least_ns)
        keep_copy(least, f);
    w->slow_floor_ns = least_ns; /* or more, now */
    w->slow_until_ns = (minute + 1) * MINUTE_NS;
}

static inline void offer_slow(struct telemetry_worker *w, const struct flight *f)
{
    int64_t total_ns = total_of(f), end_ns = f->wall_ns + total_ns;
    /* The clock may be set back, too. */
    if (total_ns <= w->slow_floor_ns && end_ns < w->slow_until_ns &&
        end_ns >= w->slow_until_ns - MINUTE_NS)
        return;
    keep_slow(w, f, end_ns);
}

static void keep_span(struct telemetry *t, struct telemetry_worker *w, const struct flight *f)
{
    uint64_t head = atomic_load_explicit(&w->span_head, memory_order_relaxed);
    if (!t->spans_max)
        return;
    if (head - atomic_load_explicit(&w->span_tail, memory_order_acquire) >= t->spans_max) {
        counter_add(&w->spans_dropped, 1);
        return;
    }
    keep_copy(&telemetry_spans(t, f->slot)[head % t->spans_max], f);
    atomic_store_explicit(&w->span_head, head + 1, memory_order_release);
    counter_add(&w->spans, 1);
}

static void keep(struct telemetry *t, struct telemetry_worker *w, const struct flight *f,
                 unsigned what)
{
    if (what & KEEP_FAILED) {
        uint64_t n = atomic_load_explicit(&w->failed_n, memory_order_relaxed);
        keep_copy(&w->failed[n % TELEMETRY_FAILED], f);
        counter_add(&w->failed_n, 1);
    }
    if (what & KEEP_REFUSED) {
        uint64_t n = atomic_load_explicit(&w->refused_n, memory_order_relaxed);
        keep_copy(&w->refused[n % TELEMETRY_REFUSED], f);
        counter_add(&w->refused_n, 1);
    }
    if (what & KEEP_SPAN)
        keep_span(t, w, f);
    if (!(what & KEEP_REFUSED))
        offer_slow(w, f);
}

/* From one of two times to the other; 0 where one of them was not reached. */
static int64_t between(int64_t from_ns, int64_t to_ns)
{
    return from_ns && to_ns > from_ns ? to_ns - from_ns : 0;
}

static void count_times(struct telemetry_route *r, const struct flight *f)
{
    const int64_t *at = f->at_ns;
    int64_t end = at[FLIGHT_NONE];
    int64_t ready = at[FLIGHT_QUOTA]    ? at[FLIGHT_QUOTA]
                    : at[FLIGHT_QUEUED] ? at[FLIGHT_QUEUED]
                                        : at[FLIGHT_READY];
    int64_t out = at[FLIGHT_WRITING] ? at[FLIGHT_WRITING] : end;
    /* Where its time is over, its thread may begin right now. */
    int64_t ran = __atomic_load_n(&at[FLIGHT_APPLICATION], __ATOMIC_RELAXED);
    telemetry_observe(&r->total, end - at[FLIGHT_READING]);
    if (ran) {
        telemetry_observe(&r->queue, between(ready, ran));
        telemetry_observe(&r->app, between(ran, out));
    } else if (ready) {
        telemetry_observe(&r->queue, between(ready, out));
    }
    if (at[FLIGHT_WRITING])
        telemetry_observe(&r->write, end - at[FLIGHT_WRITING]);
}

void flight_finish(struct telemetry *t, struct flight *f, unsigned keep_what, int64_t now_ns)
{
    struct telemetry_worker *w = telemetry_slot(t, f->slot);
    struct telemetry_route *r = &w->routes[f->route < TELEMETRY_ROUTES_MAX ? f->route : 0];
    uint8_t state = f->state;
    counter_add(&r->statuses[telemetry_status_index(f->status)], 1);
    if (f->refusal)
        counter_add(&r->refused[(f->refusal - 1u) % TELEMETRY_REFUSALS], 1);
    flight_edit(f);
    f->at_ns[FLIGHT_NONE] = now_ns;
    count_times(r, f);
    f->state = FLIGHT_NONE;
    keep(t, w, f, keep_what);
    f->state = state;
    flight_edited(f);
}

void flight_free(struct telemetry *t, struct flight *f)
{
    struct telemetry_worker *w = telemetry_slot(t, f->slot);
    add32(&w->in_flight, -1);
    count_state(w, state_of(f), -1);
    flight_edit(f);
    f->state = FLIGHT_NONE;
    f->next = w->free_first;
    flight_edited(f);
    w->free_first = (uint32_t)(f - telemetry_flights(t, f->slot)) + 1;
}

void telemetry_adopt(struct telemetry *t, unsigned slot)
{
    struct telemetry_worker *w = telemetry_slot(t, slot);
    struct flight *all = telemetry_flights(t, slot);
    uint32_t top = atomic_load_explicit(&w->top, memory_order_relaxed);
    int64_t now_ns = clock_mono_ns();
    w->free_first = 0;
    for (uint32_t i = 0; i < top; i++) {
        struct flight *f = &all[i];
        uint32_t seq = atomic_load_explicit(&f->seq, memory_order_relaxed);
        bool whole = !(seq & 1);
        if (!whole)
            atomic_store_explicit(&f->seq, seq + 1, memory_order_relaxed);
        if (whole && f->state != FLIGHT_NONE) {
            bool ran = state_of(f) == FLIGHT_APPLICATION;
            f->at_ns[FLIGHT_NONE] = now_ns;
            f->state = FLIGHT_NONE;
            f->status = 0;
            if (ran)
                keep(t, w, f, KEEP_FAILED);
        }
        f->state = FLIGHT_NONE;
    }
    atomic_store_explicit(&w->top, 0, memory_order_release);
    atomic_store_explicit(&w->in_flight, 0, memory_order_relaxed);
    for (unsigned i = 0; i < FLIGHT_STATES; i++)
        atomic_store_explicit(&w->states[i], 0, memory_order_relaxed);
}

/* ---- readers ---- */

/* The bytes may change meanwhile: then the copy is thrown away. A thread sanitizer cannot know
 * that. */
__attribute__((no_sanitize("thread"))) static void copy_bytes(struct flight *to,
                                                              const struct flight *from)
{
    static_assert(sizeof *to % sizeof(uint64_t) == 0, "copied by words");
    uint64_t *out = (void *)to;
    const volatile uint64_t *in = (const void *)from;
    for (size_t i = 0; i < sizeof *to / sizeof *out; i++)
        out[i] = in[i];
}

static bool copy(struct flight *to, const struct flight *from)
{
    for (unsigned i = 0; i < COPY_TRIES; i++) {
        uint32_t seq = atomic_load_explicit(&from->seq, memory_order_acquire);
        if (seq & 1)
            continue;
        copy_bytes(to, from);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&from->seq, memory_order_relaxed) != seq)
            continue;
        to->state = (uint8_t)state_of(to);
        if (atomic_load_explicit(&to->thread, memory_order_relaxed) < 0)
            atomic_store_explicit(&to->thread, 0, memory_order_relaxed);
        to->method[sizeof to->method - 1] = to->path[sizeof to->path - 1] = '\0';
        to->user[sizeof to->user - 1] = to->address[sizeof to->address - 1] = '\0';
        to->request_id[sizeof to->request_id - 1] = '\0';
        return true;
    }
    return false;
}

enum flight_state flight_state_now(const struct flight *f)
{
    unsigned s = __atomic_load_n(&f->state, __ATOMIC_RELAXED);
    if (s == FLIGHT_READY && atomic_load_explicit(&f->thread, memory_order_acquire) > 0)
        return FLIGHT_APPLICATION;
    return s < FLIGHT_STATES ? (enum flight_state)s : FLIGHT_NONE;
}

bool flight_copy(struct flight *to, const struct flight *from)
{
    return copy(to, from) && to->state != FLIGHT_NONE && to->state < FLIGHT_STATES;
}

bool flight_copy_kept(struct flight *to, const struct flight *from)
{
    return copy(to, from) && to->id;
}
