/*
 * tls_openssl: what tls.h promises, by OpenSSL 3. The only file that includes its headers, and the
 * whole of _tls.so beside a few functions of base.
 *
 * A connection has one BIO of our own kind, with no memory behind it: it reads from the ciphertext
 * that tls_take was given and writes to the buffer that the call was given. So a record is copied
 * once on its way in (to OpenSSL's record buffer) and once on its way out, and an idle connection
 * holds no buffer at all (SSL_MODE_RELEASE_BUFFERS).
 *
 * Floods. A peer may send records that move no data: empty ones, warnings, KeyUpdates, requests to
 * renegotiate. OpenSSL ends the connection after 32 empty records or 5 warnings in a row; messages
 * of the handshake after its end are counted here, by reading (MESSAGES_PER_TAKE) and in all.
 *
 * The error queue of OpenSSL belongs to the thread, which may run the application too: it is
 * cleared before each call, and left empty.
 */
#include "net/tls.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/must.h"
#include "conf/version.h"

/* TLS 1.2 with forward secrecy and authenticated encryption; those of TLS 1.3 are all like that. */
static const char CIPHERS[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
/* What every client has; no curve that is dear to us and cheap for them. */
static const char GROUPS[] = "X25519:P-256:P-384";
/* Ciphertext of a handshake, at most; with certificates of clients their chains come on top. */
static const size_t HELLO_BYTES_MAX = 32 * 1024;
static const size_t CHAIN_BYTES_MAX = 64 * 1024;
/* Handshake messages behind the handshake: KeyUpdates, ClientHellos. An honest peer sends one in
 * hours. */
static const unsigned MESSAGES_PER_TAKE = 16;
static const unsigned MESSAGES_MAX = 1000;
/* How long a session may be gone on with. Shorter where it stands for a client's certificate, which
 * is not looked at again. */
static const long SESSION_S = 12 * 3600;
static const long SESSION_CERT_S = 300;
/* The largest file of certificates; the bundles of all public authorities have 0.2 MiB. */
static const off_t PEM_BYTES_MAX = 4 * 1024 * 1024;

struct name {
    char *text;   /* owned; lower case, "*.example.org" as ".example.org" */
    SSL_CTX *ctx; /* lent */
};

struct tls_context {
    SSL_CTX **ctxs; /* owned; [0] for clients that name no host that is known here */
    unsigned n_ctxs;
    struct name *names; /* owned; sorted by text */
    unsigned n_names;
    size_t hello_max; /* bytes before the handshake must be complete */
    const struct tls_ticket_key *(*keys)(void);
    EVP_CIPHER *ticket_cipher; /* owned */
    BIO_METHOD *bio;           /* owned */
};

struct tls {
    SSL *ssl;
    struct tls_context *ctx; /* lent */
    const char *src;         /* inside tls_take: ciphertext that was not read yet */
    size_t src_n;
    struct buf *dst;                 /* inside a call: where ciphertext goes */
    size_t seen;                     /* bytes of the handshake */
    unsigned messages, messages_all; /* of the handshake after its end: in this tls_take, in all */
    uint8_t state;                   /* enum tls_state */
    bool no_memory;                  /* dst could not grow */
    bool small;                      /* records are small now */
    bool facts_known;
    const char *reason; /* literal, OpenSSL's literal, or why */
    struct tls_facts facts;
    char *peer; /* owned: texts of facts; NULL */
    char why[160];
};

/* ---- bytes ---- */

static int bio_read(BIO *b, char *to, size_t room, size_t *got)
{
    struct tls *t = BIO_get_data(b);
    size_t n = room < t->src_n ? room : t->src_n;
    BIO_clear_retry_flags(b);
    *got = n;
    if (n == 0 || t->messages > MESSAGES_PER_TAKE || t->messages_all > MESSAGES_MAX) {
        BIO_set_retry_read(b);
        return 0;
    }
    memcpy(to, t->src, n);
    t->src += n;
    t->src_n -= n;
    return 1;
}

static int bio_write(BIO *b, const char *p, size_t n, size_t *done)
{
    struct tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    *done = 0;
    if (!t->dst || buf_add(t->dst, p, n)) {
        t->no_memory = true;
        return 0;
    }
    *done = n;
    return 1;
}

static long bio_ctrl(BIO *b, int cmd, long number, void *p)
{
    (void)b;
    (void)number;
    (void)p;
    return cmd == BIO_CTRL_FLUSH;
}

static int bio_make(BIO *b)
{
    BIO_set_init(b, 1);
    return 1;
}

/* ---- what OpenSSL asks ---- */

static struct tls *of_ssl(const SSL *ssl)
{
    return SSL_get_app_data(ssl);
}

static void on_message(int written, int version, int type, const void *p, size_t n, SSL *ssl,
                       void *arg)
{
    (void)version;
    (void)p;
    (void)n;
    (void)arg;
    struct tls *t = of_ssl(ssl);
    if (!written && type == SSL3_RT_HANDSHAKE && t && t->state != TLS_HANDSHAKE) {
        t->messages++;
        t->messages_all++;
    }
}

/* As nginx: a client that offers protocols, and none of them ours, is refused. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *n_out,
                   const unsigned char *in, unsigned n_in, void *arg)
{
    (void)ssl;
    (void)arg;
    static const unsigned char OURS[] = "\x08http/1.1\x08http/1.0";
    unsigned char *found;
    if (SSL_select_next_proto(&found, n_out, OURS, sizeof OURS - 1, in, n_in) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = found;
    return SSL_TLSEXT_ERR_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

static SSL_CTX *find_name(const struct tls_context *ctx, const char *text)
{
    struct name key = {.text = (char *)(uintptr_t)text};
    const struct name *found =
        bsearch(&key, ctx->names, ctx->n_names, sizeof *ctx->names, compare_names);
    return found ? found->ctx : NULL;
}

/* An exact name goes before a wildcard, which stands for one label. */
static int on_servername(SSL *ssl, int *alert, void *arg)
{
    (void)alert;
    const struct tls_context *ctx = arg;
    const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    char text[256];
    size_t n = asked ? strlen(asked) : 0;
    if (n == 0 || n >= sizeof text)
        return SSL_TLSEXT_ERR_NOACK;
    for (size_t i = 0; i <= n; i++)
        text[i] = (char)tolower((unsigned char)asked[i]);
    if (text[n - 1] == '.')
        text[n - 1] = '\0';
    SSL_CTX *found = find_name(ctx, text);
    const char *dot = strchr(text, '.');
    if (!found && dot && dot != text)
        found = find_name(ctx, dot);
    if (!found)
        return SSL_TLSEXT_ERR_NOACK;
    SSL_set_SSL_CTX(ssl, found);
    return SSL_TLSEXT_ERR_OK;
}

/* Seal (encrypt) or open a ticket: AES-256-CBC, then HMAC-SHA-256 (RFC 5077 §4). */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int seal)
{
    const struct tls_context *ctx = of_ssl(ssl)->ctx;
    const struct tls_ticket_key *keys = ctx->keys(), *key = keys;
    static const struct tls_ticket_key NONE;
    if (!keys)
        return 0;
    if (seal) {
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(ctx->ticket_cipher)) != 1)
            return -1;
        memcpy(name, keys[0].name, sizeof keys[0].name);
    } else {
        while (memcmp(key->name, name, sizeof key->name) != 0)
            if (++key == keys + 2)
                return 0;
        if (memcmp(key->name, NONE.name, sizeof key->name) == 0)
            return 0;
    }
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key->mac,
                                          sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    if (EVP_MAC_CTX_set_params(mac, params) != 1 ||
        EVP_CipherInit_ex2(cipher, ctx->ticket_cipher, key->aes, iv, seal, NULL) != 1)
        return -1;
    /* A ticket of TLS 1.3 is for one use: the client gets another (RFC 8446 §C.4). */
    return seal || (key == keys && SSL_version(ssl) < TLS1_3_VERSION) ? 1 : 2;
}

