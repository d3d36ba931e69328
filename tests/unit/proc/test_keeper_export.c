/*
 * keeper_export: rings that are filled by hand, a keeper that is a process of its own, and a
 * collector that takes, refuses, stalls, lies and goes away.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <jansson.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/must.h"
#include "obs/counters.h"
#include "proc/keeper.h"

typedef int getaddrinfo_function(const char *, const char *, const struct addrinfo *,
                                 struct addrinfo **);

static struct keeper_door door;
static struct keeper_config config;
static struct telemetry *telemetry;
static int stop_pipe[2]; /* its write end is the test's */
static int listener;     /* of the collector */
static char url[128];

/* What the keeper's process tells. */
static struct shared {
    _Atomic int warnings, infos, errors;
    _Atomic int looks_up; /* DEAF_NAME is asked for */
    char warning[1024], info[1024];
} * shared;

static void note(enum log_level level, const char *text)
{
    if (level == LOG_WARNING) {
        snprintf(shared->warning, sizeof shared->warning, "%s", text);
        atomic_fetch_add(&shared->warnings, 1);
    } else if (level == LOG_INFO) {
        snprintf(shared->info, sizeof shared->info, "%s", text);
        atomic_fetch_add(&shared->infos, 1);
    } else {
        atomic_fetch_add(&shared->errors, 1);
    }
}

static bool publish(void *arg, unsigned identifier, struct slice jwks, const char *error)
{
    (void)arg;
    (void)identifier;
    (void)jwks;
    (void)error;
    return true;
}

static void listen_again(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    socklen_t n = sizeof a;
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    must(bind(listener, (struct sockaddr *)&a, n) == 0 && listen(listener, 8) == 0);
    getsockname(listener, (struct sockaddr *)&a, &n);
    snprintf(url, sizeof url, "http://user:secret@127.0.0.1:%u/v1/traces", ntohs(a.sin_port));
}

static uint16_t port_of(void)
{
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    getsockname(listener, (struct sockaddr *)&a, &n);
    return ntohs(a.sin_port);
}

static int make(void **state)
{
    (void)state;
    static const char *headers[] = {"X-Tenant=a=b", "no value", "X-Bad=a\r\nX-Evil: 1"};
    static struct conf_list list = {headers, 1};
    struct err e = {{0}};
    memset(shared, 0, sizeof *shared);
    list.n = 1;
    telemetry = telemetry_new(3, true);
    if (!telemetry || keeper_load(WEIR_KEEPER_LIBRARY, &e) || keeper_door_open(&door, &e) ||
        pipe2(stop_pipe, O_CLOEXEC)) {
        print_error("%s\n", e.text);
        return -1;
    }
    listen_again(0);
    config = (struct keeper_config){
        .door = &door,
        .store = "",
        .uid = geteuid(),
        .stop_fd = stop_pipe[0],
        .process = true,
        .drain_ms = 5000,
        .ca_file = "",
        .publish = publish,
        .log = note,
        .otlp = {url, &list, "shop", telemetry},
    };
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    keeper_door_close(&door);
    close(listener);
    close(stop_pipe[0]);
    if (stop_pipe[1] >= 0)
        close(stop_pipe[1]);
    telemetry_free(&telemetry);
    return 0;
}

static pid_t start_keeper(void)
{
    pid_t test = getpid(), pid = fork();
    must(pid >= 0);
    if (pid)
        return pid;
    struct err e = {{0}};
    static const int FATAL[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    for (size_t i = 0; i < countof(FATAL); i++)
        (void)signal(FATAL[i], SIG_DFL); /* cmocka's would go on with the tests in this process */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != test)
        _exit(1);
    close(stop_pipe[1]);
    close(listener);
    int rc = keeper_run(&config, &e);
    if (rc)
        fprintf(stderr, "%s\n", e.text);
    _exit(rc ? 1 : 0);
}

