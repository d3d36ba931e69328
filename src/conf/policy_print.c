/* policy_print: the policy as YAML that reads to the same policy again; and the page of its keys.
 */
#include "conf/policy_private.h"

#include <inttypes.h>
#include <string.h>

#include "base/escape.h"

/* ---- scalars ---- */

/* May it stand without quotes? Only what no reader of YAML takes for anything else. */
static bool is_plain(const char *s)
{
    static const char *const words[] = {"yes", "no",   "true", "false", "on",
                                        "off", "null", "y",    "n"};
    bool letter = false;
    for (size_t i = 0; i < countof(words); i++)
        if (slice_ieq(slice_str(s), slice_str(words[i])))
            return false;
    for (const char *p = s; *p; p++) {
        bool now = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z');
        letter |= now;
        if (!now && !(*p >= '0' && *p <= '9') && !strchr("_./-", *p))
            return false;
        if (p == s && *p == '-')
            return false;
    }
    return letter;
}

/* One character above U+007F at `p`, of UTF-8 that the reader has checked; its bytes. */
static size_t character(const unsigned char *p, unsigned *out)
{
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    *out = p[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n && p[i]; i++)
        *out = *out << 6 | (p[i] & 0x3fu);
    return n;
}

/* Outside ASCII by number: some of it ends lines, or may not stand in a file at all. */
static void put_text(const char *s, FILE *out)
{
    if (is_plain(s)) {
        fputs(s, out);
        return;
    }
    fputc('"', out);
    for (size_t n = strlen(s), k; n; s += k, n -= k) {
        unsigned c = (unsigned char)*s;
        k = c < 0x80 ? 1 : escape_utf8_length((const unsigned char *)s, n);
        if (k > 1) {
            character((const unsigned char *)s, &c);
            fprintf(out, c > 0xffff ? "\\U%08X" : "\\u%04X", c);
        } else {
            k = 1;
            fprintf(out, c == '"' || c == '\\' ? "\\%c" : "%c", (int)c);
        }
    }
    fputc('"', out);
}

static void put_ms(int64_t ms, FILE *out)
{
    fprintf(out, ms % 1000 ? "%" PRId64 "ms" : "%" PRId64 "s", ms % 1000 ? ms : ms / 1000);
}

static void put_list(const char *const *items, unsigned n, FILE *out)
{
    fputc('[', out);
    for (unsigned i = 0; i < n; i++) {
        fputs(i ? ", " : "", out);
        put_text(items[i], out);
    }
    fputc(']', out);
}

/* "\n" and `indent` blanks, "NAME: ", the text; nothing for `unless`. */
static void put_key(unsigned indent, const char *name, const char *text, const char *unless,
                    FILE *out)
{
    if (strcmp(text, unless) == 0)
        return;
    fprintf(out, "%*s%s: ", (int)indent, "", name);
    put_text(text, out);
    fputc('\n', out);
}

/* ---- identify, cors ---- */

static void print_jwt(const struct policy_identifier *id, FILE *out)
{
    static const struct {
        const char *name;
        enum policy_alg alg;
    } known[] = {{"HS256", ALG_HS256}, {"RS256", ALG_RS256}, {"ES256", ALG_ES256}};
    fputs("  - jwt:\n", out);
    put_key(6, "secret_file", id->secret_file, "", out);
    put_key(6, "jwks", id->jwks, "", out);
    put_key(6, "issuer", id->issuer, "", out);
    if (id->n_audiences) {
        fputs("      audience: ", out);
        put_list(id->audiences, id->n_audiences, out);
        fputc('\n', out);
    }
    fputs("      algorithms: [", out);
    const char *comma = "";
    for (size_t i = 0; i < countof(known); i++)
        if (id->algorithms & known[i].alg) {
            fprintf(out, "%s%s", comma, known[i].name);
            comma = ", ";
        }
    fprintf(out, "]\n      leeway: %" PRId64 "s\n", id->leeway_s);
    put_key(6, "user_claim", id->user_claim, "", out);
    put_key(6, "cookie", id->cookie, "", out);
}