/* cert-reqs optional: the handshake goes on, and the application is told that it failed. */
static int on_verify_any(int good, X509_STORE_CTX *store)
{
    (void)good;
    (void)store;
    return 1;
}

/* ---- files ---- */

/* What the last call of OpenSSL complained of; the queue is empty afterwards. */
static const char *complaint(void)
{
    unsigned long code = ERR_peek_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return text ? text : "unknown error";
}

/* A whole file in memory that BIO_free does not give back: *text is the caller's, to be wiped. */
static int read_file(const char *setting, const char *path, char **text, size_t *n, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int bad = fd < 0 || fstat(fd, &st) ? errno : 0;
    *text = NULL;
    if (!bad && !S_ISREG(st.st_mode))
        bad = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    size_t room = 0;
    *n = 0;
    while (!bad) {
        if (room - *n < 4096) {
            /* Not realloc: what it leaves behind could not be wiped. */
            size_t more = room ? room * 2 : (size_t)st.st_size + 8192;
            char *bigger = more <= (size_t)PEM_BYTES_MAX ? malloc(more) : NULL;
            if (!bigger) {
                bad = more <= (size_t)PEM_BYTES_MAX ? ENOMEM : EFBIG;
                break;
            }
            if (*text) {
                memcpy(bigger, *text, *n);
                explicit_bzero(*text, *n);
                free(*text);
            }
            *text = bigger;
            room = more;
        }
        ssize_t got = read(fd, *text + *n, room - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            bad = errno;
        if (got <= 0)
            break;
        *n += (size_t)got;
    }
    if (fd >= 0)
        close(fd);
    if (!bad)
        return 0;
    if (*text) {
        explicit_bzero(*text, *n);
        free(*text);
        *text = NULL;
    }
    return err_set(e, "%s: cannot read '%.400s': %s; give a PEM file that the server may read",
                   setting, path, strerror(bad));
}

static int no_password(char *to, int room, int writing, void *asked)
{
    (void)to;
    (void)room;
    (void)writing;
    *(bool *)asked = true;
    return -1;
}

/* Tell what a certificate will do to clients, now that it is in use. */
static void look_at(X509 *cert, const char *path, const struct conf_list *names,
                    void (*warn)(const char *text))
{
    char text[1024];
    const ASN1_TIME *end = X509_get0_notAfter(cert), *begin = X509_get0_notBefore(cert);
    bool late = X509_cmp_current_time(end)<0, early = X509_cmp_current_time(begin)> 0;
    if (late || early) {
        char when[64] = "?";
        BIO *b = BIO_new(BIO_s_mem());
        if (b && ASN1_TIME_print(b, late ? end : begin)) {
            int n = BIO_read(b, when, sizeof when - 1);
            when[n > 0 ? n : 0] = '\0';
        }
        BIO_free(b);
        snprintf(text, sizeof text, "the certificate in '%.400s' %s %s: clients will refuse it",
                 path, late ? "expired on" : "is not valid before", when);
        warn(text);
    }
    for (unsigned i = 0; names && i < names->n; i++) {
        char name[300];
        const char *item = names->items[i];
        snprintf(name, sizeof name, "%s%s", *item == '*' ? "any" : "",
                 *item == '*' ? item + 1 : item);
        if (X509_check_host(cert, name, 0, 0, NULL) != 1) {
            snprintf(text, sizeof text, "the certificate in '%.400s' is not for the name %.256s",
                     path, item);
            warn(text);
        }
    }
    ERR_clear_error();
}

/* The certificate and those between it and the root, from PEM text. */
static int use_chain(SSL_CTX *ctx, const char *what, const char *path, BIO *pem, struct err *e)
{
    X509 *cert = PEM_read_bio_X509_AUX(pem, NULL, NULL, NULL);
    if (!cert) {
        const char *why = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE
                              ? "there is no CERTIFICATE block in it"
                              : complaint();
        ERR_clear_error();
        return err_set(e, "%s: '%.400s' holds no certificate in PEM form: %s", what, path, why);
    }
    int ok = SSL_CTX_use_certificate(ctx, cert); /* counts it */
    X509_free(cert);
    while (ok == 1) {
        X509 *next = PEM_read_bio_X509(pem, NULL, NULL, NULL);
        if (!next) {
            ok = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE ? 1 : 0;
            break;
        }
        ok = (int)SSL_CTX_add0_chain_cert(ctx, next); /* takes it */
        if (ok != 1)
            X509_free(next);
    }
    if (ok != 1)
        return err_set(e, "%s: the certificates in '%.400s' cannot be used: %s", what, path,
                       complaint());
    ERR_clear_error();
    return 0;
}

static int use_key(SSL_CTX *ctx, const char *what, const char *path, const char *cert_path,
                   BIO *pem, struct err *e)
{
    bool asked = false;
    EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, no_password, &asked);
    if (!key) {
        unsigned long last = ERR_peek_last_error();
        const char *why = complaint();
        if (asked)
            return err_set(e, "%s: the key in '%.400s' is encrypted; give one without a passphrase",
                           what, path);
        if (ERR_GET_REASON(last) == PEM_R_NO_START_LINE || strcmp(why, "unsupported") == 0)
            return err_set(
                e,
                "%s: '%.400s' holds no private key in PEM form; name the file that has it "
                "with keyfile",
                what, path);
        return err_set(e, "%s: '%.400s' holds no private key in PEM form: %s", what, path, why);
    }
    ERR_clear_error();
    bool same = X509_check_private_key(SSL_CTX_get0_certificate(ctx), key) == 1;
    bool ok = same && SSL_CTX_use_PrivateKey(ctx, key) == 1; /* counts it */
    EVP_PKEY_free(key);
    if (ok)
        return 0;
    const char *why = complaint();
    if (!same)
        return err_set(
            e, "%s: the private key in '%.400s' does not belong to the certificate in '%.400s'",
            what, path, cert_path);
    return err_set(e, "%s: the private key in '%.400s' cannot be used: %s", what, path, why);
}

