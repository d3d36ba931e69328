/* metrics: what the page says of a telemetry and a board that are filled in by hand, how large it
 * gets, and what Prometheus' own tools say of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "admin/metrics.h"
#include "admin/metrics_helper.h"
#include "obs/metric.h"

/* NUL-terminated, until the next call. */
static const char *page(struct fake *f, enum metrics_format format)
{
    buf_clear(&f->out, SIZE_MAX);
    assert_int_equal(metrics_write(&f->out, &f->view, format), 0);
    assert_int_equal(buf_add(&f->out, "", 1), 0);
    return f->out.p;
}

static bool has_line(const char *text, const char *line)
{
    size_t n = strlen(line);
    for (const char *at = text; (at = strstr(at, line)); at++)
        if ((at == text || at[-1] == '\n') && at[n] == '\n')
            return true;
    return false;
}

static void says(struct fake *f, const char *line)
{
    const char *text = page(f, METRICS_TEXT);
    if (!has_line(text, line))
        fail_msg("no line '%s' in\n%s", line, text);
}

/* No line begins so. */
static void says_nothing_of(struct fake *f, const char *begin)
{
    const char *text = page(f, METRICS_TEXT);
    size_t n = strlen(begin);
    for (const char *at = text; (at = strstr(at, begin)); at += n)
        if (at == text || at[-1] == '\n')
            fail_msg("'%s' in\n%s", begin, text);
}

/* ---- the page ---- */

static void requests_are_counted_by_route_and_status_over_all_workers(void **state)
{
    (void)state;
    struct fake *f = fake_new(4);
    worker_starts(f, 0);
    worker_starts(f, 2);
    request(f, 0, "POST /api/ai/*", 200, 0, MS, 0);
    request(f, 2, "POST /api/ai/*", 200, 0, MS, 0);
    request(f, 2, "POST /api/ai/*", 429, 0, MS, 0);
    request(f, 2, "*", 418, 0, MS, 0);
    request(f, 2, "*", 499, 0, MS, 0);
    request(f, 2, "*", 471, 0, MS, 0);
    request(f, 0, "*", 0, 0, MS, 0);
    says(f, "weir_requests_total{route=\"POST /api/ai/*\",status=\"200\"} 2");
    says(f, "weir_requests_total{route=\"POST /api/ai/*\",status=\"429\"} 1");
    says(f, "weir_requests_total{route=\"*\",status=\"418\"} 1");
    says(f, "weir_requests_total{route=\"*\",status=\"4xx\"} 1");
    says(f, "weir_requests_total{route=\"*\",status=\"none\"} 1");
    fake_free(f);
}

static void a_histogram_is_cumulative_and_ends_with_its_count(void **state)
{
    (void)state;
    struct fake *f = fake_new(2);
    worker_starts(f, 0);
    worker_starts(f, 1);
    request(f, 0, "a", 200, 50 * MS, 2 * S, 0);
    request(f, 1, "a", 200, 5 * MS, 100 * S, 0);
    request(f, 1, "a", 200, 0, MS, 20 * S);
    says(f, "# TYPE weir_request_application_seconds histogram");
    says(f, "weir_request_application_seconds_bucket{route=\"a\",le=\"0.001\"} 1");
    says(f, "weir_request_application_seconds_bucket{route=\"a\",le=\"1.0\"} 1");
    says(f, "weir_request_application_seconds_bucket{route=\"a\",le=\"2.0\"} 2");
    says(f, "weir_request_application_seconds_bucket{route=\"a\",le=\"90.0\"} 2");
    says(f, "weir_request_application_seconds_bucket{route=\"a\",le=\"+Inf\"} 3");
    says(f, "weir_request_application_seconds_sum{route=\"a\"} 102.001");
    says(f, "weir_request_application_seconds_count{route=\"a\"} 3");
    says(f, "weir_request_queue_seconds_bucket{route=\"a\",le=\"0.01\"} 2");
    says(f, "weir_request_queue_seconds_bucket{route=\"a\",le=\"0.1\"} 3");
    says(f, "weir_request_write_seconds_bucket{route=\"a\",le=\"10.0\"} 2");
    says(f, "weir_request_write_seconds_bucket{route=\"a\",le=\"+Inf\"} 3");
    says(f, "weir_request_duration_seconds_sum{route=\"a\"} 122.056");
    fake_free(f);
}

