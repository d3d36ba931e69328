/*
 * metrics: see the header.
 *
 * A family's lines stand together, so it is the outer loop, and slots are summed up inside: no
 * memory is taken but the page itself. Its header is written with its first line; a family without
 * a line is not shown. Lines are put together by hand, because there are thousands of them.
 */
#include "admin/metrics.h"

#include <assert.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin/status.h"
#include "admit/keybox.h"
#include "admit/refusal.h"
#include "base/clock.h"
#include "base/escape.h"
#include "conf/version.h"
#include "obs/metric.h"

static_assert(REFUSALS <= TELEMETRY_REFUSALS, "each refusal has a counter");

/* ---- which format ---- */

/* The next part of *s up to `mark`, trimmed; *s is what follows. */
static struct slice part(struct slice *s, char mark)
{
    const char *end = s->n ? memchr(s->p, mark, s->n) : NULL;
    size_t n = end ? (size_t)(end - s->p) : s->n;
    struct slice out = slice_trim(slice_of(s->p, n));
    size_t skip = end ? n + 1 : n;
    *s = slice_of(s->p + skip, s->n - skip);
    return out;
}

/* RFC 9110, section 12.4.2: 0 to 1 with at most three decimals, in thousandths; 0 if it is wrong.
 */
static int quality(struct slice s)
{
    int q = 0, unit = 100;
    if (!s.n || (s.p[0] != '0' && s.p[0] != '1') || s.n > 5 || (s.n > 1 && s.p[1] != '.'))
        return 0;
    for (size_t i = 2; i < s.n; i++, unit /= 10) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return 0;
        q += (s.p[i] - '0') * unit;
    }
    q += (s.p[0] - '0') * 1000;
    return q > 1000 ? 1000 : q;
}

/* What one range of an Accept field says of the two formats. */
struct wish {
    int open, text; /* thousandths; -1: nothing */
};

static void take_range(struct slice range, struct wish *w)
{
    struct slice type = part(&range, ';');
    struct slice version = {0};
    int q = 1000;
    while (range.n) {
        struct slice value = part(&range, ';');
        struct slice name = part(&value, '=');
        if (slice_ieq(name, SLICE("q")))
            q = quality(value);
        else if (slice_ieq(name, SLICE("version")))
            version = value;
    }
    if (slice_ieq(type, SLICE("application/openmetrics-text")) &&
        (!version.n || slice_eq(version, SLICE("1.0.0"))))
        w->open = q > w->open ? q : w->open;
    else if (slice_ieq(type, SLICE("text/plain")) &&
             (!version.n || slice_eq(version, SLICE("0.0.4"))))
        w->text = q > w->text ? q : w->text;
}

enum metrics_format metrics_format_of(struct slice accept)
{
    struct wish w = {-1, -1};
    while (accept.n)
        take_range(part(&accept, ','), &w);
    return w.open > 0 && w.open >= w.text ? METRICS_OPENMETRICS : METRICS_TEXT;
}

const char *metrics_content_type(enum metrics_format f)
{
    switch (f) {
    case METRICS_TEXT:
        break;
    case METRICS_OPENMETRICS:
        return "application/openmetrics-text; version=1.0.0; charset=utf-8";
    }
    return "text/plain; version=0.0.4; charset=utf-8";
}

/* ---- lines ---- */

struct page {
    struct buf *out;
    const struct admin_view *v;
    int64_t now_ns, wall_ns;
    enum metrics_format format;
    int family; /* enum metric_id whose header is written; -1: none yet */
    unsigned n_labels;
    int rc; /* the first failure; then nothing is written any more */
    unsigned n_used, n_serving;
    uint16_t used[SCOREBOARD_SLOTS_MAX];    /* slots that a process has or had: for totals */
    uint16_t serving[SCOREBOARD_SLOTS_MAX]; /* of them, whose worker serves now: for gauges */
};

static void put(struct page *p, const char *text, size_t n)
{
    if (!p->rc)
        p->rc = buf_add(p->out, text, n);
}

static void put_text(struct page *p, const char *text)
{
    put(p, text, strlen(text));
}

