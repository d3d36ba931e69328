/*
 * tls: the glue between bytes and records, and the keys of tickets, against a client of OpenSSL
 * that stands in memory too. So splits, cuts and floods are exact.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/tls.c"

static char g_cert[64], g_key[64]; /* files */
static struct conf g_conf;

/* ---- set-up ---- */

static void write_pem(char *path, EVP_PKEY *key, X509 *cert)
{
    strcpy(path, "/tmp/weir-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    assert_true(cert ? PEM_write_X509(f, cert)
                     : PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL));
    fclose(f);
}

static int make_files(void **state)
{
    (void)state;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME *name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"unit", -1, -1, 0);
    X509_set_issuer_name(cert, name);
    X509_sign(cert, key, EVP_sha256());
    write_pem(g_cert, NULL, cert);
    write_pem(g_key, key, NULL);
    X509_free(cert);
    EVP_PKEY_free(key);
    g_conf = (struct conf){.certfile = g_cert,
                           .keyfile = g_key,
                           .ca_certs = "",
                           .cert_reqs = "none",
                           .ciphers = "",
                           .tls_min = "1.2"};
    struct err e = {{0}};
    int rc = tls_load(WEIR_TLS_LIBRARY, &e);
    if (rc)
        print_error("%s\n", e.text);
    return rc;
}

static int remove_files(void **state)
{
    (void)state;
    unlink(g_cert);
    unlink(g_key);
    return 0;
}

/* Both ends of a connection. */
struct pair {
    struct tls_context *ctx;
    struct tls *server;
    SSL_CTX *client_ctx;
    SSL *client;
    BIO *to_client, *from_client;
    struct buf cipher; /* of the server, not yet given to the client */
    struct buf plain;  /* what the server has read */
    char *room;
    size_t room_n;
};

