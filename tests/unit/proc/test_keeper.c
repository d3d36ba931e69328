/*
 * keeper: real processes and real sockets. Keepers are forked and killed, the worker's link asks.
 */
#include "../store/quota_helper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "proc/keeper.h"
#include "serve/keeper_link.h"

static char folder[256], path[512];
static struct keeper_door door;
static struct keeper_config config;
static int stop_pipe[2]; /* its write end is the test's */

/* What keepers and links of other processes tell. */
static struct shared {
    _Atomic int lines; /* of log */
    char last[1024];
    _Atomic int published, publish_failed;
    char jwks[256];
    char publish_error[1024];
    _Atomic uint64_t acknowledged, refused, failed;
} * shared;

static void note(enum log_level level, const char *text)
{
    (void)level;
    snprintf(shared->last, sizeof shared->last, "%s", text);
    atomic_fetch_add(&shared->lines, 1);
}

static bool publish(void *arg, unsigned identifier, struct slice jwks, const char *error)
{
    (void)arg;
    (void)identifier;
    if (error) {
        snprintf(shared->publish_error, sizeof shared->publish_error, "%s", error);
        atomic_fetch_add(&shared->publish_failed, 1);
    } else {
        snprintf(shared->jwks, sizeof shared->jwks, "%.*s", (int)jwks.n, jwks.p);
        atomic_fetch_add(&shared->published, 1);
    }
    return !strstr(shared->jwks, "unusable");
}

