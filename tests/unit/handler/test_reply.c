/* reply: statuses, fields, framing, errors, files, dates. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "handler/handler.h"
#include "handler/reply.c" /* for value_ok and date_format */

struct fixture {
    struct req req;
    struct call call;
};

static int setup(void **state)
{
    static struct fixture f;
    buf_fini(&f.call.out);
    f.req = (struct req){.minor = 1};
    static struct reply_ident ident;
    f.call = (struct call){.req = &f.req, .file_fd = -1, .keep_alive = true, .ident = &ident};
    reply_ident_set(&ident, "weir");
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    buf_fini(&f->call.out);
    if (f->call.file_fd >= 0)
        close(f->call.file_fd);
    return 0;
}

/* The head as text, without its Date. */
static const char *head_of(const struct call *c)
{
    static char text[4096];
    size_t n = 0;
    const char *p = c->out.p, *end = memmem(p, c->out.n, "\r\n\r\n", 4);
    assert_non_null(end);
    end += 2;
    while (p < end) {
        const char *eol = memmem(p, (size_t)(end - p), "\r\n", 2);
        size_t line = (size_t)(eol - p) + 2;
        if (strncmp(p, "Date: ", 6) != 0) {
            memcpy(text + n, p, line);
            n += line;
        }
        p += line;
    }
    text[n] = '\0';
    return text;
}

static const char *body_of(const struct call *c)
{
    static char text[4096];
    const char *end = memmem(c->out.p, c->out.n, "\r\n\r\n", 4);
    assert_non_null(end);
    end += 4;
    size_t n = c->out.n - (size_t)(end - c->out.p);
    memcpy(text, end, n);
    text[n] = '\0';
    return text;
}

/* ---- statuses ---- */

static void statuses_are_checked(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    static const char *const GOOD[] = {"200 OK",         "200",     "200 ", "999 X",
                                       "404 Not\tFound", "500 \xe9"};
    static const char *const BAD[] = {"",           "20",           "2 0 OK",        "abc OK",
                                      "200OK",      "100 Continue", "101 X",         "000 X",
                                      "200 a\r\nB", "200 \x7f",     " 200",          "-20 OK",
                                      "200\tOK",    "2000 OK",      "200 12345678\n"};
    for (size_t i = 0; i < countof(GOOD); i++)
        assert_int_equal(call_status(c, slice_str(GOOD[i])), CALL_OK);
    for (size_t i = 0; i < countof(BAD); i++)
        assert_int_equal(call_status(c, slice_str(BAD[i])), CALL_BAD_STATUS);
    assert_int_equal(call_status(c, slice_of("200 a\0b", 7)), CALL_BAD_STATUS);
}

static void a_missing_reason_is_filled_in(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    assert_int_equal(call_status(c, SLICE("404")), CALL_OK);
    assert_int_equal(call_end(c), 0);
    assert_string_equal(head_of(c),
                        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nServer: weir\r\n");
}

static void a_new_status_forgets_the_fields(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("Content-Length"), SLICE("7")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("Server"), SLICE("mine")), CALL_OK);
    assert_int_equal(call_status(c, SLICE("201 Created")), CALL_OK);
    assert_int_equal(call_end(c), 0);
    assert_string_equal(head_of(c),
                        "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nServer: weir\r\n");
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_LATE);
    assert_int_equal(call_field(c, SLICE("A"), SLICE("b")), CALL_LATE);
}

/* ---- fields ---- */

