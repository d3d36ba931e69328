/*
 * yaml: weir.yaml, a file of settings.
 *
 *   threads: 8                 names of settings.def, with dashes or underscores
 *   bind:                      lists as lists; one item may stand alone
 *     - 127.0.0.1:8000
 *     - unix:/run/app.sock
 *   static:                    /PREFIX=FOLDER and NAME=VALUE also as a mapping
 *     /assets: public/assets
 *   tls:                       one entry for each certificate that clients choose by name
 *     - names: [example.org, "*.example.org"]
 *       certfile: example.org.pem
 *       keyfile: example.org.key
 *   identify: …                the policy of admission: identify, tiers, cors, routes (policy.h)
 *
 * Only data: no anchors, aliases, tags, nor a second document. What is written is text for the
 * parser of settings, so `umask: 022` and `threads: 4:64` mean what they say; null is "not given".
 * Values are weaker than the environment and stronger than defaults.
 *
 * Bounds:  1 MiB, depth 8, 4096 items a list, each name once.
 * Errors:  -1 and one sentence that begins with "FILE:LINE: ".
 * Owner:   what is read belongs to the conf.
 * Threads: none inside.
 * Source:  YAML 1.1 as libyaml reads it; decision 0004.
 */
#ifndef WEIR_CONF_YAML_H
#define WEIR_CONF_YAML_H

#include "conf/conf.h"

/* Settings of `n` bytes of YAML into the conf; `path` is for messages and --print-config. */
WEIR_MUST_USE int conf_yaml_parse(struct conf *c, const char *path, const char *text, size_t n,
                                  struct err *e);

/* Read the file of `config`; when that is not given, weir.yaml in the folder of `chdir` (else the
 * current one), if it is there. An empty `config` means none. Before conf_finish, after the
 * stronger sources. */
WEIR_MUST_USE int conf_yaml_load(struct conf *c, struct err *e);

#endif