/* A file of PEM, and the file's bytes wiped after `use` has seen them. */
struct pem {
    char *text;
    size_t n;
    BIO *bio;
};

static int pem_open(struct pem *p, const char *what, const char *path, struct err *e)
{
    *p = (struct pem){0};
    if (read_file(what, path, &p->text, &p->n, e))
        return -1;
    p->bio = BIO_new_mem_buf(p->text, (int)p->n);
    return p->bio ? 0 : err_set(e, "out of memory");
}

static void pem_close(struct pem *p)
{
    BIO_free(p->bio);
    if (p->text)
        explicit_bzero(p->text, p->n);
    free(p->text);
    *p = (struct pem){0};
}

static int use_pair(SSL_CTX *ctx, const char *cert_what, const char *cert_path,
                    const char *key_what, const char *key_path, struct err *e)
{
    struct pem pem;
    int rc = pem_open(&pem, cert_what, cert_path, e);
    if (!rc)
        rc = use_chain(ctx, cert_what, cert_path, pem.bio, e);
    pem_close(&pem);
    if (rc)
        return rc;
    rc = pem_open(&pem, key_what, key_path, e);
    if (!rc)
        rc = use_key(ctx, key_what, key_path, cert_path, pem.bio, e);
    pem_close(&pem);
    return rc;
}