/* Backslash, quote (in label values) and line end are escaped; what is not UTF-8 becomes "?". */
static void put_escaped(struct page *p, const char *text, bool quote)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)text[i];
        size_t plain = 0;
        while (i + plain < n && !escape_special((unsigned char)text[i + plain]))
            plain++;
        if (plain) {
            put(p, text + i, plain);
            i += plain;
            continue;
        }
        size_t length = c < 0x80 ? 1 : escape_utf8_length((const unsigned char *)text + i, n - i);
        if (c == '\n')
            put(p, "\\n", 2);
        else if (c == '\\' || (c == '"' && quote))
            put(p, (char[]){'\\', (char)c}, 2);
        else if (length)
            put(p, text + i, length);
        else
            put(p, "?", 1);
        i += length ? length : 1;
    }
}

/* The name without what only 0.0.4 has in it. */
static size_t family_bytes(const struct page *p, const struct metric *m)
{
    size_t n = strlen(m->name);
    if (p->format == METRICS_TEXT)
        return n;
    switch (m->type) {
    case METRIC_COUNTER:
        return n - strlen("_total");
    case METRIC_INFO:
        return n - strlen("_info");
    case METRIC_GAUGE:
    case METRIC_HISTOGRAM:
        break;
    }
    return n;
}

static const char *type_word(const struct page *p, enum metric_type type)
{
    switch (type) {
    case METRIC_COUNTER:
        return "counter";
    case METRIC_HISTOGRAM:
        return "histogram";
    case METRIC_INFO:
        if (p->format == METRICS_OPENMETRICS)
            return "info";
        break;
    case METRIC_GAUGE:
        break;
    }
    return "gauge";
}

static void put_header(struct page *p, const struct metric *m)
{
    size_t n = family_bytes(p, m);
    put_text(p, "# HELP ");
    put(p, m->name, n);
    put_text(p, " ");
    put_escaped(p, m->help, p->format == METRICS_OPENMETRICS);
    put_text(p, "\n# TYPE ");
    put(p, m->name, n);
    put_text(p, " ");
    put_text(p, type_word(p, m->type));
    if (p->format == METRICS_OPENMETRICS && *m->unit) {
        put_text(p, "\n# UNIT ");
        put(p, m->name, n);
        put_text(p, " ");
        put_text(p, m->unit);
    }
    put_text(p, "\n");
}

/* A line begins: then its labels, then its value. */
static void series_of(struct page *p, enum metric_id id, const char *suffix)
{
    if (p->family != (int)id)
        put_header(p, &metrics[id]);
    p->family = (int)id;
    p->n_labels = 0;
    put_text(p, metrics[id].name);
    put_text(p, suffix);
}

static void series(struct page *p, enum metric_id id)
{
    series_of(p, id, "");
}

static void label_begin(struct page *p, const char *name)
{
    put(p, p->n_labels++ ? "," : "{", 1);
    put_text(p, name);
    put(p, "=\"", 2);
}

static void label(struct page *p, const char *name, const char *value)
{
    label_begin(p, name);
    put_escaped(p, value, true);
    put(p, "\"", 1);
}

static void put_u64(struct page *p, uint64_t value)
{
    char digits[20], *at = digits + sizeof digits;
    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    put(p, at, (size_t)(digits + sizeof digits - at));
}

static void label_number(struct page *p, const char *name, unsigned value)
{
    label_begin(p, name);
    put_u64(p, value);
    put(p, "\"", 1);
}

static void value_begin(struct page *p)
{
    put(p, "} ", p->n_labels ? 2 : 0);
    put(p, " ", p->n_labels ? 0 : 1);
}

static void value(struct page *p, uint64_t v)
{
    value_begin(p);
    put_u64(p, v);
    put(p, "\n", 1);
}

static void value_seconds(struct page *p, int64_t ns)
{
    char text[METRIC_SECONDS_BYTES];
    value_begin(p);
    put(p, text, metric_seconds(text, ns, false));
    put(p, "\n", 1);
}

static void single(struct page *p, enum metric_id id, uint64_t v)
{
    series(p, id);
    value(p, v);
}

/* ---- slots ---- */

/* Memory of a slot that nobody had is not touched. A worker that boots does not serve: it may not
 * have cleared yet what a dead one left behind. */