static void pair_init(struct pair *p, int version)
{
    struct err e = {{0}};
    *p = (struct pair){0};
    assert_int_equal(tls_context_new(&p->ctx, &g_conf, &e), 0);
    p->server = tls_new(p->ctx);
    assert_non_null(p->server);
    p->client_ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(p->client_ctx, version);
    SSL_CTX_set_max_proto_version(p->client_ctx, version);
    SSL_CTX_set_session_cache_mode(p->client_ctx,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    p->client = SSL_new(p->client_ctx);
    p->to_client = BIO_new(BIO_s_mem());
    p->from_client = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(p->to_client, -1);
    SSL_set_bio(p->client, p->to_client, p->from_client);
    SSL_set_connect_state(p->client);
}

static void pair_fini(struct pair *p)
{
    tls_free(&p->server);
    assert_null(p->server);
    tls_context_free(&p->ctx);
    assert_null(p->ctx);
    SSL_free(p->client);
    SSL_CTX_free(p->client_ctx);
    buf_fini(&p->cipher);
    buf_fini(&p->plain);
    free(p->room);
    ERR_clear_error();
}

/* Give the server p[0..n), from memory of exactly that size, and room of exactly what it may fill.
 */
static enum tls_state give(struct pair *p, const char *bytes, size_t n)
{
    char *copy = malloc(n ? n : 1), *room = malloc(TLS_PLAIN_BYTES(n));
    size_t got = 0;
    memcpy(copy, bytes, n);
    enum tls_state state = tls_take(p->server, copy, n, room, &got, &p->cipher);
    assert_true(got <= TLS_PLAIN_BYTES(n));
    assert_int_equal(buf_add(&p->plain, room, got), 0);
    free(copy);
    free(room);
    return state;
}

/* All that the client has written, in pieces of `step` bytes. */
static enum tls_state client_to_server(struct pair *p, size_t step)
{
    char bytes[70000];
    enum tls_state state = tls_state(p->server);
    int n;
    while ((n = BIO_read(p->from_client, bytes, (int)(step < sizeof bytes ? step : sizeof bytes))) >
           0)
        state = give(p, bytes, (size_t)n);
    return state;
}

static void server_to_client(struct pair *p)
{
    if (p->cipher.n)
        assert_int_equal(BIO_write(p->to_client, p->cipher.p, (int)p->cipher.n), (int)p->cipher.n);
    p->cipher.n = 0;
}

/* The handshake, with the client's bytes in pieces of `step`. */
static void shake(struct pair *p, size_t step)
{
    for (int i = 0; i < 10; i++) {
        int rc = SSL_do_handshake(p->client);
        if (rc == 1 && tls_state(p->server) == TLS_OPEN)
            return;
        client_to_server(p, step);
        server_to_client(p);
    }
    fail_msg("no handshake: %s", tls_state(p->server) == TLS_FAILED ? tls_reason(p->server) : "?");
}

static const int VERSIONS[] = {TLS1_2_VERSION, TLS1_3_VERSION};
#define EACH_VERSION(v)                                                                            \
    for (unsigned v##_i = 0; v##_i < 2; v##_i++)                                                   \
        for (int v = VERSIONS[v##_i]; v; v = 0)

/* ---- bytes ---- */

static void handshake_and_data_may_come_in_pieces_of_any_size(void **state)
{
    (void)state;
    EACH_VERSION(version)
    for (size_t step = 1; step < 700; step += step < 8 ? 1 : 61) {
        struct pair p;
        pair_init(&p, version);
        shake(&p, step);
        assert_int_equal(SSL_write(p.client, "question", 8), 8);
        assert_int_equal(client_to_server(&p, step), TLS_OPEN);
        assert_int_equal(p.plain.n, 8);
        assert_memory_equal(p.plain.p, "question", 8);
        assert_int_equal(tls_seal(p.server, "answer", 6, false, &p.cipher), 0);
        server_to_client(&p);
        char got[16];
        assert_int_equal(SSL_read(p.client, got, sizeof got), 6);
        assert_memory_equal(got, "answer", 6);
        pair_fini(&p);
    }
}

/* A handshake cut at each byte is no success, and nothing of it is plaintext. */
static void handshake_that_stops_anywhere_stays_a_handshake(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        struct pair p;
        pair_init(&p, version);
        SSL_do_handshake(p.client);
        char hello[4096];
        int n = BIO_read(p.from_client, hello, sizeof hello);
        assert_true(n > 100);
        for (int k = 0; k < n; k++) {
            struct tls *t = tls_new(p.ctx);
            struct buf out = {0};
            char room[TLS_PLAIN_BYTES(4096)];
            size_t got;
            assert_int_equal(tls_take(t, hello, (size_t)k, room, &got, &out), TLS_HANDSHAKE);
            assert_int_equal(got, 0);
            assert_int_equal(out.n, 0);
            assert_int_equal(tls_seal(t, "x", 1, false, &out), -EPROTO);
            assert_int_equal(out.n, 0);
            tls_bye(t, &out);
            assert_int_equal(out.n, 0);
            tls_free(&t);
        }
        pair_fini(&p);
    }
}

static void large_amounts_go_both_ways(void **state)
{
    (void)state;
    static char data[300000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 2654435761u >> 13);
    EACH_VERSION(version)
    {
        struct pair p;
        pair_init(&p, version);
        shake(&p, 65536);
        assert_int_equal(SSL_write(p.client, data, sizeof data), sizeof data);
        assert_int_equal(client_to_server(&p, 65536), TLS_OPEN);
        assert_int_equal(p.plain.n, sizeof data);
        assert_memory_equal(p.plain.p, data, sizeof data);
        assert_int_equal(tls_seal(p.server, data, sizeof data, false, &p.cipher), 0);
        assert_true(p.cipher.n < sizeof data + 19 * 64);
        server_to_client(&p);
        static char back[sizeof data];
        size_t n = 0, k;
        while (n < sizeof back && SSL_read_ex(p.client, back + n, sizeof back - n, &k))
            n += k;
        assert_int_equal(n, sizeof back);
        assert_memory_equal(back, data, sizeof data);
        pair_fini(&p);
    }
}

static void small_records_are_small_and_large_ones_follow(void **state)
{
    (void)state;
    static char data[40000];
    struct pair p;
    pair_init(&p, TLS1_3_VERSION);
    shake(&p, 65536);
    p.cipher.n = 0; /* the tickets */
    assert_int_equal(tls_seal(p.server, data, sizeof data, true, &p.cipher), 0);
    assert_int_equal(tls_seal(p.server, data, sizeof data, false, &p.cipher), 0);
    unsigned small = 0, large = 0;
    for (size_t at = 0; at < p.cipher.n;) {
        size_t n = (size_t)(unsigned char)p.cipher.p[at + 3] << 8 | (unsigned char)p.cipher.p[at + 4];
        if (large == 0 && n <= TLS_SMALL_BYTES + 17)
            small++;
        else
            large++;
        at += 5 + n;
    }
    assert_int_equal(small, 10);
    assert_int_equal(large, 3);
    pair_fini(&p);
}

/* The first request may come with the end of the handshake, the end of all with the last bytes. */
static void data_and_close_may_come_with_other_messages(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p, TLS1_3_VERSION);
    SSL_do_handshake(p.client);
    client_to_server(&p, 65536);
    server_to_client(&p);
    assert_int_equal(SSL_do_handshake(p.client), 1); /* Finished waits in from_client */
    assert_int_equal(SSL_write(p.client, "first", 5), 5);
    SSL_shutdown(p.client);
    assert_int_equal(SSL_write(p.client, "late", 4), -1);
    assert_int_equal(client_to_server(&p, 65536), TLS_ENDED);
    assert_int_equal(p.plain.n, 5);
    assert_memory_equal(p.plain.p, "first", 5);
    /* The answer still goes out, and our end behind it. */
    assert_int_equal(tls_seal(p.server, "answer", 6, false, &p.cipher), 0);
    tls_bye(p.server, &p.cipher);
    size_t once = p.cipher.n;
    tls_bye(p.server, &p.cipher);
    assert_int_equal(p.cipher.n, once);
    /* What comes behind the end has no meaning. */
    assert_int_equal(give(&p, "garbage", 7), TLS_ENDED);
    pair_fini(&p);
}

/* Any byte that is changed on its way ends the connection; nothing after it is believed. */
static void changed_bytes_are_noticed(void **state)
{
    (void)state;
    EACH_VERSION(version)
    for (int at = 0; at < 30; at++) {
        struct pair p;
        pair_init(&p, version);
        shake(&p, 65536);
        assert_int_equal(SSL_write(p.client, "question", 8), 8);
        char bytes[200];
        int n = BIO_read(p.from_client, bytes, sizeof bytes);
        if (at >= n) {
            pair_fini(&p);
            continue;
        }
        bytes[at] ^= 0x40;
        enum tls_state s = give(&p, bytes, (size_t)n);
        /* A longer length only lets it wait. */
        assert_true(s == TLS_FAILED || (s == TLS_OPEN && (at == 3 || at == 4)));
        assert_int_equal(p.plain.n, 0);
        if (s == TLS_FAILED) {
            assert_non_null(tls_reason(p.server));
            assert_int_equal(give(&p, bytes, (size_t)n), TLS_FAILED);
            size_t alert = p.cipher.n;
            assert_int_equal(tls_seal(p.server, "secret", 6, false, &p.cipher), -EPROTO);
            assert_int_equal(p.cipher.n, alert);
        }
        pair_fini(&p);
    }
}

/* ---- floods ---- */

static void few_key_updates_are_followed_and_many_end_the_connection(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p, TLS1_3_VERSION);
    shake(&p, 65536);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(SSL_key_update(p.client, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_write(p.client, "x", 1), 1);
    }
    assert_int_equal(client_to_server(&p, 65536), TLS_OPEN);
    assert_int_equal(p.plain.n, 16);
    for (int i = 0; i < 17; i++) {
        assert_int_equal(SSL_key_update(p.client, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_write(p.client, "x", 1), 1);
    }
    assert_int_equal(client_to_server(&p, 65536), TLS_FAILED);
    assert_string_equal(tls_reason(p.server), "too many messages that carry no data");
    assert_true(p.cipher.n < 4096);
    pair_fini(&p);
}

static void key_updates_that_never_end_are_bounded_in_all(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p, TLS1_3_VERSION);
    shake(&p, 65536);
    unsigned n = 0;
    do {
        assert_int_equal(SSL_key_update(p.client, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        assert_int_equal(SSL_write(p.client, "x", 1), 1);
        n++;
    } while (client_to_server(&p, 65536) == TLS_OPEN);
    assert_in_range(n, 900, 1100);
    pair_fini(&p);
}

static void renegotiation_moves_nothing_and_is_bounded(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p, TLS1_2_VERSION);
    shake(&p, 65536);
    assert_int_equal(SSL_renegotiate(p.client), 1);
    SSL_do_handshake(p.client);
    client_to_server(&p, 65536);
    assert_true(p.cipher.n < 100); /* an alert, no ServerHello */
    server_to_client(&p);
    char byte;
    assert_true(SSL_read(p.client, &byte, 1) <= 0);
    assert_true(tls_state(p.server) == TLS_OPEN || tls_state(p.server) == TLS_FAILED);
    pair_fini(&p);
}

static void empty_records_are_bounded(void **state)
{
    (void)state;
    /* In the clear, as long as nothing was agreed on: they carry nothing either. */
    struct pair p;
    pair_init(&p, TLS1_2_VERSION);
    char empty[5 * 64];
    for (size_t i = 0; i < sizeof empty; i += 5)
        memcpy(empty + i, "\x16\x03\x01\0\0", 5);
    assert_int_equal(give(&p, empty, sizeof empty), TLS_FAILED);
    assert_true(p.cipher.n < 100);
    pair_fini(&p);
}

static void handshake_that_is_too_long_is_refused(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p, TLS1_3_VERSION);
    /* A ClientHello that announces 128 KiB, in records of 1 KiB. */
    static char record[5 + 1024] = "\x16\x03\x01\x04\x00\x01\x01\xff\xff\x03\x03";
    enum tls_state s = TLS_HANDSHAKE;
    size_t sent = 0;
    while (s == TLS_HANDSHAKE && sent < 200000) {
        s = give(&p, record, sizeof record);
        sent += sizeof record;
        memset(record + 5, 0, 8);
    }
    assert_int_equal(s, TLS_FAILED);
    assert_true(sent <= 33 * 1024 + 2048);
    pair_fini(&p);
}

/* ---- memory ---- */

static void ciphertext_that_does_not_fit_ends_the_connection(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p, TLS1_3_VERSION);
    shake(&p, 65536);
    struct buf small = {.max = 100};
    static char data[20000];
    assert_int_equal(tls_seal(p.server, data, sizeof data, false, &small), -ENOMEM);
    assert_int_equal(tls_state(p.server), TLS_FAILED);
    assert_string_equal(tls_reason(p.server), "out of memory");
    assert_int_equal(tls_seal(p.server, data, 1, false, &p.cipher), -EPROTO);
    buf_fini(&small);
    pair_fini(&p);
}

