/*
 * fuzz_env_file: any bytes as a file of NAME=VALUE lines.
 *
 * Oracles: a name is never empty and holds no '='; nothing holds a NUL; a file that is accepted gives
 * the same when each value is written again in double quotes.
 */
#include <stdint.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/must.h"
#include "conf/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {0};
    struct conf_env_list list = {0};
    struct err e = {{0}};
    if (conf_env_parse(&arena, "file", (const char *)data, size, &list, &e)) {
        must(e.text[0]); /* an error says what is wrong */
        arena_fini(&arena);
        return 0;
    }
    struct buf again = {0};
    int rc = 0;
    for (unsigned i = 0; i < list.n; i++) {
        const struct conf_env *v = &list.items[i];
        must(v->name[0] && !strchr(v->name, '=') && v->source[0]);
        rc |= buf_addf(&again, "%s=\"", v->name);
        for (const char *p = v->value; *p; p++) {
            if (strchr("\"\\$", *p))
                rc |= buf_add(&again, "\\", 1);
            rc |= buf_add(&again, p, 1);
        }
        rc |= buf_add(&again, "\"\n", 2);
    }
    struct conf_env_list twin = {0};
    must(rc == 0);
    must(conf_env_parse(&arena, "again", again.p, again.n, &twin, &e) == 0);
    must(twin.n == list.n);
    for (unsigned i = 0; i < list.n; i++)
        must(strcmp(twin.items[i].name, list.items[i].name) == 0 &&
             strcmp(twin.items[i].value, list.items[i].value) == 0);
    buf_fini(&again);
    arena_fini(&arena);
    return 0;
}
