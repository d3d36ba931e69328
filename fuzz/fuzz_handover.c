/*
 * fuzz_handover: any bytes as a packet of another process that hands a connection over.
 *
 * Beyond "no crash": what is accepted, written anew, is accepted again and says the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "net/handover.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct handover a, b;
    if (!handover_read(data, size, &a))
        return 0;
    must(a.input.n <= HANDOVER_INPUT_MAX && strlen(a.url) < sizeof a.url);
    unsigned char *again = malloc(HANDOVER_BYTES_MAX);
    must(again);
    size_t n = handover_write(&a, again);
    must(n <= HANDOVER_HEAD_MAX);
    if (a.input.n)
        memcpy(again + n, a.input.p, a.input.n);
    must(handover_read(again, n + a.input.n, &b));
    must(strcmp(a.url, b.url) == 0 && a.peer_family == b.peer_family && a.peer_port == b.peer_port &&
         memcmp(a.peer, b.peer, sizeof a.peer) == 0 && a.proxied == b.proxied &&
         a.awaits_proxy == b.awaits_proxy && a.served == b.served && a.idle_ms == b.idle_ms &&
         a.input.n == b.input.n && (!a.input.n || memcmp(a.input.p, b.input.p, a.input.n) == 0));
    free(again);
    return 0;
}
