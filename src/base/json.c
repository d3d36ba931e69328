/* json: see the header. */
#include "base/json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/escape.h"

static void add(struct json *j, const char *p, size_t n)
{
    if (!j->error && buf_add(j->out, p, n))
        j->error = -ENOMEM;
}

static void value(struct json *j)
{
    if (j->comma)
        add(j, ",", 1);
    j->comma = true;
}

void json_open(struct json *j, char bracket)
{
    value(j);
    add(j, &bracket, 1);
    j->comma = false;
}

void json_close(struct json *j, char bracket)
{
    add(j, &bracket, 1);
    j->comma = true;
}

void json_key(struct json *j, const char *key)
{
    value(j);
    add(j, "\"", 1);
    add(j, key, strlen(key));
    add(j, "\":", 2);
    j->comma = false;
}

void json_text(struct json *j, struct slice s)
{
    value(j);
    if (j->error)
        return;
    if (buf_reserve(j->out, s.n * ESCAPE_GROWTH + 2)) {
        j->error = -ENOMEM;
        return;
    }
    char *p = j->out->p + j->out->n;
    *p++ = '"';
    p = escape_json(p, s);
    *p++ = '"';
    j->out->n = (size_t)(p - j->out->p);
}

void json_str(struct json *j, const char *s)
{
    if (s)
        json_text(j, slice_str(s));
    else
        json_none(j);
}

void json_raw(struct json *j, struct slice s)
{
    value(j);
    add(j, s.p, s.n);
}

void json_int(struct json *j, int64_t v)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%lld", (long long)v);
    json_raw(j, slice_of(text, (size_t)n));
}

void json_uint(struct json *j, uint64_t v)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%llu", (unsigned long long)v);
    json_raw(j, slice_of(text, (size_t)n));
}

void json_bool(struct json *j, bool v)
{
    json_raw(j, v ? SLICE("true") : SLICE("false"));
}

void json_none(struct json *j)
{
    json_raw(j, SLICE("null"));
}

void json_seconds(struct json *j, int64_t ns)
{
    char text[40];
    int64_t us = ns / 1000;
    const char *sign = us < 0 ? "-" : "";
    uint64_t u = us < 0 ? (uint64_t)-us : (uint64_t)us;
    int n = snprintf(text, sizeof text, "%s%llu.%06llu", sign, (unsigned long long)(u / 1000000),
                     (unsigned long long)(u % 1000000));
    while (text[n - 1] == '0')
        n--;
    if (text[n - 1] == '.')
        n--;
    json_raw(j, slice_of(text, (size_t)n));
}