static void find_slots(struct page *p)
{
    const struct scoreboard *b = p->v->board;
    for (unsigned i = 0; i < b->n_slots && i < p->v->telemetry->n_slots; i++) {
        const struct scoreboard_slot *s = &b->slots[i];
        int state = atomic_load(&s->state);
        if (!atomic_load(&s->generation) && !atomic_load(&s->pid))
            continue;
        p->used[p->n_used++] = (uint16_t)i;
        if (state == WORKER_READY || state == WORKER_DRAINING)
            p->serving[p->n_serving++] = (uint16_t)i;
    }
}

static const struct telemetry_worker *worker_of(const struct page *p, unsigned slot)
{
    return telemetry_slot(p->v->telemetry, slot);
}

static uint64_t count_of(const void *base, size_t offset)
{
    const _Atomic uint64_t *c = (const void *)((const char *)base + offset);
    return atomic_load_explicit(c, memory_order_relaxed);
}

/* The sum over all slots of a counter of struct telemetry_worker; of struct counters. */
static uint64_t sum_at(const struct page *p, size_t offset)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < p->n_used; i++)
        sum += count_of(worker_of(p, p->used[i]), offset);
    return sum;
}

static uint64_t counter_at(const struct page *p, size_t offset)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < p->n_used; i++)
        sum += count_of(&p->v->board->slots[p->used[i]].counters, offset);
    return sum;
}

#define SUM(field) sum_at(p, offsetof(struct telemetry_worker, field))
#define COUNTER(field) counter_at(p, offsetof(struct counters, field))

/* ---- histograms ---- */

static void route_label(struct page *p, const char *route)
{
    if (route)
        label(p, "route", route);
}

static void histogram(struct page *p, enum metric_id id, const char *route,
                      const struct telemetry_counts *c)
{
    uint64_t below = 0;
    unsigned at = 0;
    for (const int64_t *le = metrics[id].le; *le; le++) {
        char text[METRIC_SECONDS_BYTES];
        for (; at < TELEMETRY_BOUNDS && telemetry_bounds[at] <= *le; at++)
            below += c->counts[at];
        series_of(p, id, "_bucket");
        route_label(p, route);
        label_begin(p, "le");
        put(p, text, metric_seconds(text, *le, true));
        put(p, "\"", 1);
        value(p, below);
    }
    series_of(p, id, "_bucket");
    route_label(p, route);
    label(p, "le", "+Inf");
    value(p, c->n);
    series_of(p, id, "_sum");
    route_label(p, route);
    value_seconds(p, (int64_t)c->sum_ns);
    series_of(p, id, "_count");
    route_label(p, route);
    value(p, c->n);
}

/* The sum over all slots of what stands at `offset` of struct telemetry_worker. */
static struct telemetry_counts hist_at(const struct page *p, size_t offset)
{
    struct telemetry_counts c = {0};
    for (unsigned i = 0; i < p->n_used; i++)
        telemetry_sum(&c, (const void *)((const char *)worker_of(p, p->used[i]) + offset));
    return c;
}

static unsigned n_routes(const struct page *p)
{
    uint32_t n = atomic_load_explicit(&p->v->telemetry->n_routes, memory_order_acquire);
    return n < TELEMETRY_ROUTES_MAX ? n : TELEMETRY_ROUTES_MAX;
}

static size_t route_offset(unsigned route, size_t offset)
{
    return offsetof(struct telemetry_worker, routes) + route * sizeof(struct telemetry_route) +
           offset;
}

static void route_histograms(struct page *p, enum metric_id id, size_t offset)
{
    for (unsigned r = 0; r < n_routes(p); r++) {
        struct telemetry_counts c = hist_at(p, route_offset(r, offset));
        if (c.n)
            histogram(p, id, p->v->telemetry->routes[r], &c);
    }
}

static void worker_histogram(struct page *p, enum metric_id id, size_t offset)
{
    struct telemetry_counts c = hist_at(p, offset);
    histogram(p, id, NULL, &c);
}

/* ---- requests ---- */

static const char *status_text(unsigned i)
{
    return telemetry_status_text(i);
}

static const char *refusal_text(unsigned i)
{
    return refusal_word((enum refusal_id)i);
}