/* The authorities whose clients are let in; their names go to the client. */
static int use_authorities(SSL_CTX *ctx, const char *path, EVP_MD_CTX *digest, struct err *e)
{
    struct pem pem;
    unsigned n = 0;
    bool bad = false;
    STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
    int rc = pem_open(&pem, "ca-certs", path, e);
    X509 *cert;
    while (!rc && !bad && (cert = PEM_read_bio_X509(pem.bio, NULL, NULL, NULL))) {
        X509_NAME *name = X509_NAME_dup(X509_get_subject_name(cert));
        bad = !names || !name || sk_X509_NAME_push(names, name) <= 0;
        if (bad)
            X509_NAME_free(name);
        bad |= X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert) != 1;
        X509_free(cert);
        n++;
    }
    if (!rc && !n)
        rc = err_set(
            e,
            "ca-certs: '%.400s' holds no certificate in PEM form; give those of the authorities "
            "that sign your clients' certificates",
            path);
    if (!rc && (bad || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE))
        rc = err_set(e, "ca-certs: the certificates in '%.400s' cannot be used: %s", path,
                     complaint());
    if (!rc)
        EVP_DigestUpdate(digest, pem.text, pem.n);
    ERR_clear_error();
    pem_close(&pem);
    if (rc) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return rc;
    }
    SSL_CTX_set_client_CA_list(ctx, names); /* takes it */
    return 0;
}

