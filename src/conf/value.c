/* value: texts to values with exact complaints, and values back to texts. */
#include "conf/conf_private.h"

#include <inttypes.h>
#include <string.h>

/* A text is shown in a message up to so many bytes; control bytes would garble the terminal. */
#define SHOWN_BYTES 80
struct shown {
    char text[SHOWN_BYTES + 4];
};

static struct shown show(const char *text)
{
    struct shown s;
    size_t i = 0;
    for (; text[i] && i < SHOWN_BYTES; i++)
        s.text[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    memcpy(s.text + i, text[i] ? "..." : "", text[i] ? 4 : 1);
    return s;
}

int conf_value_bool(const char *text, const char *source, bool *out, struct err *e)
{
    static const char *const yes[] = {"yes", "true", "on", "1", "y", "t"};
    static const char *const no[] = {"no", "false", "off", "0", "n", "f", ""};
    struct slice s = slice_trim(slice_str(text));

    for (size_t i = 0; i < countof(yes); i++)
        if (slice_ieq(s, slice_str(yes[i]))) {
            *out = true;
            return 0;
        }
    for (size_t i = 0; i < countof(no); i++)
        if (slice_ieq(s, slice_str(no[i]))) {
            *out = false;
            return 0;
        }
    return err_set(e, "%s: '%s' is neither yes nor no; give yes or no", source, show(text).text);
}

/* What a number may carry behind it. Sorted from large to small, for conf_value_format. */
struct unit {
    const char *name;
    int64_t factor;
};
static const struct unit size_units[] = {{"T", 1024LL * 1024 * 1024 * 1024},
                                         {"G", 1024LL * 1024 * 1024},
                                         {"M", 1024LL * 1024},
                                         {"k", 1024}};
static const struct unit time_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

enum number {
    NUMBER_OK = 0,
    NUMBER_BAD,   /* no number of this kind */
    NUMBER_LARGE, /* does not fit 63 bits */
    NUMBER_FINE,  /* a time below one millisecond */
};

/* Leading digits of *s into *out. */
static enum number take_digits(struct slice *s, unsigned base, int64_t *out)
{
    size_t n = 0;
    bool large = false;
    *out = 0;
    for (; n < s->n; n++) {
        unsigned digit = (unsigned)(unsigned char)s->p[n] - '0';
        if (digit >= base)
            break;
        large |= __builtin_mul_overflow(*out, (int64_t)base, out);
        large |= __builtin_add_overflow(*out, (int64_t)digit, out);
    }
    *s = slice_of(s->p + n, s->n - n);
    return n == 0 ? NUMBER_BAD : large ? NUMBER_LARGE : NUMBER_OK;
}

/* 4096, 64k, 64KiB, 1MB: powers of 1024 all of them. */
static enum number parse_size(struct slice s, int64_t *out)
{
    enum number rc = take_digits(&s, 10, out);
    if (rc == NUMBER_BAD || s.n == 0)
        return rc;
    int64_t factor = 1;
    for (size_t i = 0; i < countof(size_units); i++)
        if (slice_lower((unsigned char)s.p[0]) == slice_lower((unsigned char)size_units[i].name[0]))
            factor = size_units[i].factor;
    if (factor > 1)
        s = slice_of(s.p + 1, s.n - 1);
    if (!(s.n == 0 || slice_ieq(s, SLICE("b")) || (factor > 1 && slice_ieq(s, SLICE("ib")))))
        return NUMBER_BAD;
    if (rc == NUMBER_OK && __builtin_mul_overflow(*out, factor, out))
        rc = NUMBER_LARGE;
    return rc;
}

/* 10, 0.5, 250ms, 10s, 5m, 1h, 1d; without a unit: seconds. */
static enum number parse_time(struct slice s, int64_t *out)
{
    enum number rc = take_digits(&s, 10, out);
    if (rc == NUMBER_BAD)
        return rc;