static int make(void **state)
{
    (void)state;
    struct err e = {{0}};
    folder_make(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/q.db", folder);
    memset(shared, 0, sizeof *shared);
    if (keeper_load(WEIR_KEEPER_LIBRARY, &e) || keeper_door_open(&door, &e) ||
        pipe2(stop_pipe, O_CLOEXEC)) {
        print_error("%s\n", e.text);
        return -1;
    }
    config = (struct keeper_config){
        .door = &door,
        .store = path,
        .uid = geteuid(),
        .stop_fd = stop_pipe[0],
        .process = true,
        .drain_ms = 5000,
        .ca_file = "",
        .publish = publish,
        .log = note,
    };
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    keeper_door_close(&door);
    close(stop_pipe[0]);
    if (stop_pipe[1] >= 0)
        close(stop_pipe[1]);
    (void)umount2(folder, MNT_DETACH); /* where a test has mounted something */
    folder_remove(folder);
    return 0;
}

/* A keeper, until it is killed or the pipe is closed. */
static pid_t start_keeper(void)
{
    pid_t test = getpid(), pid = fork();
    must(pid >= 0);
    if (pid)
        return pid;
    struct err e = {{0}};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != test)
        _exit(1);
    close(stop_pipe[1]);
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

static void kill_keeper(pid_t pid)
{
    kill(pid, SIGKILL);
    end_of(pid);
}

/* Closing the pipe is what a supervisor's end does. */
static int stop_keeper(pid_t pid)
{
    close(stop_pipe[1]);
    stop_pipe[1] = -1;
    return end_of(pid);
}

/* ---- a worker ---- */

struct asker {
    struct loop loop;
    struct keeper_link *link;
    int answers, errors, last_error;
    enum quota_verdict verdict;
    struct quota_use use;
    struct quota_row rows[4];
    unsigned n_rows;
};

static void asker_init(struct asker *a, int64_t ask_ms)
{
    *a = (struct asker){0};
    int rc = loop_init(&a->loop);
    must(rc == 0);
    rc = keeper_link_new(&a->link, &a->loop,
                         &(struct keeper_link_settings){.door = &door, .ask_ms = ask_ms});
    must(rc == 0);
}

static void asker_fini(struct asker *a)
{
    keeper_link_free(&a->link);
    loop_fini(&a->loop);
}

static void on_spent(void *arg, int error, const enum quota_verdict *v, const struct quota_use *use)
{
    struct asker *a = arg;
    a->answers++;
    a->errors += error != 0;
    a->last_error = error;
    if (!error) {
        a->verdict = *v;
        a->use = *use;
    }
}

static void on_used(void *arg, int error, const struct quota_row *rows, unsigned n)
{
    struct asker *a = arg;
    a->answers++;
    a->errors += error != 0;
    a->last_error = error;
    a->n_rows = n < countof(a->rows) ? n : countof(a->rows);
    for (unsigned i = 0; i < a->n_rows; i++)
        a->rows[i] = rows[i];
}

static void turn_until(struct asker *a, int answers)
{
    while (a->answers < answers)
        loop_turn(&a->loop, true);
}

static void until_quiet(struct asker *a)
{
    struct keeper_link_stats s;
    do {
        keeper_link_stats(a->link, &s);
        if (s.asks || s.refunds)
            loop_turn(&a->loop, true);
    } while (s.asks || s.refunds);
}

static struct quota_op spend(struct asker *a, const char *user, int64_t day)
{
    struct keeper_spend s = {
        .op = keeper_link_op(a->link),
        .user = slice_str(user),
        .route = SLICE("ai"),
        .limits = {day, -1},
    };
    int rc = keeper_link_spend(a->link, &s, on_spent, a, NULL);
    must(rc == 0);
    return s.op;
}

/* What the file says at the end. */
static int64_t in_file(const char *user)
{
    struct quota_store *q;
    struct err e;
    assert_int_equal(quota_open(&q, path, &e), 0);
    int64_t n = used_at(q, user, clock_wall_ns() / 1000000000).month;
    quota_close(&q);
    return n;
}

/* ---- questions ---- */

static void spend_refund_and_usage_are_answered(void **state)
{
    (void)state;
    struct asker a;
    asker_init(&a, 5000);
    spend(&a, "ann", 2); /* before there is a keeper: it waits in the backlog */
    pid_t pid = start_keeper();
    turn_until(&a, 1);
    assert_int_equal(a.last_error, 0);
    assert_int_equal(a.use.day, 1);
    struct quota_op op = spend(&a, "ann", 2);
    turn_until(&a, 2);
    spend(&a, "ann", 2);
    turn_until(&a, 3);
    assert_int_equal(a.verdict, QUOTA_DAY_OVER);
    assert_int_equal(keeper_link_refund(a.link, op), 0);
    spend(&a, "ann", 2);
    turn_until(&a, 4);
    assert_int_equal(a.verdict, QUOTA_SPENT);
    assert_int_equal(keeper_link_usage(a.link, SLICE("ann"), on_used, &a, NULL), 0);
    turn_until(&a, 5);
    assert_int_equal(a.n_rows, 1);
    assert_string_equal(a.rows[0].route, "ai");
    assert_int_equal(a.rows[0].use.day, 2);
    asker_fini(&a);
    assert_int_equal(stop_keeper(pid), 0);
    assert_int_equal(in_file("ann"), 2);
}

static void the_last_refunds_of_a_worker_that_ends_arrive(void **state)
{
    (void)state;
    struct asker a;
    pid_t pid = start_keeper();
    asker_init(&a, 5000);
    struct quota_op ops[50];
    for (int i = 0; i < 50; i++)
        ops[i] = spend(&a, "ann", -1);
    turn_until(&a, 50);
    for (int i = 0; i < 50; i++)
        assert_int_equal(keeper_link_refund(a.link, ops[i]), 0);
    for (int i = 0; i < 50; i++) /* whose answers nobody will read */
        spend(&a, "ann", -1);
    asker_fini(&a);
    assert_int_equal(a.answers, 100);
    assert_int_equal(a.last_error, -ECANCELED);
    assert_int_equal(stop_keeper(pid), 0);
    assert_int_equal(in_file("ann"), 0);
}

static void who_forgets_his_question_spends_nothing(void **state)
{
    (void)state;
    struct asker a;
    uint64_t ticket;
    pid_t pid = start_keeper();
    asker_init(&a, 5000);
    struct keeper_spend s = {
        .op = keeper_link_op(a.link), .user = SLICE("ann"), .limits = {-1, -1}};
    assert_int_equal(keeper_link_spend(a.link, &s, on_spent, &a, &ticket), 0);
    keeper_link_forget(a.link, ticket);
    keeper_link_forget(a.link, ticket);
    until_quiet(&a);
    assert_int_equal(a.answers, 0);
    asker_fini(&a);
    assert_int_equal(stop_keeper(pid), 0);
    assert_int_equal(in_file("ann"), 0);
}

static void a_keeper_that_stands_still_costs_its_deadline_and_no_quota(void **state)
{
    (void)state;
    struct asker a;
    pid_t pid = start_keeper();
    asker_init(&a, 50);
    kill(pid, SIGSTOP);
    for (int i = 0; i < 100; i++)
        spend(&a, "ann", -1);
    turn_until(&a, 100);
    assert_int_equal(a.errors, 100);
    assert_int_equal(a.last_error, -ETIMEDOUT);
    kill(pid, SIGCONT);
    until_quiet(&a);
    asker_fini(&a);
    assert_int_equal(stop_keeper(pid), 0);
    assert_int_equal(in_file("ann"), 0);
}

static void without_anybody_who_listens_the_answer_is_an_error(void **state)
{
    (void)state;
    struct asker a;
    keeper_door_close(&door);
    asker_init(&a, 60000);
    for (int i = 0; i < 3; i++)
        spend(&a, "ann", -1);
    turn_until(&a, 3);
    assert_int_equal(a.last_error, -ECONNREFUSED);
    asker_fini(&a);
}

static void too_many_questions_are_refused_at_once(void **state)
{
    (void)state;
    struct asker a;
    asker_init(&a, 60000); /* nobody accepts */
    for (int i = 0; i < KEEPER_LINK_ASKS; i++)
        spend(&a, "ann", -1);
    struct keeper_spend s = {.op = keeper_link_op(a.link), .user = SLICE("ann")};
    assert_int_equal(keeper_link_spend(a.link, &s, on_spent, &a, NULL), -EBUSY);
    char name[KEEPER_USER_MAX + 1] = {0};
    s.user = slice_of(name, sizeof name);
    assert_int_equal(keeper_link_spend(a.link, &s, on_spent, &a, NULL), -ENAMETOOLONG);
    pid_t pid = start_keeper();
    turn_until(&a, KEEPER_LINK_ASKS);
    assert_int_equal(a.errors, 0);
    assert_int_equal(a.use.day, KEEPER_LINK_ASKS);
    asker_fini(&a);
    assert_int_equal(stop_keeper(pid), 0);
    assert_int_equal(in_file("ann"), KEEPER_LINK_ASKS);
}

/* ---- who may ask ---- */

static void expect_end(int fd)
{
    char byte;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    assert_true(recv(fd, &byte, 1, 0) <= 0);
    close(fd);
}

static void without_the_cookie_or_with_garbage_the_connection_ends(void **state)
{
    (void)state;
    struct keeper_door liar = door;
    pid_t pid = start_keeper();
    liar.cookie[3] ^= 1;
    int fd = keeper_door_connect(&liar, 0, 0);
    assert_true(fd >= 0);
    expect_end(fd);
    fd = keeper_door_connect(&door, 0, 0);
    assert_true(fd >= 0);
    assert_int_equal(send(fd, "garbage", 7, MSG_NOSIGNAL), 7);
    expect_end(fd);
    if (geteuid() == 0) { /* another user, with the cookie */
        pid_t other = fork();
        if (other == 0) {
            if (setuid(65534))
                _exit(2);
            char byte;
            fd = keeper_door_connect(&door, 0, 0);
            struct pollfd p = {.fd = fd, .events = POLLIN};
            bool ended = fd < 0 || (poll(&p, 1, 10000) == 1 && recv(fd, &byte, 1, 0) <= 0);
            _exit(ended ? 0 : 1);
        }
        assert_int_equal(end_of(other), 0);
    }
    assert_int_equal(stop_keeper(pid), 0);
}

/* ---- death ---- */

enum { LINKS = 3, KILLS = 50, WINDOW = 40 };

/* A worker that asks all the time until it is told to stop; then its books are in shared memory. */
static pid_t start_load(const int *go, unsigned n)
{
    pid_t test = getpid(), pid = fork();
    must(pid >= 0);
    if (pid)
        return pid;
    struct asker a;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != test)
        _exit(1);
    close(go[1]);
    asker_init(&a, 20000);
    struct pollfd p = {.fd = go[0]};
    int asked = 0;
    uint64_t refunded = 0;
    struct quota_op kept = {{0}};
    while (poll(&p, 1, 0) == 0) { /* until its other end is closed */
        while (asked - a.answers < WINDOW) {
            struct quota_op op = spend(&a, n % 2 ? "ann" : "bob", -1);
            if (++asked % 10 == 0)
                kept = op;
            /* One in ten is refunded, when its answer has come or not. */
            if (asked % 10 == 5 && kept.id[0]) {
                int rc = keeper_link_refund(a.link, kept);
                must(rc == 0);
                refunded++;
            }
        }
        loop_turn(&a.loop, true);
    }
    until_quiet(&a);
    atomic_fetch_add(&shared->acknowledged, (uint64_t)(a.answers - a.errors) - refunded);
    atomic_fetch_add(&shared->failed, (uint64_t)a.errors);
    asker_fini(&a);
    _exit(0);
}