static int end_of(pid_t pid)
{
    int status = -1;
    must(waitpid(pid, &status, 0) == pid);
    return status;
}

/* Closing the pipe is what a supervisor's end does. */
static void tell_to_stop(void)
{
    close(stop_pipe[1]);
    stop_pipe[1] = -1;
}

/* ---- spans ---- */

static const unsigned char TRACE[16] = {0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6,
                                        0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36};

#define WALL_NS INT64_C(1795466528123456789)
#define MS_NS INT64_C(1000000)

/* An ordinary request, number `id`, as a worker writes it. */
static struct flight plain(uint64_t id)
{
    struct flight f = {.sampled = true, .status = 200, .id = id, .pid = 4711, .wall_ns = WALL_NS};
    memcpy(f.trace_id, TRACE, sizeof f.trace_id);
    memset(f.span_id, 0x11, sizeof f.span_id);
    memcpy(f.span_id, &id, sizeof id);
    f.at_ns[FLIGHT_READING] = 1000 * MS_NS;
    f.at_ns[FLIGHT_READY] = 1001 * MS_NS;
    f.at_ns[FLIGHT_APPLICATION] = 1003 * MS_NS;
    f.at_ns[FLIGHT_WRITING] = 1053 * MS_NS;
    f.at_ns[FLIGHT_NONE] = 1060 * MS_NS;
    snprintf(f.method, sizeof f.method, "GET");
    snprintf(f.path, sizeof f.path, "/items/7");
    snprintf(f.address, sizeof f.address, "192.0.2.7");
    snprintf(f.user, sizeof f.user, "jwt:ada");
    snprintf(f.request_id, sizeof f.request_id, "Root=1-5");
    return f;
}

static void put(unsigned slot, const struct flight *from)
{
    struct flight *f = flight_begin(telemetry, slot, from->at_ns[FLIGHT_READING]);
    must(f);
    flight_edit(f);
    size_t at = offsetof(struct flight, refusal);
    uint16_t of_slot = f->slot;
    memcpy((char *)f + at, (const char *)from + at, sizeof *f - at);
    f->slot = of_slot;
    flight_edited(f);
    flight_finish(telemetry, f, KEEP_SPAN, from->at_ns[FLIGHT_NONE]);
    flight_free(telemetry, f);
}

static void put_many(unsigned slot, unsigned n, uint64_t first_id)
{
    for (unsigned i = 0; i < n; i++) {
        struct flight f = plain(first_id + i);
        put(slot, &f);
    }
}

/* ---- the collector ---- */

struct asked {
    int fd;
    char head[4096];
    size_t body_n;
    json_t *body;
    json_t *spans; /* lent: of the one resource and scope */
    size_t n;
};

/* The next request; NULL body: the keeper ended it before it was whole. */
static struct asked take(void)
{
    struct asked a = {.fd = accept(listener, NULL, NULL)};
    struct buf in = {0};
    char *end = NULL;
    size_t want = SIZE_MAX;
    must(a.fd >= 0);
    while (in.n < want) {
        must(buf_reserve(&in, 65536) == 0);
        ssize_t n = read(a.fd, in.p + in.n, 65535);
        if (n <= 0)
            break;
        in.n += (size_t)n;
        if (end || !(end = memmem(in.p, in.n, "\r\n\r\n", 4)))
            continue;
        size_t head_n = (size_t)(end - in.p) + 4;
        snprintf(a.head, sizeof a.head, "%.*s", (int)head_n, in.p);
        const char *length = strstr(a.head, "Content-Length: ");
        must(length);
        a.body_n = strtoul(length + 16, NULL, 10);
        want = head_n + a.body_n;
    }
    if (in.n >= want) {
        json_error_t e;
        a.body = json_loadb(in.p + want - a.body_n, a.body_n, JSON_REJECT_DUPLICATES, &e);
        if (!a.body)
            fail_msg("no JSON: %s at %d", e.text, e.position);
        json_t *resource = json_array_get(json_object_get(a.body, "resourceSpans"), 0);
        a.spans =
            json_object_get(json_array_get(json_object_get(resource, "scopeSpans"), 0), "spans");
        a.n = json_array_size(a.spans);
    }
    buf_fini(&in);
    return a;
}