static void a_route_that_was_never_used_has_no_series(void **state)
{
    (void)state;
    struct fake *f = fake_new(1);
    worker_starts(f, 0);
    telemetry_route(f->view.telemetry, "never");
    request(f, 0, "used", 200, 0, MS, 0);
    assert_non_null(strstr(page(f, METRICS_TEXT), "route=\"used\""));
    assert_null(strstr(page(f, METRICS_TEXT), "route=\"never\""));
    says_nothing_of(f, "# TYPE weir_refusals_total");
    fake_free(f);
}

static void totals_outlive_the_worker_and_its_gauges_do_not(void **state)
{
    (void)state;
    struct fake *f = fake_new(2);
    struct scoreboard_slot *s = worker_starts(f, 1);
    request(f, 1, "a", 200, 0, MS, 0);
    assert_non_null(flight_begin(f->view.telemetry, 1, S));
    s->counters.connections = 7;
    s->open = 3;
    worker(f, 1)->rss_bytes = 4096;
    says(f, "weir_requests_in_flight{state=\"reading\"} 1");
    says(f, "weir_connections{state=\"active\"} 1");
    says(f, "weir_connections{state=\"idle\"} 2");
    says(f, "weir_worker_resident_memory_bytes{worker=\"1\"} 4096");
    worker_dies(f, 1);
    says(f, "weir_requests_total{route=\"a\",status=\"200\"} 1");
    says(f, "weir_connections_accepted_total 7");
    says(f, "weir_requests_in_flight{state=\"reading\"} 0");
    says(f, "weir_connections{state=\"idle\"} 0");
    says_nothing_of(f, "weir_worker_resident_memory_bytes{");
    s->state = WORKER_BOOTING; /* its successor has not cleared the records yet */
    s->pid = getpid();
    says(f, "weir_requests_in_flight{state=\"reading\"} 0");
    says(f, "weir_workers{state=\"booting\"} 1");
    worker_starts(f, 1);
    says(f, "weir_requests_in_flight{state=\"reading\"} 0");
    says(f, "weir_workers{state=\"ready\"} 1");
    fake_free(f);
}

static void refusals_have_the_words_of_their_table(void **state)
{
    (void)state;
    struct fake *f = fake_new(1);
    worker_starts(f, 0);
    unsigned r = telemetry_route(f->view.telemetry, "ai");
    worker(f, 0)->routes[r].refused[REFUSAL_RATE] = 3;
    worker(f, 0)->routes[r].refused[REFUSALS - 1] = 1;
    worker(f, 0)->routes[r].dry_run[REFUSAL_QUEUE_FULL] = 2;
    says(f, "weir_refusals_total{route=\"ai\",reason=\"rate_limited\"} 3");
    says(f, "weir_refusals_total{route=\"ai\",reason=\"not_ready\"} 1");
    says(f, "weir_refusals_dry_run_total{route=\"ai\",reason=\"queue_full\"} 2");
    fake_free(f);
}