static void a_keeper_killed_fifty_times_under_load_counts_everything_once(void **state)
{
    (void)state;
    int go[2];
    pid_t load[LINKS];
    struct asker a;
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    for (unsigned i = 0; i < LINKS; i++)
        load[i] = start_load(go, i);
    close(go[0]);
    asker_init(&a, 20000);
    for (int i = 0; i < KILLS; i++) {
        pid_t pid = start_keeper();
        /* It has begun to answer; then at some moment. */
        for (int k = 0; k < 1 + i % 4; k++) {
            spend(&a, "eve", -1);
            turn_until(&a, a.answers + 1);
        }
        assert_int_equal(a.last_error, 0);
        kill_keeper(pid);
    }
    close(go[1]); /* a keeper would keep it open */
    pid_t pid = start_keeper();
    for (unsigned i = 0; i < LINKS; i++)
        assert_int_equal(end_of(load[i]), 0);
    asker_fini(&a);
    assert_int_equal(stop_keeper(pid), 0);
    assert_int_equal(atomic_load(&shared->failed), 0);
    assert_int_equal(in_file("eve"), a.answers);
    int64_t counted = in_file("ann") + in_file("bob");
    print_message("# %d spends acknowledged in %d lives\n", (int)atomic_load(&shared->acknowledged),
                  KILLS + 1);
    assert_int_equal(counted, atomic_load(&shared->acknowledged));
}