static void reply(struct asked *a, const char *head, const char *body)
{
    dprintf(a->fd, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", head,
            strlen(body), body);
    close(a->fd);
    json_decref(a->body);
}

static const char *string(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "(none)";
}

/* The value of an attribute as it stands in JSON; NULL: there is none. */
static const json_t *attribute(const json_t *of, const char *key)
{
    size_t i;
    json_t *a;
    json_array_foreach(json_object_get(of, "attributes"), i, a)
    {
        if (strcmp(string(a, "key"), key) == 0)
            return json_object_get(a, "value");
    }
    return NULL;
}

static void expect(const json_t *span, const char *key, const char *type, const char *value)
{
    const json_t *v = attribute(span, key);
    if (!v || strcmp(string(v, type), value) != 0)
        fail_msg("%s is %s, not %s", key, v ? string(v, type) : "missing", value);
}

static uint64_t count(const _Atomic uint64_t *what)
{
    return atomic_load(what);
}

static void wait_for(const _Atomic uint64_t *what, uint64_t n)
{
    while (count(what) < n)
        poll(NULL, 0, 1);
}

static void wait_for_line(const _Atomic int *what, int n)
{
    while (atomic_load(what) < n)
        poll(NULL, 0, 1);
}

/* ---- what is sent ---- */

