/*
 * robust: a mutex in memory that processes share, which survives the death of its holder.
 *
 * Who takes it after a holder died is told so, and repairs what the mutex guards. Hold it for
 * memory operations alone: no system call, no allocation, no call into anybody else; unless nobody
 * waits for it, and all only try.
 *
 * Owner:   lives where the caller puts it (a MAP_SHARED mapping made before the fork).
 * Threads: any, of any process that has the mapping.
 * Source:  POSIX pthread_mutexattr_setrobust, pthread_mutex_consistent.
 */
#ifndef WEIR_BASE_ROBUST_H
#define WEIR_BASE_ROBUST_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

struct robust {
    pthread_mutex_t mutex;
};

/* Once, before anybody else sees it. 0 or -errno. */
WEIR_MUST_USE int robust_init(struct robust *r);

/* True: its last holder died inside; what it guards may be half written, and is to be repaired
 * before robust_unlock. */
WEIR_MUST_USE bool robust_lock(struct robust *r);
/* The same without waiting. False: somebody has it. *died as above. */
WEIR_MUST_USE bool robust_try(struct robust *r, bool *died);
/* The same; tried for so long. For who only looks: a holder may be stopped by a signal, for hours.
 */
WEIR_MUST_USE bool robust_try_for(struct robust *r, int64_t ns, bool *died);
void robust_unlock(struct robust *r);

/* `n` (>= 1) zeroed bytes that this process shares with all that it forks, or NULL. They take
 * memory only where they are touched. Given back by shared_unmap. */
void *shared_map(size_t n);
/* *p becomes NULL; NULL is nothing. */
void shared_unmap(void **p, size_t n);

#endif