static void two_keepers_on_one_file_count_exactly(void **state)
{
    (void)state;
    int go[2];
    pid_t load[LINKS], keepers[2];
    struct asker a;
    asker_init(&a, 20000);
    keepers[0] = start_keeper();
    keepers[1] = start_keeper(); /* connections go to either */
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    for (unsigned i = 0; i < LINKS; i++)
        load[i] = start_load(go, i);
    close(go[0]);
    for (int i = 0; i < 50; i++) {
        spend(&a, "eve", -1);
        turn_until(&a, i + 1);
    }
    close(go[1]);
    for (unsigned i = 0; i < LINKS; i++)
        assert_int_equal(end_of(load[i]), 0);
    asker_fini(&a);
    assert_int_equal(stop_keeper(keepers[0]), 0);
    assert_int_equal(end_of(keepers[1]), 0);
    assert_int_equal(atomic_load(&shared->failed), 0);
    assert_int_equal(in_file("ann") + in_file("bob"), atomic_load(&shared->acknowledged));
}

static void term_serves_who_is_connected_and_takes_nobody_new(void **state)
{
    (void)state;
    struct asker a;
    pid_t pid = start_keeper();
    asker_init(&a, 5000);
    spend(&a, "ann", -1);
    turn_until(&a, 1);
    kill(pid, SIGTERM);
    for (int i = 2; i < 20; i++) {
        spend(&a, "ann", -1);
        turn_until(&a, i);
    }
    assert_int_equal(a.errors, 0);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    asker_fini(&a);
    assert_int_equal(end_of(pid), 0);
}

/* ---- the disk ---- */

