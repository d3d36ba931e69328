/* policy_value: rates, quotas, matches, origins: texts to values, with what is wrong and the cure.
 */
#include "conf/policy_private.h"

#include <arpa/inet.h>
#include <string.h>

/* What a count may be; far above any sense, and far below where sums overflow. */
static const int64_t UNITS_MAX = 1000000000;
static const int64_t SECOND_NS = 1000000000;

bool policy_is_token(struct slice s)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < s.n; i++) {
        char b = s.p[i];
        bool letter = (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9');
        if (!letter && (!b || !strchr(marks, b)))
            return false;
    }
    return s.n > 0;
}

/* ---- numbers with a unit ---- */

static void skip_blanks(const char **p)
{
    *p += strspn(*p, " \t");
}

/* Digits at *p; -1: none, or more than UNITS_MAX. */
static int64_t take_count(const char **p)
{
    int64_t v = 0;
    if (**p < '0' || **p > '9')
        return -1;
    for (; **p >= '0' && **p <= '9'; ++*p)
        v = v > UNITS_MAX ? v : v * 10 + (**p - '0');
    return v > UNITS_MAX ? -1 : v;
}

/* Letters at *p. */
static struct slice take_letters(const char **p)
{
    const char *from = *p;
    while ((**p >= 'a' && **p <= 'z') || (**p >= 'A' && **p <= 'Z'))
        ++*p;
    return slice_of(from, (size_t)(*p - from));
}

static bool has_large_number(const char *text)
{
    while (*text) {
        bool digit = *text >= '0' && *text <= '9';
        if (digit && take_count(&text) < 0)
            return true;
        text += !digit;
    }
    return false;
}

/* "N/UNIT" at *p, moved behind it. 0, or -1: it is none (then unit.n is 0), or of another unit. */
static int take_per(const char **p, int64_t *count, struct slice *unit)
{
    *unit = slice_of("", 0);
    if ((*count = take_count(p)) < 0)
        return -1;
    skip_blanks(p);
    if (**p != '/')
        return -1;
    ++*p;
    skip_blanks(p);
    *unit = take_letters(p);
    return unit->n ? 0 : -1;
}

static int too_large(const char *text, struct err *e)
{
    return err_set(e, "'%.80s' is too large; the most is 1000000000", text);
}

int policy_value_rate(const char *text, struct policy_rate *out, struct err *e)
{
    static const struct {
        const char *name;
        int64_t seconds;
    } units[] = {{"s", 1}, {"min", 60}, {"h", 3600}, {"hour", 3600}, {"day", 86400}};
    const char *p = text;
    struct slice unit;

    if (has_large_number(text))
        return too_large(text, e);
    skip_blanks(&p);
    if (take_per(&p, &out->units, &unit))
        return err_set(e, "'%.80s' is no rate; write it as 10/min or 10/min burst 3", text);
    out->period_ns = 0;
    for (size_t i = 0; i < countof(units); i++)
        if (slice_ieq(unit, slice_str(units[i].name)))
            out->period_ns = units[i].seconds * SECOND_NS;
    if (!out->period_ns)
        return err_set(e, "'%.80s': the unit '%.*s' is unknown; give s, min, h or day", text,
                       (int)(unit.n < 40 ? unit.n : 40), unit.p);
    if (!out->units)
        return err_set(e, "'%.80s' lets nothing pass; give 1 or more, or leave the limit out",
                       text);

    out->burst = out->units; /* what is allowed in the time may come at its beginning */
    skip_blanks(&p);
    if (slice_ieq(take_letters(&p), SLICE("burst"))) {
        skip_blanks(&p);
        out->burst = take_count(&p);
        if (out->burst == 0)
            return err_set(e, "'%.80s': a burst of 0 lets nothing pass; give 1 or more", text);
        skip_blanks(&p);
    }
    if (*p || out->burst < 0)
        return err_set(e, "'%.80s' is no rate; write it as 10/min or 10/min burst 3", text);
    /* As admit/gcra reckons: the time of a unit rounds up. */
    int64_t step_ns = (out->period_ns + out->units - 1) / out->units;
    if (out->burst > POLICY_BURST_NS_MAX / step_ns)
        return err_set(e, "'%.80s': the burst takes more than ten years to come back; lower it",
                       text);
    return 0;
}