static void places_and_queue_of_a_route_are_those_of_its_gate(void **state)
{
    (void)state;
    struct fake *f = fake_new(1);
    struct gate_answer answer;
    worker_starts(f, 0);
    f->routes[0] = (struct policy_route){.name = "free"};
    f->routes[1] = (struct policy_route){.name = "ai", .concurrency = 2, .queue_size = 10};
    f->conf.policy.routes = f->routes;
    f->conf.policy.n_routes = 2;
    f->parts.gates = gates_new();
    assert_non_null(f->parts.gates);
    uint32_t route = gates_route(f->parts.gates, "ai");
    int64_t now_ns = clock_mono_ns();
    for (uint64_t i = 1; i <= 3; i++) {
        struct gate_ask ask = {.route = route,
                               .limits = {2, 10, 3600 * S, 0},
                               .owner = {0, 1},
                               .flow = i,
                               .weight = 1,
                               .deadline_ns = INT64_MAX,
                               .cookie = i};
        (void)!gates_enter(f->parts.gates, &ask, now_ns - 2 * S, &answer);
    }
    says(f, "weir_tokens_limit{route=\"ai\"} 2");
    says(f, "weir_tokens_in_use{route=\"ai\"} 2");
    says(f, "weir_queue_limit{route=\"ai\"} 10");
    says(f, "weir_queue_depth{route=\"ai\"} 1");
    const char *age = strstr(page(f, METRICS_TEXT), "\nweir_queue_head_age_seconds{route=\"ai\"} ");
    assert_non_null(age);
    assert_true(strtod(strchr(age, '}') + 1, NULL) >= 2);
    assert_null(strstr(f->out.p, "free"));

    struct robust *names = (struct robust *)f->parts.gates; /* it stands first */
    assert_false(robust_lock(names));                       /* by a process that is stopped, say */
    says(f, "weir_tokens_limit{route=\"ai\"} 2");
    assert_null(strstr(f->out.p, "weir_tokens_in_use"));
    assert_null(strstr(f->out.p, "weir_queue_head_age_seconds"));
    robust_unlock(names);
    fake_free(f);
}

static void threads_are_busy_idle_or_stuck(void **state)
{
    (void)state;
    struct fake *f = fake_new(3);
    struct scoreboard_slot *s = worker_starts(f, 2);
    s->busy = 5;
    s->stuck = 2;
    s->waiting = 4;
    worker(f, 2)->threads = 6;
    telemetry_observe_shared(&worker(f, 2)->gil_wait, 3 * MS);
    says(f, "weir_threads{worker=\"2\",state=\"busy\"} 3");
    says(f, "weir_threads{worker=\"2\",state=\"idle\"} 3");
    says(f, "weir_threads{worker=\"2\",state=\"stuck\"} 2");
    says(f, "weir_threads_alive{worker=\"2\"} 6");
    says(f, "weir_thread_queue_depth{worker=\"2\"} 4");
    says(f, "weir_gil_wait_seconds_bucket{le=\"0.005\"} 1");
    says(f, "weir_gil_wait_seconds_sum 0.003");
    fake_free(f);
}

static void the_supervisors_counts_are_shown_where_there_is_one(void **state)
{
    (void)state;
    struct fake *f = fake_new(1);
    worker_starts(f, 0);
    f->view.board->started = 3;
    f->view.board->crashed = 1;
    f->view.board->recycled[RECYCLE_MAX_RSS] = 1;
    f->view.board->reloads = 2;
    f->view.board->supervisor = getpid();
    says(f, "weir_workers_started_total 3");
    says(f, "weir_workers_crashed_total 1");
    says(f, "weir_workers_recycled_total{reason=\"max_rss\"} 1");
    says(f, "weir_reloads_total 2");
    assert_non_null(strstr(page(f, METRICS_TEXT), "{process=\"supervisor\"} "));
    f->view.alone = true;
    says_nothing_of(f, "weir_workers_started_total");
    says_nothing_of(f, "weir_process_resident_memory_bytes");
    fake_free(f);
}

static void the_descriptor_limit_is_that_of_the_process(void **state)
{
    (void)state;
    struct fake *f = fake_new(1);
    char line[96];
    worker_starts(f, 0);
    snprintf(line, sizeof line, "weir_worker_descriptors_limit{worker=\"0\"} %ld",
             sysconf(_SC_OPEN_MAX));
    says(f, line);
    fake_free(f);
}

static void connections_end_for_reasons_that_are_all_there(void **state)
{
    (void)state;
    struct fake *f = fake_new(1);
    struct scoreboard_slot *s = worker_starts(f, 0);
    s->counters.closed[CLOSE_HEADER_TIMEOUT] = 4;
    s->counters.bytes_in = 100;
    says(f, "weir_connections_closed_total{reason=\"header_timeout\"} 4");
    for (unsigned r = 0; r < CLOSE_REASONS; r++) {
        char line[96];
        snprintf(line, sizeof line, "weir_connections_closed_total{reason=\"%s\"} ",
                 close_reason_word((enum close_reason)r));
        assert_non_null(strstr(page(f, METRICS_TEXT), line));
    }
    says(f, "weir_received_bytes_total 100");
    fake_free(f);
}