static void error_queue_of_the_thread_is_left_empty(void **state)
{
    (void)state;
    struct pair p;
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH); /* of the application's own use of OpenSSL */
    pair_init(&p, TLS1_3_VERSION);
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
    SSL_do_handshake(p.client);
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
    client_to_server(&p, 65536);
    assert_int_equal(ERR_peek_error(), 0);
    assert_int_equal(give(&p, "garbage that is no record", 25), TLS_FAILED);
    assert_int_equal(ERR_peek_error(), 0);
    pair_fini(&p);
}

/* ---- facts ---- */

static void facts_name_what_was_agreed_on(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p, TLS1_3_VERSION);
    shake(&p, 65536);
    const struct tls_facts *f = tls_facts(p.server);
    assert_string_equal(f->protocol, "TLSv1.3");
    assert_string_equal(f->cipher, SSL_get_cipher_name(p.client));
    assert_string_equal(f->verify, "NONE");
    assert_int_equal(f->subject.n + f->issuer.n + f->cert.n, 0);
    assert_ptr_equal(tls_facts(p.server), f);
    pair_fini(&p);
}

/* ---- contexts ---- */

static void prepared_context_is_used_once_and_by_its_own_settings(void **state)
{
    (void)state;
    struct err e = {{0}};
    struct conf other = g_conf, off = {.certfile = ""};
    struct tls_context *a, *b, *c;
    assert_int_equal(tls_prepare(&off, &e), 0);
    assert_null(prepared.ctx);
    assert_int_equal(tls_prepare(&g_conf, &e), 0);
    struct tls_context *made = prepared.ctx;
    assert_non_null(made);
    assert_int_equal(tls_context_new(&a, &other, &e), 0);
    assert_ptr_not_equal(a, made);
    assert_int_equal(tls_context_new(&b, &g_conf, &e), 0);
    assert_ptr_equal(b, made);
    assert_int_equal(tls_context_new(&c, &g_conf, &e), 0);
    assert_ptr_not_equal(c, made);
    tls_context_free(&a);
    tls_context_free(&b);
    tls_context_free(&c);
}

