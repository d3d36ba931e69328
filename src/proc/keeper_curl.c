/*
 * keeper_curl: libcurl's multi interface on the keeper's loop. See keeper_private.h.
 *
 * libcurl says which sockets it waits for (on_socket) and when it wants to be called (on_timer);
 * the loop tells it what has happened.
 */
#include "proc/keeper_private.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "conf/version.h"

/* One socket of libcurl's. */
struct watched {
    struct keeper_curl *c;
    curl_socket_t fd;
    uv_poll_t poll;
};

static void take_results(struct keeper_curl *c)
{
    CURLMsg *m;
    int left;
    while (!c->stopped && (m = curl_multi_info_read(c->multi, &left)) != NULL) {
        char *whose = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        CURL *easy = m->easy_handle;
        CURLcode rc = m->data.result; /* gone with the handle */
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, &whose);
        (void)curl_multi_remove_handle(c->multi, easy);
        c->done(whose, rc);
    }
}

static void act(struct keeper_curl *c, curl_socket_t fd, int what)
{
    int running;
    if (c->stopped)
        return;
    (void)curl_multi_socket_action(c->multi, fd, what, &running);
    take_results(c);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct watched *w = poll->data;
    int what = status ? CURL_CSELECT_ERR : 0;
    what |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
    what |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
    act(w->c, w->fd, what);
}

static void on_due(uv_timer_t *t)
{
    act(t->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
    struct keeper_curl *c = arg;
    (void)multi;
    if (ms < 0 || c->stopped)
        (void)uv_timer_stop(&c->timer);
    else /* never from within this call */
        (void)uv_timer_start(&c->timer, on_due, (uint64_t)ms, 0);
    return 0;
}

static void on_unwatched(uv_handle_t *h)
{
    free(h->data);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *of_socket)
{
    struct keeper_curl *c = arg;
    struct watched *w = of_socket;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        (void)curl_multi_assign(c->multi, fd, NULL);
        if (w)
            uv_close((uv_handle_t *)&w->poll, on_unwatched);
        return 0;
    }
    if (!w) {
        w = calloc(1, sizeof *w);
        if (!w || uv_poll_init(c->loop, &w->poll, fd)) {
            free(w);
            return -1;
        }
        w->c = c;
        w->fd = fd;
        w->poll.data = w;
        (void)curl_multi_assign(c->multi, fd, w);
    }
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    return uv_poll_start(&w->poll, events, on_ready) ? -1 : 0;
}

static curl_socket_t open_any(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    (void)arg;
    (void)purpose;
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

CURL *keeper_curl_easy(const char *url, void *whose, const struct keeper_config *config,
                       char trouble[CURL_ERROR_SIZE])
{
    CURL *easy = curl_easy_init();
    if (!easy)
        return NULL;
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, whose);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, trouble);
#if LIBCURL_VERSION_NUM >= 0x075700 /* 7.87 */
    /* Who is given up while his name is looked up is not waited for: the thread that does it ends
     * by itself. Else a name server that is silent would stop the whole keeper for as long. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "weir/" WEIR_VERSION);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_any);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (config->ca_file && *config->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
    if (strncmp(url, "https://", 8) != 0) /* who is asked in the clear is near */
        curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    return easy;
}

int keeper_curl_add(struct keeper_curl *c, CURL *easy)
{
    return curl_multi_add_handle(c->multi, easy) == CURLM_OK ? 0 : -1;
}

int keeper_curl_init(struct keeper_curl *c, uv_loop_t *loop, void (*done)(void *whose, CURLcode rc),
                     struct err *e)
{
    *c = (struct keeper_curl){.loop = loop, .done = done};
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        return err_set(e, "the keeper cannot use libcurl: out of memory");
    c->multi = curl_multi_init();
    if (!c->multi) {
        curl_global_cleanup();
        return err_set(e, "the keeper cannot use libcurl: out of memory");
    }
    (void)uv_timer_init(loop, &c->timer);
    c->timer.data = c;
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    return 0;
}

void keeper_curl_drop(struct keeper_curl *c, CURL **easy)
{
    if (!*easy)
        return;
    (void)curl_multi_remove_handle(c->multi, *easy);
    curl_easy_cleanup(*easy);
    *easy = NULL;
}

void keeper_curl_stop(struct keeper_curl *c)
{
    c->stopped = true;
    /* Kept connections are closed here, and their sockets unwatched. */
    (void)curl_multi_cleanup(c->multi);
    c->multi = NULL;
}

void keeper_curl_fini(struct keeper_curl *c)
{
    (void)c;
    curl_global_cleanup();
}
