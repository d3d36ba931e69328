/*
 * frames: where the threads of this process are in Python, read without the interpreter's lock and
 * without stopping anybody.
 *
 * All reads are safe ones (base/peek.h) of structures that may change at any time, so everything
 * is checked before it is followed: alignment, types, bounds, and at the end whether the stack is
 * still the one that was read. Strings and tables of lines are copied, and kept until the end.
 *
 * Source:  CPython 3.11: internal headers of the version that it is built for; Objects/locations.md
 *          for tables of lines. Other versions: FRAMES_KNOWN is 0, and nothing is found.
 *          docs/decisions/0009-stacks-without-the-lock.md
 * Owner:   new makes; free gives back, and with it all texts.
 * Threads: one a struct; it needs no thread state, and no GIL.
 */
#ifndef WEIR_WSGI_FRAMES_H
#define WEIR_WSGI_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/peek.h"

/* Frames of one thread, the newest. */
#define FRAMES_MAX 64
/* Threads and code objects that are looked at; what is beyond is left out. */
#define FRAMES_THREADS_MAX 4096
#define FRAMES_CODES_MAX 8192

/* Can frames be read with this version of Python? 0 or 1; NULL, or why not. */
bool frames_known(void);
const char *frames_unknown(void);

struct frames;

struct frames_thread {
    int32_t id;      /* the kernel's number */
    uintptr_t state; /* its PyThreadState */
    bool in_python;  /* it has frames */
};

struct frame_note {
    const char *function; /* co_qualname; lent by struct frames, as `file` */
    const char *file;
    int line; /* 0: the instruction has none */
};

struct frame_stack {
    unsigned n;
    bool more;     /* there are older ones */
    bool complete; /* all are of one moment, but for the line of the newest */
    struct frame_note frames[FRAMES_MAX]; /* newest first */
};

/* The interpreter's lock at one moment. */
struct frames_lock {
    bool held;
    bool wanted;          /* a thread has waited for longer than the switch interval */
    uintptr_t holder;     /* PyThreadState that has it, or had it last */
    unsigned long number; /* of changes from one holder to another */
};

WEIR_MUST_USE struct frames *frames_new(const struct peek *p); /* lent; NULL: no memory */
void frames_free(struct frames **f);

/* All threads that have a thread state, lent until the next call. */
const struct frames_thread *frames_threads(struct frames *f, unsigned *n);

/* The frames of one; `t` from frames_threads. */
void frames_read(struct frames *f, const struct frames_thread *t, struct frame_stack *out);

/* False: it cannot be told. */
bool frames_lock(const struct frames *f, struct frames_lock *out);
/* Does who waits for the word at this address (futex(2)) wait for that lock? */
bool frames_waits_for_lock(uintptr_t futex);

#endif