static void check_says_what_is_wrong(void **state)
{
    (void)state;
    struct err e = {{0}};
    struct conf bad = g_conf, off = {.certfile = ""};
    bad.keyfile = "/nowhere/key.pem";
    assert_int_equal(tls_check(&off, &e), 0);
    assert_int_equal(tls_check(&g_conf, &e), 0);
    assert_int_equal(tls_check(&bad, &e), -1);
    assert_string_equal(
        e.text, "keyfile: cannot read '/nowhere/key.pem': No such file or directory; give a PEM "
                "file that the server may read");
}

/* ---- tickets ---- */

static SSL_SESSION *g_session;

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(g_session);
    g_session = session;
    return 1;
}

/* One connection that goes on with g_session where it can; whether it could. */
static bool connect_once(int version)
{
    struct pair p;
    pair_init(&p, version);
    SSL_CTX_sess_set_new_cb(p.client_ctx, keep_session);
    if (g_session)
        SSL_set_session(p.client, g_session);
    shake(&p, 65536);
    server_to_client(&p);
    char byte;
    assert_true(SSL_read(p.client, &byte, 1) <= 0); /* the tickets */
    bool reused = SSL_session_reused(p.client);
    if (version == TLS1_2_VERSION) /* a new ticket for an old session is not told by the callback */
        keep_session(p.client, SSL_get1_session(p.client));
    SSL_shutdown(p.client);
    pair_fini(&p);
    return reused;
}

