/* Probes of workers and who asks them: one real loop, probes in threads and in forked processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "admin/probes.h"
#include "base/clock.h"
#include "base/must.h"
#include "serve/probe.h"
#include "serve/probe_wire.h"

static uv_loop_t loop;
static struct keeper_door door;
static struct scoreboard *board;
static struct telemetry *telemetry;
static struct admin_view view;
static struct probes *probes;

static int make(void **state)
{
    (void)state;
    struct err e = {{0}};
    must(uv_loop_init(&loop) == 0 && keeper_door_open(&door, &e) == 0);
    board = scoreboard_new(4);
    telemetry = telemetry_new(4, false);
    must(board && telemetry);
    view = (struct admin_view){.board = board, .telemetry = telemetry};
    must(probes_new(&probes, &loop, &door, geteuid(), &view, &e) == 0);
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    probes_free(&probes);
    uv_run(&loop, UV_RUN_DEFAULT);
    must(uv_loop_close(&loop) == 0);
    keeper_door_close(&door);
    telemetry_free(&telemetry);
    scoreboard_free(&board);
    return 0;
}

static void worker_is(unsigned slot, int pid, unsigned generation, enum worker_state s)
{
    atomic_store(&board->slots[slot].pid, pid);
    atomic_store(&board->slots[slot].generation, generation);
    atomic_store(&board->slots[slot].state, (int32_t)s);
}

/* ---- who asks ---- */

struct asker {
    int answers;
    char json[4096];
    size_t n;
    uint64_t ticket;
    bool again; /* asks once more from within */
};

static void on_json(void *arg, struct slice json)
{
    struct asker *a = arg;
    a->answers++;
    a->n = json.n;
    snprintf(a->json, sizeof a->json, "%.*s", (int)json.n, json.p);
    if (a->again) {
        a->again = false;
        assert_int_equal(probes_ask(probes, -1, 0, on_json, a, NULL), 0);
    }
}

static void ask(struct asker *a, int worker, uint64_t id)
{
    assert_int_equal(probes_ask(probes, worker, id, on_json, a, &a->ticket), 0);
    assert_int_equal(a->answers, 0);
}

static void on_tick(uv_timer_t *t)
{
    (void)t;
}