/* The n counters of each route from `offset` of struct telemetry_route on; zeros are left out. */
static void route_counters(struct page *p, enum metric_id id, size_t offset, unsigned n,
                           const char *name, const char *(*word)(unsigned i))
{
    for (unsigned r = 0; r < n_routes(p); r++) {
        for (unsigned k = 0; k < n; k++) {
            uint64_t sum = sum_at(p, route_offset(r, offset + k * sizeof(uint64_t)));
            if (!sum)
                continue;
            series(p, id);
            label(p, "route", p->v->telemetry->routes[r]);
            label(p, name, word(k));
            value(p, sum);
        }
    }
}

static uint64_t in_flight(const struct page *p, unsigned state)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < p->n_serving; i++)
        sum +=
            atomic_load_explicit(&worker_of(p, p->serving[i])->states[state], memory_order_relaxed);
    return sum;
}

static void write_requests(struct page *p)
{
    route_counters(p, METRIC_ID_REQUESTS, offsetof(struct telemetry_route, statuses),
                   TELEMETRY_STATUSES, "status", status_text);
    route_histograms(p, METRIC_ID_TOTAL, offsetof(struct telemetry_route, total));
    route_histograms(p, METRIC_ID_QUEUE_TIME, offsetof(struct telemetry_route, queue));
    route_histograms(p, METRIC_ID_APPLICATION, offsetof(struct telemetry_route, app));
    route_histograms(p, METRIC_ID_WRITE, offsetof(struct telemetry_route, write));
    for (unsigned s = FLIGHT_NONE + 1; s < FLIGHT_STATES; s++) {
        series(p, METRIC_ID_IN_FLIGHT);
        label(p, "state", flight_state_word((enum flight_state)s));
        value(p, in_flight(p, s));
    }
    single(p, METRIC_ID_SLOW, SUM(slow));
    single(p, METRIC_ID_ABANDONED, COUNTER(abandoned));
    single(p, METRIC_ID_UNLISTED, SUM(unlisted));
    route_counters(p, METRIC_ID_REFUSALS, offsetof(struct telemetry_route, refused), REFUSALS,
                   "reason", refusal_text);
    route_counters(p, METRIC_ID_DRY_RUN, offsetof(struct telemetry_route, dry_run), REFUSALS,
                   "reason", refusal_text);
}

/* ---- places and queues ---- */

/* A route that has places, and how they are used. */
struct places {
    const struct policy_route *said;
    struct gate_stats now;
    bool seen; /* `now` is known */
};

/* `now`: it is about what is taken now, and left out where that is not known. */
static void gauges(struct page *p, enum metric_id id, const struct places *all, unsigned n,
                   bool now, uint64_t (*get)(const struct places *at))
{
    for (unsigned i = 0; i < n; i++) {
        if (now && !all[i].seen)
            continue;
        series(p, id);
        label(p, "route", all[i].said->name);
        value(p, get(&all[i]));
    }
}

static uint64_t places_limit(const struct places *at)
{
    return (uint64_t)at->said->concurrency;
}

static uint64_t places_taken(const struct places *at)
{
    return at->now.running;
}

static uint64_t queue_limit(const struct places *at)
{
    return (uint64_t)at->said->queue_size;
}

static uint64_t queue_depth(const struct places *at)
{
    return at->now.waiting;
}

static void write_places(struct page *p)
{
    const struct conf_policy *policy = &p->v->conf->policy;
    struct gates *g = p->v->parts ? p->v->parts->gates : NULL;
    struct places all[POLICY_ROUTES_MAX];
    unsigned n = 0;
    for (unsigned i = 0; g && i < policy->n_routes && n < countof(all); i++) {
        if (!policy->routes[i].concurrency)
            continue;
        all[n].said = &policy->routes[i];
        all[n].seen = gates_look(g, policy->routes[i].name, &all[n].now);
        n++;
    }
    gauges(p, METRIC_ID_TOKENS_LIMIT, all, n, false, places_limit);
    gauges(p, METRIC_ID_TOKENS_IN_USE, all, n, true, places_taken);
    gauges(p, METRIC_ID_QUEUE_LIMIT, all, n, false, queue_limit);
    gauges(p, METRIC_ID_QUEUE_DEPTH, all, n, true, queue_depth);
    for (unsigned i = 0; i < n; i++) {
        if (!all[i].seen)
            continue;
        series(p, METRIC_ID_QUEUE_HEAD);
        label(p, "route", all[i].said->name);
        /* It may have come after this page was begun. */
        int64_t head_ns = all[i].now.head_ns ? all[i].now.head_ns : p->now_ns;
        value_seconds(p, p->now_ns > head_ns ? p->now_ns - head_ns : 0);
    }
}