static void key_sets_tell_their_age_and_whether_they_fail(void **state)
{
    (void)state;
    struct fake *f = fake_new(1);
    const struct policy_identifier who[] = {
        {.kind = IDENTIFY_JWT, .jwks = "https://a.example/keys?x=\"1\\2\""},
        {.kind = IDENTIFY_JWT, .jwks = "/etc/keys.json"},
        {.kind = IDENTIFY_API_KEY, .jwks = ""},
        {.kind = IDENTIFY_JWT, .jwks = "https://b.example/keys"},
    };
    f->conf.policy.identifiers = who;
    f->conf.policy.n_identifiers = countof(who);
    f->parts.keys = keybox_new();
    assert_non_null(f->parts.keys);
    keybox_publish(f->parts.keys, 0, SLICE("{\"keys\":[]}"), clock_wall_s() - 100);
    keybox_failed(f->parts.keys, 3, "no answer", clock_wall_s());
    const char *text = page(f, METRICS_TEXT);
    const char *age =
        strstr(text, "\nweir_jwks_age_seconds{jwks=\"https://a.example/keys?x=\\\"1\\\\2\\\"\"} ");
    assert_non_null(age);
    double seconds = strtod(strchr(age, '}') + 1, NULL);
    assert_true(seconds >= 99 && seconds < 200);
    says(f, "weir_jwks_failing{jwks=\"https://a.example/keys?x=\\\"1\\\\2\\\"\"} 0");
    says(f, "weir_jwks_failing{jwks=\"https://b.example/keys\"} 1");
    assert_null(strstr(f->out.p, "/etc/keys.json"));
    fake_free(f);
}

static void rates_and_spans_are_shown_where_there_are_any(void **state)
{
    (void)state;
    struct fake *f = fake_new(1);
    worker_starts(f, 0);
    says_nothing_of(f, "weir_rate_keys");
    f->parts.rates = rates_new(1000);
    assert_non_null(f->parts.rates);
    says(f, "weir_rate_keys{kind=\"users\"} 0");
    says(f, "weir_rate_keys_evicted_total{kind=\"addresses\"} 0");
    worker(f, 0)->spans = 9;
    worker(f, 0)->spans_dropped = 2;
    f->view.telemetry->otlp_sent = 5;
    f->view.telemetry->otlp_dropped = 1;
    says(f, "weir_spans_recorded_total 9");
    says(f, "weir_spans_sent_total 5");
    says(f, "weir_spans_dropped_total 3");
    says(f, "weir_span_exports_failed_total 0");
    fake_free(f);
}

static void no_label_value_breaks_its_line(void **state)
{
    (void)state;
    struct fake *f = fake_new(1);
    worker_starts(f, 0);
    request(f, 0, "a\"b\\c\nd\xff\xc3\xa9", 200, 0, MS, 0);
    says(f, "weir_requests_total{route=\"a\\\"b\\\\c\\nd?\xc3\xa9\",status=\"200\"} 1");
    fake_free(f);
}

static void a_page_that_finds_no_room_says_so(void **state)
{
    (void)state;
    struct fake *f = fake_new(1);
    worker_starts(f, 0);
    struct buf small = {.max = 1000};
    assert_true(metrics_write(&small, &f->view, METRICS_TEXT) < 0);
    buf_fini(&small);
    fake_free(f);
}

/* ---- both formats ---- */

