/* Formats against lines: what each atom means, what is refused, and that no value breaks a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "obs/access.c"

struct field {
    const char *name, *value;
};

static struct slice find(const struct field *fields, struct slice name)
{
    for (; fields && fields->name; fields++)
        if (slice_eq(slice_str(fields->name), name))
            return slice_str(fields->value);
    return (struct slice){0};
}

static const struct field *g_request, *g_response;

static struct slice find_request(const void *arg, struct slice name)
{
    (void)arg;
    return find(g_request, name);
}

static struct slice find_response(const void *arg, struct slice name)
{
    (void)arg;
    return find(g_response, name);
}

static struct access_facts facts(void)
{
    g_request = g_response = NULL;
    return (struct access_facts){
        .remote_addr = SLICE("192.0.2.7"),
        .remote_port = SLICE("40123"),
        .method = SLICE("GET"),
        .path = SLICE("/a%20b"),
        .query = SLICE("x=1"),
        .target = SLICE("/a%20b?x=1"),
        .protocol = SLICE("HTTP/1.1"),
        .status = 200,
        .body_bytes = 12,
        .request_id = 17,
        .wall_ns = 1795466528123456789, /* 2026-11-23 20:42:08.123 UTC */
        .total_ns = 2345678901,
        .queue_ns = 1500,
        .app_ns = 2000000,
        .request_field = find_request,
        .response_field = find_response,
    };
}

static char g_path[] = "/tmp/weir-access-XXXXXX";

/* The bytes that one access_write makes with `format`. */
static bool g_gunicorn; /* as Gunicorn writes them */

static char *written(const char *format, const struct access_facts *f)
{
    static char text[2 * 1024 * 1024];
    struct access_log *a = NULL;
    struct err e = {{0}};
    assert_int_equal(truncate(g_path, 0), 0);
    if (access_new(&a, g_path, format, g_gunicorn, &e))
        fail_msg("%s", e.text);
    access_write(a, f);
    access_free(&a);
    assert_null(a);
    FILE *file = fopen(g_path, "r");
    assert_non_null(file);
    size_t n = fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    text[n] = '\0';
    assert_int_equal(n, strlen(text));
    return text;
}

static void expect(const char *format, const struct access_facts *f, const char *line)
{
    char *text = written(format, f);
    char *newline = strchr(text, '\n');
    assert_non_null(newline);
    assert_ptr_equal(newline[1], '\0'); /* one line */
    *newline = '\0';
    assert_string_equal(text, line);
}

static void refused(const char *format, const char *word)
{
    struct access_log *a = (struct access_log *)1;
    struct err e = {{0}};
    assert_int_equal(access_new(&a, g_path, format, false, &e), -1);
    assert_null(a);
    if (!strstr(e.text, word))
        fail_msg("%s: no `%s` in: %s", format, word, e.text);
}

static void each_gunicorn_atom_means_what_it_means_there(void **state)
{
    (void)state;
    struct access_facts f = facts();
    g_request = (const struct field[]){{"referer", "http://x/"}, {"user-agent", "curl/8"}, {0}};
    expect("%(h)s", &f, "192.0.2.7");
    expect("%(l)s", &f, "-");
    expect("%(u)s", &f, "-");
    expect("%(t)s", &f, "[23/Nov/2026:20:42:08 +0000]");
    expect("%(r)s", &f, "GET /a%20b?x=1 HTTP/1.1");
    expect("%(m)s", &f, "GET");
    expect("%(U)s", &f, "/a b");
    expect("%(q)s", &f, "x=1");
    expect("%(H)s", &f, "HTTP/1.1");
    expect("%(s)s", &f, "200");
    expect("%(B)s %(b)s", &f, "12 12");
    expect("%(f)s", &f, "http://x/");
    expect("%(a)s", &f, "curl/8");
    expect("%(T)s", &f, "2");
    expect("%(D)s", &f, "2345678");
    expect("%(M)s", &f, "2345");
    expect("%(L)s", &f, "2.345678");
    char pid[32];
    snprintf(pid, sizeof pid, "<%d>", (int)getpid());
    expect("%(p)s", &f, pid);
}

