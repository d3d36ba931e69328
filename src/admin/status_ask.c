/* status_ask: the query of a URL as what is wanted of the status. */
#include <stdlib.h>
#include <string.h>

#include "admin/status.h"

/* Longest value before it is decoded: three bytes for each of a text. */
#define RAW_MAX (sizeof((struct status_ask *)0)->find * 3)
/* No sane query has more parts. */
#define PARTS_MAX 32

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The decoded value into out, NUL-terminated. False: no valid encoding, a NUL in it, or no room. */
static bool decode(struct slice raw, char *out, size_t room)
{
    size_t n = 0;
    for (size_t i = 0; i < raw.n; i++) {
        char c = raw.p[i] == '+' ? ' ' : raw.p[i];
        if (c == '%') {
            int high = i + 2 < raw.n ? hex_digit(raw.p[i + 1]) : -1;
            int low = i + 2 < raw.n ? hex_digit(raw.p[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (!c || n + 1 >= room)
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return true;
}

/* What a message may show of a text from outside. */
static const char *shown(const char *text, char *out, size_t room)
{
    size_t n = 0;
    for (; text[n] && n + 1 < room; n++)
        out[n] = (unsigned char)text[n] < ' ' || (unsigned char)text[n] >= 0x7f ? '?' : text[n];
    out[n] = '\0';
    return out;
}

/* A whole number from 0 to max; -1: none. */
static long number(const char *text, long max)
{
    long n = 0;
    if (!*text)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        n = n * 10 + (*text - '0');
        if (n > max)
            return -1;
    }
    return n;
}

static int set_sort(struct status_ask *ask, const char *value)
{
    static const char *const words[] = {[STATUS_BY_AGE] = "age",
                                        [STATUS_BY_USER] = "user",
                                        [STATUS_BY_ROUTE] = "route",
                                        [STATUS_BY_STATE] = "state"};
    for (unsigned i = 0; i < countof(words); i++)
        if (strcmp(value, words[i]) == 0) {
            ask->sort = (enum status_sort)i;
            return 0;
        }
    return -1;
}

static int set_state(struct status_ask *ask, const char *value)
{
    for (int i = 1; i < FLIGHT_STATES; i++)
        if (strcmp(value, flight_state_word((enum flight_state)i)) == 0) {
            ask->state = i;
            return 0;
        }
    return -1;
}

static int set_brief(struct status_ask *ask, const char *value)
{
    ask->brief = strcmp(value, "yes") == 0 || strcmp(value, "1") == 0 || strcmp(value, "true") == 0;
    return ask->brief || strcmp(value, "no") == 0 || strcmp(value, "0") == 0 ||
                   strcmp(value, "false") == 0
               ? 0
               : -1;
}

/* The states' words, for a message. */
static const char *state_words(char *out, size_t room)
{
    size_t n = 0;
    out[0] = '\0';
    for (int i = 1; i < FLIGHT_STATES && n < room; i++)
        n += (size_t)snprintf(out + n, room - n, "%s%s", i > 1 ? ", " : "",
                              flight_state_word((enum flight_state)i));
    return out;
}

static int set(struct status_ask *ask, const char *name, const char *value, struct err *e)
{
    char text[64], words[160];
    long n;
    shown(value, text, sizeof text);
    if (strcmp(name, "flights") == 0) {
        if ((n = number(value, STATUS_FLIGHTS_MAX)) < 0)
            return err_set(e, "flights: '%s' is not a number of requests; give 0 to %d", text,
                           STATUS_FLIGHTS_MAX);
        ask->flights = n ? (unsigned)n : STATUS_NO_FLIGHTS;
        return 0;
    }
    if (strcmp(name, "worker") == 0) {
        if ((n = number(value, SCOREBOARD_SLOTS_MAX - 1)) < 0)
            return err_set(e, "worker: '%s' is not the slot of a worker; give 0 to %d", text,
                           SCOREBOARD_SLOTS_MAX - 1);
        ask->worker = (int)n + 1;
        return 0;
    }
    if (strcmp(name, "sort") == 0)
        return set_sort(ask, value)
                   ? err_set(e, "sort: '%s' is unknown; give age, user, route or state", text)
                   : 0;
    if (strcmp(name, "state") == 0)
        return set_state(ask, value) ? err_set(e, "state: '%s' is unknown; give one of %s", text,
                                               state_words(words, sizeof words))
                                     : 0;
    if (strcmp(name, "brief") == 0)
        return set_brief(ask, value) ? err_set(e, "brief: '%s' is neither yes nor no", text) : 0;
    if (strcmp(name, "route") == 0 || strcmp(name, "find") == 0) {
        char *to = *name == 'r' ? ask->route : ask->find;
        size_t k = strlen(value);
        if (k >= sizeof ask->find)
            return err_set(e, "%s: the text has %zu bytes; the most is %zu", name, k,
                           sizeof ask->find - 1);
        memcpy(to, value, k + 1);
        return 0;
    }
    return err_set(e, "'%s' is unknown; give flights, sort, state, worker, route, find or brief",
                   shown(name, text, sizeof text));
}

int status_ask_parse(struct status_ask *ask, struct slice query, struct err *e)
{
    *ask = (struct status_ask){0};
    for (unsigned parts = 0; query.n; parts++) {
        const char *and = memchr(query.p, '&', query.n);
        struct slice part = slice_of(query.p, and? (size_t)(and-query.p) : query.n);
        query = slice_of(query.p + part.n + (and != NULL), query.n - part.n - (and != NULL));
        if (parts == PARTS_MAX)
            return err_set(e, "the query has more than %d parts", PARTS_MAX);
        if (!part.n)
            continue;
        const char *equals = memchr(part.p, '=', part.n);
        struct slice name = slice_of(part.p, equals ? (size_t)(equals - part.p) : part.n);
        struct slice value =
            equals ? slice_of(equals + 1, part.n - name.n - 1) : slice_of(part.p, 0);
        char name_text[32], value_text[RAW_MAX + 1], text[64];
        if (!decode(name, name_text, sizeof name_text) ||
            !decode(value, value_text, sizeof value_text)) {
            snprintf(text, sizeof text, "%.*s", (int)(part.n < 60 ? part.n : 60), part.p);
            return err_set(e, "'%s' of the query cannot be read", shown(text, text, sizeof text));
        }
        if (set(ask, name_text, value_text, e))
            return -1;
    }
    return 0;
}
