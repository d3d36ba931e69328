/*
 * keeper_fetch: key sets over HTTP. See keeper.h.
 *
 * Each URL has one transfer at a time and one timer for the next.
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

struct fetcher {
    uv_loop_t *loop;
    const struct keeper_config *c;
    struct keeper_curl curl;
    unsigned n;
    struct source sources[];
};

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
    CURL *easy = s->easy = keeper_curl_easy(s->what->url, s, c, s->trouble);
    if (!easy) {
        failed(s, "out of memory");
        return;
    }
    bool https = is_https(s);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, TOTAL_MS);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
    curl_easy_setopt(easy, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_field);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, s);
    if (!https) {
        curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_loopback);
        curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, s);
    }
    limit_schemes(easy, https);
    if (keeper_curl_add(&s->f->curl, easy)) {
        keeper_curl_drop(&s->f->curl, &s->easy);
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

static void finish(void *whose, CURLcode rc)
{
    struct source *s = whose;
    struct fetcher *f = s->f;
    keeper_curl_drop(&f->curl, &s->easy);
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

/* ---- public ---- */

int fetcher_new(struct fetcher **out, uv_loop_t *loop, const struct keeper_config *c, struct err *e)
{
    *out = NULL;
    if (!c->n_jwks)
        return 0;
    struct fetcher *f = calloc(1, sizeof *f + c->n_jwks * sizeof f->sources[0]);
    if (!f || keeper_curl_init(&f->curl, loop, finish, e)) {
        free(f);
        return err_set(e, "the keeper cannot use libcurl: out of memory");
    }
    f->loop = loop;
    f->c = c;
    f->n = c->n_jwks;
    for (unsigned i = 0; i < f->n; i++) {
        struct source *s = &f->sources[i];
        s->f = f;
        s->what = &c->jwks[i];
        (void)uv_timer_init(loop, &s->next);
        s->next.data = s;
    }
    *out = f;
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
    for (unsigned i = 0; i < f->n; i++)
        keeper_curl_drop(&f->curl, &f->sources[i].easy);
    keeper_curl_stop(&f->curl);
}

void fetcher_free(struct fetcher **fp)
{
    if (*fp)
        keeper_curl_fini(&(*fp)->curl);
    free(*fp);
    *fp = NULL;
}
