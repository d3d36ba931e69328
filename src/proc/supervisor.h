/*
 * supervisor: starts workers, replaces those that end, and stops them all. One thread with poll.
 *
 * It knows neither Python nor HTTP: what to do with a new process is its host's (struct
 * supervisor_ops). A worker is a child made by fork that tells by a byte on its socket that its
 * slot of the board has something new: it is READY, or it asks to be replaced.
 *
 *   start     n workers are forked. When all are READY the host is told, once. One that cannot
 *             start ends the start, with its exit code.
 *   crash     is replaced at once; workers that die within CRASH_YOUNG_MS of being ready are
 *             replaced later and later, at most every CRASH_WAIT_MS_MAX.
 *   recycle   the replacement first; when it is READY the old one is retired.
 *   HUP       a new generation beside the old one; when all of it is READY the old one is
 *             retired. If one of it cannot start, the new generation ends and the old one stays.
 *             Until then those of the old one that end are replaced, however long it takes.
 *   late      a worker that is not READY BOOT_LATE_MS after its fork is told of, once for all of
 *             its generation; after boot-timeout it is killed, and could not start.
 *   retired   workers get TERM, and KILL when they exceed grace + RETIRE_EXTRA_MS; one with
 *             threads that do not come back STUCK_MS after it has finished everything else.
 *   keeper    is started before the workers, replaced when it dies, and told to end when the last
 *             worker has ended, so that the last refunds arrive.
 *   stop      board->stopping is set (unless another supervisor goes on) and all are retired,
 *             then run returns.
 *
 * Signals are Gunicorn's: HUP, USR1 (logs are opened again, here and in every worker), USR2 (the
 * host's), TTIN, TTOU, TERM, INT and QUIT (quick), WINCH (stops the workers of a daemon), CHLD.
 *
 * Idle it sleeps; only worker-timeout makes it look at the board, every half of that time. A READY
 * worker without a sign of life for worker-timeout gets ABRT, and KILL after ABORT_MS.
 *
 * Children that it did not start (process 1 of a container; subreaper) are reaped.
 *
 * Units:   _ms milliseconds, _ns nanoseconds of the monotonic clock.
 * Owner:   the supervisor owns its children, board, sockets; `host` and what it attaches to a child
 *          are the host's.
 * Threads: one. Signals may reach any thread of the process.
 * Crash:   when the supervisor is killed the workers see the end of their sockets, and
 *          PR_SET_PDEATHSIG; they stop (proc/worker_process.h).
 */
#ifndef WEIR_PROC_SUPERVISOR_H
#define WEIR_PROC_SUPERVISOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/attr.h"
#include "base/err.h"
#include "obs/scoreboard.h"

/* Exit codes of a worker that could not start (as Gunicorn). */
enum { EXIT_BOOT_FAILED = 3, EXIT_APP_FAILED = 4 };

/* What a retired worker is given beyond its grace. */
#define RETIRE_EXTRA_MS 1000
/* A worker that is told to end at once, or by ABRT, has so long. */
#define QUICK_MS 2000
#define ABORT_MS 1000
/* A worker that starts for so long: somebody should know. */
#define BOOT_LATE_MS 30000
/* A retired worker with stuck threads is looked at so often, and has so long once all else is done.
 */
#define STUCK_LOOK_MS 250
#define STUCK_MS 1000
/* A second TERM shortens the grace to this. */
#define HURRY_MS 2000
/* Replacing workers that die young: at once, then after 100 ms, 200 ms, … */
#define CRASH_YOUNG_MS 1000
#define CRASH_WAIT_MS 100
#define CRASH_WAIT_MS_MAX 5000
/* Those that somebody kills (SIGKILL) are not the application's fault. */
#define KILLED_WAIT_MS_MAX 500

enum child_state {
    CHILD_BOOTING = 0, /* forked; not READY yet */
    CHILD_READY,       /* serves */
    CHILD_RETIRING,    /* was told to end, or ends by itself */
};

