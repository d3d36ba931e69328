/*
 * keeper_fetch: key sets over HTTP, with libcurl's multi interface on the keeper's loop. See
 * keeper.h.
 *
 * libcurl says which sockets it waits for (on_socket) and when it wants to be called (on_timer);
 * the loop tells it what has happened. Each URL has one transfer at a time and one timer for the
 * next.
 *
 * A plain http URL is for a key server on this machine. That its name leads to a loopback address
 * is looked at where the socket is made, so no resolver can point it elsewhere.
 */
#include "proc/keeper_private.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/must.h"
#include "conf/version.h"

#define BODY_BYTES_MAX 65536
static const long TOTAL_MS = 10000;
static const long CONNECT_MS = 5000;
static const long REDIRECTS_MAX = 3;
static const uint64_t PERIOD_MS = 600000;
static const uint64_t PERIOD_MS_MIN = 60000;
static const uint64_t PERIOD_MS_MAX = 3600000;
/* After a failure: 1 s, 2 s, … */
static const uint64_t RETRY_MS = 1000;
static const uint64_t RETRY_MS_MAX = 300000;
/* Tokens with unknown keys cause no more than one fetch in this time. */
static const uint64_t AGAIN_MS = 60000;

struct source {
    struct fetcher *f;
    const struct keeper_jwks *what; /* lent */
    CURL *easy;                     /* owned; NULL: no transfer is under way */
    uv_timer_t next;
    uint64_t began_ms;   /* loop time of the last fetch; 0: none yet */
    unsigned failures;   /* in a row */
    uint64_t max_age_ms; /* of the present answer; 0: it does not say */
    size_t n;
    bool too_long, not_loopback;
    char trouble[CURL_ERROR_SIZE];
    char body[BODY_BYTES_MAX + 1];
};

/* One socket of libcurl's. */
struct watched {
    struct fetcher *f;
    curl_socket_t fd;
    uv_poll_t poll;
};

struct fetcher {
    uv_loop_t *loop;
    const struct keeper_config *c;
    CURLM *multi; /* owned */
    uv_timer_t timer;
    bool stopped;
    unsigned n;
    struct source sources[];
};

/* ---- the loop and libcurl ---- */

static void take_results(struct fetcher *f);

static void act(struct fetcher *f, curl_socket_t fd, int what)
{
    int running;
    if (f->stopped)
        return;
    (void)curl_multi_socket_action(f->multi, fd, what, &running);
    take_results(f);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct watched *w = poll->data;
    int what = status ? CURL_CSELECT_ERR : 0;
    what |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
    what |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
    act(w->f, w->fd, what);
}

static void on_due(uv_timer_t *t)
{
    act(t->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
    struct fetcher *f = arg;
    (void)multi;
    if (ms < 0 || f->stopped)
        (void)uv_timer_stop(&f->timer);
    else /* never from within this call */
        (void)uv_timer_start(&f->timer, on_due, (uint64_t)ms, 0);
    return 0;
}

static void on_unwatched(uv_handle_t *h)
{
    free(h->data);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *of_socket)
{
    struct fetcher *f = arg;
    struct watched *w = of_socket;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        (void)curl_multi_assign(f->multi, fd, NULL);
        if (w)
            uv_close((uv_handle_t *)&w->poll, on_unwatched);
        return 0;
    }
    if (!w) {
        w = calloc(1, sizeof *w);
        if (!w || uv_poll_init(f->loop, &w->poll, fd)) {
            free(w);
            return -1;
        }
        w->f = f;
        w->fd = fd;
        w->poll.data = w;
        (void)curl_multi_assign(f->multi, fd, w);
    }
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    return uv_poll_start(&w->poll, events, on_ready) ? -1 : 0;
}

/* ---- one answer ---- */

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct source *s = arg;
    n *= size;
    if (n > BODY_BYTES_MAX - s->n) {
        s->too_long = true;
        return 0;
    }
    memcpy(s->body + s->n, p, n);
    s->n += n;
    return n;
}

