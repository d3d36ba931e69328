/* shared: see the header. */
#include "serve/shared.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

struct shared *shared_new(unsigned n_slots)
{
    struct shared *s = calloc(1, sizeof *s);
    if (s)
        s->n_slots = n_slots;
    return s;
}

static void close_wakes(struct shared *s)
{
    for (unsigned i = 0; s->wakes && i < s->n_slots; i++)
        if (s->wakes[i] >= 0)
            close(s->wakes[i]);
    free(s->wakes);
    s->wakes = NULL;
}

void shared_free(struct shared **sp)
{
    struct shared *s = *sp;
    *sp = NULL;
    if (!s)
        return;
    rates_free(s->parts.rates);
    gates_free(&s->parts.gates);
    keybox_free(&s->parts.keys);
    close_wakes(s);
    telemetry_free(&s->telemetry);
    if (s->own_board)
        scoreboard_free(&s->board);
    free(s);
}

static int make_wakes(struct shared *s, struct err *e)
{
    s->wakes = malloc(s->n_slots * sizeof *s->wakes);
    if (!s->wakes)
        return err_set(e, "out of memory");
    for (unsigned i = 0; i < s->n_slots; i++)
        s->wakes[i] = -1;
    for (unsigned i = 0; i < s->n_slots; i++) {
        s->wakes[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (s->wakes[i] < 0) {
            int failed = errno;
            close_wakes(s);
            return err_set(
                e,
                "routes with concurrency need a descriptor for each of %u possible workers: "
                "%s; raise the descriptor limit",
                s->n_slots, strerror(failed));
        }
    }
    return 0;
}

static int needs_rates(const struct conf_policy *p)
{
    int needs = p->n_identifiers != 0;
    for (unsigned i = 0; i < p->n_routes; i++)
        needs |= p->routes[i].n_rates || p->routes[i].queue_size;
    return needs;
}

static bool needs_gates(const struct conf_policy *p)
{
    for (unsigned i = 0; i < p->n_routes; i++)
        if (p->routes[i].concurrency)
            return true;
    return false;
}

static bool needs_keys(const struct conf_policy *p)
{
    for (unsigned i = 0; i < p->n_identifiers; i++)
        if (p->identifiers[i].kind == IDENTIFY_JWT && strstr(p->identifiers[i].jwks, "://"))
            return true;
    return false;
}

/* Somebody may look: the listener of the administrator, or a collector of spans. */
static int need_telemetry(struct shared *s, const struct conf *conf, struct err *e)
{
    if (!*conf->admin && !*conf->otlp_endpoint)
        return 0;
    if (!s->board) {
        s->board = scoreboard_new(s->n_slots);
        s->own_board = true;
    }
    if (!s->telemetry)
        s->telemetry = telemetry_new(s->n_slots, true);
    if (!s->board || !s->telemetry)
        return err_set(e, "no memory for what the admin listener shows");
    for (unsigned i = 0; i < conf->policy.n_routes; i++)
        (void)telemetry_route(s->telemetry, conf->policy.routes[i].name);
    return 0;
}

int shared_need(struct shared *s, const struct conf *conf, struct err *e)
{
    const struct conf_policy *p = &conf->policy;
    if (needs_rates(p) && !s->parts.rates) {
        s->rate_keys = (uint32_t)conf->rate_keys;
        s->parts.rates = rates_new(s->rate_keys);
        if (!s->parts.rates)
            return err_set(e, "no memory for rate-keys of %u", s->rate_keys);
    } else if (s->parts.rates && s->rate_keys != (uint32_t)conf->rate_keys) {
        log_line(LOG_WARNING, 0, "rate-keys of %u stays in force until the server is started anew",
                 s->rate_keys);
    }
    if (needs_gates(p) && !s->parts.gates) {
        if (!s->wakes && make_wakes(s, e))
            return -1;
        s->parts.gates = gates_new();
        if (!s->parts.gates)
            return err_set(e, "no memory for the queues of routes");
    }
    if (needs_keys(p) && !s->parts.keys) {
        s->parts.keys = keybox_new();
        if (!s->parts.keys)
            return err_set(e, "no memory for the keys of tokens");
    }
    return need_telemetry(s, conf, e);
}

void shared_wake(const struct shared *s, const struct gate_wakes *wakes)
{
    const uint64_t one = 1;
    struct gate_wakes more;
    for (;; wakes = &more) {
        for (unsigned i = 0; i < wakes->n; i++) {
            if (wakes->slots[i] >= s->n_slots)
                continue;
            ssize_t n = write(s->wakes[wakes->slots[i]], &one, sizeof one);
            (void)n; /* EAGAIN: it is awake already */
        }
        if (wakes->n < countof(more.slots))
            return;
        gates_wakes(s->parts.gates, &more);
    }
}

void shared_sweep(struct shared *s, struct gate_owner owner)
{
    if (!s->parts.gates)
        return;
    struct gate_wakes wakes = {0};
    gates_sweep(s->parts.gates, owner, clock_mono_ns(), &wakes);
    shared_wake(s, &wakes);
}