/* ---- threads ---- */

static void thread_state(struct page *p, unsigned slot, const char *state, uint32_t n)
{
    series(p, METRIC_ID_THREADS);
    label_number(p, "worker", slot);
    label(p, "state", state);
    value(p, n);
}

/* Three numbers that are read one after the other may be of different moments. */
static uint32_t minus(uint32_t a, uint32_t b)
{
    return a > b ? a - b : 0;
}

/* One gauge of each worker that serves; a negative one is left out. */
static void worker_gauges(struct page *p, enum metric_id id,
                          int64_t (*get)(const struct page *p, unsigned slot))
{
    for (unsigned i = 0; i < p->n_serving; i++) {
        int64_t v = get(p, p->serving[i]);
        if (v < 0)
            continue;
        series(p, id);
        label_number(p, "worker", p->serving[i]);
        if (strcmp(metrics[id].unit, "seconds") == 0)
            value_seconds(p, v);
        else
            value(p, (uint64_t)v);
    }
}

static int64_t threads_alive(const struct page *p, unsigned slot)
{
    return atomic_load(&worker_of(p, slot)->threads);
}

static int64_t waiting(const struct page *p, unsigned slot)
{
    return atomic_load(&p->v->board->slots[slot].waiting);
}

static void write_threads(struct page *p)
{
    for (unsigned i = 0; i < p->n_serving; i++) {
        unsigned slot = p->serving[i];
        const struct scoreboard_slot *s = &p->v->board->slots[slot];
        uint32_t busy = atomic_load(&s->busy), stuck = atomic_load(&s->stuck);
        thread_state(p, slot, "busy", minus(busy, stuck));
        thread_state(p, slot, "idle", minus(atomic_load(&s->places), busy));
        thread_state(p, slot, "stuck", stuck);
    }
    worker_gauges(p, METRIC_ID_THREADS_ALIVE, threads_alive);
    worker_gauges(p, METRIC_ID_WAITING, waiting);
    series(p, METRIC_ID_RUNS);
    label(p, "by", "leader");
    value(p, SUM(inline_runs));
    series(p, METRIC_ID_RUNS);
    label(p, "by", "thread");
    value(p, SUM(away_runs));
    single(p, METRIC_ID_DEPOSED, SUM(deposed));
    single(p, METRIC_ID_BURST, SUM(burst));
    worker_histogram(p, METRIC_ID_GIL_WAIT, offsetof(struct telemetry_worker, gil_wait));
    worker_histogram(p, METRIC_ID_LOOP_LAG, offsetof(struct telemetry_worker, loop_lag));
}

/* ---- connections ---- */

static void write_connections(struct page *p)
{
    uint64_t open = 0, active = 0;
    for (unsigned i = 0; i < p->n_serving; i++) {
        const struct telemetry_worker *w = worker_of(p, p->serving[i]);
        uint32_t n = atomic_load(&p->v->board->slots[p->serving[i]].open);
        /* At most one request of a connection is in work; one that is late has none any more. */
        uint32_t busy = minus(atomic_load(&w->in_flight), atomic_load(&w->states[FLIGHT_LATE]));
        open += n;
        active += busy < n ? busy : n;
    }
    single(p, METRIC_ID_ACCEPTED, COUNTER(connections));
    series(p, METRIC_ID_CONNECTIONS);
    label(p, "state", "active");
    value(p, active);
    series(p, METRIC_ID_CONNECTIONS);
    label(p, "state", "idle");
    value(p, open - active);
    for (unsigned r = 0; r < CLOSE_REASONS; r++) {
        series(p, METRIC_ID_CLOSED);
        label(p, "reason", close_reason_word((enum close_reason)r));
        value(p, counter_at(p, offsetof(struct counters, closed) + r * sizeof(uint64_t)));
    }
    single(p, METRIC_ID_RECEIVED, COUNTER(bytes_in));
    single(p, METRIC_ID_SENT, COUNTER(bytes_out));
}

/* ---- processes ---- */