/* ---- contexts ---- */

static SSL_CTX *ctx_new(const struct tls_context *t, const struct conf *c, struct err *e)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx) {
        err_set(e, "TLS cannot be used: %s", complaint());
        return NULL;
    }
    bool only_13 = strcmp(c->tls_min, "1.3") == 0;
    SSL_CTX_set_min_proto_version(ctx, only_13 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets alone */
    SSL_CTX_set_max_cert_list(ctx, (long)CHAIN_BYTES_MAX);
    SSL_CTX_set_timeout(ctx, strcmp(c->cert_reqs, "none") == 0 ? SESSION_S : SESSION_CERT_S);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    SSL_CTX_set_msg_callback(ctx, on_message);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
    if (t->n_names) {
        SSL_CTX_set_tlsext_servername_callback(ctx, on_servername);
        SSL_CTX_set_tlsext_servername_arg(ctx, (void *)(uintptr_t)t);
    }
    /* Where a policy of the machine forbids one of them, its own list stays. */
    if (SSL_CTX_set1_groups_list(ctx, GROUPS) != 1)
        ERR_clear_error();
    if (SSL_CTX_set_cipher_list(ctx, *c->ciphers ? c->ciphers : CIPHERS) != 1) {
        ERR_clear_error();
        err_set(e, "ciphers: '%.400s' names no cipher that OpenSSL has; see `openssl ciphers -v`",
                c->ciphers);
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

/* A session goes on only where it could have begun: same certificate, same rules for clients'. */
static int set_session_place(struct tls_context *t, EVP_MD_CTX *digest, const struct conf *c)
{
    unsigned char *der = NULL, id[EVP_MAX_MD_SIZE];
    unsigned n_id = 0;
    int n = i2d_X509(SSL_CTX_get0_certificate(t->ctxs[0]), &der);
    bool ok = n > 0 && EVP_DigestUpdate(digest, der, (size_t)n) == 1 &&
              EVP_DigestUpdate(digest, c->cert_reqs, strlen(c->cert_reqs)) == 1 &&
              EVP_DigestFinal_ex(digest, id, &n_id) == 1;
    OPENSSL_free(der);
    for (unsigned i = 0; ok && i < t->n_ctxs; i++)
        ok = SSL_CTX_set_session_id_context(t->ctxs[i], id, n_id) == 1;
    return ok ? 0 : -1;
}

static int add_names(struct tls_context *t, const struct conf_tls_host *host, SSL_CTX *ctx)
{
    for (unsigned i = 0; i < host->names.n; i++) {
        const char *item = host->names.items[i];
        char *text = strdup(item[0] == '*' && item[1] == '.' ? item + 1 : item);
        if (!text)
            return -1;
        for (char *p = text; *p; p++)
            *p = (char)tolower((unsigned char)*p);
        t->names[t->n_names++] = (struct name){text, ctx};
    }
    return 0;
}

static int use_client_rules(struct tls_context *t, const struct conf *c, struct err *e)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    int rc = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1
                 ? 0
                 : err_set(e, "out of memory");
    bool optional = strcmp(c->cert_reqs, "optional") == 0;
    bool asks = optional || strcmp(c->cert_reqs, "required") == 0;
    if (!rc && asks && !*c->ca_certs)
        rc = err_set(
            e,
            "cert-reqs %s needs ca-certs: the certificates of the authorities that sign your "
            "clients' certificates",
            c->cert_reqs);
    if (!rc && *c->ca_certs)
        rc = use_authorities(t->ctxs[0], c->ca_certs, digest, e);
    if (!rc && asks) {
        t->hello_max += CHAIN_BYTES_MAX;
        SSL_CTX_set_verify(t->ctxs[0],
                           optional ? SSL_VERIFY_PEER
                                    : SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                           optional ? on_verify_any : NULL);
    }
    /* A client that asks for another name keeps these rules, but looks for authorities in that
     * name's context. */
    for (unsigned i = 1; !rc && *c->ca_certs && i < t->n_ctxs; i++) {
        STACK_OF(X509_NAME) *names = SSL_dup_CA_list(SSL_CTX_get_client_CA_list(t->ctxs[0]));
        SSL_CTX_set1_cert_store(t->ctxs[i], SSL_CTX_get_cert_store(t->ctxs[0]));
        SSL_CTX_set_client_CA_list(t->ctxs[i], names); /* takes it */
        if (!names)
            rc = err_set(e, "out of memory");
    }
    if (!rc && set_session_place(t, digest, c))
        rc = err_set(e, "TLS cannot be used: %s", complaint());
    EVP_MD_CTX_free(digest);
    return rc;
}

static int fill(struct tls_context *t, const struct conf *c, void (*warn)(const char *text),
                struct err *e)
{
    unsigned n_names = 0;
    for (unsigned i = 0; i < c->n_tls_hosts; i++)
        n_names += c->tls_hosts[i].names.n;
    t->ctxs = calloc(c->n_tls_hosts + 1, sizeof *t->ctxs);
    t->names = calloc(n_names + 1, sizeof *t->names);
    t->hello_max = HELLO_BYTES_MAX;
    t->ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    t->bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weir");
    if (!t->ctxs || !t->names || !t->ticket_cipher || !t->bio)
        return err_set(e, "TLS cannot be used: %s", complaint());
    BIO_meth_set_read_ex(t->bio, bio_read);
    BIO_meth_set_write_ex(t->bio, bio_write);
    BIO_meth_set_ctrl(t->bio, bio_ctrl);
    BIO_meth_set_create(t->bio, bio_make);

    t->n_names = n_names; /* ctx_new looks whether there are any */
    bool first = *c->certfile;
    unsigned k = 0, total = c->n_tls_hosts + first;
    for (unsigned i = 0; i < total; i++) {
        t->ctxs[i] = ctx_new(t, c, e);
        if (!t->ctxs[i]) {
            t->n_names = 0;
            return -1;
        }
        t->n_ctxs++;
    }
    t->n_names = 0;
    if (first) {
        bool one = !*c->keyfile;
        if (use_pair(t->ctxs[k], "certfile", c->certfile, one ? "certfile" : "keyfile",
                     one ? c->certfile : c->keyfile, e))
            return -1;
        if (warn)
            look_at(SSL_CTX_get0_certificate(t->ctxs[k]), c->certfile, NULL, warn);
        k++;
    }
    for (unsigned i = 0; i < c->n_tls_hosts; i++, k++) {
        const struct conf_tls_host *h = &c->tls_hosts[i];
        bool one = !h->keyfile || !*h->keyfile;
        if (use_pair(t->ctxs[k], "tls: certfile", h->certfile,
                     one ? "tls: certfile" : "tls: keyfile", one ? h->certfile : h->keyfile, e))
            return -1;
        if (warn)
            look_at(SSL_CTX_get0_certificate(t->ctxs[k]), h->certfile, &h->names, warn);
        if (add_names(t, h, t->ctxs[k]))
            return err_set(e, "out of memory");
    }
    qsort(t->names, t->n_names, sizeof *t->names, compare_names);
    return use_client_rules(t, c, e);
}

static void context_free(struct tls_context **ctx)
{
    struct tls_context *t = *ctx;
    *ctx = NULL;
    for (unsigned i = 0; i < t->n_ctxs; i++)
        SSL_CTX_free(t->ctxs[i]);
    for (unsigned i = 0; i < t->n_names; i++)
        free(t->names[i].text);
    free(t->ctxs);
    free(t->names);
    EVP_CIPHER_free(t->ticket_cipher);
    BIO_meth_free(t->bio);
    free(t);
}

static int context_new(struct tls_context **out, const struct conf *c,
                       void (*warn)(const char *text), const struct tls_ticket_key *(*keys)(void),
                       struct err *e)
{
    /* The process may end while threads of the application still run: nothing is torn down under
     * them. */
    OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
    ERR_clear_error();
    struct tls_context *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, "out of memory");
    t->keys = keys;
    if (fill(t, c, warn, e)) {
        context_free(&t);
        return -1;
    }
    *out = t;
    return 0;
}

