/* probes_text: the stacks of all workers as text for people (probes.h). */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "admin/probes.h"
#include "base/json_read.h"

struct text {
    struct buf *out;
    int error;
};

WEIR_PRINTF(2, 3) static void put(struct text *t, const char *fmt, ...)
{
    char line[512];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (!t->error && n > 0)
        t->error = buf_add(t->out, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1)
                       ? -ENOMEM
                       : 0;
}

static bool is_null(struct slice v)
{
    return !v.n || *v.p == 'n';
}

/* The text of a string, or of a number, so that it stays on its line and moves no cursor. */
static void put_value(struct text *t, struct slice v)
{
    size_t before = t->out->n;
    if (t->error || !v.n)
        return;
    int rc = *v.p == '"' ? json_unescape(v, t->out) : buf_add_slice(t->out, v);
    if (rc) {
        t->error = rc == -EINVAL ? rc : -ENOMEM;
        return;
    }
    for (size_t i = before; i < t->out->n; i++) {
        unsigned char *c = (unsigned char *)t->out->p + i;
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
        else if (*c == 0xc2 && i + 1 < t->out->n && c[1] >= 0x80 && c[1] < 0xa0)
            c[0] = c[1] = '?'; /* U+0080 to U+009F */
    }
}

static struct slice member(struct slice object, const char *name)
{
    struct slice v;
    return json_member(object, name, &v) && !is_null(v) ? v : (struct slice){0};
}

static bool is_true(struct slice v)
{
    return v.n && *v.p == 't';
}

static bool is_text(struct slice v, const char *text)
{
    size_t n = strlen(text);
    return v.n == n + 2 && !memcmp(v.p + 1, text, n);
}

/* "12.4 s" of seconds, with two digits behind the point at most. */
static void put_seconds(struct text *t, struct slice v)
{
    char text[40] = "0";
    if (v.n && v.n < sizeof text) {
        memcpy(text, v.p, v.n);
        text[v.n] = '\0';
    }
    double s = strtod(text, NULL);
    put(t, s < 0.01 && s > 0 ? "%.1f ms" : "%.2f s", s < 0.01 && s > 0 ? s * 1e3 : s);
}

static void put_frames(struct text *t, struct slice thread)
{
    struct json_walk w = json_walk(member(thread, "frames"));
    struct slice key, frame;
    while (json_next(&w, &key, &frame)) {
        struct slice source = member(frame, "source"), line = member(frame, "line");
        put(t, "    ");
        put_value(t, member(frame, "function"));
        put(t, "  ");
        put_value(t, member(frame, "file"));
        put(t, line.n ? ":" : "");
        put_value(t, line);
        put(t, source.n ? "\n        " : "");
        put_value(t, source);
        put(t, "\n");
    }
    if (is_true(member(thread, "more_frames")))
        put(t, "    (older frames are left out)\n");
}

static void put_request(struct text *t, struct slice request)
{
    struct slice user = member(request, "user");
    if (!request.n)
        return;
    put(t, "    request ");
    put_value(t, member(request, "id"));
    put(t, ": ");
    put_value(t, member(request, "method"));
    put(t, " ");
    put_value(t, member(request, "path"));
    if (user.n > 2) {
        put(t, " of ");
        put_value(t, user);
    }
    put(t, ", ");
    put_seconds(t, member(request, "age"));
    put(t, ", ");
    put_value(t, member(request, "state"));
    put(t, "\n");
}

static void put_thread(struct text *t, struct slice thread)
{
    struct slice state = member(thread, "state"), waits = member(thread, "waits_in");
    struct slice lock = member(thread, "lock"), lock_for = member(thread, "lock_for");
    struct slice error = member(thread, "error");
    put(t, "  thread ");
    put_value(t, member(thread, "thread"));
    put(t, " ");
    put_value(t, member(thread, "name"));
    if (waits.n && !is_text(lock, "waits")) {
        put(t, ": waits in ");
        put_value(t, waits);
    } else if (is_text(lock, "waits")) {
        put(t, ": waits for the interpreter lock");
    } else if (is_text(state, "R")) {
        put(t, ": runs");
    } else if (state.n) {
        put(t, ": state ");
        put_value(t, state);
    }
    if (is_text(lock, "holds")) {
        put(t, ", holds the interpreter lock");
        put(t, lock_for.n ? " for " : "");
        if (lock_for.n)
            put_seconds(t, lock_for);
    }
    put(t, ", ");
    put_seconds(t, member(thread, "cpu"));
    put(t, " of processor time");
    put(t, is_true(member(thread, "complete")) ? "\n" : ", it ran on meanwhile\n");
    if (error.n) {
        put(t, "    (");
        put_value(t, error);
        put(t, ")\n");
    }
    put_request(t, member(thread, "request"));
    put_frames(t, thread);
}

static void put_worker(struct text *t, struct slice worker)
{
    struct slice error = member(worker, "error"), key, thread;
    struct json_walk w = json_walk(member(worker, "threads"));
    put(t, "worker ");
    put_value(t, member(worker, "slot"));
    put(t, ", process ");
    put_value(t, member(worker, "pid"));
    put(t, ", ");
    put_value(t, member(worker, "state"));
    if (error.n) {
        put(t, ": ");
        put_value(t, error);
    }
    put(t, "\n");
    /* Those that run something first: it is they that are looked for. */
    for (int idle = 0; idle < 2; idle++) {
        struct json_walk all = w;
        while (json_next(&all, &key, &thread)) {
            bool runs = is_true(member(thread, "python")) || member(thread, "request").n;
            if (runs == !idle)
                put_thread(t, thread);
        }
    }
}

int probes_text(struct buf *out, struct slice json)
{
    struct text t = {.out = out};
    struct slice key, worker, workers;
    if (!json_whole(json) || !json_member(json, "workers", &workers))
        return -EINVAL;
    struct json_walk w = json_walk(workers);
    bool some = false;
    while (json_next(&w, &key, &worker)) {
        put(&t, some ? "\n" : "");
        some = true;
        put_worker(&t, worker);
    }
    if (!some)
        put(&t, "no worker\n");
    return t.error;
}