static void every_byte_of_names_and_values_is_judged(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    for (unsigned b = 0; b < 256; b++)
        for (size_t n = 1; n <= 20; n++)
            for (size_t at = 0; at < n; at++) {
                char text[20];
                memset(text, 'x', sizeof text);
                text[at] = (char)b;
                bool token = strchr("!#$%&'*+-.^_`|~", (int)b)
                                 ? b != 0
                                 : (b >= '0' && b <= '9') || (b >= 'A' && b <= 'Z') ||
                                       (b >= 'a' && b <= 'z');
                bool value = b == '\t' || (b >= 0x20 && b != 0x7f);
                assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
                assert_int_equal(call_field(c, slice_of(text, n), SLICE("v")),
                                 token ? CALL_OK : CALL_BAD_NAME);
                assert_int_equal(call_field(c, SLICE("n"), slice_of(text, n)),
                                 value ? CALL_OK : CALL_BAD_VALUE);
            }
}

static void fields_of_the_server_are_refused(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    static const char *const NAMES[] = {"Connection",
                                        "keep-alive",
                                        "Transfer-Encoding",
                                        "TRANSFER-ENCODING",
                                        "Upgrade",
                                        "TE",
                                        "te",
                                        "Trailer",
                                        "Trailers",
                                        "Proxy-Authenticate",
                                        "proxy-authorization",
                                        "Proxy-Connection",
                                        "Proxy-Authentication-Info"};
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
    for (size_t i = 0; i < countof(NAMES); i++)
        assert_int_equal(call_field(c, slice_str(NAMES[i]), SLICE("x")), CALL_HOP_BY_HOP);
    /* the same lengths, other names */
    static const char *const OTHERS[] = {"ZE",
                                         "Tra",
                                         "Datf",
                                         "Servez",
                                         "Upgradf",
                                         "Trailerz",
                                         "Connectiox",
                                         "Content-Lengti",
                                         "Proxy-Connectiox",
                                         "Transfer-Encodinx",
                                         "Proxy-Authenticatx",
                                         "Proxy-Authorizatiox",
                                         "Vib"};
    for (size_t i = 0; i < countof(OTHERS); i++)
        assert_int_equal(call_field(c, slice_str(OTHERS[i]), SLICE("x")), CALL_OK);
    assert_false(c->has_length || c->has_date || c->has_server || c->has_via);
}

static void connection_close_closes(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("connection"), SLICE(" Close ")), CALL_OK);
    assert_int_equal(call_end(c), 0);
    assert_false(c->keep_alive);
    assert_string_equal(
        head_of(c),
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: weir\r\nConnection: close\r\n");
}

static void lengths_are_numbers(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    static const char *const BAD[] = {"",    " ",   "x",   "-1",  "+1",
                                      "1 1", "1,1", "0x1", "1.0", "9999999999999999999"};
    for (size_t i = 0; i < countof(BAD); i++) {
        assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
        assert_int_equal(call_field(c, SLICE("Content-Length"), slice_str(BAD[i])),
                         CALL_BAD_LENGTH);
    }
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("Content-Length"), SLICE("12")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("content-length"), SLICE("12")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("CONTENT-LENGTH"), SLICE("13")), CALL_BAD_LENGTH);
    assert_int_equal(c->length, 12);
}

static void own_date_server_and_via_stay(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("Date"), SLICE("today")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("Server"), SLICE("mine")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("Via"), SLICE("1.1 x")), CALL_OK);
    assert_true(c->has_date && c->has_server && c->has_via);
    assert_int_equal(call_end(c), 0);
    assert_non_null(memmem(c->out.p, c->out.n, "Date: today\r\n", 13));
    assert_null(memmem(c->out.p, c->out.n, "GMT", 3));
    assert_null(memmem(c->out.p, c->out.n, "weir", 4));
}

static void a_head_is_bounded(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    static char big[REPLY_HEAD_BYTES_MAX];
    memset(big, 'x', sizeof big);
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
    size_t room = REPLY_HEAD_BYTES_MAX - c->out.n - 4 - 1;
    assert_int_equal(call_field(c, SLICE("A"), slice_of(big, room + 1)), CALL_NO_MEMORY);
    assert_int_equal(call_field(c, SLICE("A"), slice_of(big, room)), CALL_OK);
    assert_int_equal(call_field(c, SLICE("A"), SLICE("")), CALL_NO_MEMORY);
    assert_int_equal(call_field(c, slice_of(big, sizeof big), SLICE("")), CALL_NO_MEMORY);
    assert_int_equal(call_end(c), 0);
}