static void environ_variables_are_those_of_the_application_when_it_was_called(void **state)
{
    (void)state;
    struct access_facts f = facts();
    struct access_log *a;
    struct err e = {{0}};
    const char *const *names;
    assert_int_equal(
        access_new(&a, g_path, "%({REMOTE_USER}e)s %({x.y}e)s %({REMOTE_USER}e)s", false, &e), 0);
    assert_int_equal(access_environ(a, &names), 2);
    assert_string_equal(names[0], "REMOTE_USER");
    assert_string_equal(names[1], "x.y");
    access_free(&a);

    expect("%({REMOTE_USER}e)s %({REMOTE_ADDR}e)s", &f, "- 192.0.2.7"); /* nobody was called */
    f.environ_values = (const struct slice[]){SLICE("me \"x\""), {0}};
    expect("%({REMOTE_USER}e)s %({REMOTE_ADDR}e)s", &f, "me \\\"x\\\" -");
    expect("%({REMOTE_USER}e).2s|", &f, "me|");
}

static void a_format_asks_for_so_many_environ_variables(void **state)
{
    (void)state;
    char format[1024] = "";
    for (int i = 0; i < 33; i++)
        snprintf(format + strlen(format), sizeof format - strlen(format), "%%({V%d}e)s", i);
    refused(format, "more than 32");
}

static void gunicorns_ways_are_followed_where_they_are_asked_for(void **state)
{
    (void)state;
    struct access_facts f = facts();
    g_gunicorn = true;
    g_request = (const struct field[]){{"user-agent", ""}, {0}};
    expect("%(a)s|%(f)s|%({user-agent}i)s", &f, "|-|");
    expect("%(unknown)s %({x}y)s", &f, "- -");
    /* Before the application, and then what it made of them. */
    expect("%(h)s %(m)s %(U)s %(q)s", &f, "192.0.2.7 GET /a b x=1");
    f.environ_values =
        (const struct slice[]){SLICE("10.1.1.1"), SLICE("PUT"), SLICE("/"), SLICE("")};
    expect("%(h)s %(m)s %(U)s %(q)s|%(r)s", &f, "10.1.1.1 PUT / |PUT /a%20b?x=1 HTTP/1.1");
    g_gunicorn = false;
    g_request = (const struct field[]){{"user-agent", ""}, {0}};
    f.environ_values = NULL;
    expect("%(a)s", &f, "-");
}

static void own_atoms_tell_the_times_and_the_request(void **state)
{
    (void)state;
    struct access_facts f = facts();
    f.close_reason = "client_left";
    expect("%(request_id)s %(queue_us)s %(app_us)s %(close_reason)s", &f, "17 1 2000 client_left");
    expect("%(remote_port)s %(target)s %(time_utc)s", &f,
           "40123 /a%20b?x=1 2026-11-23T20:42:08.123Z");
}

static void common_and_combined_are_the_known_formats(void **state)
{
    (void)state;
    struct access_facts f = facts();
    g_request = (const struct field[]){{"user-agent", "curl/8"}, {0}};
    expect("common", &f,
           "192.0.2.7 - - [23/Nov/2026:20:42:08 +0000] \"GET /a%20b?x=1 HTTP/1.1\" 200 12");
    expect("combined", &f,
           "192.0.2.7 - - [23/Nov/2026:20:42:08 +0000] \"GET /a%20b?x=1 HTTP/1.1\" 200 12 \"-\" "
           "\"curl/8\"");
}