static void a_request_is_a_server_span(void **state)
{
    (void)state;
    struct flight f = plain(17);
    f.route = (uint16_t)telemetry_route(telemetry, "/items/*");
    memset(f.parent_id, 0xab, sizeof f.parent_id);
    put(1, &f);
    pid_t pid = start_keeper();
    struct asked a = take();
    assert_true(strncmp(a.head, "POST /v1/traces HTTP/1.1\r\n", 26) == 0);
    assert_non_null(strstr(a.head, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(a.head, "\r\nX-Tenant: a=b\r\n"));
    assert_null(strstr(a.head, "Expect"));
    json_t *resource =
        json_object_get(json_array_get(json_object_get(a.body, "resourceSpans"), 0), "resource");
    expect(resource, "service.name", "stringValue", "shop");
    assert_int_equal(a.n, 1);
    const json_t *s = json_array_get(a.spans, 0);
    assert_string_equal(string(s, "traceId"), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_string_equal(string(s, "spanId"), "1100000000000000");
    assert_string_equal(string(s, "parentSpanId"), "abababababababab");
    assert_string_equal(string(s, "name"), "GET /items/*");
    assert_int_equal(json_integer_value(json_object_get(s, "kind")), 2);
    assert_int_equal(json_integer_value(json_object_get(s, "flags")), 0x301);
    assert_string_equal(string(s, "startTimeUnixNano"), "1795466528123456789");
    assert_string_equal(string(s, "endTimeUnixNano"), "1795466528183456789");
    assert_int_equal(json_object_size(json_object_get(s, "status")), 0);
    expect(s, "http.request.method", "stringValue", "GET");
    expect(s, "url.path", "stringValue", "/items/7");
    expect(s, "http.route", "stringValue", "/items/*");
    expect(s, "http.response.status_code", "intValue", "200");
    expect(s, "client.address", "stringValue", "192.0.2.7");
    expect(s, "weir.request_id", "stringValue", "Root=1-5");
    expect(s, "weir.request", "intValue", "17");
    expect(s, "weir.worker.pid", "intValue", "4711");
    assert_true(json_real_value(json_object_get(attribute(s, "weir.queue_ms"), "doubleValue")) ==
                2.0);
    assert_null(attribute(s, "error.type"));
    static const char *const STATES[] = {"thread", "application", "writing"};
    static const char *const AT[] = {"1795466528124456789", "1795466528126456789",
                                     "1795466528176456789"};
    const json_t *events = json_object_get(s, "events");
    assert_int_equal(json_array_size(events), 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(string(json_array_get(events, i), "name"), STATES[i]);
        assert_string_equal(string(json_array_get(events, i), "timeUnixNano"), AT[i]);
    }
    char *all = json_dumps(a.body, 0);
    assert_null(strstr(all, "ada")); /* who asks stays here */
    free(all);
    reply(&a, "200 OK", "{}");
    wait_for(&telemetry->otlp_sent, 1);
    assert_int_equal(count(&telemetry->otlp_dropped), 0);
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
    assert_int_equal(atomic_load(&shared->warnings), 0);
    assert_int_equal(atomic_load(&shared->errors), 0);
}

static void what_went_wrong_is_told_and_a_client_that_left_is_no_error(void **state)
{
    (void)state;
    struct flight f = plain(1);
    f.status = 503;
    f.refusal = 1 + 8; /* queue_full */
    snprintf(f.method, sizeof f.method, "BREW");
    put(0, &f);
    f = plain(2);
    f.cut = 1 + CLOSE_CLIENT_LEFT;
    f.slow = true;
    put(0, &f);
    f = plain(3);
    f.cut = 1 + CLOSE_ABORTED;
    f.status = 0;
    put(0, &f);
    pid_t pid = start_keeper();
    struct asked a = take();
    assert_int_equal(a.n, 3);
    const json_t *s = json_array_get(a.spans, 0);
    assert_string_equal(string(s, "name"), "HTTP");
    assert_string_equal(string(s, "parentSpanId"), "(none)");
    assert_int_equal(json_integer_value(json_object_get(s, "flags")), 0x101);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(s, "status"), "code")), 2);
    expect(s, "http.request.method", "stringValue", "_OTHER");
    expect(s, "http.request.method_original", "stringValue", "BREW");
    expect(s, "weir.refusal", "stringValue", "queue_full");
    expect(s, "error.type", "stringValue", "503");
    assert_null(attribute(s, "http.route"));
    s = json_array_get(a.spans, 1);
    assert_int_equal(json_object_size(json_object_get(s, "status")), 0);
    expect(s, "weir.close_reason", "stringValue", "client_left");
    assert_true(json_is_true(json_object_get(attribute(s, "weir.slow"), "boolValue")));
    assert_null(attribute(s, "error.type"));
    s = json_array_get(a.spans, 2);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(s, "status"), "code")), 2);
    expect(s, "error.type", "stringValue", "response_aborted");
    assert_null(attribute(s, "http.response.status_code"));
    reply(&a, "200 OK", "");
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
}

static void any_bytes_of_a_client_are_valid_json(void **state)
{
    (void)state;
    struct flight f = plain(1);
    memset(f.path, 0xff, sizeof f.path - 1);
    put(0, &f);
    f = plain(2);
    memset(f.path, 1, sizeof f.path - 1);
    memset(f.request_id, '"', sizeof f.request_id - 1);
    put(0, &f);
    f = plain(3);
    snprintf(f.path, sizeof f.path, "/gr\xc3\xbc\xc3\x9f/\xc3"); /* cut in the middle of a letter */
    put(0, &f);
    pid_t pid = start_keeper();
    struct asked a = take(); /* jansson checks that it is UTF-8 */
    assert_int_equal(a.n, 3);
    assert_int_equal(
        strlen(string(attribute(json_array_get(a.spans, 0), "url.path"), "stringValue")), 119 * 3);
    expect(json_array_get(a.spans, 2), "url.path", "stringValue",
           "/gr\xc3\xbc\xc3\x9f/\xef\xbf\xbd");
    reply(&a, "200 OK", "{}");
    wait_for(&telemetry->otlp_sent, 3);
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
}

/* ---- batches ---- */