/* max-age of a Cache-Control field; 0: it has none. */
static uint64_t max_age_ms(struct slice field)
{
    static const char NAME[] = "max-age=";
    for (size_t i = 0; i + sizeof NAME - 1 < field.n; i++) {
        if (i && field.p[i - 1] != ' ' && field.p[i - 1] != ',' && field.p[i - 1] != ':')
            continue;
        if (!slice_ieq(slice_of(field.p + i, sizeof NAME - 1), slice_str(NAME)))
            continue;
        uint64_t s = 0;
        for (i += sizeof NAME - 1; i < field.n && field.p[i] >= '0' && field.p[i] <= '9'; i++)
            s = s < 1000000 ? s * 10 + (uint64_t)(field.p[i] - '0') : s;
        uint64_t ms = s * 1000;
        return ms < PERIOD_MS_MIN ? PERIOD_MS_MIN : ms > PERIOD_MS_MAX ? PERIOD_MS_MAX : ms;
    }
    return 0;
}

static size_t on_field(char *p, size_t size, size_t n, void *arg)
{
    struct source *s = arg;
    static const struct slice NAME = {"cache-control:", 14};
    struct slice line = slice_of(p, n * size);
    if (line.n > 5 && memcmp(line.p, "HTTP/", 5) == 0)
        s->max_age_ms = 0; /* another answer, after a redirect */
    if (line.n > NAME.n && slice_ieq(slice_of(line.p, NAME.n), NAME))
        s->max_age_ms = max_age_ms(line);
    return line.n;
}

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof in);
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    if (a->sa_family != AF_INET6)
        return false;
    struct sockaddr_in6 in6;
    memcpy(&in6, a, sizeof in6);
    return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

static curl_socket_t open_loopback(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct source *s = arg;
    (void)purpose;
    if (!is_loopback(&a->addr)) {
        s->not_loopback = true;
        return CURL_SOCKET_BAD;
    }
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static curl_socket_t open_any(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    (void)arg;
    (void)purpose;
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* ---- a transfer ---- */

static bool is_https(const struct source *s)
{
    return strncmp(s->what->url, "https://", 8) == 0;
}

static void limit_schemes(CURL *easy, bool https)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    const char *only = https ? "https" : "http";
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, only);
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, only);
#else
    long only = https ? CURLPROTO_HTTPS : CURLPROTO_HTTP;
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS, only);
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS, only);
#endif
}

static void fetch(struct source *s);

static void on_next(uv_timer_t *t)
{
    fetch(t->data);
}

/* Within a quarter of it, so that servers that started together do not ask together. */
static uint64_t with_jitter(uint64_t ms)
{
    uint32_t r = 0;
    if (getrandom(&r, sizeof r, GRND_NONBLOCK) != (ssize_t)sizeof r)
        return ms;
    return ms - ms / 4 + (ms / 2) * r / UINT32_MAX;
}

static void later(struct source *s, uint64_t ms)
{
    (void)uv_timer_start(&s->next, on_next, ms, 0);
}

/* One more failure: the time until the next try. */
static uint64_t retry_ms(struct source *s)
{
    uint64_t ms = RETRY_MS;
    for (unsigned i = 0; i < s->failures && ms < RETRY_MS_MAX; i++)
        ms *= 2;
    s->failures++;
    return with_jitter(ms < RETRY_MS_MAX ? ms : RETRY_MS_MAX);
}

static void failed(struct source *s, const char *why)
{
    struct err e;
    uint64_t ms = retry_ms(s);
    err_set(&e, "cannot fetch the key set %s: %s; trying again in %.3g s", s->what->url, why,
            (double)ms / 1000);
    (void)s->f->c->publish(s->f->c->arg, s->what->identifier, slice_of(NULL, 0), e.text);
    later(s, ms);
}

static void fetch(struct source *s)
{
    const struct keeper_config *c = s->f->c;
    must(!s->easy);
    s->n = 0;
    s->too_long = s->not_loopback = false;
    s->max_age_ms = 0;
    s->trouble[0] = '\0';
    s->began_ms = uv_now(s->f->loop);
    CURL *easy = s->easy = curl_easy_init();
    if (!easy) {
        failed(s, "out of memory");
        return;
    }
    bool https = is_https(s);
    curl_easy_setopt(easy, CURLOPT_URL, s->what->url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, s);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, s->trouble);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "weir/" WEIR_VERSION);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, TOTAL_MS);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
    curl_easy_setopt(easy, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_field);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, s);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, https ? open_any : open_loopback);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, s);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (c->ca_file && *c->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, c->ca_file);
    if (!https) /* a proxy would be another machine */
        curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    limit_schemes(easy, https);
    if (curl_multi_add_handle(s->f->multi, easy) != CURLM_OK) {
        curl_easy_cleanup(easy);
        s->easy = NULL;
        failed(s, "libcurl takes no more");
    }
}

