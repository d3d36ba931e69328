/*
 * probe_wire: what the admin listener and the probes of workers say to each other. SOCK_SEQPACKET,
 * one message a packet, the machine's own byte order: both ends are the same program.
 *
 * A probe connects, says KEEPER_HELLO (store/keeper_wire.h), and then answers questions, one after
 * the other, each with pieces of which the last says so. A packet that cannot be read ends the
 * connection.
 *
 * Bounds:  an answer is at most PROBE_ANSWER_BYTES_MAX, a packet PROBE_PACKET_MAX.
 */
#ifndef WEIR_SERVE_PROBE_WIRE_H
#define WEIR_SERVE_PROBE_WIRE_H

#include <stdint.h>

#define PROBE_ANSWER_BYTES_MAX ((size_t)4 * 1024 * 1024)
#define PROBE_PACKET_MAX ((size_t)32 * 1024)

enum probe_kind {
    PROBE_ASK = 101, /* listener: struct probe_ask */
    PROBE_PIECE,     /* probe: struct probe_piece, and bytes */
};

struct probe_head {
    uint32_t kind; /* enum probe_kind */
    uint32_t size; /* of the whole packet */
    uint64_t question;
};

struct probe_ask {
    struct probe_head head;
    int32_t thread; /* the kernel's number; 0: all */
    uint32_t zero;
};

struct probe_piece {
    struct probe_head head;
    int32_t error;   /* with `last`: 0, or a negative errno: what came is to be thrown away */
    uint32_t last;   /* 1: the answer is whole */
    int64_t took_ns; /* with `last` */
};
#define PROBE_PIECE_BYTES_MAX (PROBE_PACKET_MAX - sizeof(struct probe_piece))

#endif