/* Turn the loop until a condition holds; a timer of the test's, so that no turn waits for long. */
static void turn(bool (*is_over)(const void *), const void *what)
{
    uv_timer_t tick;
    int64_t until_ns = clock_mono_ns() + INT64_C(20000000000);
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_tick, 2, 2);
    while (!is_over(what)) {
        must(clock_mono_ns() < until_ns);
        uv_run(&loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static bool has_answer(const void *asker)
{
    return ((const struct asker *)asker)->answers > 0;
}

static bool has_two_answers(const void *asker)
{
    return ((const struct asker *)asker)->answers > 1;
}

static bool is_readable(const void *fd)
{
    struct pollfd p = {.fd = *(const int *)fd, .events = POLLIN};
    return poll(&p, 1, 0) != 0;
}

static const char *answer(int worker, uint64_t id)
{
    static struct asker a;
    a = (struct asker){0};
    ask(&a, worker, id);
    turn(has_answer, &a);
    return a.json;
}

/* ---- what a worker says ---- */

struct fake {
    const char *json;
    size_t filler; /* bytes of a name of the only thread */
    int error;
    _Atomic int asked;
    _Atomic int32_t thread; /* that was asked for last */
};

static int fake_stacks(void *arg, struct buf *out, int32_t thread)
{
    struct fake *f = arg;
    atomic_fetch_add(&f->asked, 1);
    atomic_store(&f->thread, thread);
    if (f->error)
        return f->error;
    if (!f->filler)
        return buf_add_slice(out, slice_str(f->json));
    int rc = buf_add_slice(out, SLICE("[{\"thread\":1,\"name\":\""));
    char *p = malloc(f->filler);
    must(p);
    memset(p, 'x', f->filler);
    rc = rc ? rc : buf_add(out, p, f->filler);
    free(p);
    return rc ? rc : buf_add_slice(out, SLICE("\"}]"));
}

static struct probe *probe_of(unsigned slot, unsigned generation, struct fake *f)
{
    struct probe *p = NULL;
    const struct probe_config c = {
        .door = &door, .slot = slot, .generation = generation, .stacks = fake_stacks, .arg = f};
    assert_int_equal(probe_start(&p, &c), 0);
    return p;
}

#define THREAD "{\"thread\":123,\"name\":\"weir-app-1\",\"python\":true,\"frames\":[]}"

static void answers_of_all_workers_stand_together(void **state)
{
    (void)state;
    struct fake a = {.json = "[" THREAD "]"}, b = {.json = "[]"};
    worker_is(0, 41, 1, WORKER_READY);
    worker_is(2, 42, 7, WORKER_DRAINING);
    struct probe *p = probe_of(0, 1, &a), *q = probe_of(2, 7, &b);
    const char *json = answer(-1, 0);
    assert_non_null(strstr(
        json,
        "{\"slot\":0,\"pid\":41,\"generation\":1,\"state\":\"ready\",\"error\":null,\"took\":0"));
    assert_non_null(
        strstr(json, "\"name\":\"weir-app-1\",\"python\":true,\"frames\":[],\"request\":null}]}"));
    assert_non_null(strstr(
        json, "{\"slot\":2,\"pid\":42,\"generation\":7,\"state\":\"draining\",\"error\":null"));
    assert_int_equal(atomic_load(&a.thread), 0);
    json = answer(2, 0);
    assert_null(strstr(json, "\"slot\":0"));
    assert_non_null(strstr(json, "\"slot\":2"));
    assert_non_null(strstr(answer(1, 0), "\"workers\":[]}"));
    assert_non_null(strstr(answer(99, 0), "\"workers\":[]}"));
    probe_stop(&p);
    probe_stop(&q);
}

static struct flight *flight_in(unsigned slot, uint64_t id, int32_t thread)
{
    struct flight *f = flight_begin(telemetry, slot, clock_mono_ns() - 2000000000);
    must(f);
    flight_edit(f);
    f->id = id;
    snprintf(f->method, sizeof f->method, "POST");
    snprintf(f->path, sizeof f->path, "/slow");
    snprintf(f->user, sizeof f->user, "jwt:42");
    flight_edited(f);
    flight_enter(telemetry_slot(telemetry, slot), f, FLIGHT_APPLICATION, clock_mono_ns());
    atomic_store(&f->thread, thread);
    return f;
}

static void a_thread_stands_with_the_request_that_it_runs(void **state)
{
    (void)state;
    struct fake a = {.json = "[{\"thread\":7}," THREAD "]"};
    worker_is(0, 41, 1, WORKER_READY);
    (void)flight_in(0, 900, 0);
    (void)flight_in(0, 901, 123);
    (void)flight_in(1, 902, 7); /* of another worker */
    struct probe *p = probe_of(0, 1, &a);
    const char *json = answer(-1, 0);
    assert_non_null(strstr(json, "{\"thread\":7,\"request\":null}"));
    assert_non_null(strstr(json, "\"request\":{\"id\":901,\"method\":\"POST\",\"path\":\"/"
                                 "slow\",\"user\":\"jwt:42\",\"age\":2."));
    assert_non_null(strstr(json, "\"state\":\"application\"}}"));
    probe_stop(&p);
}

static void only_the_thread_of_a_request_is_asked_for(void **state)
{
    (void)state;
    struct fake a = {.json = "[" THREAD "]"}, b = {.json = "[]"};
    worker_is(0, 41, 1, WORKER_READY);
    worker_is(1, 42, 1, WORKER_READY);
    (void)flight_in(0, 900, 0);
    (void)flight_in(0, 901, 123);
    struct probe *p = probe_of(0, 1, &a), *q = probe_of(1, 1, &b);
    assert_non_null(strstr(answer(0, 901), "\"request\":{\"id\":901"));
    assert_int_equal(atomic_load(&a.thread), 123);
    const char *json = answer(-1, 901);
    assert_non_null(strstr(json, "\"slot\":0"));
    assert_null(strstr(json, "\"slot\":1"));
    assert_int_equal(atomic_load(&b.asked), 0);
    int asked = atomic_load(&a.asked);
    assert_non_null(strstr(
        answer(0, 900), "\"error\":\"no thread runs request 900\",\"took\":null,\"threads\":[]"));
    assert_non_null(strstr(answer(0, 999), "no thread runs request 999"));
    assert_int_equal(atomic_load(&a.asked), asked);
    probe_stop(&p);
    probe_stop(&q);
}

static void who_does_not_answer_has_an_error_and_the_others_their_answer(void **state)
{
    (void)state;
    struct fake a = {.json = "[" THREAD "]"};
    worker_is(0, 41, 1, WORKER_READY);
    worker_is(1, 42, 1, WORKER_READY);
    worker_is(2, 43, 1, WORKER_READY);
    worker_is(3, 44, 1, WORKER_BOOTING);
    struct probe *p = probe_of(0, 1, &a);
    int silent = keeper_door_connect(&door, 1, 1);
    assert_true(silent >= 0);
    const char *json = answer(-1, 0);
    assert_non_null(strstr(json, "weir-app-1"));
    assert_non_null(strstr(json, "\"slot\":1,\"pid\":42,\"generation\":1,\"state\":\"ready\","
                                 "\"error\":\"no answer within 1 s\",\"took\":null"));
    assert_non_null(strstr(json, "\"slot\":2,\"pid\":43,\"generation\":1,\"state\":\"ready\","
                                 "\"error\":\"it did not connect within 1 s\""));
    assert_non_null(strstr(
        json, "\"state\":\"booting\",\"error\":\"it boots: its threads cannot be seen yet\""));
    close(silent);
    probe_stop(&p);
}

static void a_worker_that_boots_alone_is_told_at_once(void **state)
{
    (void)state;
    worker_is(0, 41, 1, WORKER_BOOTING);
    int64_t begin_ns = clock_mono_ns();
    assert_non_null(strstr(answer(-1, 0), "it boots"));
    assert_true(clock_mono_ns() - begin_ns < INT64_C(900000000));
}

static void an_answer_of_megabytes_comes_whole(void **state)
{
    (void)state;
    struct fake a = {.filler = 3 << 20};
    struct asker asker = {0};
    worker_is(0, 41, 1, WORKER_READY);
    struct probe *p = probe_of(0, 1, &a);
    ask(&asker, 0, 0);
    turn(has_answer, &asker);
    assert_true(asker.n > a.filler);
    probe_stop(&p);
}

static void who_cannot_look_says_why(void **state)
{
    (void)state;
    struct fake a = {.error = -EPERM};
    worker_is(0, 41, 1, WORKER_READY);
    struct probe *p = probe_of(0, 1, &a);
    assert_non_null(strstr(
        answer(0, 0), "\"error\":\"its threads cannot be looked at: Operation not permitted\""));
    probe_stop(&p);
}

static void two_who_ask_at_once_share_a_question(void **state)
{
    (void)state;
    struct fake a = {.json = "[" THREAD "]"};
    struct asker one = {0}, two = {0};
    worker_is(0, 41, 1, WORKER_READY);
    struct probe *p = probe_of(0, 1, &a);
    ask(&one, -1, 0);
    ask(&two, -1, 0);
    turn(has_answer, &one);
    assert_int_equal(two.answers, 1);
    assert_string_equal(one.json, two.json);
    assert_int_equal(atomic_load(&a.asked), 1);
    (void)answer(-1, 0); /* later: its own */
    assert_int_equal(atomic_load(&a.asked), 2);
    probe_stop(&p);
}

static void who_forgets_his_ask_is_not_told(void **state)
{
    (void)state;
    struct fake a = {.json = "[]"};
    struct asker one = {0}, two = {0};
    worker_is(0, 41, 1, WORKER_READY);
    struct probe *p = probe_of(0, 1, &a);
    ask(&one, -1, 0);
    ask(&two, -1, 0);
    probes_forget(probes, one.ticket);
    turn(has_answer, &two);
    assert_int_equal(one.answers, 0);
    probes_forget(probes, one.ticket);
    probes_forget(probes, two.ticket);
    ask(&one, -1, 0);
    probes_forget(probes, one.ticket); /* the last: the question is given up */
    (void)answer(0, 0);
    assert_int_equal(one.answers, 0);
    probe_stop(&p);
}

static void an_answer_may_be_followed_by_an_ask_from_within(void **state)
{
    (void)state;
    struct fake a = {.json = "[]"};
    struct asker one = {.again = true};
    worker_is(0, 41, 1, WORKER_READY);
    struct probe *p = probe_of(0, 1, &a);
    ask(&one, -1, 0);
    turn(has_two_answers, &one);
    probe_stop(&p);
}

static void too_many_asks_are_refused(void **state)
{
    (void)state;
    struct asker all[PROBES_ASKS_MAX] = {0};
    worker_is(0, 41, 1, WORKER_READY); /* nobody is there to answer */
    for (unsigned i = 0; i < PROBES_ASKS_MAX; i++)
        ask(&all[i], 0, 0);
    assert_int_equal(probes_ask(probes, 0, 0, on_json, &all[0], NULL), -EBUSY);
    turn(has_answer, &all[PROBES_ASKS_MAX - 1]);
    for (unsigned i = 0; i < PROBES_ASKS_MAX; i++)
        assert_int_equal(all[i].answers, 1);
    (void)answer(0, 0);
}

/* Read until the other end closes. */
static void assert_closed(int fd)
{
    char bytes[256];
    ssize_t n;
    do {
        turn(is_readable, &fd);
        n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    } while (n > 0);
    assert_true(n == 0 || errno == ECONNRESET);
    close(fd);
}

static void who_sends_nonsense_loses_his_connection(void **state)
{
    (void)state;
    static const char *const WRONG[] = {
        "{}",
        "[",
        "[1]",
        "[{}]",
        "[{\"thread\":\"1\"}]",
        "[{\"thread\":1}] x",
        "",
        "[{\"thread\":1,\"frames\":[}]}]",
    };
    worker_is(0, 41, 1, WORKER_READY);
    /* packets that are none */
    for (unsigned kind = 0; kind < 4; kind++) {
        struct probe_piece piece = {.head = {.kind = PROBE_PIECE, .size = sizeof piece}};
        size_t n = sizeof piece;
        if (kind == 0)
            piece.head.kind = PROBE_ASK;
        else if (kind == 1)
            piece.head.size++;
        else if (kind == 2)
            n = 3;
        else
            piece.last = 2;
        int fd = keeper_door_connect(&door, 0, 1);
        assert_int_equal(send(fd, &piece, n, 0), n);
        assert_closed(fd);
    }
    /* answers that are no list of threads */
    for (size_t i = 0; i < countof(WRONG); i++) {
        struct {
            struct probe_piece head;
            char bytes[64];
        } piece = {.head = {.head = {.kind = PROBE_PIECE}, .last = 1}};
        size_t n = sizeof piece.head + strlen(WRONG[i]);
        struct probe_ask question;
        struct asker a = {0};
        int fd = keeper_door_connect(&door, 0, 1);
        ask(&a, 0, 0);
        turn(is_readable, &fd);
        assert_int_equal(recv(fd, &question, sizeof question, 0), sizeof question);
        assert_int_equal(question.head.kind, PROBE_ASK);
        piece.head.head.size = (uint32_t)n;
        piece.head.head.question = question.head.question;
        memcpy(piece.bytes, WRONG[i], strlen(WRONG[i]));
        assert_int_equal(send(fd, &piece, n, 0), n);
        assert_closed(fd);
        probes_forget(probes, a.ticket);
    }
}

static void an_answer_to_what_nobody_asked_is_passed_over(void **state)
{
    (void)state;
    worker_is(0, 41, 1, WORKER_READY);
    struct probe_piece piece = {
        .head = {.kind = PROBE_PIECE, .size = sizeof piece, .question = 77 << 16}, .last = 1};
    int fd = keeper_door_connect(&door, 0, 1);
    struct asker a = {0};
    assert_int_equal(send(fd, &piece, sizeof piece, 0), sizeof piece);
    ask(&a, 0, 0);
    struct probe_ask question;
    turn(is_readable, &fd);
    assert_int_equal(recv(fd, &question, sizeof question, 0), sizeof question);
    close(fd);
}

static void a_stranger_is_not_heard(void **state)
{
    (void)state;
    struct keeper_door other = door;
    other.cookie[3] ^= 1;
    int fd = keeper_door_connect(&other, 0, 1);
    assert_true(fd >= 0);
    assert_closed(fd);
}

/* Descriptors of this process. */
static int open_now(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    must(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static bool all_are_in(const void *n)
{
    return open_now() == *(const int *)n;
}

static void a_crowd_at_the_door_is_let_in_bit_by_bit(void **state)
{
    (void)state;
    enum { CROWD = 200, OF_A_TURN = 64 };
    int fds[CROWD];
    for (int i = 0; i < CROWD; i++) {
        fds[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        must(connect(fds[i], (struct sockaddr *)&door.address, door.address_bytes) == 0);
    }
    int before = open_now(), all = before + CROWD;
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_in_range(open_now() - before, 1, OF_A_TURN);
    turn(all_are_in, &all);
    for (int i = 0; i < CROWD; i++)
        close(fds[i]);
    turn(all_are_in, (const int[]){before - CROWD});
}

static void a_probe_that_connects_again_takes_the_place_of_the_older_one(void **state)
{
    (void)state;
    struct fake a = {.json = "[" THREAD "]"};
    worker_is(0, 41, 1, WORKER_READY);
    int older = keeper_door_connect(&door, 0, 1), other = keeper_door_connect(&door, 0, 2);
    struct asker one = {0};
    ask(&one, 0, 0);
    turn(is_readable, &older); /* it has the question */
    struct probe *p = probe_of(0, 1, &a);
    turn(has_answer, &one);
    assert_non_null(strstr(one.json, "weir-app-1")); /* asked again */
    assert_closed(older);
    char byte;
    assert_int_equal(recv(other, &byte, 1, MSG_DONTWAIT), -1); /* another process: it stays */
    assert_int_equal(errno, EAGAIN);
    close(other);
    probe_stop(&p);
}

static void a_probe_finds_the_next_listener(void **state)
{
    (void)state;
    struct fake a = {.json = "[" THREAD "]"};
    struct err e = {{0}};
    worker_is(0, 41, 1, WORKER_READY);
    struct probe *p = probe_of(0, 1, &a);
    for (int i = 0; i < 5; i++) {
        assert_non_null(strstr(answer(0, 0), "weir-app-1"));
        probes_free(&probes);
        uv_run(&loop, UV_RUN_NOWAIT);
        assert_int_equal(probes_new(&probes, &loop, &door, geteuid(), &view, &e), 0);
    }
    probe_stop(&p);
}

/* ---- processes ---- */

static pid_t fork_worker(unsigned slot, unsigned generation)
{
    pid_t test = getpid(), pid = fork();
    must(pid >= 0);
    if (pid)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != test)
        _exit(1);
    struct fake a = {.json = "[" THREAD "]"};
    keeper_door_close(&door);
    struct probe *p = NULL;
    const struct probe_config c = {
        .door = &door, .slot = slot, .generation = generation, .stacks = fake_stacks, .arg = &a};
    if (probe_start(&p, &c))
        _exit(1);
    for (;;)
        pause();
}

static void end_worker(pid_t pid)
{
    kill(pid, SIGKILL);
    must(waitpid(pid, NULL, 0) == pid);
}

static void a_stopped_process_has_an_error_and_answers_when_it_goes_on(void **state)
{
    (void)state;
    pid_t pid = fork_worker(0, 1);
    worker_is(0, pid, 1, WORKER_READY);
    assert_non_null(strstr(answer(0, 0), "weir-app-1"));
    kill(pid, SIGSTOP);
    must(waitpid(pid, NULL, WUNTRACED) == pid);
    for (int i = 0; i < 2; i++)
        assert_non_null(strstr(answer(0, 0), "no answer within 1 s"));
    kill(pid, SIGCONT);
    assert_non_null(strstr(answer(0, 0), "weir-app-1"));
    end_worker(pid);
}

static void a_killed_process_is_replaced_by_the_next(void **state)
{
    (void)state;
    for (unsigned generation = 1; generation < 6; generation++) {
        pid_t pid = fork_worker(0, generation);
        worker_is(0, pid, generation, WORKER_READY);
        assert_non_null(strstr(answer(0, 0), "weir-app-1"));
        end_worker(pid);
    }
    assert_non_null(strstr(answer(0, 0), "it did not connect"));
}

/* ---- text ---- */

static void stacks_are_told_as_text(void **state)
{
    (void)state;
    struct buf out = {0};
    static const char JSON[] =
        "{\"now\":1.5,\"workers\":[{\"slot\":0,\"pid\":41,\"generation\":1,\"state\":\"ready\","
        "\"error\":null,\"took\":0.004,"
        "\"threads\":[{\"thread\":6,\"name\":\"idle\",\"python\":false,\"state\":\"S\",\"cpu\":0,"
        "\"waits_in\":\"futex\",\"lock\":\"free\","
        "\"lock_for\":null,\"frames\":[],\"more_frames\":false,\"complete\":true,\"request\":null},"
        "{\"thread\":7,\"name\":\"weir-app-\\u001b3\",\"python\":true,\"state\":\"R\",\"cpu\":12."
        "34,\"waits_in\":null,"
        "\"lock\":\"holds\",\"lock_for\":3.2,\"frames\":[{\"function\":\"gr\xc3\xb6\xc3\x9f"
        "e\",\"file\":\"/srv/app.py\",\"line\":41,"
        "\"source\":\"time.sleep(30)\"},{\"function\":\"x\",\"file\":\"<string>\",\"line\":null,"
        "\"source\":null}],"
        "\"more_frames\":true,\"complete\":false,"
        "\"request\":{\"id\":9,\"method\":\"GET\",\"path\":\"/"
        "a\",\"user\":\"jwt:42\",\"age\":12.4,\"state\":\"application\"}}]},"
        "{\"slot\":1,\"pid\":42,\"generation\":1,\"state\":\"booting\",\"error\":\"it "
        "boots\",\"took\":null,\"threads\":[]}]}";
    assert_int_equal(probes_text(&out, SLICE(JSON)), 0);
    assert_int_equal(buf_add(&out, "", 1), 0);
    assert_string_equal(out.p, "worker 0, process 41, ready\n"
                               "  thread 7 weir-app-?3: runs, holds the interpreter lock for 3.20 "
                               "s, 12.34 s of processor time, it ran on meanwhile\n"
                               "    request 9: GET /a of jwt:42, 12.40 s, application\n"
                               "    gr\xc3\xb6\xc3\x9f"
                               "e  /srv/app.py:41\n"
                               "        time.sleep(30)\n"
                               "    x  <string>\n"
                               "    (older frames are left out)\n"
                               "  thread 6 idle: waits in futex, 0.00 s of processor time\n"
                               "\n"
                               "worker 1, process 42, booting: it boots\n");
    buf_fini(&out);
    assert_int_equal(probes_text(&out, SLICE("{\"workers\":[]}")), 0);
    assert_int_equal(probes_text(&out, SLICE("{\"workers\":[}")), -EINVAL);
    assert_int_equal(probes_text(&out, SLICE("[]")), -EINVAL);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, unmake)
        TEST(answers_of_all_workers_stand_together),
        TEST(a_thread_stands_with_the_request_that_it_runs),
        TEST(only_the_thread_of_a_request_is_asked_for),
        TEST(who_does_not_answer_has_an_error_and_the_others_their_answer),
        TEST(a_worker_that_boots_alone_is_told_at_once),
        TEST(an_answer_of_megabytes_comes_whole),
        TEST(who_cannot_look_says_why),
        TEST(two_who_ask_at_once_share_a_question),
        TEST(who_forgets_his_ask_is_not_told),
        TEST(an_answer_may_be_followed_by_an_ask_from_within),
        TEST(too_many_asks_are_refused),
        TEST(who_sends_nonsense_loses_his_connection),
        TEST(an_answer_to_what_nobody_asked_is_passed_over),
        TEST(a_stranger_is_not_heard),
        TEST(a_crowd_at_the_door_is_let_in_bit_by_bit),
        TEST(a_probe_that_connects_again_takes_the_place_of_the_older_one),
        TEST(a_probe_finds_the_next_listener),
        TEST(a_stopped_process_has_an_error_and_answers_when_it_goes_on),
        TEST(a_killed_process_is_replaced_by_the_next),
        cmocka_unit_test(stacks_are_told_as_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