static void fields_and_environ_are_found_whatever_their_case(void **state)
{
    (void)state;
    struct access_facts f = facts();
    g_request = (const struct field[]){
        {"x-forwarded-for", "10.0.0.1"}, {"content-type", "a/b"}, {"content-length", "5"}, {0}};
    g_response = (const struct field[]){{"content-type", "text/plain"}, {0}};
    expect("%({X-Forwarded-For}i)s %({content-type}o)s %({Server}o)s", &f, "10.0.0.1 text/plain -");
    expect("%({HTTP_X_FORWARDED_FOR}e)s %({http_absent}e)s", &f, "10.0.0.1 -");
    expect("%({REMOTE_ADDR}e)s %({REMOTE_PORT}e)s", &f, "192.0.2.7 40123");
    expect("%({REQUEST_METHOD}e)s %({PATH_INFO}e)s %({QUERY_STRING}e)s", &f, "GET /a b x=1");
    expect("%({RAW_URI}e)s %({REQUEST_URI}e)s", &f, "/a%20b?x=1 /a%20b?x=1");
    expect("%({SERVER_PROTOCOL}e)s %({CONTENT_TYPE}e)s %({CONTENT_LENGTH}e)s", &f,
           "HTTP/1.1 a/b 5");
    expect("%({wsgi.version}e)s", &f, "-");
}

static void what_is_not_there_is_a_dash(void **state)
{
    (void)state;
    g_request = g_response = NULL;
    struct access_facts f = {.wall_ns = -5};
    expect("%(h)s %(r)s %(m)s %(U)s %(H)s %(s)s %(b)s %(f)s %(a)s %({x}i)s %({x}o)s", &f,
           "- - - - - - 0 - - - -");
    expect("[%(q)s]", &f, "[]"); /* as in Gunicorn: the query string is there, and empty */
    expect("%(t)s %(close_reason)s %(remote_port)s", &f, "[01/Jan/1970:00:00:00 +0000] - -");
}

static void clock_that_went_back_gives_no_negative_times(void **state)
{
    (void)state;
    struct access_facts f = {.total_ns = -1, .queue_ns = INT64_MIN, .app_ns = -7};
    expect("%(T)s %(M)s %(D)s %(L)s %(queue_us)s %(app_us)s", &f, "0 0 0 0.000000 0 0");
}

static void largest_numbers_fit(void **state)
{
    (void)state;
    struct access_facts f = {.body_bytes = UINT64_MAX,
                             .request_id = UINT64_MAX,
                             .status = INT32_MAX,
                             .total_ns = INT64_MAX,
                             .wall_ns = INT64_MAX};
    expect("%(B)s %(request_id)s %(s)s %(D)s %(L)s %(time_utc)s", &f,
           "18446744073709551615 18446744073709551615 2147483647 9223372036854775 "
           "9223372036.854775 2262-04-11T23:47:16.854Z");
}

