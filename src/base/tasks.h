/*
 * tasks: the threads of this process as the kernel sees them: name, whether it runs, processor
 * time, and the system call in which it waits.
 *
 * Nothing here stops a thread or needs a lock of the process.
 *
 * Source:  proc(5): /proc/self/task/TID/{comm,stat,syscall,wchan}. The file syscall can only be
 *          read where the kernel has it and the process may be dumped (it has not changed its user
 *          since exec); elsewhere wchan says in which function of the kernel a thread waits.
 * Owner:   the caller owns the structs; tasks_open opens, tasks_close gives back.
 * Threads: one a struct.
 */
#ifndef WEIR_BASE_TASKS_H
#define WEIR_BASE_TASKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/peek.h"

/* Threads of one process that are looked at; more are left out. */
#define TASKS_MAX 4096

struct tasks {
    int fd;       /* owned: /proc/self/task */
    int32_t *ids; /* owned: kernel's numbers, in its order */
    unsigned n;
};

struct task {
    int32_t id;
    char name[17];
    char state;      /* of proc(5): R, S, D, …; 0: not known */
    int64_t cpu_ns;  /* processor time so far, to a tick (10 ms) */
    bool call_known; /* the two below could be read */
    long call;       /* system call in which it waits; -1: in none */
    uint64_t args[6];
    char channel[64]; /* where call is not known: function of the kernel; "" = none */
};

/* List them. 0, -ENOMEM, or -errno: there is no /proc here. */
WEIR_MUST_USE int tasks_open(struct tasks *t);
void tasks_close(struct tasks *t);

/* Look at one. False: it is gone. */
WEIR_MUST_USE bool task_look(const struct tasks *t, int32_t id, struct task *out);
/* Only its system call again. */
void task_look_call(const struct tasks *t, struct task *out);

/* The address of the word that it waits for (futex(2)); 0: it does not wait for one. */
uintptr_t task_futex(const struct task *t);

/* In which system call it waits, and on what: "recvfrom: 127.0.0.1:40000 > 10.0.0.5:5432". False:
 * in none, as far as can be told. Descriptors are looked at here, a moment later. */
bool task_waits_in(const struct task *t, const struct peek *p, char *out, size_t size);

#endif