int policy_value_quota(const char *text, struct policy_quota *out, struct err *e)
{
    const char *p = text;
    int64_t count;
    struct slice word = slice_trim(slice_str(text));

    out->day = out->month = QUOTA_UNLIMITED;
    if (slice_ieq(word, SLICE("unlimited")))
        return 0;
    if (has_large_number(text))
        return too_large(text, e);
    if (word.n && strspn(word.p, "0") >= word.n) {
        out->day = 0;
        return 0;
    }
    do {
        skip_blanks(&p);
        if (take_per(&p, &count, &word))
            return err_set(e,
                           "'%.80s' is no quota; write 0, 20/day, 2000/month, 200/day and "
                           "2000/month, or unlimited",
                           text);
        bool day = slice_ieq(word, SLICE("day"));
        if (!day && !slice_ieq(word, SLICE("month")))
            return err_set(e,
                           "'%.80s': the unit '%.*s' is unknown; quotas count by day and month, "
                           "and a rate counts what is shorter",
                           text, (int)(word.n < 40 ? word.n : 40), word.p);
        int64_t *limit = day ? &out->day : &out->month;
        if (*limit != QUOTA_UNLIMITED)
            return err_set(e, "'%.80s' gives the %s twice; leave one out", text,
                           day ? "day" : "month");
        *limit = count;
        skip_blanks(&p);
    } while (slice_ieq(take_letters(&p), SLICE("and")));
    if (*p)
        return err_set(e,
                       "'%.80s' is no quota; write 0, 20/day, 2000/month, 200/day and 2000/month, "
                       "or unlimited",
                       text);
    /* Nothing is nothing, however it is written. */
    if (out->day == 0 || out->month == 0)
        *out = (struct policy_quota){.tier = out->tier, .day = 0, .month = QUOTA_UNLIMITED};
    return 0;
}

/* ---- matches ---- */

static int hex_digit(char b)
{
    return b >= '0' && b <= '9'   ? b - '0'
           : b >= 'a' && b <= 'f' ? b - 'a' + 10
           : b >= 'A' && b <= 'F' ? b - 'A' + 10
                                  : -1;
}

/* The path of a match, decoded into `out` (POLICY_PATH_MAX + 1 bytes). */
static int decode_path(const char *path, char *out, struct err *e)
{
    size_t n = 0;
    for (const char *p = path; *p; p++) {
        unsigned char b = (unsigned char)*p;
        if (n == POLICY_PATH_MAX)
            return err_set(e, "'%.80s…' is longer than %d bytes; end it earlier with a star", path,
                           POLICY_PATH_MAX);
        if (b == '*' && p[1])
            return err_set(e, "'%.200s' has a star inside; it may stand at the end only", path);
        if (b == '?' || b == '#')
            return err_set(
                e, "'%.200s' holds a %c; a match looks at the path only, so take the rest away",
                path, b);
        if (b <= ' ' || b >= 0x7f || b == '"' || b == '\\')
            return err_set(e,
                           "'%.200s' holds a byte that must be written as an escape; write it as "
                           "%%%02X",
                           path, b);
        if (b == '%') {
            int high = hex_digit(p[1]), low = high < 0 ? -1 : hex_digit(p[2]);
            if (low < 0)
                return err_set(
                    e, "'%.200s' has a %% without two hex digits; write a percent sign as %%25",
                    path);
            b = (unsigned char)(high << 4 | low);
            p += 2;
            if (b == '*')
                return err_set(e,
                               "'%.200s' asks for a star itself, which cannot be told apart; "
                               "match what stands before it",
                               path);
            if (b < ' ' || b == 0x7f)
                return err_set(e, "'%.200s' holds a control character; take it out", path);
        }
        if (b == '/' && n && out[n - 1] == '/')
            return err_set(e,
                           "'%.200s' has a double slash; write one, it stands for any number of "
                           "them",
                           path);
        out[n++] = (char)b;
    }
    out[n] = 0;
    return 0;
}