static void user_comes_from_basic_credentials(void **state)
{
    (void)state;
    struct access_facts f = facts();
    static const struct {
        const char *credentials, *user;
    } cases[] = {
        {"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin"},
        {"bASIC QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin"},
        {"Basic QWxhZGRpbg==", "-"}, /* no colon */
        {"Basic OnBhc3M=", "-"},     /* no name */
        {"Basic Q!xh", "-"},         /* not base64 */
        {"Basic", "-"},
        {"Basic ", "-"},
        {"Bearer QWxhZGRpbjpv", "-"},
        {"Basic YSAiYiI6cA==", "a\\x20\\\"b\\\""}, /* a "b" */
        {"Basic Cjox", "\\x0a"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        g_request = (const struct field[]){{"authorization", cases[i].credentials}, {0}};
        expect("%(u)s", &f, cases[i].user);
    }
}

static void hostile_values_stay_inside_their_quotes(void **state)
{
    (void)state;
    struct access_facts f = facts();
    g_request = (const struct field[]){{"user-agent", "a\" 200 \\\"\r\n\x1b[31m\x7f\xc3\xa4"}, {0}};
    expect("\"%(a)s\"", &f, "\"a\\\" 200 \\\\\\\"\\x0d\\x0a\\x1b[31m\\x7f\\xc3\\xa4\"");
    f.path = SLICE("/%0a%22%zz%");
    expect("\"%(U)s\"", &f, "\"/\\x0a\\\"%zz%\"");
    /* A precision may not cut between a backslash and its quote. */
    g_request = (const struct field[]){{"user-agent", "ab\"cd"}, {0}};
    expect("\"%(a).3s\"", &f, "\"ab\\\"\"");
}

static const unsigned char TRACE_ID[16] = {0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6,
                                           0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36};

static void long_values_are_cut_and_a_line_has_a_ceiling(void **state)
{
    (void)state;
    struct access_facts f = facts();
    static char hostile[100000];
    memset(hostile, 1, sizeof hostile - 1);
    f.target = slice_of(hostile, sizeof hostile);
    char *text = written("%(target)s", &f);
    assert_int_equal(strlen(text), 8192 * 4 + 4);
    assert_string_equal(text + 8192 * 4, "...\n");

    char format[2000] = "";
    for (size_t i = 0; i < 100; i++)
        memcpy(format + 10 * i, "%(target)s", 11);
    text = written(format, &f);
    assert_true(strlen(text) <= ACCESS_LINE_BYTES_MAX);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);

    f.remote_addr = f.remote_port = f.method = f.path = f.query = f.protocol = f.target;
    f.close_reason = hostile;
    f.x_request_id = slice_of(f.target.p, 64);
    f.trace_id = TRACE_ID;
    text = written("json", &f);
    assert_string_equal(text + strlen(text) - 3, "\"}\n");
}

static void widths_and_conversions_work_as_in_python(void **state)
{
    (void)state;
    struct access_facts f = facts();
    expect("[%(m)7s][%(m)-7s][%(m)2s]", &f, "[    GET][GET    ][GET]");
    expect("[%(s)05d][%(s)-5d][%(D)i]", &f, "[00200][200  ][2345678]");
    expect("[%(a).1s][%(r).6s][%(t).4s]", &f, "[-][GET /a][[23/]");
    expect("[%(l)3s][%(l).0s][%({X}e)3s]%({X}e)s%({X}i)s%(l)s.", &f, "[  -][][  -]---.");
    expect("a literal of more than sixteen bytes %(s)s and another one behind", &f,
           "a literal of more than sixteen bytes 200 and another one behind");
    expect("only a literal", &f, "only a literal");
    expect("[%(D).3s][%(q)4s][%(p).1s]", &f, "[234][ x=1][<]");
    expect("100%% %%(h)s %(s)s%%", &f, "100% %(h)s 200%");
    expect("\t\xc3\xa4", &f, "\t\xc3\xa4");
}

static void bad_formats_are_refused_with_their_atom(void **state)
{
    (void)state;
    refused("%(h)s %(x)s", "%(x)s");
    refused("%(hh)s", "unknown atom %(hh)");
    refused("%({}i)s", "names no field");
    refused("%({a}x)s", "unknown atom %({a}x)");
    refused("%(h", "not closed");
    refused("%((h)s", "not closed");
    refused("%h", "write %(h)s");
    refused("%", "percent sign");
    refused("%(h)", "must end in s");
    refused("%(h)f", "must end in s");
    refused("%(h)d", "not a number");
    refused("%(h)9999s", "width");
    refused("%(h).9999s", "width");
    refused("a\nb", "control character");
    refused("", "empty");
}

static void file_that_cannot_be_opened_is_named(void **state)
{
    (void)state;
    struct access_log *a;
    struct err e;
    assert_int_equal(access_new(&a, "/nonexistent/access.log", "common", false, &e), -1);
    assert_non_null(strstr(e.text, "/nonexistent/access.log"));
}