static void the_accept_field_chooses_the_format(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        enum metrics_format format;
    } cases[] = {
        {"", METRICS_TEXT},
        {"*/*", METRICS_TEXT},
        {"text/plain", METRICS_TEXT},
        {"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", METRICS_TEXT},
        {"application/openmetrics-text", METRICS_OPENMETRICS},
        {"Application/OpenMetrics-Text ; Version=1.0.0", METRICS_OPENMETRICS},
        {"application/openmetrics-text;version=0.0.1", METRICS_TEXT},
        {"application/openmetrics-text;q=0", METRICS_TEXT},
        {"application/openmetrics-text;q=0.000", METRICS_TEXT},
        {"application/openmetrics-text;q=0.2,text/plain;q=0.9", METRICS_TEXT},
        {"application/openmetrics-text;q=0.9,text/plain;q=0.2", METRICS_OPENMETRICS},
        {"application/openmetrics-text;q=2", METRICS_TEXT},
        {"application/openmetrics-text;q=", METRICS_TEXT},
        {",;,=;q=1,;version", METRICS_TEXT},
        /* What Prometheus 2.42 sends. */
        {"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;"
         "q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
         METRICS_OPENMETRICS},
    };
    for (size_t i = 0; i < countof(cases); i++)
        if (metrics_format_of(slice_str(cases[i].accept)) != cases[i].format)
            fail_msg("Accept: %s", cases[i].accept);
    assert_non_null(strstr(metrics_content_type(METRICS_TEXT), "version=0.0.4"));
    assert_non_null(strstr(metrics_content_type(METRICS_OPENMETRICS), "openmetrics-text"));
}

