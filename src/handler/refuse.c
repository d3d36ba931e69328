/* refuse: see the header. */
#include "handler/refuse.h"

#include <stdio.h>

#include "base/escape.h"
#include "base/must.h"

/* The `type` of OpenAI's error object, by which its clients choose what to raise. */
static const char *openai_type(enum refusal_id id)
{
    switch (refusal_status(id)) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return strcmp(refusal_code(id), "insufficient_quota") == 0 ? "insufficient_quota"
                                                                   : "rate_limit_error";
    default:
        return "server_error";
    }
}

/* `text` as the inside of a JSON string, at most `n` bytes with NUL; a longer one is cut. */
static const char *json_inside(char *to, size_t n, const char *text)
{
    struct slice s = slice_str(text);
    if (s.n > (n - 1) / ESCAPE_GROWTH)
        s.n = (n - 1) / ESCAPE_GROWTH;
    *escape_json(to, s) = '\0';
    return to;
}

static int openai_body(char *to, size_t room, enum refusal_id id, const char *detail)
{
    return snprintf(
        to, room,
        "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}\n", detail,
        openai_type(id), refusal_code(id));
}

static int problem_body(char *to, size_t room, const struct refusal *r, const char *detail)
{
    char limit[128 * ESCAPE_GROWTH], more[1024];
    int n = 0;
    more[0] = '\0';
    if (r->limit)
        n += snprintf(more, sizeof more, ",\"limit\":\"%s\"",
                      json_inside(limit, sizeof limit, r->limit));
    if (r->retry_after_s > 0)
        n += snprintf(more + n, sizeof more - (size_t)n, ",\"retry_after\":%lld",
                      (long long)r->retry_after_s);
    if (r->position)
        n += snprintf(more + n, sizeof more - (size_t)n, ",\"position\":%u", r->position);
    if (r->expected_ms > 0)
        snprintf(more + n, sizeof more - (size_t)n, ",\"expected_wait\":%.3f",
                 (double)r->expected_ms / 1000);
    return snprintf(to, room,
                    "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"detail\":\"%s\","
                    "\"reason\":\"%s\"%s}\n",
                    handler_reason(refusal_status(r->id)), refusal_status(r->id), detail,
                    refusal_word(r->id), more);
}

static bool field(struct call *c, struct slice name, const char *value)
{
    return call_field(c, name, slice_str(value)) == CALL_OK;
}

/* False: no memory. */
static bool build(struct call *c, const struct refusal *r)
{
    const int status = refusal_status(r->id);
    char detail[2048], body[4096], text[64];
    json_inside(detail, sizeof detail, r->detail ? r->detail : refusal_means(r->id));
    int n = r->openai ? openai_body(body, sizeof body, r->id, detail)
                      : problem_body(body, sizeof body, r, detail);
    must(n > 0 && n < (int)sizeof body);

    snprintf(text, sizeof text, "%d %s", status, handler_reason(status));
    if (call_status(c, slice_str(text)) != CALL_OK ||
        !field(c, SLICE("Content-Type"),
               r->openai ? "application/json" : "application/problem+json") ||
        !field(c, SLICE("Cache-Control"), "no-store"))
        return false;
    snprintf(text, sizeof text, "%lld", (long long)r->retry_after_s);
    if (r->retry_after_s > 0 && !field(c, SLICE("Retry-After"), text))
        return false;
    if (r->authenticate && !field(c, SLICE("WWW-Authenticate"), r->authenticate))
        return false;
    return !call_begin(c, n) && !call_data(c, slice_of(body, (size_t)n)) && !call_end(c);
}

void refuse(struct call *c, const struct refusal *r)
{
    if (c->state != CALL_NEW && c->state != CALL_STATUS)
        call_abort(c, "refused after the head was sent");
    else if (!build(c, r))
        call_abort(c, "no memory for a refusal");
}
