/*
 * peek: read memory of this process that others change and give back meanwhile.
 *
 * The kernel copies, so an address that is not mapped (any more) is an error and no crash, and no
 * sanitizer takes it for a use of freed memory. What was copied may be of two moments: who reads
 * checks it.
 *
 * Source:  process_vm_readv(2), which may always look at its own process; where a filter of system
 *          calls forbids it, /proc/self/mem (proc(5)).
 * Owner:   the caller owns the struct; begin opens, end gives back. Use it in the process that has
 *          begun it: the file shows the memory of that one.
 * Threads: one a struct.
 */
#ifndef WEIR_BASE_PEEK_H
#define WEIR_BASE_PEEK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

enum peek_way {
    PEEK_CALL = 0, /* process_vm_readv */
    PEEK_FILE,     /* /proc/self/mem */
};

struct peek {
    enum peek_way way;
    int fd; /* owned, of PEEK_FILE; else -1 */
    int pid;
};

/* One read of several. */
struct peek_part {
    void *to;       /* room for n */
    uintptr_t from; /* address in this process; any */
    size_t n;
};
#define PEEK_PARTS_MAX 256

/* The first way from `first` on that works here, tried on memory that is there. 0, or -errno: none
 * does. */
WEIR_MUST_USE int peek_begin(struct peek *p, enum peek_way first);
void peek_end(struct peek *p);

/* Copy n bytes. 0; -EFAULT: not all of them are mapped (`to` may have been written); another
 * negative errno. */
WEIR_MUST_USE int peek(const struct peek *p, void *to, uintptr_t from, size_t n);
/* Copy all parts (at most PEEK_PARTS_MAX), close together in time. As above. */
WEIR_MUST_USE int peek_parts(const struct peek *p, const struct peek_part *parts, unsigned n);

#endif