/* A small file of /proc, NUL-terminated; false: it cannot be read. */
static bool read_proc(long pid, const char *name, char *out, size_t room)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, out, room - 1);
    close(fd);
    if (n <= 0)
        return false;
    out[n] = '\0';
    return true;
}

/* -1: unknown. */
static int64_t rss_of(long pid)
{
    char text[128], *second;
    if (pid <= 0 || !read_proc(pid, "statm", text, sizeof text) || !(second = strchr(text, ' ')))
        return -1;
    return strtoll(second, NULL, 10) * sysconf(_SC_PAGESIZE);
}

static void process_rss(struct page *p, const char *process, long pid)
{
    int64_t rss = rss_of(pid);
    if (rss < 0)
        return;
    series(p, METRIC_ID_PROCESS_RSS);
    label(p, "process", process);
    value(p, (uint64_t)rss);
}

static void write_workers(struct page *p)
{
    const struct scoreboard *b = p->v->board;
    uint64_t states[WORKER_DEAD + 1] = {0};
    for (unsigned i = 0; i < p->n_used; i++) {
        int state = atomic_load(&b->slots[p->used[i]].state);
        if (state > WORKER_NONE && state <= WORKER_DEAD)
            states[state]++;
    }
    for (unsigned s = WORKER_BOOTING; s <= WORKER_DEAD; s++) {
        series(p, METRIC_ID_WORKERS);
        label(p, "state", worker_state_word((enum worker_state)s));
        value(p, states[s]);
    }
    if (p->v->alone)
        return;
    single(p, METRIC_ID_STARTED, atomic_load(&b->started));
    single(p, METRIC_ID_CRASHED, atomic_load(&b->crashed));
    for (unsigned r = RECYCLE_NONE + 1; r < RECYCLE_REASONS; r++) {
        series(p, METRIC_ID_RECYCLED);
        label(p, "reason", recycle_word((enum recycle_reason)r));
        value(p, atomic_load(&b->recycled[r]));
    }
}

static int64_t born(const struct page *p, unsigned slot)
{
    int64_t born_ns = atomic_load(&p->v->board->slots[slot].born_ns);
    return born_ns ? p->wall_ns - (p->now_ns - born_ns) : p->v->telemetry->started_wall_ns;
}

static int64_t heartbeat_age(const struct page *p, unsigned slot)
{
    int64_t beat_ns = atomic_load(&p->v->board->slots[slot].beat_ns);
    int64_t age_ns = p->now_ns - beat_ns;
    return beat_ns ? (age_ns > 0 ? age_ns : 0) : -1;
}

static int64_t worker_rss(const struct page *p, unsigned slot)
{
    return atomic_load(&worker_of(p, slot)->rss_bytes);
}

static int64_t worker_buffered(const struct page *p, unsigned slot)
{
    return atomic_load(&worker_of(p, slot)->buffered_bytes);
}

static int64_t worker_descriptors(const struct page *p, unsigned slot)
{
    return atomic_load(&worker_of(p, slot)->descriptors);
}

/* -1: unknown, or no limit. */
static int64_t worker_descriptors_limit(const struct page *p, unsigned slot)
{
    static const char line[] = "Max open files";
    char text[4096], *at;
    long pid = atomic_load(&p->v->board->slots[slot].pid);
    if (pid <= 0 || !read_proc(pid, "limits", text, sizeof text) || !(at = strstr(text, line)))
        return -1;
    int64_t limit = strtoll(at + strlen(line), NULL, 10); /* "unlimited" is no number */
    return limit > 0 ? limit : -1;
}

static void write_each_worker(struct page *p)
{
    worker_gauges(p, METRIC_ID_WORKER_START, born);
    worker_gauges(p, METRIC_ID_HEARTBEAT, heartbeat_age);
    worker_gauges(p, METRIC_ID_WORKER_RSS, worker_rss);
    worker_gauges(p, METRIC_ID_BUFFERED, worker_buffered);
    worker_gauges(p, METRIC_ID_DESCRIPTORS, worker_descriptors);
    worker_gauges(p, METRIC_ID_DESCRIPTORS_LIMIT, worker_descriptors_limit);
    if (p->v->alone)
        return;
    process_rss(p, "supervisor", atomic_load(&p->v->board->supervisor));
    process_rss(p, "keeper", getpid());
}