/* ---- connections ---- */

static void tls_free_(struct tls **tp)
{
    struct tls *t = *tp;
    *tp = NULL;
    SSL_free(t->ssl); /* and its BIO */
    free(t->peer);
    free(t);
}

static struct tls *make(struct tls_context *ctx)
{
    struct tls *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->ctx = ctx;
    t->ssl = SSL_new(ctx->ctxs[0]);
    BIO *bio = t->ssl ? BIO_new(ctx->bio) : NULL;
    if (!bio) {
        ERR_clear_error();
        SSL_free(t->ssl);
        free(t);
        return NULL;
    }
    BIO_set_data(bio, t);
    SSL_set_bio(t->ssl, bio, bio); /* takes it */
    SSL_set_app_data(t->ssl, t);
    SSL_set_accept_state(t->ssl);
    return t;
}

static enum tls_state fail(struct tls *t, const char *reason)
{
    t->state = TLS_FAILED;
    t->reason = reason;
    ERR_clear_error();
    return TLS_FAILED;
}

/* A call of OpenSSL did not succeed, and not for want of bytes. */
static enum tls_state fail_by_openssl(struct tls *t)
{
    unsigned long code = ERR_peek_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    if (t->no_memory)
        return fail(t, "out of memory");
    if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
        ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        snprintf(t->why, sizeof t->why, "the client's certificate was refused: %s",
                 X509_verify_cert_error_string(SSL_get_verify_result(t->ssl)));
        return fail(t, t->why);
    }
    return fail(t, text ? text : "unknown error");
}

