/*
 * fuzz_yaml: any bytes as weir.yaml.
 *
 * Oracles: an error is one line that begins with the file's name; what is accepted is bounded, can
 * be printed, and names every setting's place; the same bytes give the same again. A policy that was
 * read is printed as YAML that reads to the same print.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "conf/conf_private.h"
#include "conf/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A policy that was read holds together, and reads again from what it prints. */
static void look_at_policy(const struct conf_policy *p)
{
    struct conf c;
    struct err e = {{0}};
    char *once = NULL, *twice = NULL;
    size_t n_once = 0, n_twice = 0;
    must(p->n_identifiers <= POLICY_IDENTIFIERS_MAX && p->n_routes <= POLICY_ROUTES_MAX);
    for (unsigned i = 0; i < p->n_routes; i++) {
        const struct policy_route *r = &p->routes[i];
        must(r->n_matches >= 1 && r->n_matches <= POLICY_MATCHES_MAX);
        must(*r->name && strlen(r->name) <= POLICY_NAME_MAX);
        must(r->n_rates <= POLICY_RATES_MAX && r->n_quotas <= POLICY_TIERS_MAX);
        for (unsigned k = 0; k < r->n_rates; k++)
            must(r->rates[k].units >= 1 && r->rates[k].burst >= 1 && r->rates[k].period_ns >= 1);
        for (unsigned k = 0; k < r->n_matches; k++)
            must(r->matches[k].path[0] == '/' && !strstr(r->matches[k].path, "//") &&
                 strlen(r->matches[k].path) <= POLICY_PATH_MAX);
    }
    FILE *out = open_memstream(&once, &n_once);
    must(out);
    conf_policy_print(p, out);
    fclose(out);
    must(conf_init(&c, CONF_WEIR, &e) == 0);
    must(conf_yaml_parse(&c, "weir.yaml", once, n_once, &e) == 0 || strstr(e.text, "1 MiB"));
    out = open_memstream(&twice, &n_twice);
    must(out);
    if (!e.text[0])
        conf_policy_print(&c.policy, out);
    fclose(out);
    must(e.text[0] || strcmp(once, twice) == 0);
    conf_fini(&c);
    free(once);
    free(twice);
}

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
        look_at_policy(&c.policy);
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