static void a_full_disk_is_an_error_until_it_has_room_again(void **state)
{
    (void)state;
    struct asker a;
    bool mounted = geteuid() == 0 && mount("none", folder, "tmpfs", 0, "size=256k") == 0;
    pid_t pid;
    if (mounted) {
        pid = start_keeper();
    } else { /* the same by a limit, which ends with the process */
        struct rlimit before, low = {.rlim_cur = 131072};
        getrlimit(RLIMIT_FSIZE, &before);
        low.rlim_max = before.rlim_max;
        setrlimit(RLIMIT_FSIZE, &low);
        pid = start_keeper();
        setrlimit(RLIMIT_FSIZE, &before);
    }
    asker_init(&a, 20000);
    char filler[600];
    snprintf(filler, sizeof filler, "%s/other", folder);
    int asked = 0, good = 0;
    while (a.errors == 0 && asked < 5000) {
        spend(&a, "ann", -1);
        turn_until(&a, ++asked);
    }
    good = asked - a.errors;
    assert_int_equal(a.errors, 1);
    assert_true(good > 0);
    assert_true(a.last_error == -ENOSPC || a.last_error == -EFBIG || a.last_error == -EIO);
    if (mounted)
        assert_int_equal(mount("none", folder, "tmpfs", MS_REMOUNT, "size=16m"), 0);
    else {
        kill_keeper(pid);
        pid = start_keeper();
    }
    for (int i = 0; i < 100 || (mounted && !strstr(shared->last, "again")); i++) {
        spend(&a, "ann", -1);
        turn_until(&a, ++asked);
        good += a.last_error == 0;
    }
    assert_int_equal(a.errors, 1);
    until_quiet(&a);
    asker_fini(&a);
    assert_int_equal(stop_keeper(pid), 0);
    assert_int_equal(in_file("ann"), good);
}

static void a_damaged_file_is_told_and_every_question_is_an_error(void **state)
{
    (void)state;
    struct asker a;
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 1000; i++)
        fputs("this is a letter\n", f);
    fclose(f);
    pid_t pid = start_keeper();
    asker_init(&a, 20000);
    for (int i = 1; i <= 3; i++) {
        spend(&a, "ann", -1);
        turn_until(&a, i);
        assert_int_equal(a.last_error, -EUCLEAN);
    }
    assert_non_null(strstr(shared->last, "restore a copy"));
    assert_int_equal(atomic_load(&shared->lines), 1);
    asker_fini(&a);
    assert_int_equal(stop_keeper(pid), 0);
}

/* ---- as a thread ---- */

static void a_process_that_serves_alone_has_a_keeper_too(void **state)
{
    (void)state;
    struct asker a;
    struct keeper_thread *t;
    struct err e;
    struct sigaction before, after;
    sigaction(SIGTERM, NULL, &before);
    assert_int_equal(keeper_thread_start(&t, &config, &e), 0);
    asker_init(&a, 20000);
    for (int i = 1; i <= 10; i++) {
        spend(&a, "ann", -1);
        turn_until(&a, i);
        assert_int_equal(a.use.day, i);
    }
    asker_fini(&a);
    keeper_thread_stop(&t);
    sigaction(SIGTERM, NULL, &after);
    assert_true(before.sa_handler == after.sa_handler);
    assert_int_equal(in_file("ann"), 10);
}

/* ---- key sets ---- */

static int listen_http(char *url, size_t room)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(fd, (struct sockaddr *)&a, n) == 0 && listen(fd, 8) == 0);
    getsockname(fd, (struct sockaddr *)&a, &n);
    snprintf(url, room, "http://127.0.0.1:%u/jwks.json", ntohs(a.sin_port));
    return fd;
}