static void what_a_request_is_called_elsewhere_has_atoms(void **state)
{
    (void)state;
    struct access_facts f = facts();
    expect("%(request_id)s %(x_request_id)s %(trace_id)s", &f, "17 - -");
    f.x_request_id = SLICE("a-b_c");
    f.trace_id = TRACE_ID;
    expect("%(request_id)s %(x_request_id)s %(trace_id)s", &f,
           "17 a-b_c 4bf92f3577b34da6a3ce929d0e0e4736");
    expect("%(x_request_id).3s|%(trace_id).8s|%(x_request_id)-7s|", &f, "a-b|4bf92f35|a-b_c  |");
}

static void json_has_the_documented_keys(void **state)
{
    (void)state;
    struct access_facts f = facts();
    g_request = (const struct field[]){{"authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
                                       {"referer", "r"},
                                       {"user-agent", "u"},
                                       {0}};
    f.close_reason = "client_left";
    f.x_request_id = SLICE("Root=1-5");
    f.trace_id = TRACE_ID;
    expect("json", &f,
           "{\"time\":\"2026-11-23T20:42:08.123Z\",\"request\":17,\"status\":200,\"bytes\":12,"
           "\"total_us\":2345678,\"queue_us\":1,\"app_us\":2000,\"remote_addr\":\"192.0.2.7\","
           "\"remote_port\":\"40123\",\"user\":\"Aladdin\",\"method\":\"GET\",\"path\":\"/a%20b\","
           "\"query\":\"x=1\",\"protocol\":\"HTTP/1.1\",\"referer\":\"r\",\"user_agent\":\"u\","
           "\"close_reason\":\"client_left\",\"x_request_id\":\"Root=1-5\","
           "\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"}");
    g_request = NULL;
    f = (struct access_facts){.total_ns = -1};
    expect("json", &f,
           "{\"time\":\"1970-01-01T00:00:00.000Z\",\"request\":0,\"status\":0,\"bytes\":0,"
           "\"total_us\":0,\"queue_us\":0,\"app_us\":0,\"remote_addr\":null,\"remote_port\":null,"
           "\"user\":null,\"method\":null,\"path\":null,\"query\":null,\"protocol\":null,"
           "\"referer\":null,\"user_agent\":null,\"close_reason\":null,"
           "\"x_request_id\":null,\"trace_id\":null}");
}

static void json_stays_valid_whatever_the_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"\"\\\n\t\x7f", "\\\"\\\\\\n\\u0009\\u007f"},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\xff\xc3", "\\u00ff\\u00c3"},                       /* no start; cut */
        {"\xc0\xaf", "\\u00c0\\u00af"},                       /* too long */
        {"\xe0\x80\x80", "\\u00e0\\u0080\\u0080"},            /* too long */
        {"\xed\xa0\x80", "\\u00ed\\u00a0\\u0080"},            /* a surrogate */
        {"\xf4\x90\x80\x80", "\\u00f4\\u0090\\u0080\\u0080"}, /* above U+10FFFF */
        {"\xf5\x80", "\\u00f5\\u0080"},
        {"\xc2\x85\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa", "\\u0085\\u2028\\u2029\xe2\x80\xaa"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        char out[256];
        *escape_json(out, slice_str(cases[i].in)) = '\0';
        assert_string_equal(out, cases[i].out);
    }
}

static void special_bytes_are_found_at_each_place_of_eight(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++)
        for (size_t at = 0; at < 8; at++)
            for (unsigned other = 0; other < 2; other++) {
                char eight[8];
                memset(eight, other ? '~' : ' ', 8);
                eight[at] = (char)c;
                assert_int_equal(escape_special8(eight), escape_special((unsigned char)c));
            }
}

/* The copy goes in steps of 16 and 8 that overlap at the end: all lengths, all places. */
static void escaped_text_is_right_at_each_length_and_place(void **state)
{
    (void)state;
    for (size_t n = 0; n < 70; n++)
        for (size_t at = 0; at <= n; at++) {
            char in[70], out[70 * ESCAPE_GROWTH], want[80];
            for (size_t i = 0; i < n; i++)
                in[i] = (char)('a' + i % 26);
            if (at < n)
                in[at] = '"';
            size_t end = (size_t)(escape_text(out, slice_of(in, n)) - out);
            memcpy(want, in, n);
            if (at < n) {
                want[at] = '\\';
                memcpy(want + at + 1, in + at, n - at);
            }
            assert_int_equal(end, n + (at < n));
            assert_memory_equal(out, want, end);
            assert_int_equal(escape_json(out, slice_of(in, n)) - out, end);
            assert_memory_equal(out, want, end);
        }
}

