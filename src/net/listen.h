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
    bool polling;
    bool closed;
    bool owns_path;
    char path[108];        /* of a Unix socket with a file */
    char host[108];        /* textual address, or the Unix path ("@name" for an abstract one) */
    char port[8];          /* "" for Unix sockets */
    char url[160];         /* for the ready line: http://127.0.0.1:8000, http://unix:/path */
};

struct listen_set {
    struct loop *loop;
    struct listener *items[64]; /* owned */
    unsigned n;
    int spare_fd;               /* given up to accept and refuse one connection when descriptors ran out */
    bool paused;
    uv_timer_t rest;            /* runs while nothing can be accepted */
    /* A connection: takes fd. Returns false: no more for now (the set pauses). */
    bool (*accepted)(void *arg, struct listener *l, int fd, const struct sockaddr_storage *peer);
    /* No descriptor is left: refuse this one (takes fd). */
    void (*refused)(void *arg, int fd);
    void *arg;
};

/* Open what `spec` names (a host name may give several listeners) and append to the set. */
WEIR_MUST_USE int listen_open(struct listen_set *set, const struct listen_spec *spec,
                              struct err *e);
/* Leader (or before the first turn): begin to accept. */
WEIR_MUST_USE int listen_start(struct listen_set *set, struct loop *loop, struct err *e);
void listen_pause(struct listen_set *set, bool paused);
/* Close all sockets; Unix files made here are removed. The structs stay: open connections look at
 * their texts. Idempotent. */
void listen_close(struct listen_set *set);
/* After listen_close, when the loop has let go of the handles: give the structs back. */
void listen_fini(struct listen_set *set);

#endif