static enum tls_state handshake(struct tls *t)
{
    int rc = SSL_do_handshake(t->ssl);
    if (rc == 1) {
        t->state = TLS_OPEN;
        return TLS_OPEN;
    }
    if (SSL_get_error(t->ssl, rc) != SSL_ERROR_WANT_READ)
        return fail_by_openssl(t);
    if (t->seen > t->ctx->hello_max)
        return fail(t, "the handshake is too long");
    return TLS_HANDSHAKE;
}

static enum tls_state take(struct tls *t, const char *p, size_t n, char *plain, size_t *n_plain,
                           struct buf *out)
{
    size_t room = TLS_PLAIN_BYTES(n), filled = 0;
    *n_plain = 0;
    if (t->state == TLS_FAILED || t->state == TLS_ENDED)
        return t->state; /* what comes behind the end has no meaning */
    ERR_clear_error();
    t->src = p;
    t->src_n = n;
    t->dst = out;
    t->messages = 0;
    if (t->state == TLS_HANDSHAKE) {
        t->seen += n;
        handshake(t);
    }
    while (t->state == TLS_OPEN) {
        size_t got = 0;
        int rc = SSL_read_ex(t->ssl, plain + filled, room - filled, &got);
        filled += got;
        if (rc == 1 && filled == room) {
            fail(t, "a record is longer than allowed"); /* OpenSSL has refused that already */
        } else if (rc == 1) {
            if (!t->src_n && !SSL_has_pending(t->ssl))
                break;
        } else {
            int why = SSL_get_error(t->ssl, rc);
            if (why == SSL_ERROR_ZERO_RETURN)
                t->state = TLS_ENDED;
            else if (why != SSL_ERROR_WANT_READ)
                fail_by_openssl(t);
            else if (t->src_n)
                fail(t, "too many messages that carry no data");
            else
                break;
        }
    }
    ERR_clear_error();
    *n_plain = filled;
    t->src = NULL;
    t->src_n = 0;
    t->dst = NULL;
    return t->state;
}