/* What every key set has: an object with "keys". What is in it is for who uses it. */
static bool looks_like_keys(struct source *s)
{
    size_t i = 0;
    s->body[s->n] = '\0';
    while (i < s->n && strchr(" \t\r\n", s->body[i]))
        i++;
    return s->body[i] == '{' && strstr(s->body + i, "\"keys\"");
}

static void finish(struct source *s, CURLcode rc)
{
    struct fetcher *f = s->f;
    (void)curl_multi_remove_handle(f->multi, s->easy);
    curl_easy_cleanup(s->easy);
    s->easy = NULL;
    if (s->too_long)
        failed(s, "it is longer than 64 KiB");
    else if (s->not_loopback)
        failed(s, "http is only for loopback addresses; use an https:// URL");
    else if (rc)
        failed(s, *s->trouble ? s->trouble : curl_easy_strerror(rc));
    else if (!looks_like_keys(s))
        failed(s, "the answer is no key set (a JSON object with \"keys\")");
    else if (!f->c->publish(f->c->arg, s->what->identifier, slice_of(s->body, s->n), NULL))
        later(s, retry_ms(s));
    else {
        s->failures = 0;
        later(s, s->max_age_ms ? s->max_age_ms : PERIOD_MS);
    }
}

static void take_results(struct fetcher *f)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(f->multi, &left)) != NULL) {
        char *s = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        CURLcode rc = m->data.result; /* gone with the handle */
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &s);
        finish((struct source *)(void *)s, rc);
    }
}

/* ---- public ---- */

int fetcher_new(struct fetcher **out, uv_loop_t *loop, const struct keeper_config *c, struct err *e)
{
    *out = NULL;
    if (!c->n_jwks)
        return 0;
    struct fetcher *f = calloc(1, sizeof *f + c->n_jwks * sizeof f->sources[0]);
    if (!f || curl_global_init(CURL_GLOBAL_DEFAULT)) {
        free(f);
        return err_set(e, "the keeper cannot use libcurl: out of memory");
    }
    f->loop = loop;
    f->c = c;
    f->n = c->n_jwks;
    (void)uv_timer_init(loop, &f->timer);
    f->timer.data = f;
    for (unsigned i = 0; i < f->n; i++) {
        struct source *s = &f->sources[i];
        s->f = f;
        s->what = &c->jwks[i];
        (void)uv_timer_init(loop, &s->next);
        s->next.data = s;
    }
    *out = f;
    f->multi = curl_multi_init();
    if (!f->multi)
        return err_set(e, "the keeper cannot use libcurl: out of memory");
    curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f);
    curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
    for (unsigned i = 0; i < f->n; i++)
        later(&f->sources[i], 0);
    return 0;
}

void fetcher_again(struct fetcher *f, unsigned identifier)
{
    for (unsigned i = 0; i < f->n; i++) {
        struct source *s = &f->sources[i];
        uint64_t now_ms = uv_now(f->loop);
        if (s->what->identifier != identifier || s->easy)
            continue;
        uint64_t due_ms = s->began_ms + AGAIN_MS;
        uint64_t wait_ms = due_ms > now_ms ? due_ms - now_ms : 0;
        /* Never later than it was to be. */
        if (uv_timer_get_due_in(&s->next) > wait_ms)
            later(s, wait_ms);
    }
}

void fetcher_stop(struct fetcher *f)
{
    f->stopped = true;
    for (unsigned i = 0; i < f->n; i++) {
        struct source *s = &f->sources[i];
        if (s->easy) {
            (void)curl_multi_remove_handle(f->multi, s->easy);
            curl_easy_cleanup(s->easy);
            s->easy = NULL;
        }
    }
    /* Kept connections are closed here, and their sockets unwatched. */
    if (f->multi)
        (void)curl_multi_cleanup(f->multi);
    f->multi = NULL;
}

void fetcher_free(struct fetcher **fp)
{
    if (*fp)
        curl_global_cleanup();
    free(*fp);
    *fp = NULL;
}