static void many_spans_go_in_batches_that_are_bounded(void **state)
{
    (void)state;
    put_many(0, 900, 1);
    put_many(2, 700, 1001);
    size_t seen = 0, ids = 0;
    static bool known[2001];
    memset(known, 0, sizeof known);
    pid_t pid = start_keeper();
    for (unsigned batches = 0; seen < 1600; batches++) {
        struct asked a = take();
        assert_in_range(a.n, 1, 512);
        assert_true(a.body_n <= 1024 * 1024);
        for (size_t i = 0; i < a.n; i++) {
            const json_t *v = attribute(json_array_get(a.spans, i), "weir.request");
            unsigned long id = strtoul(string(v, "intValue"), NULL, 10);
            assert_in_range(id, 1, 2000);
            ids += !known[id];
            known[id] = true;
        }
        seen += a.n;
        /* Nothing of it may be written over before it was taken. */
        assert_true(count(&telemetry->otlp_sent) + a.n <= seen);
        reply(&a, "200 OK", "{\"partialSuccess\":{}}");
        assert_in_range(batches, 0, 5);
    }
    assert_int_equal(seen, 1600);
    assert_int_equal(ids, 1600);
    wait_for(&telemetry->otlp_sent, 1600);
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
}

static void the_last_spans_are_sent_at_the_end(void **state)
{
    (void)state;
    pid_t pid = start_keeper();
    put_many(0, 1, 1);
    struct asked a = take(); /* the keeper runs now, and looks again in a second */
    reply(&a, "200 OK", "{}");
    wait_for(&telemetry->otlp_sent, 1);
    put_many(0, 600, 2);
    tell_to_stop();
    int64_t begun_ns = clock_mono_ns();
    size_t n = 0;
    while (n < 600) {
        a = take();
        n += a.n;
        reply(&a, "200 OK", "{}");
    }
    assert_int_equal(end_of(pid), 0);
    assert_int_equal(count(&telemetry->otlp_sent), 601);
    assert_true(clock_mono_ns() - begun_ns < 2000 * MS_NS);
}

static void a_collector_that_stalls_holds_no_end_up(void **state)
{
    (void)state;
    put_many(0, 3, 1);
    pid_t pid = start_keeper();
    struct asked a = take(); /* and no word */
    tell_to_stop();
    int64_t begun_ns = clock_mono_ns();
    assert_int_equal(end_of(pid), 0);
    int64_t took_ns = clock_mono_ns() - begun_ns;
    assert_in_range(took_ns / MS_NS, 1500, 4000);
    /* They are still there for the next keeper. */
    const struct telemetry_worker *w = telemetry_slot(telemetry, 0);
    assert_int_equal(count(&w->span_head) - count(&w->span_tail), 3);
    assert_int_equal(count(&telemetry->otlp_sent), 0);
    close(a.fd);
    json_decref(a.body);
}

/* libcurl's, too: the answer for a host of this name never comes. */
#define DEAF_NAME "deaf.invalid"

__attribute__((visibility("default"))) int getaddrinfo(const char *node, const char *service,
                                                       const struct addrinfo *hints,
                                                       struct addrinfo **out)
{
    static _Atomic(getaddrinfo_function *) real;
    while (node && strcmp(node, DEAF_NAME) == 0) {
        atomic_store(&shared->looks_up, 1);
        pause();
    }
    if (!atomic_load(&real))
        atomic_store(&real, (getaddrinfo_function *)dlsym(RTLD_NEXT, "getaddrinfo"));
    return atomic_load(&real)(node, service, hints, out);
}

