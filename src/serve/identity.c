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
    id->request_id = (struct slice){0};
    if (rules->request_id) {
        id->request_id = once_of(&asked);
        if (!request_id_is_good(id->request_id)) {
            request_id_write(id->made, s);
            id->request_id = slice_of(id->made, sizeof id->made);
        }
    }
    id->traced = rules->trace;
    if (!rules->trace)
        return;
    if (!trace_parse(&id->trace, once_of(&parent)))
        trace_begin(&id->trace, s, rules->permille);
    else if (rules->export && id->trace.sampled)
        trace_span(&id->trace, s);
    else
        trace_pass(&id->trace);
}