static void print_identifier(const struct policy_identifier *id, FILE *out)
{
    switch (id->kind) {
    case IDENTIFY_JWT:
        print_jwt(id, out);
        return;
    case IDENTIFY_BEARER:
        fputs("  - bearer\n", out);
        return;
    case IDENTIFY_API_KEY:
        fputs("  - api_key:\n", out);
        put_key(6, "header", id->header, "", out);
        put_key(6, "file", id->file, "", out);
        return;
    case IDENTIFY_ADDRESS:
        fputs("  - address\n", out);
        return;
    }
}

static void print_cors(const struct policy_cors *cors, unsigned indent, FILE *out)
{
    if (!cors->given)
        return;
    fprintf(out, "%*scors:\n%*sorigins: ", (int)indent, "", (int)indent + 2, "");
    put_list(cors->origins, cors->n_origins, out);
    fprintf(out, "\n%*scredentials: %s\n", (int)indent + 2, "", cors->credentials ? "yes" : "no");
    put_key(indent + 2, "methods", cors->methods, "", out);
    put_key(indent + 2, "headers", cors->headers, "", out);
    put_key(indent + 2, "expose", cors->expose, "", out);
    fprintf(out, "%*smax_age: %" PRId64 "s\n", (int)indent + 2, "", cors->max_age_s);
}

/* ---- routes ---- */

/* The path of a match as it would be written. */
static void put_path(const char *path, FILE *out)
{
    for (; *path; path++) {
        unsigned char b = (unsigned char)*path;
        if (b <= ' ' || b >= 0x7f || strchr("\"\\%?#", b))
            fprintf(out, "%%%02X", b);
        else
            fputc(b, out);
    }
}

static void print_matches(const struct policy_route *route, FILE *out)
{
    fputs("  - match: [", out);
    for (unsigned i = 0; i < route->n_matches; i++) {
        fprintf(out, "%s\"%s%s", i ? ", " : "", route->matches[i].method,
                *route->matches[i].method ? " " : "");
        put_path(route->matches[i].path, out);
        fputc('"', out);
    }
    fputs("]\n", out);
}

static const char *period_word(const struct policy_rate *rate)
{
    int64_t s = rate->period_ns / 1000000000;
    return s == 1 ? "s" : s == 60 ? "min" : s == 3600 ? "h" : "day";
}

static void put_rate(const struct policy_rate *rate, FILE *out)
{
    fprintf(out, "%" PRId64 "/%s burst %" PRId64, rate->units, period_word(rate), rate->burst);
}

static void put_quota(const struct policy_quota *q, FILE *out)
{
    if (q->day == 0)
        fputs("0", out);
    else if (q->day < 0 && q->month < 0)
        fputs("unlimited", out);
    if (q->day > 0)
        fprintf(out, "%" PRId64 "/day", q->day);
    if (q->day != 0 && q->month >= 0)
        fprintf(out, "%s%" PRId64 "/month", q->day > 0 ? " and " : "", q->month);
}

static void put_tier(const char *tier, const char *comma, FILE *out)
{
    fputs(comma, out);
    put_text(*tier ? tier : "default", out);
    fputs(": ", out);
}

static void print_rates(const struct policy_route *route, FILE *out)
{
    static const char *const names[] = {
        [BY_ROUTE] = "route", [BY_USER] = "user", [BY_ADDRESS] = "address"};
    if (route->n_rates)
        fputs("    rate:\n", out);
    for (unsigned i = 0; i < route->n_rates; i++) {
        const struct policy_rate *rate = &route->rates[i];
        bool first = i == 0 || route->rates[i - 1].by != rate->by;
        bool last = i + 1 == route->n_rates || route->rates[i + 1].by != rate->by;
        if (first)
            fprintf(out, "      %s: {", names[rate->by]);
        put_tier(rate->tier, first ? "" : ", ", out);
        put_rate(rate, out);
        fputs(last ? "}\n" : "", out);
    }
}

