/*
 * jwt_tool: verify tokens from standard input, for tests/unit/admit/test_jwt_cross.py.
 *
 * usage: jwt_tool secret|jwks FILE NOW_S [ISSUER [AUDIENCE]]
 *
 * One token a line; for each the word of its verdict, then, of a good one, a tab and its user.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admit/jwt.h"

static char g_file[2 * JWT_JWKS_BYTES_MAX];
static char g_line[4 * JWT_BYTES_MAX];

int main(int argc, char **argv)
{
    struct jwt_keys *keys;
    struct err e = {{0}};
    FILE *f = argc >= 4 ? fopen(argv[2], "rb") : NULL;
    if (!f) {
        fputs("usage: jwt_tool secret|jwks FILE NOW_S [ISSUER [AUDIENCE]]\n", stderr);
        return 2;
    }
    struct slice bytes = slice_of(g_file, fread(g_file, 1, sizeof g_file, f));
    fclose(f);
    const struct jwt_lib *lib = &weir_jwt_lib;
    if (strcmp(argv[1], "secret") == 0 ? lib->keys_secret(&keys, bytes, &e)
                                       : lib->keys_jwks(&keys, bytes, 0, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    const char *audiences[] = {argc > 5 ? argv[5] : ""};
    struct policy_identifier rules = {.issuer = argc > 4 ? argv[4] : "",
                                      .audiences = audiences,
                                      .n_audiences = argc > 5,
                                      .user_claim = "sub"};
    while (fgets(g_line, sizeof g_line, stdin)) {
        struct jwt_claims c;
        g_line[strcspn(g_line, "\n")] = '\0';
        enum jwt_verdict v =
            lib->verify(keys, &rules, slice_str(g_line), strtoll(argv[3], NULL, 10), &c);
        printf("%s\t%.*s\n", jwt_word(v), (int)c.user.n, v == JWT_OK ? c.user.p : "");
        jwt_claims_fini(&c);
    }
    lib->keys_free(&keys);
    return 0;
}