/* ---- limits, keys, traces ---- */

static void write_rates(struct page *p)
{
    static const char *const kinds[RATES_KINDS] = {"users", "addresses"};
    static const enum metric_id ids[] = {METRIC_ID_RATE_KEYS, METRIC_ID_RATE_CELLS,
                                         METRIC_ID_RATE_EVICTED};
    struct rates_stats s;
    if (!p->v->parts || !p->v->parts->rates)
        return;
    rates_stats(p->v->parts->rates, p->now_ns, &s);
    const uint64_t *const of[] = {s.keys, s.cells, s.evicted};
    for (unsigned i = 0; i < countof(ids); i++) {
        for (unsigned k = 0; k < RATES_KINDS; k++) {
            series(p, ids[i]);
            label(p, "kind", kinds[k]);
            value(p, of[i][k]);
        }
    }
}

/* The state of a key set that has a URL; false: there is none, or nothing is known yet. */
static bool key_set(const struct page *p, unsigned i, struct keybox_state *out)
{
    const struct policy_identifier *said = &p->v->conf->policy.identifiers[i];
    return said->kind == IDENTIFY_JWT && strstr(said->jwks, "://") &&
           keybox_look(p->v->parts->keys, i, out);
}

/* Two identifiers may have the same URL: the first one tells. */
static bool told_before(const struct page *p, unsigned i)
{
    const struct policy_identifier *all = p->v->conf->policy.identifiers;
    for (unsigned k = 0; k < i; k++)
        if (all[k].kind == IDENTIFY_JWT && strcmp(all[k].jwks, all[i].jwks) == 0)
            return true;
    return false;
}

static void write_keys(struct page *p)
{
    const struct conf_policy *policy = &p->v->conf->policy;
    unsigned n = p->v->parts && p->v->parts->keys ? policy->n_identifiers : 0;
    struct keybox_state s;
    for (unsigned i = 0; i < n; i++) {
        if (!key_set(p, i, &s) || !s.good_s || told_before(p, i))
            continue;
        series(p, METRIC_ID_JWKS_AGE);
        label(p, "jwks", policy->identifiers[i].jwks);
        value_seconds(p, p->wall_ns - s.good_s * 1000000000);
    }
    for (unsigned i = 0; i < n; i++) {
        if (!key_set(p, i, &s) || told_before(p, i))
            continue;
        series(p, METRIC_ID_JWKS_FAILING);
        label(p, "jwks", policy->identifiers[i].jwks);
        value(p, s.failed_s > s.good_s);
    }
}

static void write_spans(struct page *p)
{
    const struct telemetry *t = p->v->telemetry;
    if (!t->spans_max)
        return;
    single(p, METRIC_ID_SPANS, SUM(spans));
    single(p, METRIC_ID_SPANS_SENT, atomic_load(&t->otlp_sent));
    single(p, METRIC_ID_SPANS_DROPPED, SUM(spans_dropped) + atomic_load(&t->otlp_dropped));
    single(p, METRIC_ID_SPANS_FAILED, atomic_load(&t->otlp_failed));
}

/* ---- the page ---- */

static void write_server(struct page *p)
{
    series(p, METRIC_ID_BUILD);
    label(p, "version", WEIR_VERSION);
    value(p, 1);
    series(p, METRIC_ID_START_TIME);
    value_seconds(p, p->v->telemetry->started_wall_ns);
    single(p, METRIC_ID_SERVER_READY, !status_unready(p->v));
    if (!p->v->alone)
        single(p, METRIC_ID_RELOADS, atomic_load(&p->v->board->reloads));
}

int metrics_write(struct buf *out, const struct admin_view *v, enum metrics_format f)
{
    struct page p = {.out = out,
                     .v = v,
                     .now_ns = clock_mono_ns(),
                     .wall_ns = clock_wall_ns(),
                     .format = f,
                     .family = -1};
    find_slots(&p);
    write_server(&p);
    write_requests(&p);
    write_places(&p);
    write_threads(&p);
    write_connections(&p);
    write_workers(&p);
    write_each_worker(&p);
    write_rates(&p);
    write_keys(&p);
    write_spans(&p);
    if (f == METRICS_OPENMETRICS)
        put_text(&p, "# EOF\n");
    return p.rc;
}