static int seal(struct tls *t, const char *p, size_t n, bool small, struct buf *out)
{
    size_t done = 0;
    if (t->state != TLS_OPEN && t->state != TLS_ENDED)
        return -EPROTO;
    ERR_clear_error();
    if (t->small != small) {
        t->small = small;
        long n_max = small ? TLS_SMALL_BYTES : SSL3_RT_MAX_PLAIN_LENGTH;
        SSL_set_max_send_fragment(t->ssl, n_max);
        SSL_set_split_send_fragment(t->ssl, n_max); /* the one above only makes it smaller */
    }
    t->dst = out;
    int rc = SSL_write_ex(t->ssl, p, n, &done);
    t->dst = NULL;
    if (rc == 1 && done == n)
        return 0;
    fail_by_openssl(t);
    return t->no_memory ? -ENOMEM : -EPROTO;
}

static void bye(struct tls *t, struct buf *out)
{
    if (t->state != TLS_OPEN && t->state != TLS_ENDED)
        return;
    ERR_clear_error();
    t->dst = out;
    SSL_shutdown(t->ssl);
    t->dst = NULL;
    ERR_clear_error();
}

static enum tls_state state(const struct tls *t)
{
    return (enum tls_state)t->state;
}

static const char *reason(const struct tls *t)
{
    return t->reason;
}

/* ---- facts ---- */

static size_t bio_length(BIO *b)
{
    char *p;
    long n = BIO_get_mem_data(b, &p);
    return n > 0 ? (size_t)n : 0;
}

/* Both names and the certificate's text, in one block behind `peer`. */
static void describe_peer(struct tls *t, X509 *cert)
{
    /* Bytes above 127 stay as they are (UTF-8), control characters are escaped. */
    unsigned long how = (XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
    BIO *b = BIO_new(BIO_s_mem());
    size_t ends[3] = {0};
    bool ok = b && X509_NAME_print_ex(b, X509_get_subject_name(cert), 0, how) >= 0;
    if (ok)
        ends[0] = bio_length(b);
    ok = ok && X509_NAME_print_ex(b, X509_get_issuer_name(cert), 0, how) >= 0;
    if (ok)
        ends[1] = bio_length(b);
    ok = ok && PEM_write_bio_X509(b, cert) == 1;
    if (ok)
        ends[2] = bio_length(b);
    t->peer = ok ? malloc(ends[2] + 1) : NULL;
    if (t->peer && BIO_read(b, t->peer, (int)ends[2]) == (int)ends[2]) {
        t->facts.subject = slice_of(t->peer, ends[0]);
        t->facts.issuer = slice_of(t->peer + ends[0], ends[1] - ends[0]);
        t->facts.cert = slice_of(t->peer + ends[1], ends[2] - ends[1]);
    }
    BIO_free(b);
}

static const struct tls_facts *facts(struct tls *t)
{
    struct tls_facts *f = &t->facts;
    if (t->facts_known)
        return f;
    t->facts_known = true;
    f->protocol = SSL_get_version(t->ssl);
    f->cipher = SSL_get_cipher_name(t->ssl);
    f->verify = "NONE";
    X509 *cert = SSL_get1_peer_certificate(t->ssl);
    if (!cert)
        return f;
    long result = SSL_get_verify_result(t->ssl);
    if (result == X509_V_OK) {
        f->verify = "SUCCESS";
        describe_peer(t, cert);
    } else {
        snprintf(t->why, sizeof t->why, "FAILED:%s", X509_verify_cert_error_string(result));
        f->verify = t->why;
    }
    X509_free(cert);
    ERR_clear_error();
    return f;
}

/* ---- the table ---- */

extern const struct tls_lib weir_tls_lib;

__attribute__((visibility("default"))) const struct tls_lib weir_tls_lib = {
    .head = {WEIR_VERSION, sizeof(struct conf)},
    .context_new = context_new,
    .context_free = context_free,
    .make = make,
    .free = tls_free_,
    .take = take,
    .seal = seal,
    .bye = bye,
    .state = state,
    .reason = reason,
    .facts = facts,
};
