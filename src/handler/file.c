/* file: see the header. */
#include "handler/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "handler/date.h"
#include "handler/file_ask.h"
#include "handler/mime.h"

static const char INDEX[] = "index.html";
/* Up to this a file is copied behind its head and leaves with it in one write. */
#define COPY_BYTES_MAX (32 * 1024)
/* A younger file may change once more within the same tick of its time stamp. */
static const int64_t SETTLED_NS = 2000000000;
/* The kernel asks to try again when something was renamed while it looked. */
static const int TRIES_MAX = 8;

/* ---- opening ---- */

static int open_beneath(int folder, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd = -1;
    for (int i = 0; i < TRIES_MAX; i++) {
        fd = syscall(SYS_openat2, folder, path, &how, sizeof how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return fd < 0 ? -errno : (int)fd;
}

/* The same without openat2: folder by folder, and no links. */
static int open_stepwise(int folder, const char *path, uint64_t flags)
{
    int at = folder, fd;
    char name[256];
    for (;;) {
        size_t n = strcspn(path, "/");
        bool last = !path[n];
        if (n >= sizeof name) {
            fd = -ENAMETOOLONG;
            break;
        }
        memcpy(name, path, n);
        name[n] = 0;
        fd = openat(at, name,
                    last ? (int)flags | O_NOFOLLOW : O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            fd = -errno;
        if (fd < 0 || last)
            break;
        if (at != folder)
            close(at);
        at = fd;
        path += n + 1;
    }
    if (at != folder)
        close(at);
    return fd;
}

/* A descriptor for reading, or -errno. Not blocking: a FIFO without a writer must not stop the
 * loop. */
static int open_below(const struct file_root *root, int folder, const char *path)
{
    const uint64_t flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    return root->stepwise ? open_stepwise(folder, path, flags) : open_beneath(folder, path, flags);
}

/* Open a regular file. -EISDIR: a folder; -ENOENT: something else, as a socket. */
static int open_regular(const struct file_root *root, int folder, const char *path, struct stat *st)
{
    int fd = open_below(root, folder, path);
    if (fd < 0)
        return fd;
    int rc = fstat(fd, st)          ? -errno
             : S_ISREG(st->st_mode) ? 0
             : S_ISDIR(st->st_mode) ? -EISDIR
                                    : -ENOENT;
    if (!rc)
        return fd;
    close(fd);
    return rc;
}

int file_root_init(struct file_root *root, const char *folder, int64_t max_age_s,
                   const char *source, struct err *e)
{
    *root = (struct file_root){0};
    if (max_age_s)
        snprintf(root->cache_control, sizeof root->cache_control, "public, max-age=%" PRId64,
                 max_age_s);
    else
        snprintf(root->cache_control, sizeof root->cache_control, "no-cache");

    char *cwd = folder[0] == '/' ? NULL : getcwd(NULL, 0);
    int n = folder[0] == '/' ? asprintf(&root->folder, "%s", folder)
            : cwd            ? asprintf(&root->folder, "%s/%s", cwd, folder)
                             : -1;
    free(cwd);
    if (n < 0) {
        root->folder = NULL;
        return err_set(e, "%s: '%.300s': %s", source, folder, strerror(errno));
    }
    int fd = open(root->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int probe = fd < 0 ? -errno : open_beneath(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    /* A sandbox of its own time may refuse what it does not know. */
    root->stepwise = probe == -ENOSYS || probe == -EPERM;
    if (probe >= 0)
        close(probe);
    if (fd < 0) {
        file_root_fini(root);
        return err_set(e, "%s: the folder '%.300s': %s", source, folder, strerror(-probe));
    }
    close(fd);
    return 0;
}

void file_root_fini(struct file_root *root)
{
    free(root->folder);
    root->folder = NULL;
}

/* ---- answers that are no file ---- */

static bool field(struct call *c, struct slice name, const char *value)
{
    return call_field(c, name, slice_str(value)) == CALL_OK;
}

/* A short text, with one field more (name.n 0: none). */
static void plain(struct call *c, int status, struct slice name, const char *value,
                  const char *text)
{
    char code[4], body[200];
    snprintf(code, sizeof code, "%d", status);
    int n = snprintf(body, sizeof body, "%s %s: %s\n", code, handler_reason(status), text);
    bool ok = call_status(c, slice_str(code)) == CALL_OK && (!name.n || field(c, name, value)) &&
              field(c, SLICE("Content-Type"), "text/plain; charset=utf-8") &&
              field(c, SLICE("X-Content-Type-Options"), "nosniff");
    if (!ok || call_begin(c, n) || call_data(c, slice_of(body, (size_t)n)) || call_end(c))
        call_abort(c, "out of memory");
}

static void not_found(struct call *c)
{
    plain(c, 404, (struct slice){0}, NULL, "there is no such file");
}

/* What a failed open means to the client, and to the log where somebody has to do something. */
static void not_opened(struct call *c, const struct file_root *root, const char *path, int rc)
{
    switch (-rc) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        log_flood(LOG_ERROR, c->id, "cannot open %s/%s: %s", root->folder, path, strerror(-rc));
        plain(c, 503, SLICE("Retry-After"), "1", "the server cannot open the file now");
        return;
    case EACCES:
    case EIO:
        log_flood(LOG_WARNING, c->id, "cannot open %s/%s: %s", root->folder, path, strerror(-rc));
        break;
    case EXDEV:
    case ELOOP:
        log_flood(LOG_WARNING, c->id, "%s/%s is a link that is not followed%s", root->folder, path,
                  root->stepwise ? "; this kernel has no openat2" : ": it leads out of its folder");
        break;
    default:
        break;
    }
    not_found(c);
}

/* The same address with a slash behind it, so that relative links in index.html work. */
static void redirect(struct call *c)
{
    struct slice path = c->req->path, query = c->req->query;
    size_t n = path.n + query.n + 3;
    char *to = arena_alloc(c->arena, n);
    if (!to) {
        call_error(c, 503, "out of memory");
        return;
    }
    snprintf(to, n, "%.*s/%s%.*s", (int)path.n, path.p, query.n ? "?" : "", (int)query.n,
             query.p ? query.p : "");
    plain(c, 301, SLICE("Location"), to, "this is a folder");
}

/* ---- a file ---- */

struct found {
    int fd; /* owned; -1 = none */
    struct stat st;
    struct mime_type type;
    enum file_coding coding;
    bool varies;      /* there is more than one coding of it */
    int64_t modified; /* seconds; never in the future */
    bool settled;     /* old enough that its time and size tell whether it changed */
    char etag[64];
    char date[DATE_BYTES + 1];
};

/* Take a precompressed neighbour when the client prefers it. The path is extended and cut again. */
static void choose_coding(struct call *c, const struct file_root *root, int folder, char *path,
                          struct found *f)
{
    static const struct {
        enum file_coding coding;
        const char *extension;
    } neighbours[] = {{FILE_BR, ".br"}, {FILE_GZIP, ".gz"}};
    struct file_codings asked = FILE_CODINGS_NONE;
    size_t n = strlen(path);
    if (f->type.dense || n + 4 > FILE_PATH_BYTES_MAX)
        return;
    for (unsigned i = 0; i < c->req->n_fields; i++)
        if (slice_ieq(c->req->fields[i].name, SLICE("accept-encoding")))
            file_codings_add(&asked, c->req->fields[i].value);
    int best = file_coding_weight(&asked, FILE_IDENTITY);
    for (size_t i = 0; i < countof(neighbours); i++) {
        struct stat st;
        memcpy(path + n, neighbours[i].extension, strlen(neighbours[i].extension) + 1);
        int fd = open_regular(root, folder, path, &st);
        if (fd < 0)
            continue;
        f->varies = true;
        int weight = file_coding_weight(&asked, neighbours[i].coding);
        /* Between equals the shorter one, which is the first of the list and never the plain one.
         */
        if (weight > 0 && (weight > best || (weight == best && f->coding == FILE_IDENTITY))) {
            close(f->fd);
            f->fd = fd;
            f->st = st;
            f->coding = neighbours[i].coding;
            best = weight;
        } else {
            close(fd);
        }
    }
    path[n] = 0;
}

/* Size, time and number of the file: the time alone is set back by some tools, the number alone is
 * used again. */
static void describe(struct found *f)
{
    int64_t now_ns = clock_wall_ns();
    int64_t modified_ns = (int64_t)f->st.st_mtim.tv_sec * 1000000000 + f->st.st_mtim.tv_nsec;
    f->settled = now_ns - modified_ns >= SETTLED_NS;
    f->modified = f->st.st_mtim.tv_sec;
    if (f->modified > now_ns / 1000000000)
        f->modified = now_ns / 1000000000; /* RFC 9110 §8.8.2.1 */
    snprintf(f->etag, sizeof f->etag, "%s\"%" PRIx64 "-%" PRIx64 "-%" PRIx64 "\"",
             f->settled ? "" : "W/", (uint64_t)modified_ns, (uint64_t)f->st.st_size,
             (uint64_t)f->st.st_ino);
    date_format(f->modified, f->date);
    f->date[DATE_BYTES] = 0;
}

/* The only field of this name; .p NULL where there is none, or more than one. */
static struct slice only_field(const struct call *c, struct slice name)
{
    struct slice found = {0};
    for (unsigned i = 0; i < c->req->n_fields; i++)
        if (slice_ieq(c->req->fields[i].name, name)) {
            if (found.p)
                return (struct slice){0};
            found = c->req->fields[i].value;
            if (!found.p)
                found = SLICE("");
        }
    return found;
}

/* Is there such a field, and does one of them name the file's tag? */
static bool etag_asked(const struct call *c, struct slice name, const struct found *f, bool weak,
                       bool *matches)
{
    bool any = false;
    *matches = false;
    for (unsigned i = 0; i < c->req->n_fields; i++)
        if (slice_ieq(c->req->fields[i].name, name)) {
            any = true;
            *matches |= file_etag_listed(c->req->fields[i].value, slice_str(f->etag), weak);
        }
    return any;
}

static bool date_asked(const struct call *c, struct slice name, int64_t *second)
{
    struct slice value = only_field(c, name);
    return value.p && date_parse(value, clock_wall_ns() / 1000000000, second);
}

/* The conditions in the order of RFC 9110 §13.2.2: 0 = go on, 304 or 412. */
static int conditions(const struct call *c, const struct found *f)
{
    bool matches;
    int64_t second;
    if (etag_asked(c, SLICE("if-match"), f, false, &matches)) {
        if (!matches)
            return 412;
    } else if (date_asked(c, SLICE("if-unmodified-since"), &second) && f->modified > second) {
        return 412;
    }
    if (etag_asked(c, SLICE("if-none-match"), f, true, &matches))
        return matches ? 304 : 0;
    if (date_asked(c, SLICE("if-modified-since"), &second) && f->modified <= second)
        return 304;
    return 0;
}

/* Does If-Range allow a part? (RFC 9110 §13.1.5: only a strong validator does.) */
static bool range_allowed(const struct call *c, const struct found *f)
{
    struct slice value = only_field(c, SLICE("if-range"));
    int64_t second;
    if (!value.p) {
        bool unused;
        return !etag_asked(c, SLICE("if-range"), f, false, &unused); /* several: none holds */
    }
    if (!f->settled)
        return false;
    if (slice_eq(value, slice_str(f->etag)))
        return true;
    return date_parse(value, clock_wall_ns() / 1000000000, &second) && second == f->modified;
}

/* Fields that a 200, a 206 and a 304 have in common. */
static bool common_fields(struct call *c, const struct file_root *root, const struct found *f)
{
    return field(c, SLICE("ETag"), f->etag) && field(c, SLICE("Last-Modified"), f->date) &&
           field(c, SLICE("Cache-Control"), root->cache_control) &&
           (!f->varies || field(c, SLICE("Vary"), "Accept-Encoding"));
}

static void unmodified(struct call *c, const struct file_root *root, const struct found *f)
{
    if (call_status(c, SLICE("304")) != CALL_OK || !common_fields(c, root, f) || call_end(c))
        call_abort(c, "out of memory");
}

static void send_content(struct call *c, const struct file_root *root, struct found *f,
                         enum file_range kind, uint64_t first, uint64_t n)
{
    static const char *const codings[] = {[FILE_GZIP] = "gzip", [FILE_BR] = "br"};
    char part[80], copy[COPY_BYTES_MAX];
    uint64_t size = (uint64_t)f->st.st_size;
    bool copied = n <= sizeof copy && !c->req->head;
    /* Before the head is made, so that what fails can still be said. */
    if (copied && n && pread(f->fd, copy, (size_t)n, (off_t)first) != (ssize_t)n) {
        plain(c, 503, SLICE("Retry-After"), "1", "the file is being changed");
        return;
    }
    snprintf(part, sizeof part, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, first, first + n - 1,
             size);
    bool ok =
        call_status(c, kind == FILE_PART ? SLICE("206") : SLICE("200")) == CALL_OK &&
        call_field(c, SLICE("Content-Type"), f->type.text) == CALL_OK &&
        field(c, SLICE("X-Content-Type-Options"), "nosniff") && common_fields(c, root, f) &&
        field(c, SLICE("Accept-Ranges"), "bytes") &&
        (f->coding == FILE_IDENTITY || field(c, SLICE("Content-Encoding"), codings[f->coding])) &&
        (kind != FILE_PART || field(c, SLICE("Content-Range"), part));
    if (!ok || call_begin(c, (int64_t)n)) {
        call_abort(c, "out of memory");
        return;
    }
    int rc;
    if (copied) {
        rc = call_data(c, slice_of(copy, (size_t)n));
    } else {
        rc = call_file(c, f->fd, (int64_t)first, n);
        f->fd = -1;
    }
    if (rc || call_end(c))
        call_abort(c, "out of memory");
}

static void answer_found(struct call *c, const struct file_root *root, struct found *f)
{
    describe(f);
    int status = conditions(c, f);
    if (status == 304) {
        unmodified(c, root, f);
        return;
    }
    if (status) {
        plain(c, status, SLICE("ETag"), f->etag, "the file is another one by now");
        return;
    }
    uint64_t size = (uint64_t)f->st.st_size, first = 0, n = size;
    enum file_range kind = FILE_WHOLE;
    struct slice range = only_field(c, SLICE("range"));
    if (range.p && !c->req->head && range_allowed(c, f))
        kind = file_range(range, size, &first, &n);
    switch (kind) {
    case FILE_NO_PART: {
        char whole[40];
        snprintf(whole, sizeof whole, "bytes */%" PRIu64, size);
        plain(c, 416, SLICE("Content-Range"), whole, "the file is shorter");
        return;
    }
    case FILE_WHOLE:
        first = 0;
        n = size;
        break;
    case FILE_PART:
        break;
    }
    send_content(c, root, f, kind, first, n);
}

/* `path` is decoded and has room for index.html and an extension; `slashed`: a folder was asked for
 * by its slash. */
static void answer_below(struct call *c, const struct file_root *root, int folder, char *path,
                         bool slashed)
{
    struct found f = {.fd = -1};
    size_t n = strlen(path);
    bool is_folder = slashed || n == 0;
    if (!is_folder) {
        f.fd = open_regular(root, folder, path, &f.st);
        is_folder = f.fd == -EISDIR;
    }
    if (is_folder) {
        if (n + 1 + sizeof INDEX > FILE_PATH_BYTES_MAX) {
            not_found(c);
            return;
        }
        snprintf(path + n, sizeof INDEX + 1, "%s%s", n && !slashed ? "/" : "", INDEX);
        f.fd = open_regular(root, folder, path, &f.st);
    }
    if (f.fd < 0) {
        not_opened(c, root, path, f.fd);
        return;
    }
    if (is_folder && !slashed) {
        redirect(c);
    } else {
        f.type = mime_of(slice_str(path));
        choose_coding(c, root, folder, path, &f);
        answer_found(c, root, &f);
    }
    if (f.fd >= 0)
        close(f.fd);
}

void file_answer(struct call *c, const struct file_root *root, struct slice rest)
{
    char path[FILE_PATH_BYTES_MAX];
    if (!c->req->head && !slice_eq(c->req->method, SLICE("GET"))) {
        plain(c, 405, SLICE("Allow"), "GET, HEAD", "a file is only read");
        return;
    }
    if (!file_path(rest, path)) {
        not_found(c);
        return;
    }
    int folder = open(root->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        not_opened(c, root, "", -errno);
        return;
    }
    answer_below(c, root, folder, path, rest.n && rest.p[rest.n - 1] == '/');
    close(folder);
}
