/* worker: see the header. */
#include "serve/worker.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "serve/server.h"

/* The loop gives a sign of life at least so often, and four times within worker-timeout. */
static const int64_t BEAT_MS_MAX = 5000;
static const int64_t BEAT_MS_MIN = 10;
/* The memory is looked at no more often than this. */
static const uint64_t RSS_MS = 2000;

/* A number from 0 to max, by chance. */
static uint64_t chance(uint64_t max)
{
    uint64_t r = 0;
    if (getrandom(&r, sizeof r, GRND_NONBLOCK) != sizeof r)
        r = (uint64_t)clock_mono_ns() * 0x9e3779b97f4a7c15u >> 20;
    return max == UINT64_MAX ? r : r % (max + 1);
}

/* Resident memory in bytes; 0: unknown. */
static int64_t rss_bytes(void)
{
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    long long size, resident;
    text[n > 0 ? n : 0] = '\0';
    if (sscanf(text, "%lld %lld", &size, &resident) != 2)
        return 0;
    return resident * (int64_t)sysconf(_SC_PAGESIZE);
}

void worker_recycle(struct server *s, enum recycle_reason why)
{
    struct worker *w = &s->worker;
    int32_t none = RECYCLE_NONE;
    if (!w->slot || !atomic_compare_exchange_strong(&w->slot->recycle, &none, (int32_t)why))
        return;
    /* Full or closed: the supervisor looks at the board anyway. */
    if (w->given.tell_fd >= 0) {
        ssize_t n = send(w->given.tell_fd, "r", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)n;
    }
}

static void look_at_memory(struct server *s)
{
    struct worker *w = &s->worker;
    uint64_t now = loop_now_ms(&s->loop);
    if (s->next_id == w->looked_request || now - w->looked_ms < RSS_MS)
        return;
    w->looked_request = s->next_id;
    w->looked_ms = now;
    int64_t rss = rss_bytes();
    if (rss <= s->conf->max_rss)
        return;
    if (atomic_load_explicit(&w->slot->recycle, memory_order_relaxed) == RECYCLE_NONE)
        log_line(LOG_INFO, 0, "%lld MiB of memory are resident, above max-rss of %lld MiB: asking to be replaced",
                 (long long)(rss >> 20), (long long)(s->conf->max_rss >> 20));
    worker_recycle(s, RECYCLE_MAX_RSS);
}

static void on_beat(uv_timer_t *timer)
{
    struct server *s = timer->data;
    atomic_store_explicit(&s->worker.slot->beat_ns, clock_mono_ns(), memory_order_relaxed);
    if (s->conf->max_rss && !s->stop_done)
        look_at_memory(s);
}

static void on_lifetime(uv_timer_t *timer)
{
    worker_recycle(timer->data, RECYCLE_MAX_LIFETIME);
}

/* How the life of this worker ends; drawn once, so that workers born together do not go together. */
static void draw_end(struct server *s)
{
    const struct conf *c = s->conf;
    struct worker *w = &s->worker;
    if (c->max_requests)
        w->last_request = (uint64_t)c->max_requests + chance((uint64_t)c->max_requests_jitter);
    if (c->max_lifetime)
        uv_timer_start(&w->life_timer, on_lifetime,
                       (uint64_t)c->max_lifetime + chance((uint64_t)c->max_lifetime / 10), 0);
}

void worker_init(struct server *s)
{
    struct worker *w = &s->worker;
    uv_timer_init(&s->loop.uv, &w->beat_timer);
    uv_timer_init(&s->loop.uv, &w->life_timer);
    w->beat_timer.data = w->life_timer.data = s;
}

void worker_start(struct server *s)
{
    const struct conf *c = s->conf;
    struct worker *w = &s->worker;
    if (!w->slot) {
        if (c->max_requests || c->max_rss || c->max_lifetime)
            log_line(LOG_WARNING, 0, "max-requests, max-rss and max-lifetime do nothing here: this process "
                                     "has no supervisor that could replace it (workers 0)");
        return;
    }
    draw_end(s);
    int64_t beat_ms = BEAT_MS_MAX;
    if (c->worker_timeout && c->worker_timeout / 4 < beat_ms)
        beat_ms = c->worker_timeout / 4 > BEAT_MS_MIN ? c->worker_timeout / 4 : BEAT_MS_MIN;
    uv_timer_start(&w->beat_timer, on_beat, (uint64_t)beat_ms, (uint64_t)beat_ms);
    atomic_store(&w->slot->beat_ns, clock_mono_ns());
    atomic_store(&w->slot->open, 0);
    atomic_store(&w->slot->places, (uint32_t)c->threads.max);
    atomic_store(&w->slot->state, WORKER_READY);
}

void worker_drains(struct server *s)
{
    struct worker *w = &s->worker;
    uv_timer_stop(&w->life_timer);
    w->last_request = 0;
    if (w->slot)
        atomic_store(&w->slot->state, WORKER_DRAINING);
}

void worker_close(struct server *s)
{
    uv_close((uv_handle_t *)&s->worker.beat_timer, NULL);
    uv_close((uv_handle_t *)&s->worker.life_timer, NULL);
}
