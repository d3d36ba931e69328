/* What a packet says, what is refused, and that descriptors are neither lost nor leaked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/attr.h"
#include "net/handover.h"

static unsigned char room[HANDOVER_BYTES_MAX];

static struct handover example(void)
{
    struct handover h = {.url = "http://[::1]:8000", .peer_family = AF_INET6, .peer_port = 54321, .served = 7,
                         .idle_ms = 123456, .proxied = true};
    inet_pton(AF_INET6, "2001:db8::17", h.peer);
    return h;
}

static void assert_same(const struct handover *a, const struct handover *b)
{
    assert_string_equal(a->url, b->url);
    assert_int_equal(a->peer_family, b->peer_family);
    assert_int_equal(a->peer_port, b->peer_port);
    assert_memory_equal(a->peer, b->peer, sizeof a->peer);
    assert_int_equal(a->proxied, b->proxied);
    assert_int_equal(a->awaits_proxy, b->awaits_proxy);
    assert_int_equal(a->served, b->served);
    assert_int_equal(a->idle_ms, b->idle_ms);
    assert_int_equal(a->input.n, b->input.n);
    if (a->input.n)
        assert_memory_equal(a->input.p, b->input.p, a->input.n);
}

/* The whole packet; its length. */
static size_t packet(const struct handover *h, unsigned char *out)
{
    size_t n = handover_write(h, out);
    if (h->input.n)
        memcpy(out + n, h->input.p, h->input.n);
    return n + h->input.n;
}

static void a_packet_says_what_was_written(void **state)
{
    (void)state;
    static char most[HANDOVER_INPUT_MAX];
    struct handover cases[6] = {example(), example(), example(), example(), example(), example()};
    cases[1].peer_family = AF_INET;
    cases[1].proxied = false;
    cases[1].awaits_proxy = true;
    cases[2] = (struct handover){.url = "http://unix:/run/weir.sock", .peer_family = AF_UNIX};
    memset(cases[3].url, 'u', sizeof cases[3].url - 1);
    cases[3].served = cases[3].idle_ms = UINT32_MAX;
    cases[4].input = SLICE("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    memset(most, 'i', sizeof most);
    cases[5].input = slice_of(most, sizeof most);
    for (unsigned i = 0; i < countof(cases); i++) {
        unsigned char bytes[HANDOVER_BYTES_MAX];
        struct handover got;
        assert_in_range(handover_write(&cases[i], bytes), 1, HANDOVER_HEAD_MAX);
        size_t n = packet(&cases[i], bytes);
        assert_true(handover_read(bytes, n, &got));
        assert_same(&cases[i], &got);
    }
}

static void fields_of_a_later_version_at_the_end_are_ignored(void **state)
{
    (void)state;
    struct handover h = example(), got;
    unsigned char bytes[HANDOVER_BYTES_MAX] = {0};
    size_t n = packet(&h, bytes);
    memset(bytes + n, 0xee, sizeof bytes - n);
    assert_true(handover_read(bytes, sizeof bytes, &got));
    assert_same(&h, &got);
}

static void every_prefix_of_a_packet_is_refused(void **state)
{
    (void)state;
    struct handover h = example(), got;
    unsigned char bytes[HANDOVER_BYTES_MAX];
    size_t n = packet(&h, bytes);
    h.input = SLICE("read");
    n = packet(&h, bytes);
    for (size_t i = 0; i < n; i++) {
        unsigned char *copy = malloc(i + 1); /* so that a sanitizer sees a read behind it */
        assert_non_null(copy);
        memcpy(copy, bytes, i);
        assert_false(handover_read(copy, i, &got));
        free(copy);
    }
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        unsigned char value;
    } CHANGES[] = {
        {0, 'w'},  {3, 'h'},   /* no packet of ours */
        {4, 0},    {4, 2},     /* another version */
        {8, 5},    {8, 255},   /* no family */
        {9, 160},  {9, 255},   /* an address longer than any, or than the packet */
        {44, 0},               /* a NUL inside the address */
        {36, 5},  {39, 1},     /* more bytes than are there */
    };
    for (unsigned i = 0; i < countof(CHANGES); i++) {
        struct handover h = example(), got;
        unsigned char bytes[HANDOVER_BYTES_MAX];
        h.input = SLICE("four");
        size_t n = packet(&h, bytes);
        bytes[CHANGES[i].at] = CHANGES[i].value;
        assert_false(handover_read(bytes, n, &got));
    }
    struct handover got;
    unsigned char large[HANDOVER_BYTES_MAX + 1] = {0};
    struct handover h = example();
    handover_write(&h, large);
    assert_false(handover_read(large, sizeof large, &got));
}

/* ---- over a socket ---- */