static void answer_http(int listener, const char *head, const char *body, size_t n)
{
    char request[2048];
    int fd = accept(listener, NULL, NULL);
    must(fd >= 0);
    ssize_t got = read(fd, request, sizeof request - 1);
    must(got > 0);
    dprintf(fd, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", head, n);
    while (n) {
        ssize_t done = send(fd, body, n, MSG_NOSIGNAL);
        if (done <= 0)
            break;
        body += done;
        n -= (size_t)done;
    }
    close(fd);
}

static void wait_for(_Atomic int *what, int n)
{
    while (atomic_load(what) < n)
        poll(NULL, 0, 1);
}

static void key_sets_are_fetched_and_what_is_none_is_told_and_tried_again(void **state)
{
    (void)state;
    static char url[128], long_body[70000];
    const char *keys = "{\"keys\":[{\"kid\":\"1\"}]}";
    int listener = listen_http(url, sizeof url);
    config.jwks[0] = (struct keeper_jwks){2, url};
    config.n_jwks = 1;
    config.store = "";
    pid_t pid = start_keeper();
    answer_http(listener, "200 OK", "no keys", 7);
    wait_for(&shared->publish_failed, 1);
    assert_non_null(strstr(shared->publish_error, "is no key set"));
    assert_non_null(strstr(shared->publish_error, url));
    memset(long_body, 'x', sizeof long_body);
    answer_http(listener, "200 OK", long_body, sizeof long_body);
    wait_for(&shared->publish_failed, 2);
    assert_non_null(strstr(shared->publish_error, "64 KiB"));
    assert_int_equal(atomic_load(&shared->published), 0);
    answer_http(listener, "302 Found\r\nLocation: file:///etc/passwd", "", 0);
    wait_for(&shared->publish_failed, 3);
    answer_http(listener, "200 OK", "{\"keys\":[\"unusable\"]}", 21);
    wait_for(&shared->published, 1);
    answer_http(listener, "200 OK\r\nCache-Control: public, max-age=61", keys, strlen(keys));
    wait_for(&shared->published, 2);
    assert_string_equal(shared->jwks, keys);
    assert_int_equal(stop_keeper(pid), 0);
    close(listener);
}

static void plain_http_to_another_machine_is_refused(void **state)
{
    (void)state;
    config.jwks[0] = (struct keeper_jwks){0, "http://192.0.2.1/jwks.json"};
    config.n_jwks = 1;
    config.store = "";
    pid_t pid = start_keeper();
    wait_for(&shared->publish_failed, 1);
    assert_non_null(strstr(shared->publish_error, "https://"));
    assert_int_equal(stop_keeper(pid), 0);
}

static void who_needs_a_keeper(void **state)
{
    (void)state;
    struct policy_identifier ids[2] = {{.kind = IDENTIFY_ADDRESS},
                                       {.kind = IDENTIFY_JWT, .jwks = "/etc/jwks.json"}};
    struct policy_quota quota = {.tier = "free", .day = 1, .month = -1};
    struct policy_route route = {.name = "x"};
    static struct conf conf; /* zeroed */
    conf.policy = (struct conf_policy){
        .identifiers = ids, .n_identifiers = 2, .routes = &route, .n_routes = 1};
    struct keeper_config c;
    assert_false(keeper_wanted(NULL));
    assert_false(keeper_wanted(&conf));
    route.quotas = &quota;
    route.n_quotas = 1;
    assert_true(keeper_wanted(&conf));
    route.n_quotas = 0;
    ids[1].jwks = "https://a.example/jwks";
    assert_true(keeper_wanted(&conf));
    keeper_config_jwks(&c, &conf.policy);
    assert_int_equal(c.n_jwks, 1);
    assert_int_equal(c.jwks[0].identifier, 1);
    conf.policy = (struct conf_policy){0};
    assert_false(keeper_wanted(&conf));
    conf.admin = "127.0.0.1:5001";
    assert_true(keeper_wanted(&conf));
    conf.admin = "";
    conf.otlp_endpoint = "http://127.0.0.1:4318/v1/traces";
    assert_true(keeper_wanted(&conf));
}

int main(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared != MAP_FAILED);
#define FOLDER(f) cmocka_unit_test_setup_teardown(f, make, unmake)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_needs_a_keeper),
        FOLDER(spend_refund_and_usage_are_answered),
        FOLDER(the_last_refunds_of_a_worker_that_ends_arrive),
        FOLDER(who_forgets_his_question_spends_nothing),
        FOLDER(a_keeper_that_stands_still_costs_its_deadline_and_no_quota),
        FOLDER(without_anybody_who_listens_the_answer_is_an_error),
        FOLDER(too_many_questions_are_refused_at_once),
        FOLDER(without_the_cookie_or_with_garbage_the_connection_ends),
        FOLDER(a_keeper_killed_fifty_times_under_load_counts_everything_once),
        FOLDER(two_keepers_on_one_file_count_exactly),
        FOLDER(term_serves_who_is_connected_and_takes_nobody_new),
        FOLDER(a_full_disk_is_an_error_until_it_has_room_again),
        FOLDER(a_damaged_file_is_told_and_every_question_is_an_error),
        FOLDER(a_process_that_serves_alone_has_a_keeper_too),
        FOLDER(key_sets_are_fetched_and_what_is_none_is_told_and_tried_again),
        FOLDER(plain_http_to_another_machine_is_refused),
    };
    return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