static void forget_session(void)
{
    SSL_SESSION_free(g_session);
    g_session = NULL;
}

static void tickets_open_in_their_own_and_in_the_next_period(void **state)
{
    (void)state;
    EACH_VERSION(version)
    {
        forget_session();
        assert_false(connect_once(version));
        assert_true(connect_once(version));
        SSL_SESSION *first = g_session;
        SSL_SESSION_up_ref(first);
        tls_ticket_keys_age(TLS_TICKET_KEY_NS);
        assert_true(connect_once(version)); /* and gets a ticket of the new key */
        tls_ticket_keys_age(TLS_TICKET_KEY_NS);
        SSL_SESSION *second = g_session;
        SSL_SESSION_up_ref(second);
        forget_session();
        g_session = first;
        assert_false(connect_once(version)); /* two keys later */
        forget_session();
        g_session = second;
        assert_true(connect_once(version));
        forget_session();
    }
}

static void keys_change_by_time_and_the_one_before_stays_for_as_long(void **state)
{
    (void)state;
    struct tls_ticket_key a = tls_ticket_keys()[0], b;
    assert_memory_equal(&tls_ticket_keys()[0], &a, sizeof a);
    tls_ticket_keys_age(TLS_TICKET_KEY_NS);
    b = tls_ticket_keys()[0];
    assert_memory_not_equal(&b, &a, sizeof a);
    assert_memory_equal(&tls_ticket_keys()[1], &a, sizeof a);
    tls_ticket_keys_age(2 * TLS_TICKET_KEY_NS); /* a night without a client: both are too old */
    assert_memory_not_equal(&tls_ticket_keys()[0], &b, sizeof b);
    static const struct tls_ticket_key NONE;
    assert_memory_equal(&tls_ticket_keys()[1], &NONE, sizeof NONE);
}

/* Run `child` in a process of its own; its exit status. */
static int in_child(int (*child)(void))
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(child());
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int child_rotates(void)
{
    tls_ticket_keys_age(TLS_TICKET_KEY_NS);
    return tls_ticket_keys() ? 0 : 1;
}

static int child_dies_inside(void)
{
    return pthread_mutex_lock(&tickets.shared->lock);
}