static void print_quotas(const struct policy_route *route, FILE *out)
{
    if (!route->n_quotas)
        return;
    fputs("    quota: {", out);
    for (unsigned i = 0; i < route->n_quotas; i++) {
        put_tier(route->quotas[i].tier, i ? ", " : "", out);
        put_quota(&route->quotas[i], out);
    }
    fprintf(out, "}\n    quota_when_down: %s\n",
            route->quota_store_down == STORE_DOWN_OPEN ? "open" : "closed");
}

static void print_route(const struct policy_route *route, FILE *out)
{
    static const char *const by[] = {
        [BY_ROUTE] = "route", [BY_USER] = "user", [BY_ADDRESS] = "address"};
    static const char *const errors[] = {
        [ERRORS_AUTO] = "auto", [ERRORS_PROBLEM] = "problem", [ERRORS_OPENAI] = "openai"};
    print_matches(route, out);
    put_key(4, "name", route->name, "", out);
    fprintf(out, "    require: %s\n", route->require == REQUIRE_USER ? "user" : "nobody");
    if (route->deadline_ms) {
        fputs("    deadline: ", out);
        put_ms(route->deadline_ms, out);
        fputc('\n', out);
    }
    if (route->on_deadline_given)
        fprintf(out, "    on_deadline: %s\n",
                route->on_deadline == ON_DEADLINE_INTERRUPT ? "interrupt" : "tell");
    if (route->concurrency) {
        fprintf(out, "    concurrency: %" PRId64 "\n    queue: {size: %" PRId64 ", wait: ",
                route->concurrency, route->queue_size);
        put_ms(route->queue_wait_ms, out);
        fprintf(out, ", fair_by: %s}\n", by[route->queue_fair_by]);
    }
    print_rates(route, out);
    print_quotas(route, out);
    if (route->lane == LANE_RESERVED)
        fputs("    lane: reserved\n", out);
    if (route->dry_run)
        fputs("    dry_run: yes\n", out);
    fprintf(out, "    errors: %s\n", errors[route->errors]);
    print_cors(&route->cors, 4, out);
}

void conf_policy_print(const struct conf_policy *p, FILE *out)
{
    if (p->n_identifiers)
        fputs("identify:\n", out);
    for (unsigned i = 0; i < p->n_identifiers; i++)
        print_identifier(&p->identifiers[i], out);
    if (*p->tier_from || *p->tier_default)
        fputs("tiers:\n", out);
    if (*p->tier_from) {
        char from[160];
        snprintf(from, sizeof from, "jwt.%s", p->tier_from);
        put_key(2, "from", from, "", out);
    }
    put_key(2, "default", p->tier_default, "", out);
    print_cors(&p->cors, 0, out);
    if (p->n_routes)
        fputs("routes:\n", out);
    for (unsigned i = 0; i < p->n_routes; i++)
        print_route(&p->routes[i], out);
}

/* ---- limits, for people ---- */

static void limit_of_rate(const struct policy_rate *rate, char *out, size_t n)
{
    static const char *const by[] = {
        [BY_ROUTE] = "route", [BY_USER] = "user", [BY_ADDRESS] = "address"};
    int k = snprintf(out, n, "%s%s%s %" PRId64 "/%s", by[rate->by], *rate->tier ? " " : "",
                     rate->tier, rate->units, period_word(rate));
    if (rate->burst != rate->units && k > 0 && (size_t)k < n)
        snprintf(out + k, n - (size_t)k, " burst %" PRId64, rate->burst);
}

static void limit_of_quota(const struct policy_quota *q, char *out, size_t n)
{
    char day[32] = "", month[32] = "";
    if (q->day == 0)
        snprintf(day, sizeof day, "0");
    else if (q->day < 0 && q->month < 0)
        snprintf(day, sizeof day, "unlimited");
    else if (q->day > 0)
        snprintf(day, sizeof day, "%" PRId64 "/day", q->day);
    if (q->day != 0 && q->month >= 0)
        snprintf(month, sizeof month, "%s%" PRId64 "/month", *day ? " and " : "", q->month);
    snprintf(out, n, "quota%s%s %s%s", *q->tier ? " " : "", q->tier, day, month);
}