static void names_that_nobody_looks_up_hold_nothing_up(void **state)
{
    (void)state;
    snprintf(url, sizeof url, "http://" DEAF_NAME ":4318/v1/traces");
    put_many(0, 3, 1);
    pid_t pid = start_keeper();
    wait_for_line(&shared->looks_up, 1);
    /* It is given up, and the loop of the keeper goes on: it can say so, and hears of its end. */
    struct pollfd ends = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    must(ends.fd >= 0);
    for (int i = 0; i < 10000 && !count(&telemetry->otlp_failed); i++)
        poll(NULL, 0, 1);
    bool failed = count(&telemetry->otlp_failed) == 1;
    tell_to_stop();
    bool ended = poll(&ends, 1, 10000) == 1;
    if (!ended)
        kill(pid, SIGKILL);
    assert_true(end_of(pid) == 0 && ended && failed);
    close(ends.fd);
}

static void a_ring_whose_head_is_a_lie_holds_nothing_up(void **state)
{
    (void)state;
    put_many(0, 3, 1);
    struct telemetry_worker *liar = telemetry_slot(telemetry, 1);
    atomic_store(&liar->span_head, UINT64_C(1) << 62);
    pid_t pid = start_keeper();
    struct asked a = take();
    assert_int_equal(a.n, 3);
    reply(&a, "200 OK", "{}");
    wait_for(&telemetry->otlp_sent, 3);
    assert_int_equal(count(&liar->span_tail), UINT64_C(1) << 62);
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
}

/* ---- a collector with troubles ---- */

static void a_passing_failure_is_tried_again_with_the_same_spans(void **state)
{
    (void)state;
    put_many(0, 2, 1);
    pid_t pid = start_keeper();
    struct asked a = take();
    int64_t asked_ns = clock_mono_ns();
    assert_int_equal(a.n, 2);
    reply(&a, "503 Service Unavailable\r\nRetry-After: 2", "");
    wait_for_line(&shared->warnings, 1);
    assert_non_null(strstr(shared->warning, "it answers with 503"));
    assert_non_null(strstr(shared->warning, "http://127.0.0.1:"));
    assert_null(strstr(shared->warning, "secret"));
    a = take();
    assert_true(clock_mono_ns() - asked_ns >= 1900 * MS_NS);
    assert_int_equal(a.n, 2);
    close(a.fd); /* no answer at all */
    json_decref(a.body);
    wait_for(&telemetry->otlp_failed, 2);
    a = take();
    assert_int_equal(a.n, 2);
    reply(&a, "200 OK", "{}");
    wait_for(&telemetry->otlp_sent, 2);
    wait_for_line(&shared->infos, 1);
    assert_int_equal(atomic_load(&shared->warnings), 1); /* once for both failures */
    assert_non_null(strstr(shared->info, "takes spans again; 0 were dropped"));
    assert_int_equal(count(&telemetry->otlp_dropped), 0);
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
}

static void another_refusal_drops_the_batch_and_goes_on(void **state)
{
    (void)state;
    put_many(0, 5, 1);
    pid_t pid = start_keeper();
    struct asked a = take();
    reply(&a, "401 Unauthorized", "who are you?");
    wait_for(&telemetry->otlp_dropped, 5);
    wait_for_line(&shared->warnings, 1);
    assert_non_null(strstr(shared->warning, "401"));
    assert_non_null(strstr(shared->warning, "otlp-header"));
    put_many(0, 2, 6);
    a = take();
    assert_int_equal(a.n, 2);
    reply(&a, "302 Found\r\nLocation: http://127.0.0.1:1/", "");
    wait_for(&telemetry->otlp_dropped, 7);
    put_many(0, 1, 8);
    a = take();
    assert_int_equal(a.n, 1);
    reply(&a, "202 Accepted", "this is no JSON");
    wait_for(&telemetry->otlp_sent, 1);
    wait_for_line(&shared->infos, 1);
    assert_non_null(strstr(shared->info, "7 were dropped"));
    assert_int_equal(count(&telemetry->otlp_failed), 2);
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
}