    struct slice fraction = {0};
    if (s.n && s.p[0] == '.') {
        int64_t ignored;
        struct slice rest = slice_of(s.p + 1, s.n - 1);
        fraction.p = rest.p;
        if (take_digits(&rest, 10, &ignored) == NUMBER_BAD)
            return NUMBER_BAD;
        fraction.n = s.n - 1 - rest.n;
        s = rest;
    }
    int64_t factor = s.n ? 0 : 1000;
    for (size_t i = 0; i < countof(time_units); i++)
        if (slice_ieq(s, slice_str(time_units[i].name)))
            factor = time_units[i].factor;
    if (!factor)
        return NUMBER_BAD;
    bool zero = *out == 0;
    if (rc == NUMBER_OK && __builtin_mul_overflow(*out, factor, out))
        rc = NUMBER_LARGE;
    /* Digits behind the point, each a tenth of the one before; below 1 ms they are dropped. */
    int64_t step = factor;
    for (size_t i = 0; i < fraction.n; i++) {
        step /= 10;
        zero &= fraction.p[i] == '0';
        if (rc == NUMBER_OK && __builtin_add_overflow(*out, step * (fraction.p[i] - '0'), out))
            rc = NUMBER_LARGE;
    }
    return rc == NUMBER_OK && *out == 0 && !zero ? NUMBER_FINE : rc;
}

static enum number parse_number(enum conf_kind kind, const char *text, int64_t *out)
{
    struct slice s = slice_trim(slice_str(text));
    enum number rc;
    switch (kind) {
    case KIND_SIZE:
        return parse_size(s, out);
    case KIND_TIME:
        return parse_time(s, out);
    case KIND_OCTAL:
        if (s.n > 2 && s.p[0] == '0' && (s.p[1] == 'o' || s.p[1] == 'O'))
            s = slice_of(s.p + 2, s.n - 2);
        rc = take_digits(&s, 8, out);
        return s.n ? NUMBER_BAD : rc;
    case KIND_INT:
    case KIND_WORKERS:
    case KIND_THREADS:
        rc = take_digits(&s, 10, out);
        return s.n ? NUMBER_BAD : rc;
    case KIND_BOOL:
    case KIND_TEXT:
    case KIND_LIST:
    case KIND_CHOICE:
        break;
    }
    return NUMBER_BAD;
}

static const char *number_forms(enum conf_kind kind)
{
    switch (kind) {
    case KIND_SIZE:
        return "is not a size; give bytes, or a number with k, M, G or T, as 64k";
    case KIND_TIME:
        return "is not a time; give seconds, or a number with ms, s, m, h or d, as 250ms";
    case KIND_OCTAL:
        return "is not an octal number; give a file mode, as 600";
    case KIND_THREADS:
        return "is not a number; give N, MIN:MAX or auto";
    case KIND_WORKERS:
        return "is not a number; give N or auto";
    case KIND_INT:
    case KIND_BOOL:
    case KIND_TEXT:
    case KIND_LIST:
    case KIND_CHOICE:
        break;
    }
    return "is not a whole number";
}

/* "the range is 1 to 4096", "the least is 1", … */
static int out_of_range(const char *text, const char *how, const char *min, const char *max,
                        const char *source, struct err *e)
{
    if (*min && *max)
        return err_set(e, "%s: %s is too %s; the range is %s to %s", source, show(text).text, how,
                       min, max);
    if (*min || *max)
        return err_set(e, "%s: %s is too %s; the %s is %s", source, show(text).text, how,
                       *max ? "most" : "least", *max ? max : min);
    return err_set(e, "%s: %s is too %s", source, show(text).text, how);
}

int conf_value_number(enum conf_kind kind, const char *text, const char *min, const char *max,
                      const char *source, int64_t *out, struct err *e)
{
    int64_t value = 0, bound;
    bool negative = slice_trim(slice_str(text)).n > 1 && slice_trim(slice_str(text)).p[0] == '-';
    switch (parse_number(kind, text + (negative ? strspn(text, " \t") + 1 : 0), &value)) {
    case NUMBER_OK:
        break;
    case NUMBER_BAD:
        return err_set(e, "%s: '%s' %s", source, show(text).text, number_forms(kind));
    case NUMBER_LARGE:
        return out_of_range(text, negative ? "small" : "large", min, max, source, e);
    case NUMBER_FINE:
        return err_set(e, "%s: %s is below one millisecond", source, show(text).text);
    }
    if (negative && value)
        return out_of_range(text, "small", *min ? min : "0", max, source, e);
    if (*min && parse_number(kind, min, &bound) == NUMBER_OK && value < bound)
        return out_of_range(text, "small", min, max, source, e);
    if (*max && parse_number(kind, max, &bound) == NUMBER_OK && value > bound)
        return out_of_range(text, "large", min, max, source, e);
    *out = value;
    return 0;
}

/* `auto`, and the threads that stay when a bound alone is given. */
static const int64_t THREADS_AUTO_MIN = 4, THREADS_AUTO_MAX = 256;

int conf_value_threads(const char *text, const char *min, const char *max, const char *source,
                       struct conf_threads *out, struct err *e)
{
    struct slice s = slice_trim(slice_str(text));
    if (slice_ieq(s, SLICE("auto"))) {
        *out = (struct conf_threads){THREADS_AUTO_MIN, THREADS_AUTO_MAX, true};
        return 0;
    }

