/*
 * listen: sockets that accept, from an address, a path or an inherited descriptor.
 *
 * Unix sockets: a stale socket file is replaced only when nobody answers on it; the file is
 * removed on close when this process made it. Abstract names ("@name") leave no file.
 * fd://N and systemd's LISTEN_FDS are taken over: closed with the set.
 *
 * Errors:  -1 and one sentence naming address, cause and cure.
 * Threads: listen_open before the loop runs; the rest leader only.
 */
#ifndef WEIR_NET_LISTEN_H
#define WEIR_NET_LISTEN_H

#include <stdbool.h>
#include <sys/socket.h>
#include <uv.h>

#include "base/attr.h"
#include "base/err.h"
#include "net/forks.h"
#include "net/loop.h"

struct listener;
struct listen_set;

/* How one address is to be opened. */
struct listen_spec {
    enum { LISTEN_TCP, LISTEN_UNIX, LISTEN_FD } kind;
    const char *host, *port; /* TCP */
    const char *path;        /* UNIX */
    int fd;                  /* FD */
    const char *text;        /* for messages */
    bool ipv4, ipv6;
    int backlog;
    unsigned mode; /* of a Unix socket */
};

struct listener {
    uv_poll_t poll;
    struct listen_set *set;
    int fd;
    bool is_unix;
    bool is_own;           /* a TCP socket that was opened here: no other server listens on it */
    bool watched;          /* `poll` is a handle of the loop */
    bool polling;
    bool closed;
    bool owns_path;
    char path[108];        /* of a Unix socket with a file */
    char host[108];        /* textual address, or the Unix path ("@name" for an abstract one) */
    char port[8];          /* "" for Unix sockets */
    char url[160];         /* for the ready line: http://127.0.0.1:8000, http://unix:/path, https://… */
};

#define LISTENERS_MAX 64

struct listen_set {
    struct loop *loop;
    struct listener *items[LISTENERS_MAX]; /* owned */
    unsigned n;
    struct listener *foreign[LISTENERS_MAX]; /* owned: texts of listeners of other processes, whose connections are here */
    unsigned n_foreign;
    struct listener hand;       /* connections come here from other processes; fd -1: none. Lent descriptor */
    bool shares_port;           /* set while an address is opened that overlaps one of ours */
    bool tls;                   /* set before listen_open: clients speak TLS, so the URLs are https://… */
    int spare_fd;               /* given up to accept and refuse one connection when descriptors ran out */
    bool paused;
    int edge_fd;                /* with `hold`: collects the edges of all sockets */
    uv_poll_t edges;
    bool edges_watched;         /* `edges` is a handle of the loop */
    bool holding;               /* `rest` runs because a connection that waits is left to others */
    uint64_t held_since_ms;     /* loop time since when; 0: none is */
    struct forks_entry forks;   /* from start to close: the application's own processes do not keep the sockets */
    uv_timer_t rest;            /* runs while nothing can, or is to be accepted */
    /* Before each connection: take it (0), or for how many milliseconds (>= 1) leave it to other processes?
     * held_ms: for so long one has been left already, 0 at first. NULL: take all. */
    unsigned (*hold)(void *arg, unsigned held_ms);
    /* A connection: takes fd. Returns false: no more for now (the set pauses). */
    bool (*accepted)(void *arg, struct listener *l, int fd, const struct sockaddr_storage *peer);
    /* `hand` is readable: take one connection over. 1; 0: none is there; -EPIPE: none will come; -EAGAIN: there is
     * no room; another negative errno: not now. */
    int (*receive)(void *arg);
    /* No descriptor is left: refuse this one (takes fd). */
    void (*refused)(void *arg, int fd);
    void *arg;
};

/* A zeroed set becomes an empty one. */
void listen_init(struct listen_set *set);
/* Open what `spec` names (a host name may give several listeners) and append to the set. */
WEIR_MUST_USE int listen_open(struct listen_set *set, const struct listen_spec *spec,
                              struct err *e);
/* Another backlog, and another mode of files, for the sockets that were opened here. 0, or the negative errno of
 * the first that refuses. */
WEIR_MUST_USE int listen_change(struct listen_set *set, int backlog, unsigned mode);
/* May other sockets of this user be opened for an address that overlaps this one? */
void listener_share_port(const struct listener *l, bool on);
/* Leader (or before the first turn): begin to accept. */
WEIR_MUST_USE int listen_start(struct listen_set *set, struct loop *loop, struct err *e);
void listen_pause(struct listen_set *set, bool paused);
/* The answer of `hold` may be another one now: ask again. */
void listen_look(struct listen_set *set);
/* Let connections come from `hand` (lent until listen_close); before listen_start. */
void listen_hand(struct listen_set *set, int fd);
/* The listener with that url; where there is none, texts made from the address of the connection `fd`. NULL: no
 * memory for them. Lives as long as the set. */
struct listener *listen_find(struct listen_set *set, const char *url, int fd);
/* Let no new connection come to the TCP sockets that were opened here, so that between the last accept and the close
 * none gets lost: the first packets of new ones are dropped from now on, for all who share the sockets. Clients try
 * again after a second and are refused then, or find the next server. */
void listen_quench(struct listen_set *set);
/* The same for one, which others go on without; a Unix socket, whose file is gone, is only marked by it. */
void listener_quench(const struct listener *l);
/* Accept all that waits at such sockets: nobody else will. */
void listen_take_quenched(struct listen_set *set);
/* Accept all that waits, without asking `hold`. */
void listen_take_all(struct listen_set *set);
/* Close all sockets; Unix files made here are removed. The structs stay: open connections look at
 * their texts. Idempotent. */
void listen_close(struct listen_set *set);
/* After listen_close, when the loop has let go of the handles: give the structs back. */
void listen_fini(struct listen_set *set);

#endif
