/*
 * clock: the two clocks, in nanoseconds.
 *
 * clock_mono_ns  waits, limits, deadlines (never goes back).
 * clock_wall_ns  dates, logs (Unix epoch, UTC).
 */
#ifndef WEIR_BASE_CLOCK_H
#define WEIR_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t clock_read_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline int64_t clock_mono_ns(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

/* To a tick (1..10 ms), and cheaper. The same clock as libuv's. */
static inline int64_t clock_mono_ms(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    return clock_read_ns(CLOCK_MONOTONIC_COARSE) / 1000000;
#else
    return clock_read_ns(CLOCK_MONOTONIC) / 1000000;
#endif
}

/* To a tick, and cheaper. */
static inline int64_t clock_wall_s(void)
{
#ifdef CLOCK_REALTIME_COARSE
    return clock_read_ns(CLOCK_REALTIME_COARSE) / 1000000000;
#else
    return clock_read_ns(CLOCK_REALTIME) / 1000000000;
#endif
}

static inline int64_t clock_wall_ns(void)
{
    return clock_read_ns(CLOCK_REALTIME);
}

#endif