static int check_method(struct slice m, const char *text, struct err *e)
{
    bool small = false;
    for (size_t i = 0; i < m.n; i++)
        small |= m.p[i] >= 'a' && m.p[i] <= 'z';
    if (!policy_is_token(m) || m.n > 32 || slice_eq(m, SLICE("*")))
        return err_set(e,
                       "'%.200s' is no match; write PATH, METHOD PATH or METHOD|METHOD PATH, as "
                       "POST /api/ai/*",
                       text);
    if (small)
        return err_set(e, "'%.200s': a method is written in capitals", text);
    return 0;
}

int policy_value_match(struct conf *c, const char *text, struct policy_match *out, unsigned *n,
                       struct err *e)
{
    char decoded[POLICY_PATH_MAX + 1];
    size_t methods_n = *text == '/' ? 0 : strcspn(text, " \t");
    const char *path = text + methods_n + strspn(text + methods_n, " \t");
    if (methods_n && !*path)
        return err_set(e, "'%.200s' has no path; write PATH or METHOD PATH, as POST /api/ai/*",
                       text);
    for (size_t at = 0, k; at < methods_n; at += k + 1) {
        k = strcspn(text + at, "| \t");
        if (check_method(slice_of(text + at, k), text, e))
            return -1;
        if (at + k + 1 == methods_n) /* ends with a bar */
            return check_method(slice_of("", 0), text, e);
    }
    if (*path != '/')
        return err_set(e, "'%.200s': the path must begin with /", text);
    if (decode_path(path, decoded, e))
        return -1;
    char *copy = conf_copy(c, decoded, strlen(decoded), e);
    size_t at = 0;
    do {
        size_t k = methods_n ? strcspn(text + at, "| \t") : 0;
        if (*n == POLICY_MATCHES_MAX)
            return err_set(e, "more than %d matches; make two routes of it", POLICY_MATCHES_MAX);
        char *method = copy ? conf_copy(c, text + at, k, e) : NULL;
        if (!method)
            return -1;
        out[(*n)++] = (struct policy_match){.method = method, .path = copy};
        at += k + 1;
    } while (at < methods_n);
    return 0;
}

/* ---- who asks ---- */

int policy_value_tier(const char *text, struct err *e)
{
    if (!*text || strlen(text) > 64)
        return err_set(e, "'%.80s' is no name of a tier; it has 1 to 64 bytes", text);
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return err_set(e, "the tier '%.80s' holds a blank or control character; take it out",
                           text);
    return 0;
}

int policy_value_tier_from(const char *text, const char **out, struct err *e)
{
    if (strncmp(text, "jwt.", 4) != 0 || !text[4])
        return err_set(e,
                       "'%.80s' is no place of a tier; name a claim of the token, as "
                       "jwt.app_metadata.tier",
                       text);
    for (const char *p = text; *p; p++)
        if ((*p == '.' && (p[1] == '.' || !p[1])) || strlen(text) > 128)
            return err_set(
                e, "'%.128s' is no path of claims; write names with one dot between them", text);
    *out = text + 4;
    return 0;
}

/* The host of a URL: up to / : ? or #, an address in brackets whole. */
static struct slice host_of(const char *authority)
{
    const char *end = *authority == '[' ? strchr(authority, ']') : NULL;
    size_t n = end ? (size_t)(end + 1 - authority) : strcspn(authority, "/:?#");
    return slice_of(authority, n);
}