static void the_ident_is_a_setting(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    static const char *const NONE[] = {"", "  ", "a\r\nb", NULL};
    struct reply_ident ident;
    c->ident = &ident;
    for (size_t i = 0; i < countof(NONE); i++) {
        reply_ident_set(&ident, NONE[i]);
        c->state = CALL_NEW;
        assert_int_equal(call_end(c), 0);
        assert_string_equal(head_of(c), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
    }
    char longest[REPLY_IDENT_BYTES_MAX + 2];
    memset(longest, 'w', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    reply_ident_set(&ident, longest);
    assert_int_equal(ident.n, 0);
    longest[sizeof longest - 2] = '\0';
    reply_ident_set(&ident, longest);
    assert_int_equal(ident.n, REPLY_IDENT_BYTES_MAX + 10);
    reply_ident_set(&ident, "weir/1 (x)");
    c->state = CALL_NEW;
    assert_int_equal(call_end(c), 0);
    assert_string_equal(head_of(c),
                        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: weir/1 (x)\r\n");
}

/* ---- framing ---- */

struct shape {
    const char *status;
    const char *length; /* the handler's Content-Length, or NULL */
    int64_t total;
    int minor;
    bool head;
    enum call_framing framing;
    const char *line; /* "" = neither Content-Length nor Transfer-Encoding */
    bool keep;
};

static void framing_follows_the_rules(void **state)
{
    struct fixture *f = *state;
    struct call *c = &f->call;
    static const struct shape SHAPES[] = {
        {"200 OK", NULL, -1, 1, false, CALL_CHUNKED, "Transfer-Encoding: chunked", true},
        {"200 OK", NULL, -1, 0, false, CALL_CLOSE, "", false},
        {"200 OK", NULL, 0, 1, false, CALL_LENGTH, "Content-Length: 0", true},
        {"200 OK", NULL, 5, 0, false, CALL_LENGTH, "Content-Length: 5", true},
        {"200 OK", "7", 5, 1, false, CALL_LENGTH, "Content-Length: 7", true},
        {"200 OK", "7", -1, 0, false, CALL_LENGTH, "Content-Length: 7", true},
        {"200 OK", NULL, -1, 1, true, CALL_NO_BODY, "", true},
        {"200 OK", NULL, 0, 1, true, CALL_NO_BODY, "", true},
        {"200 OK", NULL, 5, 1, true, CALL_NO_BODY, "Content-Length: 5", true},
        {"200 OK", "0", 5, 1, true, CALL_NO_BODY, "Content-Length: 0", true},
        {"200 OK", "7", -1, 0, true, CALL_NO_BODY, "Content-Length: 7", true},
        {"204 No", "7", 7, 1, false, CALL_NO_BODY, "", true},
        {"204 No", "7", -1, 1, true, CALL_NO_BODY, "", true},
        {"304 Not", "7", -1, 1, false, CALL_NO_BODY, "Content-Length: 7", true},
        {"304 Not", NULL, 7, 1, false, CALL_NO_BODY, "", true},
        {"304 Not", NULL, 7, 1, true, CALL_NO_BODY, "", true},
        {"205 Reset", "7", 7, 1, false, CALL_NO_BODY, "Content-Length: 0", true},
        {"404 Not", NULL, 5, 1, false, CALL_LENGTH, "Content-Length: 5", true},
    };
    for (size_t i = 0; i < countof(SHAPES); i++) {
        const struct shape *s = &SHAPES[i];
        f->req.minor = (uint8_t)s->minor;
        f->req.head = s->head;
        c->state = CALL_NEW;
        c->keep_alive = true;
        c->sent = 0;
        assert_int_equal(call_status(c, slice_str(s->status)), CALL_OK);
        if (s->length)
            assert_int_equal(call_field(c, SLICE("Content-Length"), slice_str(s->length)), CALL_OK);
        assert_int_equal(call_begin(c, s->total), 0);
        char expected[256];
        snprintf(expected, sizeof expected, "HTTP/1.%d %s\r\n%s%sServer: weir\r\n%s", s->minor,
                 s->status, s->line, *s->line ? "\r\n" : "",
                 !s->keep   ? "Connection: close\r\n"
                 : s->minor ? ""
                            : "Connection: Keep-Alive\r\n");
        assert_string_equal(head_of(c), expected);
        assert_int_equal(c->framing, s->framing);
        assert_int_equal(c->keep_alive, s->keep);
        assert_int_equal(call_begin(c, 3), 0); /* once is enough */
        if (s->framing == CALL_NO_BODY) {
            assert_int_equal(call_data(c, SLICE("abcdefg")), 0);
            assert_int_equal(call_end(c), 0);
            assert_string_equal(body_of(c), "");
        }
    }
}

static void connect_is_never_a_tunnel(void **state)
{
    struct fixture *f = *state;
    f->req.form = REQ_AUTHORITY;
    assert_int_equal(call_begin(&f->call, 5), 0);
    assert_string_equal(head_of(&f->call),
                        "HTTP/1.1 200 OK\r\nServer: weir\r\nConnection: close\r\n");
}

static void chunks_carry_their_size(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    char big[300];
    memset(big, 'y', sizeof big);
    assert_int_equal(call_data(c, SLICE("")), 0);
    assert_int_equal(c->state, CALL_NEW);
    assert_int_equal(call_data(c, SLICE("abc")), 0);
    assert_int_equal(call_data(c, SLICE("")), 0);
    assert_int_equal(call_data(c, SLICE("0123456789")), 0);
    assert_int_equal(call_data(c, slice_of(big, sizeof big)), 0);
    assert_int_equal(call_end(c), 0);
    assert_int_equal(call_end(c), 0);
    const char *body = body_of(c);
    assert_int_equal(strncmp(body, "3\r\nabc\r\nA\r\n0123456789\r\n12C\r\nyyy", 31), 0);
    assert_string_equal(body + strlen(body) - 8, "y\r\n0\r\n\r\n");
    assert_int_equal(c->sent, 313);
}

static void content_beyond_its_length_is_dropped(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    assert_int_equal(call_begin(c, 5), 0);
    assert_int_equal(call_data(c, SLICE("abc")), 0);
    assert_int_equal(call_data(c, SLICE("defg")), 0);
    assert_int_equal(call_data(c, SLICE("h")), 0);
    assert_int_equal(call_end(c), 0);
    assert_string_equal(body_of(c), "abcde");
    assert_int_equal(c->excess, 3);
    assert_true(c->keep_alive);
}

static void content_short_of_its_length_breaks_off(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    assert_int_equal(call_begin(c, 5), 0);
    assert_int_equal(call_data(c, SLICE("abc")), 0);
    assert_int_equal(call_end(c), -EMSGSIZE);
    assert_int_equal(c->state, CALL_ABORTED);
    assert_int_equal(c->out.n, 0);
    assert_false(c->keep_alive);
    assert_int_equal(call_end(c), -EMSGSIZE);
}

static void a_full_buffer_is_no_memory(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    assert_int_equal(call_begin(c, -1), 0);
    c->out.max = c->out.cap;
    char big[1024] = {0};
    assert_int_equal(call_data(c, slice_of(big, sizeof big)), -ENOMEM);
    c->out.max = 0;
}

/* ---- errors ---- */

static void an_error_replaces_what_was_not_framed(void **state)
{
    struct fixture *f = *state;
    struct call *c = &f->call;
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("X-Mine"), SLICE("1")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("Content-Length"), SLICE("100")), CALL_OK);
    call_error(c, 503, "come back later");
    assert_int_equal(c->state, CALL_ENDED);
    assert_string_equal(head_of(c), "HTTP/1.1 503 Service Unavailable\r\n"
                                    "Content-Type: text/plain; charset=utf-8\r\n"
                                    "Content-Length: 37\r\nServer: weir\r\n");
    assert_string_equal(body_of(c), "Service Unavailable\n\ncome back later\n");

    c->state = CALL_NEW;
    c->sent = 0;
    f->req.head = true;
    call_error(c, 404, NULL);
    assert_int_equal(c->state, CALL_ENDED);
    assert_string_equal(body_of(c), "");
    assert_non_null(strstr(head_of(c), "Content-Length: 10\r\n"));
}

static void an_error_after_the_head_breaks_off(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    assert_int_equal(call_data(c, SLICE("abc")), 0);
    call_error(c, 500, "x");
    assert_int_equal(c->state, CALL_ABORTED);
    assert_int_equal(c->out.n, 0);
    assert_non_null(c->abort_reason);
    const char *first = c->abort_reason;
    call_abort(c, "second");
    assert_ptr_equal(c->abort_reason, first);
}

static void an_error_keeps_the_wish_to_close(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    c->close_wanted = true;
    call_error(c, 400, "bad");
    assert_non_null(strstr(head_of(c), "Connection: close\r\n"));
    assert_false(c->keep_alive);
}

static void an_error_without_a_request(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    c->req = NULL;
    call_error(c, 400, "no head");
    assert_int_equal(strncmp(head_of(c), "HTTP/1.1 400 Bad Request\r\n", 26), 0);
}

static void reasons_are_known_or_unknown(void **state)
{
    (void)state;
    assert_string_equal(handler_reason(418), "Unknown");
    assert_string_equal(handler_reason(413), "Request Entity Too Large");
    for (int i = 0; i < 1000; i++)
        assert_true(strlen(handler_reason(i)) < 40); /* error_build relies on it */
}

/* ---- files ---- */

static int some_file(void)
{
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void a_file_is_content(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    int fd = some_file();
    assert_int_equal(call_begin(c, 100), 0);
    assert_int_equal(call_data(c, SLICE("abc")), 0);
    assert_int_equal(call_file(c, fd, 7, 200), 0);
    assert_int_equal(c->file_fd, fd);
    assert_int_equal(c->file_offset, 7);
    assert_int_equal(c->file_length, 97);
    assert_int_equal(c->excess, 103);
    assert_int_equal(call_end(c), 0);
    assert_true(is_open(fd));
}

static void a_file_frames_its_own_head(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    assert_int_equal(call_file(c, some_file(), 0, 42), 0);
    assert_non_null(strstr(head_of(c), "Content-Length: 42\r\n"));
    call_abort(c, "x");
    assert_int_equal(c->file_fd, -1);
}

static void a_file_is_taken_on_every_path(void **state)
{
    struct fixture *f = *state;
    struct call *c = &f->call;
    int fd = some_file();
    assert_int_equal(call_begin(c, -1), 0);
    assert_int_equal(call_file(c, fd, 0, 5), -EINVAL); /* chunked */
    assert_false(is_open(fd));

    f->req.head = true;
    c->state = CALL_NEW;
    c->sent = 0;
    fd = some_file();
    assert_int_equal(call_file(c, fd, 0, 5), 0);
    assert_false(is_open(fd));
    assert_int_equal(c->file_fd, -1);
    assert_int_equal(call_end(c), 0);
    fd = some_file();
    assert_true(call_file(c, fd, 0, 5) < 0); /* ended */
    assert_false(is_open(fd));
}

/* ---- dates ---- */

static void dates_are_http_dates(void **state)
{
    (void)state;
    static const int64_t SECONDS[] = {0,          784111777,  951782400,   951868799,
                                      1735689599, 4102444799, 253402300799};
    for (size_t i = 0; i < countof(SECONDS); i++) {
        char own[32] = {0}, expected[64];
        date_format(SECONDS[i], own);
        struct tm tm;
        time_t t = (time_t)SECONDS[i];
        strftime(expected, sizeof expected, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm));
        assert_string_equal(own, expected);
    }
}

static void the_date_is_of_now(void **state)
{
    (void)state;
    char own[REPLY_DATE_BYTES + 1] = {0}, expected[64];
    time_t before = time(NULL);
    reply_date(own);
    time_t after = time(NULL);
    bool found = false;
    /* the coarse clock may be a tick behind */
    for (time_t t = before - 1; t <= after; t++) {
        struct tm tm;
        strftime(expected, sizeof expected, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm));
        found |= strcmp(own, expected) == 0;
    }
    assert_true(found);
}