static unsigned open_descriptors(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void make_pair(int type, int pair[2])
{
    assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
}

static void close_pair(const int pair[2])
{
    close(pair[0]);
    close(pair[1]);
}

static void a_connection_goes_on_where_it_arrives(void **state)
{
    (void)state;
    int hand[2], client[2], got = -1;
    make_pair(SOCK_SEQPACKET, hand);
    make_pair(SOCK_STREAM, client);
    struct handover h = example(), seen;
    h.input = SLICE("read already");
    assert_int_equal(handover_recv(hand[0], room, &seen, &got), 0); /* nothing yet */
    assert_int_equal(write(client[0], "before", 6), 6);
    assert_int_equal(handover_send(hand[1], &h, client[1]), 0);
    close(client[1]);
    assert_int_equal(write(client[0], "after", 5), 5);
    assert_int_equal(handover_recv(hand[0], room, &seen, &got), 1);
    assert_same(&h, &seen);
    assert_true(fcntl(got, F_GETFD) & FD_CLOEXEC);
    char bytes[16];
    assert_int_equal(read(got, bytes, sizeof bytes), 11);
    assert_memory_equal(bytes, "beforeafter", 11);
    assert_int_equal(write(got, "x", 1), 1);
    assert_int_equal(read(client[0], bytes, sizeof bytes), 1);
    close(got);
    close(client[0]);
    close_pair(hand);
}

static void a_full_socket_says_so_and_keeps_what_it_has(void **state)
{
    (void)state;
    int hand[2], client[2], got;
    make_pair(SOCK_SEQPACKET, hand);
    make_pair(SOCK_STREAM, client);
    int bytes = 4096;
    assert_int_equal(setsockopt(hand[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes), 0);
    struct handover h = example(), seen;
    unsigned n = 0;
    int rc;
    while ((rc = handover_send(hand[1], &h, client[1])) == 0)
        assert_true(++n < 10000);
    assert_int_equal(rc, -EAGAIN);
    assert_true(n > 0);
    unsigned before = open_descriptors();
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(handover_recv(hand[0], room, &seen, &got), 1);
        close(got);
    }
    assert_int_equal(handover_recv(hand[0], room, &seen, &got), 0);
    assert_int_equal(open_descriptors(), before);
    struct pollfd state_now = {.fd = hand[1], .events = POLLOUT};
    assert_int_equal(poll(&state_now, 1, 0), 1);
    close_pair(client);
    close_pair(hand);
}

static void send_raw(int sock, const void *p, size_t n, const int *fds, unsigned n_fds)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(8 * sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds) {
        m.msg_control = control.room;
        m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    assert_int_equal(sendmsg(sock, &m, 0), (ssize_t)n);
}

static void what_carries_no_connection_is_dropped_and_nothing_leaks(void **state)
{
    (void)state;
    int hand[2], client[2], listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), got;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    make_pair(SOCK_SEQPACKET, hand);
    make_pair(SOCK_STREAM, client);
    assert_int_equal(listen(listening, 1), 0);
    struct handover h = example(), seen;
    unsigned char bytes[HANDOVER_BYTES_MAX + 100] = {0};
    size_t n = packet(&h, bytes);
    const int many[6] = {client[0], client[0], client[0], client[0], client[0], client[0]};
    unsigned before = open_descriptors();

    send_raw(hand[1], bytes, n, NULL, 0);
    send_raw(hand[1], "nonsense", 8, client, 1);
    send_raw(hand[1], bytes, sizeof bytes, client, 1); /* longer than any packet */
    send_raw(hand[1], bytes, n, client, 2);
    send_raw(hand[1], bytes, n, many, 6);
    send_raw(hand[1], bytes, n, &null, 1);
    send_raw(hand[1], bytes, n, &listening, 1);
    send_raw(hand[1], bytes, n, hand, 1); /* a socket, but no stream */
    for (int i = 0; i < 8; i++)
        assert_int_equal(handover_recv(hand[0], room, &seen, &got), -EPROTO);
    assert_int_equal(handover_recv(hand[0], room, &seen, &got), 0);
    assert_int_equal(open_descriptors(), before);
    close(null);
    close(listening);
    close_pair(client);
    close_pair(hand);
}

static void without_a_free_descriptor_nothing_is_taken(void **state)
{
    (void)state;
    int hand[2], client[2], got;
    make_pair(SOCK_SEQPACKET, hand);
    make_pair(SOCK_STREAM, client);
    struct handover h = example(), seen;
    assert_int_equal(handover_send(hand[1], &h, client[1]), 0);
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int rc = handover_recv(hand[0], room, &seen, &got);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(rc, -EMFILE);
    assert_int_equal(handover_recv(hand[0], room, &seen, &got), 1); /* it is still there */
    close(got);
    close_pair(client);
    close_pair(hand);
}

static void nobody_at_the_other_end_is_told(void **state)
{
    (void)state;
    int hand[2], client[2], got;
    make_pair(SOCK_SEQPACKET, hand);
    make_pair(SOCK_STREAM, client);
    struct handover h = example(), seen;
    close(hand[1]);
    assert_int_equal(handover_recv(hand[0], room, &seen, &got), -EPIPE);
    close(hand[0]);
    make_pair(SOCK_SEQPACKET, hand);
    close(hand[0]);
    assert_int_equal(handover_send(hand[1], &h, client[1]), -EPIPE);
    close(hand[1]);
    close_pair(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_packet_says_what_was_written),
        cmocka_unit_test(fields_of_a_later_version_at_the_end_are_ignored),
        cmocka_unit_test(every_prefix_of_a_packet_is_refused),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(a_connection_goes_on_where_it_arrives),
        cmocka_unit_test(a_full_socket_says_so_and_keeps_what_it_has),
        cmocka_unit_test(what_carries_no_connection_is_dropped_and_nothing_leaks),
        cmocka_unit_test(without_a_free_descriptor_nothing_is_taken),
        cmocka_unit_test(nobody_at_the_other_end_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