static bool is_loopback(struct slice host)
{
    char text[16];
    struct in_addr a;
    if (slice_ieq(host, SLICE("localhost")) || slice_eq(host, SLICE("[::1]")))
        return true;
    if (host.n >= sizeof text)
        return false;
    memcpy(text, host.p, host.n);
    text[host.n] = 0;
    return inet_pton(AF_INET, text, &a) == 1 && ntohl(a.s_addr) >> 24 == 127;
}

bool policy_jwks_is_url(const char *jwks)
{
    return strncmp(jwks, "https://", 8) == 0 || strncmp(jwks, "http://", 7) == 0;
}

int policy_value_jwks(const char *text, struct err *e)
{
    bool plain = strncmp(text, "http://", 7) == 0;
    if (!policy_jwks_is_url(text))
        return strstr(text, "://")
                   ? err_set(e, "'%.200s' is no URL of keys; give https://…, or the path of a file",
                             text)
                   : 0;
    const char *authority = text + (plain ? 7 : 8);
    struct slice host = host_of(authority);
    size_t n = strcspn(authority, "/?#");
    if (!host.n || strpbrk(text, " \t\"\\<>") || memchr(authority, '@', n))
        return err_set(e, "'%.200s' is no URL of keys; write https://HOST/PATH", text);
    if (plain && !is_loopback(host))
        return err_set(e,
                       "'%.200s' is fetched without TLS, so anybody on the way could put keys of "
                       "his own there; give https://",
                       text);
    return 0;
}

/* ---- origins ---- */

static bool host_byte(char b)
{
    return (b >= 'a' && b <= 'z') || (b >= '0' && b <= '9') || b == '-' || b == '.' || b == '_';
}

/* What stands between scheme and port. */
static bool host_ok(struct slice host)
{
    if (host.n > 2 && host.p[0] == '[')
        return strspn(host.p + 1, "0123456789abcdef:.") + 2 == host.n && host.p[host.n - 1] == ']';
    if (slice_starts(host, SLICE("*.")))
        host = slice_of(host.p + 2, host.n - 2);
    for (size_t i = 0; i < host.n; i++)
        if (!host_byte(host.p[i]) || (host.p[i] == '.' && (i == 0 || host.p[i - 1] == '.')))
            return false;
    return host.n && host.n <= 253;
}

static int bad_origin(const char *text, const char *cure, struct err *e)
{
    return err_set(e, "'%.200s' is no origin as browsers send it; %s", text, cure);
}

int policy_value_origin(const char *text, struct err *e)
{
    if (strcmp(text, "*") == 0)
        return 0;
    if (strcmp(text, "null") == 0)
        return bad_origin(text, "null is any page in a sandbox or a file, so it names nobody", e);
    for (const char *p = text; *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            return bad_origin(text, "write it in small letters", e);
    size_t scheme = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+-.");
    if (!scheme || strncmp(text + scheme, "://", 3) != 0)
        return bad_origin(
            text, "write SCHEME://HOST or SCHEME://HOST:PORT, as https://app.example.org", e);
    const char *authority = text + scheme + 3;
    if (strchr(authority, '/'))
        return bad_origin(text, "take away the path and the final slash", e);
    struct slice host = host_of(authority);
    const char *port = host.p + host.n;
    if (!host_ok(host))
        return bad_origin(text,
                          "the host is a name, with other letters in its xn-- form; a star may "
                          "stand for its first label",
                          e);
    if (!*port)
        return 0;
    port++;
    if (strcmp(port, "*") == 0)
        return 0;
    const char *p = port;
    int64_t number = take_count(&p);
    if (port[-1] != ':' || *p || number < 1 || number > 65535 || *port == '0')
        return bad_origin(text, "the port is a number from 1 to 65535, or a star", e);
    bool https = scheme == 5 && strncmp(text, "https", 5) == 0;
    bool http = scheme == 4 && strncmp(text, "http", 4) == 0;
    if ((https && number == 443) || (http && number == 80))
        return bad_origin(text, "they leave the usual port out, so take it away", e);
    return 0;
}
