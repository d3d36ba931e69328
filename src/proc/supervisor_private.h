/* supervisor_private: what supervisor.c, children.c and child_news.c share. */
#ifndef WEIR_PROC_SUPERVISOR_PRIVATE_H
#define WEIR_PROC_SUPERVISOR_PRIVATE_H

#include "proc/supervisor.h"

#define MS INT64_C(1000000) /* in nanoseconds */

static inline bool is_reloading(const struct supervisor *s)
{
    return s->generation != s->serving;
}

/* ---- children.c: workers are made, counted, told to end ---- */

/* Workers by what they are to the target. */
struct tally {
    unsigned booting, ready; /* of one generation, not asking */
    unsigned asking;         /* of it: READY until they are replaced */
};
struct tally children_count(const struct supervisor *s, uint32_t generation);

struct scoreboard_slot *child_slot(const struct supervisor *s, const struct child *c);
void child_signal(const struct child *c, int signo);

/* Tell it to end: TERM, or QUIT where it knows what that means (before, it would dump core). KILL
 * follows after wait_ms. */
void child_end(struct child *c, bool quick, int64_t wait_ms);
/* TERM, and its grace. */
void child_retire(struct supervisor *s, struct child *c);

/* Fork one of this generation. False: not now, and s->spawn_ns says when (a start that has not succeeded ends). In the
 * worker s->born is set. */
bool child_start(struct supervisor *s, uint32_t generation);

/* Give back everything of a worker that has ended, or was never made. */
void child_forget(struct supervisor *s, struct child *c);

/* The next worker is not started before a while, longer for each that was in vain. Returns it. */
int64_t supervisor_wait(struct supervisor *s, int64_t first_ms, int64_t max_ms);

/* ---- child_news.c: what they tell, and their end ---- */

/* Read what it has sent. */
void child_hear(struct supervisor *s, struct child *c);
/* Wait for all children that have ended. */
void children_reap(struct supervisor *s);

/* ---- keepers.c ---- */

/* Start those that are missing and due; once all workers of a stop have ended, end them. */
void keepers_balance(struct supervisor *s);
/* A child that has ended: was it a keeper? */
bool keepers_reaped(struct supervisor *s, pid_t pid, int status);
void keepers_take_time(struct supervisor *s, int64_t now_ns);
/* When something is due; 0: nothing is. */
int64_t keepers_due_ns(const struct supervisor *s);
/* Any that has not ended? */
bool keepers_left(const struct supervisor *s);
void keepers_signal(const struct supervisor *s, int signo);

/* ---- supervisor.c ---- */

/* The new generation serves, or it could not start. */
void supervisor_reloaded(struct supervisor *s, bool ok);

#endif