    struct conf_threads t = {0};
    const char *colon = strchr(text, ':');
    if (!colon) {
        if (conf_value_number(KIND_THREADS, text, min, max, source, &t.max, e))
            return -1;
        t.min = t.max < THREADS_AUTO_MIN ? t.max : THREADS_AUTO_MIN;
        *out = t;
        return 0;
    }
    char low[32];
    size_t n = (size_t)(colon - text);
    if (n >= sizeof low)
        return err_set(e, "%s: '%s' %s", source, show(text).text, number_forms(KIND_THREADS));
    memcpy(low, text, n);
    low[n] = 0;
    if (conf_value_number(KIND_THREADS, low, min, max, source, &t.min, e) ||
        conf_value_number(KIND_THREADS, colon + 1, min, max, source, &t.max, e))
        return -1;
    if (t.min > t.max)
        return err_set(e, "%s: '%s' has a minimum above its maximum; give MIN:MAX", source,
                       show(text).text);
    *out = t;
    return 0;
}

int conf_value_choice(struct conf *c, const char *text, const char *words, const char *source,
                      const char **out, struct err *e)
{
    struct slice wanted = slice_trim(slice_str(text));
    for (const char *w = words; *w;) {
        size_t n = strcspn(w, "|");
        if (slice_ieq(wanted, slice_of(w, n)))
            return (*out = conf_copy(c, w, n, e)) ? 0 : -1;
        w += n + (w[n] == '|');
    }
    return err_set(e, "%s: '%s' is unknown; give one of %s", source, show(text).text, words);
}

static void format_units(int64_t v, const struct unit *units, size_t n_units, char *out, size_t n)
{
    for (size_t i = 0; v && i < n_units; i++)
        if (v % units[i].factor == 0) {
            snprintf(out, n, "%" PRId64 "%s", v / units[i].factor, units[i].name);
            return;
        }
    snprintf(out, n, "%" PRId64, v);
}

static void format_list(const struct conf_list *list, char *out, size_t n)
{
    size_t at = 0;
    out[0] = 0;
    for (unsigned i = 0; i < list->n && at < n; i++) {
        int k = snprintf(out + at, n - at, "%s%s", i ? "," : "", list->items[i]);
        at += k > 0 ? (size_t)k : 0;
    }
}

void conf_value_format(const struct conf *c, const struct conf_row *row, char *out, size_t n)
{
    const void *field = (const char *)c + row->offset;
    const struct conf_threads *t = field;
    bool secret = (row == &conf_rows[CONF_ROW_admin_token] && *c->admin_token) ||
                  (row == &conf_rows[CONF_ROW_otlp_headers] && c->otlp_headers.n);
    if (secret) {
        snprintf(out, n, "(not shown)");
        return;
    }
    switch (row->kind) {
    case KIND_BOOL:
        snprintf(out, n, "%s", *(const bool *)field ? "yes" : "no");
        return;
    case KIND_INT:
    case KIND_WORKERS:
        snprintf(out, n, "%" PRId64, *(const int64_t *)field);
        return;
    case KIND_SIZE:
        format_units(*(const int64_t *)field, size_units, countof(size_units), out, n);
        return;
    case KIND_TIME:
        format_units(*(const int64_t *)field, time_units, countof(time_units), out, n);
        return;
    case KIND_OCTAL:
        snprintf(out, n, "%" PRIo64, (uint64_t) * (const int64_t *)field);
        return;
    case KIND_TEXT:
    case KIND_CHOICE:
        snprintf(out, n, "%s", *(const char *const *)field);
        return;
    case KIND_LIST:
        format_list(field, out, n);
        return;
    case KIND_THREADS:
        if (t->is_auto)
            snprintf(out, n, "auto");
        else
            snprintf(out, n, "%" PRId64 ":%" PRId64, t->min, t->max);
        return;
    }
}