bool conf_policy_limit(const struct policy_route *r, unsigned i, char *out, size_t n)
{
    if (i < r->n_rates) {
        limit_of_rate(&r->rates[i], out, n);
        return true;
    }
    i -= r->n_rates;
    if (i < r->n_quotas) {
        limit_of_quota(&r->quotas[i], out, n);
        return true;
    }
    i -= r->n_quotas;
    if (r->concurrency && i < 2) {
        if (i == 0)
            snprintf(out, n, "concurrency %" PRId64, r->concurrency);
        else if (r->queue_size)
            snprintf(out, n, "queue %" PRId64 " for %.10gs", r->queue_size,
                     (double)r->queue_wait_ms / 1000);
        else
            snprintf(out, n, "no queue");
        return true;
    }
    i -= r->concurrency ? 2 : 0;
    if (!r->deadline_ms || i)
        return false;
    snprintf(out, n, "deadline %.10gs", (double)r->deadline_ms / 1000);
    return true;
}

/* ---- the reference ---- */

static void reference_key(const struct policy_key *key, FILE *out)
{
    char first = key->help[0];
    fprintf(out, "\n### `%s`\n\n%c%s.\n\n", key->name,
            first >= 'a' && first <= 'z' ? first - 'a' + 'A' : first, key->help + 1);
    fprintf(out, "Takes: %s.", key->takes);
    if (*key->def)
        fprintf(out, " Default: %s.", key->def);
    fprintf(out, "\n\n```yaml\n%s```\n", key->example);
}

void conf_reference_policy(FILE *out)
{
    static const char *const titles[WHERES] = {
        [WHERE_FILE] = "Keys of the file", [WHERE_IDENTIFY] = "Items of identify",
        [WHERE_JWT] = "Options of jwt",    [WHERE_API_KEY] = "Options of api_key",
        [WHERE_TIERS] = "Keys of tiers",   [WHERE_CORS] = "Keys of cors",
        [WHERE_ROUTE] = "Keys of a route", [WHERE_QUEUE] = "Keys of queue",
        [WHERE_RATE] = "Keys of rate",
    };
    fputs(
        "# Policy\n\n"
        "<!-- Written by `weir --dump-reference policy` from src/conf/policy_keys.def. -->\n\n"
        "What [`weir.yaml`](../configuration.md) may say of admission: who asks, which pages of "
        "other origins may, and what\neach route allows. Names may be written with dashes or "
        "underscores. Every example below is a whole file.\n\n"
        "| written as | means |\n| --- | --- |\n"
        "| time | seconds (`10`, `0.5`), or with a unit: `250ms`, `10s`, `5m`, `1h`, `1d` |\n"
        "| rate | `10/min` or `10/min burst 3`: whole numbers up to 1000000000; a second (`s`), "
        "minute (`min`), hour (`h`, `hour`) or `day` |\n"
        "| burst | so many may come at once. Default: all that the rate allows in its time: of "
        "`10/min` 10 |\n"
        "| quota | `0`, `20/day`, `2000/month`, `200/day and 2000/month`, or `unlimited`; days "
        "and months of UTC |\n"
        "| tier | 1 to 64 bytes without blanks; `default` stands for the tiers that are not named "
        "|\n\n",
        out);
    fprintf(out,
            "Bounds: %d items of identify, %d routes, %d matches of a route (each method of one "
            "counts), %d rates of a route\n(each tier counts), %d tiers in a mapping, %d origins, "
            "%d different methods, %d bytes a path.\n",
            POLICY_IDENTIFIERS_MAX, POLICY_ROUTES_MAX, POLICY_MATCHES_MAX, POLICY_RATES_MAX,
            POLICY_TIERS_MAX, POLICY_ORIGINS_MAX, POLICY_METHODS_MAX, POLICY_PATH_MAX);
    for (unsigned w = 0; w < WHERES; w++) {
        fprintf(out, "\n## %s\n", titles[w]);
        for (unsigned i = 0; i < POLICY_KEYS; i++)
            if (policy_keys[i].where == w)
                reference_key(&policy_keys[i], out);
    }
}