static void *read_dates(void *arg)
{
    bool *torn = arg;
    for (int i = 0; i < 200000; i++) {
        char own[REPLY_DATE_BYTES];
        if (i % 3 == 0)
            date_renew(i, own); /* other seconds, so that readers meet writers */
        else
            reply_date(own);
        *torn |= memcmp(own + 25, " GMT", 4) != 0 || own[3] != ',' || own[19] != ':';
    }
    return NULL;
}

static void threads_never_see_a_torn_date(void **state)
{
    (void)state;
    pthread_t threads[4];
    bool torn[4] = {false};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_dates, &torn[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_false(torn[i]);
    }
    atomic_store(&date_second, -1);
}

/* ---- what makes a request known elsewhere ---- */

static void an_answer_carries_its_request_id(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    c->request_id = SLICE("Root=1-67891233");
    assert_int_equal(call_status(c, SLICE("404")), CALL_OK);
    assert_int_equal(call_end(c), 0);
    assert_string_equal(head_of(c), "HTTP/1.1 404 Not Found\r\nX-Request-Id: Root=1-67891233\r\n"
                                    "Content-Length: 0\r\nServer: weir\r\n");
}

static void an_error_in_place_of_an_answer_carries_it_once(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    c->request_id = SLICE("abc");
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("X-Request-Id"), SLICE("mine")), CALL_OK);
    call_error(c, 500, "");
    const char *head = head_of(c), *at = strstr(head, "\r\nX-Request-Id: abc\r\n");
    assert_non_null(at);
    assert_null(strstr(head, "mine"));
    assert_null(strstr(at + 2, "\r\nX-Request-Id"));
}