static void openmetrics_has_units_an_info_and_an_end(void **state)
{
    (void)state;
    struct fake *f = fake_new(1);
    worker_starts(f, 0);
    request(f, 0, "a", 200, 0, MS, 0);
    const char *text = page(f, METRICS_OPENMETRICS);
    assert_true(has_line(text, "# TYPE weir_requests counter"));
    assert_true(has_line(text, "weir_requests_total{route=\"a\",status=\"200\"} 1"));
    assert_true(has_line(text, "# TYPE weir_build info"));
    assert_true(has_line(text, "# TYPE weir_received_bytes counter"));
    assert_true(has_line(text, "# UNIT weir_received_bytes bytes"));
    assert_true(has_line(text, "# UNIT weir_request_duration_seconds seconds"));
    assert_string_equal(text + strlen(text) - 6, "# EOF\n");
    assert_null(strstr(page(f, METRICS_TEXT), "# EOF"));
    assert_null(strstr(f->out.p, "# UNIT"));
    fake_free(f);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

static void names_follow_the_conventions(void **state)
{
    (void)state;
    for (unsigned i = 0; i < METRICS; i++) {
        const struct metric *m = &metrics[i];
        char unit[64];
        snprintf(unit, sizeof unit, "_%s%s", m->unit, m->type == METRIC_COUNTER ? "_total" : "");
        bool good = strncmp(m->name, "weir_", 5) == 0 &&
                    strspn(m->name, "abcdefghijklmnopqrstuvwxyz_") == strlen(m->name) &&
                    ends_with(m->name, "_total") == (m->type == METRIC_COUNTER) &&
                    ends_with(m->name, "_info") == (m->type == METRIC_INFO) &&
                    (!*m->unit || ends_with(m->name, unit)) && *m->help && !ends_with(m->help, ".");
        for (unsigned k = 0; k < i; k++)
            good = good && strcmp(metrics[k].name, m->name) != 0;
        if (!good)
            fail_msg("%s", m->name);
    }
}

static void bounds_that_are_shown_are_counted(void **state)
{
    (void)state;
    for (unsigned i = 0; i < METRICS; i++) {
        assert_int_equal(metrics[i].le != NULL, metrics[i].type == METRIC_HISTOGRAM);
        for (const int64_t *le = metrics[i].le; le && *le; le++) {
            bool known = false;
            for (unsigned b = 0; b < TELEMETRY_BOUNDS; b++)
                known = known || telemetry_bounds[b] == *le;
            if (!known || (le > metrics[i].le && le[-1] >= *le))
                fail_msg("%s: %lld", metrics[i].name, (long long)*le);
        }
    }
}

static void durations_are_written_without_loss(void **state)
{
    (void)state;
    static const struct {
        int64_t ns;
        bool point;
        const char *text;
    } cases[] = {
        {0, false, "0"},
        {0, true, "0.0"},
        {1, true, "0.000000001"},
        {100000, true, "0.0001"},
        {2 * S, false, "2"},
        {2 * S, true, "2.0"},
        {90 * S + 50 * MS, false, "90.05"},
        {-1, false, "0"},
        {INT64_MAX, false, "9223372036.854775807"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        char text[METRIC_SECONDS_BYTES];
        unsigned n = metric_seconds(text, cases[i].ns, cases[i].point);
        assert_int_equal(n, strlen(cases[i].text));
        assert_memory_equal(text, cases[i].text, n);
    }
}

/* ---- a full page ---- */

static void fifty_routes_fit_into_256_kib(void **state)
{
    (void)state;
    struct policy_route routes[MANY_ROUTES];
    char names[MANY_ROUTES][64];
    struct fake *f = busy_server(routes, names);
    size_t text = strlen(page(f, METRICS_TEXT)), open = strlen(page(f, METRICS_OPENMETRICS));
    print_message("# %zu bytes, OpenMetrics %zu\n", text, open);
    assert_true(text <= 256 * 1024);
    assert_true(open <= 256 * 1024);
    for (unsigned i = 0; i < MANY_ROUTES; i++)
        assert_non_null(strstr(f->out.p, names[i]));
    fake_free(f);
}

/* What a program says of the page: its exit code. */
static int judged_by(const char *command, const char *text)
{
    FILE *program = popen(command, "w");
    assert_non_null(program);
    fputs(text, program);
    return pclose(program);
}

static void promtool_has_nothing_to_say(void **state)
{
    (void)state;
    if (system("command -v promtool >/dev/null") != 0)
        skip();
    struct policy_route routes[MANY_ROUTES];
    char names[MANY_ROUTES][64];
    struct fake *f = busy_server(routes, names);
    assert_int_equal(judged_by("promtool check metrics >&2", page(f, METRICS_TEXT)), 0);
    fake_free(f);
}

static void the_clients_parser_of_openmetrics_takes_it(void **state)
{
    (void)state;
    if (system("/usr/bin/python3 -c 'import prometheus_client' 2>/dev/null") != 0)
        skip();
    struct policy_route routes[MANY_ROUTES];
    char names[MANY_ROUTES][64];
    struct fake *f = busy_server(routes, names);
    f->conf.policy.n_routes = 3;
    assert_int_equal(
        judged_by(
            "/usr/bin/python3 -c 'import sys\n"
            "from prometheus_client.openmetrics.parser import text_string_to_metric_families\n"
            "n = len(list(text_string_to_metric_families(sys.stdin.read())))\n"
            "sys.exit(n < 40)'",
            page(f, METRICS_OPENMETRICS)),
        0);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_counted_by_route_and_status_over_all_workers),
        cmocka_unit_test(a_histogram_is_cumulative_and_ends_with_its_count),
        cmocka_unit_test(a_route_that_was_never_used_has_no_series),
        cmocka_unit_test(totals_outlive_the_worker_and_its_gauges_do_not),
        cmocka_unit_test(refusals_have_the_words_of_their_table),
        cmocka_unit_test(places_and_queue_of_a_route_are_those_of_its_gate),
        cmocka_unit_test(threads_are_busy_idle_or_stuck),
        cmocka_unit_test(the_supervisors_counts_are_shown_where_there_is_one),
        cmocka_unit_test(the_descriptor_limit_is_that_of_the_process),
        cmocka_unit_test(connections_end_for_reasons_that_are_all_there),
        cmocka_unit_test(key_sets_tell_their_age_and_whether_they_fail),
        cmocka_unit_test(rates_and_spans_are_shown_where_there_are_any),
        cmocka_unit_test(no_label_value_breaks_its_line),
        cmocka_unit_test(a_page_that_finds_no_room_says_so),
        cmocka_unit_test(the_accept_field_chooses_the_format),
        cmocka_unit_test(openmetrics_has_units_an_info_and_an_end),
        cmocka_unit_test(names_follow_the_conventions),
        cmocka_unit_test(bounds_that_are_shown_are_counted),
        cmocka_unit_test(durations_are_written_without_loss),
        cmocka_unit_test(fifty_routes_fit_into_256_kib),
        cmocka_unit_test(promtool_has_nothing_to_say),
        cmocka_unit_test(the_clients_parser_of_openmetrics_takes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
