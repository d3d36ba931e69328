/*
 * healthcheck: `weir healthcheck`: does the server of these settings answer? For the HEALTHCHECK of
 * a container, a service unit, a script.
 *
 * It reads the settings that the server reads (WEIR_BIND, PORT, weir.yaml, options), takes the
 * first address, turns "all interfaces" into this machine's own, and asks GET /-/ping, which Weir's
 * loop answers without the application. A listener with TLS is sent the begin of a handshake, and
 * any answer counts; one that expects the PROXY protocol gets its header.
 *
 * Exit:    0 the server answers with 2xx; 1 anything else, with one line that says what.
 *          (Never 2: Docker reserves it.)
 * Bounds:  --timeout (2 s) for everything together but the look-up of a host name.
 * Threads: none; plain blocking use of one socket.
 */
#ifndef WEIR_PROC_HEALTHCHECK_H
#define WEIR_PROC_HEALTHCHECK_H

#include <stdio.h>

#include "base/attr.h"

/* argv[0] is the program for messages ("weir healthcheck"). `environ_` is NULL-terminated. Returns
 * the exit code; the verdict goes to `out` when it is good, to `out_err` when it is not. */
WEIR_MUST_USE int healthcheck_main(int argc, char *const *argv, char *const *environ_, FILE *out,
                                   FILE *out_err);

#endif