static void what_is_rejected_of_a_batch_is_counted(void **state)
{
    (void)state;
    put_many(0, 5, 1);
    pid_t pid = start_keeper();
    struct asked a = take();
    reply(&a, "200 OK",
          "{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"too old\"}}");
    wait_for(&telemetry->otlp_sent, 2);
    wait_for(&telemetry->otlp_dropped, 3);
    wait_for_line(&shared->warnings, 1);
    assert_non_null(strstr(shared->warning, "3 of 5: too old"));
    put_many(0, 2, 6);
    a = take();
    reply(&a, "200 OK", "{\"partialSuccess\":{\"rejectedSpans\":9999999999}}");
    wait_for(&telemetry->otlp_dropped, 5); /* never more than were sent */
    put_many(0, 1, 8);
    a = take();
    reply(&a, "200 OK", "{\"partialSuccess\":{\"errorMessage\":\"a warning\"}}");
    wait_for(&telemetry->otlp_sent, 3);
    wait_for_line(&shared->infos, 1);
    assert_int_equal(atomic_load(&shared->warnings), 1);
    assert_int_equal(count(&telemetry->otlp_dropped), 5);
    assert_int_equal(count(&telemetry->otlp_failed), 0);
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
}

static void garbage_and_endless_answers_are_borne(void **state)
{
    (void)state;
    put_many(0, 1, 1);
    pid_t pid = start_keeper();
    struct asked a = take();
    dprintf(a.fd, "SSH-2.0-OpenSSH\r\n\r\n");
    close(a.fd);
    json_decref(a.body);
    wait_for(&telemetry->otlp_failed, 1);
    a = take();
    assert_int_equal(a.n, 1);
    /* Far more than is looked at, and no JSON where it is cut. */
    dprintf(a.fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    static char much[65536];
    memset(much, '[', sizeof much);
    for (unsigned i = 0; i < 16; i++)
        if (send(a.fd, much, sizeof much, MSG_NOSIGNAL) <= 0)
            break;
    close(a.fd);
    json_decref(a.body);
    wait_for(&telemetry->otlp_sent, 1);
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
}

static void while_the_collector_is_away_the_oldest_are_dropped_and_counted(void **state)
{
    (void)state;
    uint16_t port = port_of();
    close(listener);
    pid_t pid = start_keeper();
    uint64_t id = 1;
    put_many(0, 10, id);
    id += 10;
    wait_for(&telemetry->otlp_failed, 1);
    wait_for_line(&shared->warnings, 1);
    /* More than a ring holds, while it is away; a worker never waits for it. */
    const struct telemetry_worker *w = telemetry_slot(telemetry, 0);
    while (id <= 3 * telemetry->spans_max) {
        unsigned n = telemetry->spans_max / 8;
        uint64_t dropped = count(&telemetry->otlp_dropped);
        put_many(0, n, id);
        id += n;
        if (count(&w->span_head) - count(&w->span_tail) > telemetry->spans_max / 4 * 3)
            wait_for(&telemetry->otlp_dropped, dropped + 1);
    }
    assert_int_equal(count(&w->spans_dropped), 0); /* always room for the newest */
    listen_again(port);
    uint64_t last = 0, n = 0;
    while (last != id - 1) {
        struct asked a = take();
        const json_t *v = attribute(json_array_get(a.spans, a.n - 1), "weir.request");
        last = strtoul(string(v, "intValue"), NULL, 10);
        n += a.n;
        reply(&a, "200 OK", "{}");
    }
    wait_for(&telemetry->otlp_sent, n);
    wait_for_line(&shared->infos, 1);
    assert_int_equal(atomic_load(&shared->warnings), 1);
    assert_int_equal(count(&telemetry->otlp_sent) + count(&telemetry->otlp_dropped), id - 1);
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
}

/* ---- keepers ---- */

static void the_next_keeper_sends_what_a_killed_one_had_in_the_air(void **state)
{
    (void)state;
    put_many(0, 600, 1);
    pid_t pid = start_keeper();
    struct asked a = take();
    assert_int_equal(a.n, 512);
    reply(&a, "200 OK", "{}");
    a = take();
    assert_int_equal(a.n, 88);
    kill(pid, SIGKILL);
    end_of(pid);
    close(a.fd);
    json_decref(a.body);
    assert_int_equal(count(&telemetry->otlp_sent), 512);
    pid = start_keeper();
    a = take();
    assert_int_equal(a.n, 88); /* these once more, the others not */
    const json_t *v = attribute(json_array_get(a.spans, 0), "weir.request");
    assert_string_equal(string(v, "intValue"), "513");
    reply(&a, "200 OK", "{}");
    wait_for(&telemetry->otlp_sent, 600);
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
}

static void of_two_keepers_one_sends_until_it_ends(void **state)
{
    (void)state;
    put_many(0, 1, 1);
    pid_t old = start_keeper();
    struct asked a = take(); /* it has them */
    pid_t new = start_keeper();
    put_many(0, 3, 2);
    reply(&a, "200 OK", "{}");
    wait_for(&telemetry->otlp_sent, 1);
    kill(old, SIGTERM);
    for (size_t n = 0; n < 3; n += a.n, reply(&a, "200 OK", "{}"))
        a = take();
    assert_int_equal(end_of(old), 0);
    put_many(0, 2, 5);
    a = take();
    assert_int_equal(a.n, 2);
    reply(&a, "200 OK", "{}");
    wait_for(&telemetry->otlp_sent, 6);
    tell_to_stop();
    assert_int_equal(end_of(new), 0);
    assert_int_equal(count(&telemetry->otlp_sent), 6);
}

static void without_an_endpoint_nothing_is_sent(void **state)
{
    (void)state;
    config.otlp.endpoint = "";
    put_many(0, 3, 1);
    pid_t pid = start_keeper();
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
    struct pollfd p = {.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
}

static void a_header_that_is_none_is_left_out_and_told(void **state)
{
    (void)state;
    ((struct conf_list *)(uintptr_t)config.otlp.headers)->n = 3;
    put_many(0, 1, 1);
    pid_t pid = start_keeper();
    struct asked a = take();
    assert_null(strstr(a.head, "X-Evil"));
    assert_null(strstr(a.head, "no value"));
    assert_non_null(strstr(a.head, "\r\nX-Tenant: a=b\r\n"));
    assert_int_equal(atomic_load(&shared->errors), 2);
    reply(&a, "200 OK", "{}");
    tell_to_stop();
    assert_int_equal(end_of(pid), 0);
}

int main(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared != MAP_FAILED);
#define TEST(f) cmocka_unit_test_setup_teardown(f, make, unmake)
    const struct CMUnitTest tests[] = {
        TEST(a_request_is_a_server_span),
        TEST(what_went_wrong_is_told_and_a_client_that_left_is_no_error),
        TEST(any_bytes_of_a_client_are_valid_json),
        TEST(many_spans_go_in_batches_that_are_bounded),
        TEST(the_last_spans_are_sent_at_the_end),
        TEST(a_collector_that_stalls_holds_no_end_up),
        TEST(a_ring_whose_head_is_a_lie_holds_nothing_up),
        TEST(names_that_nobody_looks_up_hold_nothing_up),
        TEST(a_passing_failure_is_tried_again_with_the_same_spans),
        TEST(another_refusal_drops_the_batch_and_goes_on),
        TEST(what_is_rejected_of_a_batch_is_counted),
        TEST(garbage_and_endless_answers_are_borne),
        TEST(while_the_collector_is_away_the_oldest_are_dropped_and_counted),
        TEST(the_next_keeper_sends_what_a_killed_one_had_in_the_air),
        TEST(of_two_keepers_one_sends_until_it_ends),
        TEST(without_an_endpoint_nothing_is_sent),
        TEST(a_header_that_is_none_is_left_out_and_told),
    };
    return cmocka_run_group_tests_name("keeper_export", tests, NULL, NULL);
}