/* One worker, from before its fork until it has been waited for. */
struct child {
    pid_t pid;           /* 0 until the fork */
    unsigned slot;       /* of the board */
    uint32_t age;        /* counts all workers since the start, from 1 */
    uint32_t generation; /* of the configuration that it was started with */
    enum child_state state;
    bool was_ready;
    bool stuck;       /* asks because threads do not come back: it will not end by itself */
    bool asks;        /* a replacement is wanted; it goes on until that is READY */
    bool unexpected;  /* ends by itself */
    bool reopen;      /* USR1 came before it was READY */
    bool aborted;     /* got ABRT */
    bool late;        /* BOOTING for long, and that was told */
    int64_t grace_ms; /* it was started with */
    int64_t boot_ms;  /* the same of boot-timeout */
    int tell_fd;      /* our end of the socket; -1: it has closed its own */
    int worker_fd;    /* the worker's end; -1 in the supervisor after the fork */
    int64_t begun_ns; /* it was wanted then */
    int64_t ready_ns; /* 0: never was */
    int64_t kill_ns;  /* gets KILL then; 0: no */
    int64_t alone_ns; /* stuck: since then it has nothing left but what is stuck; 0: it has */
    void *data;       /* the host's */
};

/* A keeper (proc/keeper.h): a process beside the workers, that ends after them. */
#define SUPERVISOR_KEEPERS_MAX 4
/* One that was told to end and has no workers left. */
#define KEEPER_END_MS 5000
/* Replaced within this, however often it dies. */
#define KEEPER_WAIT_MS_MAX 1000

struct keep {
    void *what;       /* the host's: whom it keeps for; NULL: free */
    pid_t pid;        /* 0: none runs now */
    bool retired;     /* is to end, and not replaced */
    unsigned young;   /* times in a row that it died young, or could not start */
    int64_t born_ns;
    int64_t spawn_ns; /* none is started before */
    int64_t kill_ns;  /* gets KILL then; 0: no */
};

struct pollfd;

struct supervisor_settings {
    unsigned workers;
    int64_t grace_ms;
    int64_t worker_timeout_ms; /* 0: none */
    int64_t boot_timeout_ms;   /* 0: none */
    bool daemonized;           /* WINCH counts */
};

/*
 * What the host does. All from supervisor_run, in the supervisor's process; NULL where nothing is
 * to be done, but for `spawn`.
 */
#define SPAWN_LATER INT32_MAX
#define SUPERVISOR_NEWS_MAX 4

struct supervisor_ops {
    /* Make the process: its number in the supervisor, 0 in the worker, or a negative errno, and
     * then nothing of c is kept. While a reload is not over c->generation says whose it is. The worker's end of the socket is c->worker_fd. SPAWN_LATER:
     * another process makes it (--preload) and has a copy of that end; supervisor_born follows. */
    pid_t (*spawn)(void *host, struct child *c);
    /* Descriptors, at most SUPERVISOR_NEWS_MAX, from which the host reads: of workers that somebody
     * else makes for it (SPAWN_LATER), of its successor, of its keeper. How many. */
    unsigned (*news_fds)(void *host, int fds[SUPERVISOR_NEWS_MAX]);
    /* Read them: supervisor_born, supervisor_unborn. Also before a child is taken for a stranger. */
    void (*news)(void *host);
    /* boot-timeout is over for one that was left for later and is not born: end what was to make
     * it; supervisor_unborn follows. */
    void (*overdue)(void *host, struct child *c);
    /* It has been waited for; `status` as from waitpid. c ends here. */
    void (*exited)(void *host, struct child *c, int status);
    /* Workers of the first generation serve. -1: do not go on (the host has said why). */
    int (*ready)(void *host);
    /* HUP: read the configuration again, and open what it needs. 0: *s is filled in, start a
     * generation; -1: leave everything as it is (the host has said why). A reload that is not over
     * ends either way: `reloaded` with false follows where -1 is returned. */
    int (*reload)(void *host, struct supervisor_settings *s);
    /* The new generation serves (true), or it could not start and what `reload` did is to be
     * undone. */
    void (*reloaded)(void *host, bool ok);
    /* The number of workers was changed by TTIN, TTOU, WINCH or a reload. */
    void (*counted)(void *host, unsigned now, unsigned before);
    void (*upgrade)(void *host); /* USR2 */
    /* The workers are about to be told to end: nobody shall listen any more. Once. */
    void (*stopping)(void *host);
    /* The supervisor's log files were opened again (USR1); the workers are told next. */
    void (*reopened)(void *host);
    /* After every wait. Returns for how many milliseconds (>= 0) the next one may last, -1: any time. */
    int (*tick)(void *host, int64_t now_ns);
    /* Make the process of a keeper for `what`: its number in the supervisor, or a negative errno. In
     * the new process it does not return. */
    pid_t (*keep)(void *host, void *what);
    /* The keeper for `what` was retired and has ended. */
    void (*kept)(void *host, void *what);
    /* A child that is no worker was waited for. */
    void (*stranger)(void *host, pid_t pid, int status);
    /* Around every wait, to let other threads run. */
    void (*wait_begin)(void *host);
    void (*wait_end)(void *host);
};

