/* identity: see the header. */
#include "serve/identity.h"

/* The value of a field that was sent once; empty: it was not. */
struct once {
    struct slice value;
    unsigned times;
};

static void note(struct once *o, const struct field *f)
{
    if (f->dropped)
        return;
    o->value = f->value;
    o->times++;
}

static struct slice once_of(const struct once *o)
{
    return o->times == 1 ? o->value : (struct slice){0};
}

static void take_trace(struct identity *id, struct slice parent, const struct identity_rules *rules,
                       struct trace_source *s)
{
    id->traced = rules->trace;
    if (!rules->trace)
        return;
    id->begun = !parent.n || !trace_parse(&id->trace, parent);
    if (id->begun)
        trace_begin(&id->trace, s, rules->permille);
    else if (rules->export && id->trace.sampled)
        trace_span(&id->trace, s);
    else
        trace_pass(&id->trace);
}

/* A new one is that of the trace which begins with it: one name to look for. */
static void take_id(struct identity *id, struct slice asked, const struct identity_rules *rules,
                    struct trace_source *s)
{
    id->request_id = (struct slice){0};
    if (!rules->request_id)
        return;
    id->request_id = asked;
    if (request_id_is_good(asked))
        return;
    if (id->traced && id->begun)
        trace_hex(id->made, id->trace.trace_id, sizeof id->trace.trace_id);
    else
        request_id_write(id->made, s);
    id->request_id = slice_of(id->made, sizeof id->made);
}

void identity_take(struct identity *id, const struct req *r, const struct identity_rules *rules,
                   struct trace_source *s)
{
    static const struct slice ID = {"x-request-id", 12}, PARENT = {"traceparent", 11};
    struct once asked = {0}, parent = {0};
    for (unsigned i = 0; i < r->n_fields; i++) {
        const struct field *f = &r->fields[i];
        if (f->name.n == ID.n && slice_ieq(f->name, ID))
            note(&asked, f);
        else if (f->name.n == PARENT.n && slice_ieq(f->name, PARENT))
            note(&parent, f);
    }
    take_trace(id, once_of(&parent), rules, s);
    take_id(id, once_of(&asked), rules, s);
}
