/*
 * handover: an open connection on its way from one process to another.
 *
 * One packet of a SOCK_SEQPACKET socket carries one connection: its descriptor (SCM_RIGHTS) and a
 * few facts that the descriptor does not tell. What the client sends meanwhile waits in the kernel for
 * whoever reads next; what the sender has read and not served (mostly nothing) goes along.
 * Packets nobody has taken yet stay in the socket while any process holds its ends.
 *
 * The packet is input from another process, maybe of another version: it is bounded and checked, fields
 * may be added at its end, and what does not fit is refused.
 *
 * Owner:   a descriptor belongs to the sender until handover_send returned 0 (then it closes its own copy), to the
 *          receiver once handover_recv returned 1.
 * Threads: none inside.
 * Source:  unix(7), SCM_RIGHTS.
 */
#ifndef WEIR_NET_HANDOVER_H
#define WEIR_NET_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"

struct handover {
    char url[160];           /* of the listener that accepted it (struct listener) */
    uint16_t peer_family;    /* AF_INET, AF_INET6, AF_UNIX */
    uint16_t peer_port;
    unsigned char peer[16];  /* address in network order; the first 4 bytes for AF_INET */
    bool proxied;            /* the PROXY protocol gave the peer */
    bool awaits_proxy;       /* its line has not come yet */
    bool front_trusted;      /* with `proxied`: the front-end that sent it is trusted; for the upper layers */
    uint32_t served;         /* requests answered so far */
    uint32_t idle_ms;        /* since the last of them, or since the accept */
    struct slice input;      /* lent: bytes that were read and not served; HANDOVER_INPUT_MAX at most */
};

/* The most that is read and may go along. */
#define HANDOVER_INPUT_MAX (32 * 1024)
/* The packet before those bytes. */
#define HANDOVER_HEAD_MAX 256
/* No packet is longer; longer ones are refused. */
#define HANDOVER_BYTES_MAX (HANDOVER_HEAD_MAX + HANDOVER_INPUT_MAX)

/* Write the packet, without `input` which follows it; its length. */
size_t handover_write(const struct handover *h, unsigned char out[HANDOVER_HEAD_MAX]);

/* Read a whole packet; false: it is none, or says what cannot be. out->input points into it. */
WEIR_MUST_USE bool handover_read(const unsigned char *p, size_t n, struct handover *out);

/* Send. 0; -EAGAIN: the socket is full, wait until it can be written; another negative errno: try later, or never. */
WEIR_MUST_USE int handover_send(int sock, const struct handover *h, int fd);

/* Receive into `room` (HANDOVER_BYTES_MAX bytes, where out->input stays). 1: *fd is a stream socket that does not listen, close-on-exec; 0: nothing is there; -EPROTO: a packet was
 * dropped with what it carried; -EMFILE: no descriptor is free, nothing was taken; -EPIPE: nobody has the other
 * end; another negative errno of recvmsg. */
WEIR_MUST_USE int handover_recv(int sock, unsigned char *room, struct handover *out, int *fd);

#endif