struct supervisor {
    struct supervisor_settings set;
    const struct supervisor_ops *ops; /* lent */
    void *host;                       /* lent */
    struct scoreboard *board;         /* owned */
    int hand_recv, hand_send; /* owned; SOCK_SEQPACKET between workers: connections handed over */
    struct child **children;  /* owned; board->n_slots, by slot, NULL: free */
    unsigned n_children;      /* in use */
    unsigned top;             /* all in use are below this slot */
    struct pollfd *fds;       /* owned; room for all of them */
    struct child *born;       /* in a worker: itself */

    unsigned target;                 /* workers that shall serve */
    uint32_t ages;                   /* of the last one */
    uint32_t generation;             /* of workers that are started */
    uint32_t serving;                /* generation that serves; another one while reloading */
    uint32_t generations;            /* the last number given */
    struct supervisor_settings last; /* settings of `serving` */
    unsigned last_target;            /* and how many of it */
    bool started;                    /* the first generation was READY */
    bool hup_waits;                  /* for that */
    bool upgrading; /* a new supervisor was started by USR2: reload and USR2 wait */

    struct keep keeps[SUPERVISOR_KEEPERS_MAX];

    int64_t spawn_ns; /* no worker is started before; 0: at once */
    unsigned young;   /* workers in a row that died young, or could not start */
    int64_t beat_ns;  /* when to look at the signs of life; 0: never */
    int64_t tick_ns;  /* when the host wants to be asked; 0: never */

    bool stopping;
    bool told;       /* the workers were told to end at once */
    int64_t stop_ns; /* stopping: when they are told so */
    int status;      /* exit code, if all goes well 0 */
};

/* Make board and sockets. Signals are taken by supervisor_run. */
WEIR_MUST_USE int supervisor_new(struct supervisor **out, const struct supervisor_settings *set,
                                 const struct supervisor_ops *ops, void *host, struct err *e);

/* Run until everything has stopped: the exit code. In a worker it returns SUPERVISOR_WORKER at
 * once: s->born is the worker, and everything of the supervisor but the board and the sockets
 * between workers has been given back; signals are as they were before. */
#define SUPERVISOR_WORKER (-1)
WEIR_MUST_USE int supervisor_run(struct supervisor *s);

/* From ops->news: the worker that `spawn` left for later is this process. False: nobody waits for it any
 * more. */
WEIR_MUST_USE bool supervisor_born(struct supervisor *s, unsigned slot, uint32_t age, pid_t pid);
/* From ops->news and ops->stranger: it will never be; `status` as from waitpid says why. */
void supervisor_unborn(struct supervisor *s, unsigned slot, uint32_t age, int status);
/* The same for all of a generation that wait. */
void supervisor_unborn_all(struct supervisor *s, uint32_t generation, int status);

/* From ops->news: somebody has written to slots of the board (RECYCLE_ASKED): look at all of them as if their
 * workers had told. */
void supervisor_look(struct supervisor *s);

/* Stop as TERM (or as QUIT) does. From ops. */
void supervisor_stop(struct supervisor *s, bool quick);

/* From before run, or from ops: a keeper shall run for `what` (the host's, not NULL) and be replaced when it
 * dies, until supervisor_unkeep, or until all workers have ended: then ops->kept is called. -EBUSY:
 * there are too many that have not ended yet. */
WEIR_MUST_USE int supervisor_keep(struct supervisor *s, void *what);
/* It gets TERM, and KILL when it exceeds the workers' grace. */
void supervisor_unkeep(struct supervisor *s, void *what);

/* In a child that is neither worker nor template: close what only the supervisor needs. */
void supervisor_forget(struct supervisor *s);

/* Use the sockets of a supervisor before this one for connections between workers; taken. */
void supervisor_use_hand(struct supervisor *s, int hand_recv, int hand_send);

/* Another supervisor serves the same sockets (pid), or does no more (0). Beside it a stop hands
 * connections over instead of ending them. */
void supervisor_neighbour(struct supervisor *s, pid_t pid);

/* Workers that serve. */
unsigned supervisor_serving(const struct supervisor *s);

/* Does what shall serve give signs of life? True while it starts or stops, and where no worker is
 * wanted. */
bool supervisor_is_well(const struct supervisor *s, int64_t now_ns);

void supervisor_free(struct supervisor **s);

#endif