static void times_of_interleaved_seconds_are_right(void **state)
{
    (void)state;
    struct access_log *a = NULL;
    struct err e;
    assert_int_equal(truncate(g_path, 0), 0);
    assert_int_equal(access_new(&a, g_path, "%(t)s", false, &e), 0);
    struct access_facts f = facts();
    const int64_t second = 1000000000;
    int64_t start = f.wall_ns;
    for (int i = 0; i < 3; i++) {
        static const int64_t offsets[] = {0, 4, 1, 60, 0, 8};
        for (size_t k = 0; k < countof(offsets); k++) {
            f.wall_ns = start + offsets[k] * second;
            access_write(a, &f);
        }
    }
    access_free(&a);
    FILE *file = fopen(g_path, "r");
    assert_non_null(file);
    char line[64];
    for (int i = 0; i < 3; i++) {
        static const char *const times[] = {"42:08", "42:12", "42:09", "43:08", "42:08", "42:16"};
        for (size_t k = 0; k < countof(times); k++) {
            assert_non_null(fgets(line, sizeof line, file));
            assert_non_null(strstr(line, times[k]));
        }
    }
    (void)fclose(file);
}

static void local_time_shows_its_zone(void **state)
{
    (void)state;
    struct access_facts f = facts();
    setenv("TZ", "XXX+3:30", 1); /* west of Greenwich */
    tzset();
    expect("%(t)s %(time_utc)s", &f, "[23/Nov/2026:17:12:08 -0330] 2026-11-23T20:42:08.123Z");
    setenv("TZ", "UTC0", 1);
    tzset();
}

int main(void)
{
    setenv("TZ", "UTC0", 1);
    tzset();
    int fd = mkstemp(g_path);
    if (fd < 0)
        return 1;
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_gunicorn_atom_means_what_it_means_there),
        cmocka_unit_test(environ_variables_are_those_of_the_application_when_it_was_called),
        cmocka_unit_test(a_format_asks_for_so_many_environ_variables),
        cmocka_unit_test(gunicorns_ways_are_followed_where_they_are_asked_for),
        cmocka_unit_test(own_atoms_tell_the_times_and_the_request),
        cmocka_unit_test(common_and_combined_are_the_known_formats),
        cmocka_unit_test(fields_and_environ_are_found_whatever_their_case),
        cmocka_unit_test(what_is_not_there_is_a_dash),
        cmocka_unit_test(clock_that_went_back_gives_no_negative_times),
        cmocka_unit_test(largest_numbers_fit),
        cmocka_unit_test(user_comes_from_basic_credentials),
        cmocka_unit_test(hostile_values_stay_inside_their_quotes),
        cmocka_unit_test(long_values_are_cut_and_a_line_has_a_ceiling),
        cmocka_unit_test(widths_and_conversions_work_as_in_python),
        cmocka_unit_test(bad_formats_are_refused_with_their_atom),
        cmocka_unit_test(file_that_cannot_be_opened_is_named),
        cmocka_unit_test(what_a_request_is_called_elsewhere_has_atoms),
        cmocka_unit_test(json_has_the_documented_keys),
        cmocka_unit_test(json_stays_valid_whatever_the_bytes),
        cmocka_unit_test(special_bytes_are_found_at_each_place_of_eight),
        cmocka_unit_test(escaped_text_is_right_at_each_length_and_place),
        cmocka_unit_test(times_of_interleaved_seconds_are_right),
        cmocka_unit_test(local_time_shows_its_zone),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(g_path);
    return rc;
}