static void an_application_may_name_its_answer_itself(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    c->request_id = SLICE("abc");
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
    assert_int_equal(call_field(c, SLICE("x-REQUEST-id"), SLICE("mine")), CALL_OK);
    assert_int_equal(call_end(c), 0);
    assert_non_null(strstr(head_of(c), "\r\nx-REQUEST-id: mine\r\n"));
    assert_null(strstr(head_of(c), "abc"));
}

static void the_longest_request_id_and_times_have_room(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    static const char ID[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    static struct reply_ident ident;
    char server[REPLY_IDENT_BYTES_MAX + 1];
    memset(server, 's', sizeof server - 1);
    server[sizeof server - 1] = '\0';
    reply_ident_set(&ident, server);
    c->ident = &ident;
    c->request_id = SLICE(ID);
    c->server_timing = true;
    c->keep_alive = false;
    /* The longest times that can be told: an unknown past. */
    c->start_ns = c->ready_ns = c->run_ns = INT64_MIN / 2;
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
    size_t before = c->out.n;
    assert_int_equal(call_begin(c, INT64_MAX), 0);
    assert_true(c->out.n - before <= REPLY_TAIL_BYTES + REPLY_SEEN_BYTES);
    assert_non_null(strstr(head_of(c), ID));
}

/* The number behind `name` in the head, in ms; -1: it is not there. */
static double timing_of(const struct call *c, const char *name)
{
    const char *at = strstr(head_of(c), "Server-Timing: ");
    at = at ? strstr(at, name) : NULL;
    return at ? atof(at + strlen(name)) : -1;
}

static void server_timing_tells_where_the_time_went(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    int64_t now_ns = clock_mono_ns();
    c->server_timing = true;
    c->start_ns = now_ns - 3000 * INT64_C(1000000);
    c->ready_ns = now_ns - 2500 * INT64_C(1000000);
    c->run_ns = now_ns - 1000 * INT64_C(1000000);
    assert_int_equal(call_status(c, SLICE("200 OK")), CALL_OK);
    assert_int_equal(call_end(c), 0);
    assert_non_null(strstr(head_of(c), "\r\nServer-Timing: queue;dur=1500.000, app;dur=1"));
    assert_true(timing_of(c, "app;dur=") >= 1000 && timing_of(c, "app;dur=") < 1e6);
    double more = timing_of(c, "total;dur=") - timing_of(c, "app;dur=");
    assert_true(more > 1999.9 && more < 2000.1);
}

static void what_never_ran_has_waited_until_its_answer(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    c->server_timing = true;
    c->start_ns = c->ready_ns = clock_mono_ns() - 1000 * INT64_C(1000000);
    call_error(c, 503, "");
    assert_true(timing_of(c, "queue;dur=") >= 1000);
    assert_true(timing_of(c, "total;dur=") >= 1000);
    assert_true(timing_of(c, "app;dur=") < 0);
}

static void times_that_are_not_known_are_not_told(void **state)
{
    struct call *c = &((struct fixture *)*state)->call;
    c->server_timing = true;
    call_error(c, 400, "");
    assert_null(strstr(head_of(c), "Server-Timing"));
    c->out.n = 0;
    c->state = CALL_NEW;
    c->start_ns = clock_mono_ns() + 60 * INT64_C(1000000000); /* a clock that goes back */
    call_error(c, 400, "");
    assert_non_null(strstr(head_of(c), "\r\nServer-Timing: total;dur=0.000\r\n"));
    c->out.n = 0;
    c->state = CALL_NEW;
    c->server_timing = false;
    call_error(c, 400, "");
    assert_null(strstr(head_of(c), "Server-Timing"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(statuses_are_checked),
        TEST(a_missing_reason_is_filled_in),
        TEST(a_new_status_forgets_the_fields),
        TEST(every_byte_of_names_and_values_is_judged),
        TEST(fields_of_the_server_are_refused),
        TEST(connection_close_closes),
        TEST(lengths_are_numbers),
        TEST(own_date_server_and_via_stay),
        TEST(a_head_is_bounded),
        TEST(the_ident_is_a_setting),
        TEST(framing_follows_the_rules),
        TEST(connect_is_never_a_tunnel),
        TEST(chunks_carry_their_size),
        TEST(content_beyond_its_length_is_dropped),
        TEST(content_short_of_its_length_breaks_off),
        TEST(a_full_buffer_is_no_memory),
        TEST(an_error_replaces_what_was_not_framed),
        TEST(an_error_after_the_head_breaks_off),
        TEST(an_error_keeps_the_wish_to_close),
        TEST(an_error_without_a_request),
        TEST(reasons_are_known_or_unknown),
        TEST(a_file_is_content),
        TEST(a_file_frames_its_own_head),
        TEST(a_file_is_taken_on_every_path),
        TEST(an_answer_carries_its_request_id),
        TEST(an_error_in_place_of_an_answer_carries_it_once),
        TEST(an_application_may_name_its_answer_itself),
        TEST(the_longest_request_id_and_times_have_room),
        TEST(server_timing_tells_where_the_time_went),
        TEST(what_never_ran_has_waited_until_its_answer),
        TEST(times_that_are_not_known_are_not_told),
        TEST(dates_are_http_dates),
        TEST(the_date_is_of_now),
        TEST(threads_never_see_a_torn_date),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
