/*
 * flow: who shares a limit or a turn: a user, or an address. Numbers and bytes for rates_key and
 * struct gate_ask.
 *
 * An IPv6 client has a network of 64 bits, so all addresses of one are one. An IPv4 address that
 * came as IPv6 (::ffff:192.0.2.1) is the IPv4 one.
 *
 * Owner:   nothing is kept.
 * Threads: none inside.
 */
#ifndef WEIR_ADMIT_FLOW_H
#define WEIR_ADMIT_FLOW_H

#include <stdint.h>

#include "admit/rates.h"
#include "base/slice.h"

/* The bytes of an address that stand for the client. */
struct flow_net {
    char bytes[16];
    size_t n; /* 4: IPv4; 8: IPv6; 0: none (a Unix socket, or no address at all) */
};

/* Of a textual address, as call_peer.remote_addr has it; what follows a % (a zone) is left out. */
struct flow_net flow_net(const char *remote_addr);

/* For rates_key; lent as long as the net. */
static inline struct slice flow_net_slice(const struct flow_net *net)
{
    return slice_of(net->bytes, net->n);
}

/* For gate_ask.flow: hashed with the table's secret, and never the flow of the other kind by more
 * than chance. */
uint64_t flow_of_user(const struct rates *r, struct slice user);
uint64_t flow_of_address(const struct rates *r, const char *remote_addr);

#endif
