/* worker: see the header. */
#include "serve/worker.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/handover.h"
#include "serve/exchange.h"
#include "serve/server.h"

/* The loop gives a sign of life at least so often, and four times within worker-timeout. */
static const int64_t BEAT_MS_MAX = 5000;
static const int64_t BEAT_MS_MIN = 10;
/* The memory is looked at no more often than this. */
static const uint64_t RSS_MS = 2000;
/* How long to wait where the kernel cannot take a connection that is handed over, and does not tell when. */
static const uint64_t HAND_AGAIN_MS = 20;

/* A number from 0 to max, by chance. */
static uint64_t chance(uint64_t max)
{
    uint64_t r = 0;
    if (getrandom(&r, sizeof r, GRND_NONBLOCK) != sizeof r)
        r = (uint64_t)clock_mono_ns() * 0x9e3779b97f4a7c15u >> 20;
    return max == UINT64_MAX ? r : r % (max + 1);
}

int64_t worker_rss_bytes(void)
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
    int64_t rss = worker_rss_bytes();
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
    if (atomic_load_explicit(&s->worker.slot->held, memory_order_relaxed) && !s->stop_done && worker_can_hand(s))
        worker_hand_all(s); /* who comes back to them finds another worker */
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

/* ---- connections from worker to worker ---- */

bool worker_can_hand(const struct server *s)
{
    const struct worker *w = &s->worker;
    return w->slot && w->given.hand_send >= 0 && !atomic_load(&w->given.board->stopping);
}

void worker_hand_all(struct server *s)
{
    h1_hand_idle(&s->h1);
    exchange_hand_waiting(s);
}

static void on_hand_room(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct server *s = poll->data;
    uv_poll_stop(poll);
    worker_hand_all(s);
}

static void on_hand_timer(uv_timer_t *timer)
{
    worker_hand_all(timer->data);
}

/* The socket is full, or the kernel has no room for more descriptors on their way. */
static void hand_later(struct server *s, int err)
{
    struct worker *w = &s->worker;
    if (!w->hand_watched && uv_poll_init(&s->loop.uv, &w->hand_poll, w->given.hand_send) == 0) {
        w->hand_poll.data = s;
        w->hand_watched = true;
    }
    if (err == -EAGAIN && w->hand_watched)
        uv_poll_start(&w->hand_poll, UV_WRITABLE, on_hand_room);
    else
        uv_timer_start(&w->hand_timer, on_hand_timer, HAND_AGAIN_MS, 0);
}

int worker_hand(struct h1_conn *hc)
{
    return worker_hand_input(hc, (struct slice){0});
}

int worker_hand_input(struct h1_conn *hc, struct slice input)
{
    struct server *s = ((struct h1_server *)(void *)hc->conn.pool)->arg;
    if (!worker_can_hand(s)) { /* the whole server stops: nobody would take it over */
        server_stop(s, SERVER_DRAIN);
        return -EPIPE;
    }
    struct handover h;
    h1_describe(hc, &h);
    h.input = input;
    int rc = handover_send(s->worker.given.hand_send, &h, conn_fd(&hc->conn));
    if (rc == 0) {
        s->worker.handed++;
        return 0;
    }
    if (rc != -EAGAIN)
        log_flood(LOG_WARNING, 0, "cannot hand a connection over to another worker: %s; trying again",
                  strerror(-rc));
    hand_later(s, rc);
    return -EAGAIN;
}

int worker_receive(void *arg)
{
    static_assert(HANDOVER_BYTES_MAX <= LOOP_READ_BYTES, "a packet fits into the loop's buffer");
    struct server *s = arg;
    struct handover h;
    int fd;
    if (s->h1.pool.open >= s->connections_max) {
        /* As at the door: an idle connection makes room for one more. Another worker may have taken it. */
        struct pollfd waits = {.fd = s->worker.given.hand_recv, .events = POLLIN};
        if (poll(&waits, 1, 0) <= 0)
            return 0;
        if (!h1_evict_idle(&s->h1))
            return -EAGAIN;
    }
    int rc = handover_recv(s->worker.given.hand_recv, (unsigned char *)s->loop.read_buf, &h, &fd);
    if (rc == -EPROTO) {
        log_flood(LOG_ERROR, 0, "dropped a connection that was handed over to worker %u in a form that is not "
                                "known here", s->worker.given.slot);
        return 1;
    }
    if (rc <= 0)
        return rc;
    struct listener *l = listen_find(&s->listeners, h.url, fd);
    if (l)
        h1_adopt(&s->h1, l, fd, &h);
    else
        close(fd);
    return 1;
}

bool worker_take_handed(struct server *s)
{
    bool some = false;
    while (s->worker.slot && s->worker.given.hand_recv >= 0 && worker_receive(s) > 0)
        some = true;
    return some;
}

/* ---- life ---- */

void worker_init(struct server *s)
{
    struct worker *w = &s->worker;
    uv_timer_init(&s->loop.uv, &w->beat_timer);
    uv_timer_init(&s->loop.uv, &w->life_timer);
    uv_timer_init(&s->loop.uv, &w->hand_timer);
    w->beat_timer.data = w->life_timer.data = w->hand_timer.data = s;
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
    uv_close((uv_handle_t *)&s->worker.hand_timer, NULL);
    if (s->worker.hand_watched)
        uv_close((uv_handle_t *)&s->worker.hand_poll, NULL);
}