static void keys_are_the_same_in_all_processes(void **state)
{
    (void)state;
    struct tls_ticket_key before = tls_ticket_keys()[0];
    assert_int_equal(in_child(child_rotates), 0);
    assert_memory_not_equal(&tls_ticket_keys()[0], &before, sizeof before);
    assert_memory_equal(&tls_ticket_keys()[1], &before, sizeof before);
    tls_ticket_keys_age(TLS_TICKET_KEY_NS); /* it is as late here as it was there */
}

static void process_that_dies_with_the_lock_holds_nobody_up(void **state)
{
    (void)state;
    struct tls_ticket_key before = tls_ticket_keys()[0];
    assert_int_equal(in_child(child_dies_inside), 0);
    tls_ticket_keys_age(TLS_TICKET_KEY_NS);
    assert_memory_not_equal(&tls_ticket_keys()[0], &before, sizeof before);
}

static void process_that_stands_still_with_the_lock_holds_nobody_up(void **state)
{
    (void)state;
    struct tls_ticket_key before = tls_ticket_keys()[0];
    int told[2], go[2];
    char byte = 0;
    assert_int_equal(pipe(told) | pipe(go), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pthread_mutex_lock(&tickets.shared->lock);
        (void)!write(told[1], &byte, 1);
        (void)!read(go[0], &byte, 1);
        _exit(0);
    }
    assert_int_equal(read(told[0], &byte, 1), 1);
    tls_ticket_keys_age(TLS_TICKET_KEY_NS);
    assert_memory_equal(&tls_ticket_keys()[0], &before, sizeof before); /* as before, for now */
    assert_int_equal(write(go[1], &byte, 1), 1);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_memory_not_equal(&tls_ticket_keys()[0], &before, sizeof before);
    for (int i = 0; i < 2; i++) {
        close(told[i]);
        close(go[i]);
    }
}

static void library_of_another_build_is_refused(void **state)
{
    (void)state;
    const struct tls_lib *loaded = lib;
    struct err e = {{0}};
    lib = NULL;
    assert_int_equal(tls_load("/nowhere/_tls.so", &e), -1);
    assert_non_null(strstr(e.text, "TLS cannot be used: /nowhere/_tls.so: "));
    assert_int_equal(tls_load("libm.so.6", &e), -1);
    assert_non_null(strstr(e.text, "belongs to another version of Weir"));
    assert_int_equal(tls_load(NULL, &e), -1); /* there is none beside the test */
    assert_non_null(strstr(e.text, "/_tls.so: "));
    lib = loaded;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshake_and_data_may_come_in_pieces_of_any_size),
        cmocka_unit_test(handshake_that_stops_anywhere_stays_a_handshake),
        cmocka_unit_test(large_amounts_go_both_ways),
        cmocka_unit_test(small_records_are_small_and_large_ones_follow),
        cmocka_unit_test(data_and_close_may_come_with_other_messages),
        cmocka_unit_test(changed_bytes_are_noticed),
        cmocka_unit_test(few_key_updates_are_followed_and_many_end_the_connection),
        cmocka_unit_test(key_updates_that_never_end_are_bounded_in_all),
        cmocka_unit_test(renegotiation_moves_nothing_and_is_bounded),
        cmocka_unit_test(empty_records_are_bounded),
        cmocka_unit_test(handshake_that_is_too_long_is_refused),
        cmocka_unit_test(ciphertext_that_does_not_fit_ends_the_connection),
        cmocka_unit_test(error_queue_of_the_thread_is_left_empty),
        cmocka_unit_test(facts_name_what_was_agreed_on),
        cmocka_unit_test(prepared_context_is_used_once_and_by_its_own_settings),
        cmocka_unit_test(check_says_what_is_wrong),
        cmocka_unit_test(tickets_open_in_their_own_and_in_the_next_period),
        cmocka_unit_test(keys_change_by_time_and_the_one_before_stays_for_as_long),
        cmocka_unit_test(keys_are_the_same_in_all_processes),
        cmocka_unit_test(process_that_dies_with_the_lock_holds_nobody_up),
        cmocka_unit_test(process_that_stands_still_with_the_lock_holds_nobody_up),
        cmocka_unit_test(library_of_another_build_is_refused),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
