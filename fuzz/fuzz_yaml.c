/*
 * fuzz_yaml: any bytes as weir.yaml.
 *
 * Oracles: an error is one line that begins with the file's name; what is accepted is bounded, can
 * be printed, and names every setting's place; the same bytes give the same again.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "conf/conf_private.h"
#include "conf/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the conf prints, or the error; owned by the caller. */
static char *result_of(const uint8_t *data, size_t size)
{
    struct conf c;
    struct err e = {{0}};
    char *text = NULL;
    size_t n = 0;
    must(conf_init(&c, CONF_WEIR, &e) == 0);
    FILE *out = open_memstream(&text, &n);
    must(out);
    if (conf_yaml_parse(&c, "weir.yaml", (const char *)data, size, &e)) {
        must(strncmp(e.text, "weir.yaml:", 10) == 0 || strstr(e.text, "too large"));
        must(!strpbrk(e.text, "\n\r\x1b"));
        fputs(e.text, out);
    } else {
        must(e.text[0] == 0);
        for (unsigned i = 0; i < CONF_ROWS; i++) {
            const struct conf_mark *mark = &conf_priv(&c)->marks[i];
            must(mark->level == LEVEL_DEFAULT ? !mark->place
                                              : strncmp(mark->place, "weir.yaml:", 10) == 0);
        }
        for (unsigned i = 0; i < c.n_tls_hosts; i++)
            must(c.tls_hosts[i].names.n && *c.tls_hosts[i].certfile);
        conf_print(&c, out);
    }
    conf_fini(&c);
    fclose(out);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *once = result_of(data, size), *twice = result_of(data, size);
    must(strcmp(once, twice) == 0);
    free(once);
    free(twice);
    return 0;
}
