/*
 * quota: see the header.
 *
 * Two tables. `counts` has one row for each user, route and period; a period is a day (days since
 * 1970) or a month (months since year 0), so what is over stays as it was and a clock that goes
 * back finds its day again. `ops` has one row for each operation, in the order of their arrival:
 * the oldest are found without an index over time.
 *
 * The write-ahead log is copied into the file after a commit that made it long, never by itself.
 */
#include "store/quota.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/must.h"

static const int APPLICATION_ID = 0x57724b70; /* "WrKp" */
static const int SCHEMA_VERSION = 1;
/* 31 December 9999, 23:59:59. */
static const int64_t NOW_S_MAX = 253402300799;
/* No count gets near; a file that says more is not ours. Sums of it stay far from overflow. */
#define COUNT_MAX "1000000000000"
static const int64_t OP_AGE_S = 86400;
/* Counts that nobody can ask for any more: also a clock that is a month wrong does no harm. */
static const int64_t DAYS_KEPT = 62;
static const int64_t MONTHS_KEPT = 13;
/* Rows that one quota_tidy looks at in each table. */
#define TIDY_ROWS "256"
static const int TIDY_MOST = 256;
/* Pages of 4 KiB in the log that make a checkpoint worth while: 4 MiB. */
static const int WAL_PAGES = 1000;
/* The whole file is looked through at the start when it is not larger: at 500 MB/s half a second.
 */
static const int64_t CHECK_BYTES_MAX = 256 << 20;
/* Another process has the file: a binary upgrade. Its groups take milliseconds. */
static const int64_t LOCK_WAIT_MS = 1000;
static const int64_t LOCK_LOOK_NS = 1000000;

static const char *const TABLES[] = {
    "CREATE TABLE counts (user TEXT NOT NULL, route TEXT NOT NULL, kind INTEGER NOT NULL CHECK "
    "(kind IN (0, 1)), period INTEGER NOT NULL, n INTEGER NOT NULL CHECK (n BETWEEN 0 "
    "AND " COUNT_MAX "), PRIMARY KEY (user, route, kind, period)) STRICT, WITHOUT ROWID",
    "CREATE TABLE ops (seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE CHECK (length(id) = 16), "
    "at_s INTEGER NOT NULL, refunded INTEGER NOT NULL CHECK (refunded IN (0, 1)), user TEXT NOT "
    "NULL, route TEXT NOT NULL, day INTEGER NOT NULL, month INTEGER NOT NULL, day_n INTEGER NOT "
    "NULL, month_n INTEGER NOT NULL) STRICT",
};

enum { KIND_DAY = 0, KIND_MONTH = 1 };

enum statement {
    S_BEGIN = 0,
    S_COMMIT,
    S_ROLLBACK,
    S_OP_FIND,
    S_OP_ADD,
    S_OP_REFUND,
    S_COUNT,
    S_COUNT_UP,
    S_COUNT_DOWN,
    S_USAGE,
    S_TIDY_OPS,
    S_TIDY_END,
    S_TIDY_COUNTS,
    STATEMENTS,
};

static const char *const SQL[STATEMENTS] = {
    [S_BEGIN] = "BEGIN IMMEDIATE",
    [S_COMMIT] = "COMMIT",
    [S_ROLLBACK] = "ROLLBACK",
    [S_OP_FIND] = "SELECT day, month, day_n, month_n, refunded, user, route FROM ops WHERE id = ?1",
    [S_OP_ADD] = "INSERT INTO ops (id, at_s, refunded, user, route, day, month, day_n, month_n) "
                 "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [S_OP_REFUND] = "UPDATE ops SET refunded = 1 WHERE id = ?1",
    [S_COUNT] = "SELECT n FROM counts WHERE user = ?1 AND route = ?2 AND kind = ?3 AND period = ?4",
    [S_COUNT_UP] = "INSERT INTO counts (user, route, kind, period, n) VALUES (?1, ?2, ?3, ?4, 1) "
                   "ON CONFLICT DO UPDATE SET n = n + 1",
    [S_COUNT_DOWN] = "UPDATE counts SET n = n - 1 WHERE user = ?1 AND route = ?2 AND kind = ?3 AND "
                     "period = ?4 AND n > 0",
    [S_USAGE] = "SELECT route, kind, n FROM counts WHERE user = ?1 AND period = CASE kind WHEN 0 "
                "THEN ?2 ELSE ?3 END ORDER BY route, kind",
    [S_TIDY_OPS] = "DELETE FROM ops WHERE seq IN (SELECT seq FROM ops ORDER BY seq LIMIT " TIDY_ROWS
                   ") AND at_s < ?1",
    [S_TIDY_END] =
        "SELECT user, route, kind, period FROM counts WHERE (user, route, kind, period) "
        "> (?1, ?2, ?3, ?4) ORDER BY user, route, kind, period LIMIT 1 OFFSET " TIDY_ROWS,
    [S_TIDY_COUNTS] =
        "DELETE FROM counts WHERE (user, route, kind, period) > (?1, ?2, ?3, ?4) AND (?5 IS NULL "
        "OR (user, route, kind, period) <= (?5, ?6, ?7, ?8)) AND period < CASE kind WHEN 0 THEN ?9 "
        "ELSE ?10 END",
};

/* A row of `counts` up to which quota_tidy has come. */
#define NAME_BYTES 1024
struct place {
    char user[NAME_BYTES], route[NAME_BYTES];
    size_t user_bytes, route_bytes;
    int64_t kind, period;
};

struct quota_store {
    sqlite3 *db;                    /* owned */
    sqlite3_stmt *stmt[STATEMENTS]; /* owned */
    char *path;                     /* owned */
    int lock_fd;                    /* owned; -1: in memory */
    dev_t dev;                      /* of the file that is open */
    ino_t ino;
    int wal_pages; /* after the last commit */
    bool in_group;
    struct place tidy;  /* the next round of quota_tidy begins behind it */
    struct err trouble; /* the last failure */
};

/* ---- errors ---- */

/* What SQLite's code is as errno. */
static int errno_of(sqlite3 *db, int rc)
{
    int system = db ? sqlite3_system_errno(db) : 0;
    switch (rc & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
    case SQLITE_CONSTRAINT: /* the counts in it are none that we write */
    case SQLITE_MISMATCH:
    case SQLITE_ERROR: /* its tables are not ours */
    case SQLITE_SCHEMA:
        return -EUCLEAN;
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_READONLY:
        return system ? -system : -EROFS;
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return system ? -system : -EACCES;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        return -EBUSY;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_TOOBIG:
        return -E2BIG;
    default:
        return system == ENOSPC || system == EDQUOT || system == EFBIG ? -system : -EIO;
    }
}

static const char *cure(int error)
{
    switch (error) {
    case -EUCLEAN:
        return "move the file away (with its -wal) and restore a copy, or let Weir make a new one";
    case -ENOSPC:
    case -EDQUOT:
    case -EFBIG:
        return "make room; nothing that was counted is lost";
    case -EROFS:
    case -EACCES:
    case -EPERM:
        return "give the file and its folder to the user that the workers run as";
    case -ENOENT:
    case -ENOTDIR:
        return "make its folder";
    case -EISDIR:
        return "name a file";
    case -EBUSY:
        return "end the other program that has it open";
    default:
        return "look at the disk";
    }
}

/* Note what went wrong; the negative errno. */
static int fail(struct quota_store *q, int rc)
{
    int error = errno_of(q->db, rc);
    const char *text = error == -EUCLEAN || error == -EBUSY || error == -ENOMEM ? sqlite3_errstr(rc)
                                                                                : strerror(-error);
    err_set(&q->trouble, "the quota store %s cannot be used: %s; %s", q->path, text, cure(error));
    return error;
}

static int fail_errno(struct quota_store *q, int error)
{
    err_set(&q->trouble, "the quota store %s cannot be used: %s; %s", q->path, strerror(-error),
            cure(error));
    return error;
}

/* ---- the lock between processes ---- */

static int lock(struct quota_store *q)
{
    if (q->lock_fd < 0)
        return 0;
    int64_t until_ns = 0;
    while (flock(q->lock_fd, LOCK_EX | LOCK_NB)) {
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK)
            return fail_errno(q, -errno);
        int64_t now_ns = clock_mono_ns();
        if (!until_ns)
            until_ns = now_ns + LOCK_WAIT_MS * 1000000;
        if (now_ns >= until_ns)
            return fail_errno(q, -EBUSY);
        nanosleep(&(struct timespec){.tv_nsec = LOCK_LOOK_NS}, NULL);
    }
    return 0;
}

static void unlock(const struct quota_store *q)
{
    if (q->lock_fd >= 0)
        (void)flock(q->lock_fd, LOCK_UN);
}

/* ---- statements ---- */

static int bind_text(sqlite3_stmt *s, int at, struct slice text)
{
    return sqlite3_bind_text64(s, at, text.n ? text.p : "", text.n, SQLITE_STATIC, SQLITE_UTF8);
}

/* What was bound is ours and there until done. */
static int bind(sqlite3_stmt *s, int at, int64_t v)
{
    return sqlite3_bind_int64(s, at, v);
}

static void done(sqlite3_stmt *s)
{
    (void)sqlite3_reset(s); /* the error of the last step again */
    (void)sqlite3_clear_bindings(s);
}

/* A statement that gives no rows; 0 or a code of SQLite. */
static int run(sqlite3_stmt *s)
{
    int rc = sqlite3_step(s);
    done(s);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : rc;
}

static int bind_count(sqlite3_stmt *s, struct slice user, struct slice route, int kind,
                      int64_t period)
{
    int rc = bind_text(s, 1, user);
    rc = rc ? rc : bind_text(s, 2, route);
    rc = rc ? rc : bind(s, 3, kind);
    return rc ? rc : bind(s, 4, period);
}

/* ---- periods ---- */

struct periods {
    int64_t day;   /* since 1970 */
    int64_t month; /* year * 12 + month from 0 */
};

/* The first day of a month, counted from 1970 (Gregorian; years from March, so that a leap day is
 * the last). */
static int64_t month_begins(int64_t month)
{
    int64_t year = month / 12, m = month % 12;
    int64_t y = m < 2 ? year - 1 : year;
    int64_t from_march = (m + 10) % 12;
    int64_t era = y / 400, of_era = y % 400;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * from_march + 2) / 5 -
           719468;
}

static struct periods periods_of(int64_t now_s)
{
    struct periods p = {.day = now_s / 86400};
    /* At most one too late: a year has 365.2425 days. */
    p.month = 1970 * 12 + p.day * 4800 / 146097;
    while (month_begins(p.month) > p.day)
        p.month--;
    while (month_begins(p.month + 1) <= p.day)
        p.month++;
    return p;
}

static void use_ends(struct quota_use *use, struct periods p)
{
    use->day_ends_s = (p.day + 1) * 86400;
    use->month_ends_s = month_begins(p.month + 1) * 86400;
}

/* ---- opening ---- */

static int exec(struct quota_store *q, const char *sql)
{
    return sqlite3_exec(q->db, sql, NULL, NULL, NULL);
}

/* One number or text of the first row; 0 or a code of SQLite. `text` may be NULL. */
static int ask(struct quota_store *q, const char *sql, int64_t *number, char *text, size_t room)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(q->db, sql, -1, &s, NULL);
    if (rc)
        return rc;
    rc = sqlite3_step(s);
    *number = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    if (text) {
        const unsigned char *t = rc == SQLITE_ROW ? sqlite3_column_text(s, 0) : NULL;
        snprintf(text, room, "%s", t ? (const char *)t : "");
    }
    (void)sqlite3_finalize(s);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : rc;
}

static int foreign(struct quota_store *q, const char *what)
{
    err_set(&q->trouble, "%s is %s; name another file as quota store", q->path, what);
    return -EUCLEAN;
}

/* Are the tables those that we make? */
static int look_at_schema(struct quota_store *q)
{
    char text[1024];
    int64_t n;
    for (size_t i = 0; i < countof(TABLES); i++) {
        char sql[128];
        snprintf(sql, sizeof sql,
                 "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = '%s'",
                 i == 0 ? "counts" : "ops");
        int rc = ask(q, sql, &n, text, sizeof text);
        if (rc)
            return fail(q, rc);
        if (strcmp(text, TABLES[i]) != 0)
            return fail(q, SQLITE_CORRUPT);
    }
    int rc = ask(q,
                 "SELECT count(*) FROM sqlite_schema WHERE type IN ('trigger', 'view') OR "
                 "type = 'index' AND sql IS NOT NULL",
                 &n, NULL, 0);
    if (rc)
        return fail(q, rc);
    return n ? fail(q, SQLITE_CORRUPT) : 0;
}

static int look_through(struct quota_store *q)
{
    int64_t pages = 0, page_bytes = 0, n;
    char text[64];
    int rc = ask(q, "PRAGMA page_count", &pages, NULL, 0);
    rc = rc ? rc : ask(q, "PRAGMA page_size", &page_bytes, NULL, 0);
    if (rc)
        return fail(q, rc);
    if (pages > CHECK_BYTES_MAX / 4096 || pages * page_bytes > CHECK_BYTES_MAX)
        return 0;
    rc = ask(q, "PRAGMA quick_check(1)", &n, text, sizeof text);
    if (rc)
        return fail(q, rc);
    return strcmp(text, "ok") == 0 ? 0 : fail(q, SQLITE_CORRUPT);
}

static int make_tables(struct quota_store *q)
{
    char sql[96];
    int rc = exec(q, "BEGIN IMMEDIATE");
    for (size_t i = 0; !rc && i < countof(TABLES); i++)
        rc = exec(q, TABLES[i]);
    snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %d",
             APPLICATION_ID, SCHEMA_VERSION);
    rc = rc ? rc : exec(q, sql);
    rc = rc ? rc : exec(q, "COMMIT");
    if (rc) {
        int error = fail(q, rc); /* before the next call changes what SQLite remembers */
        (void)exec(q, "ROLLBACK");
        return error;
    }
    return 0;
}

/* Ours, or new and then made ours. */
static int look_at_file(struct quota_store *q)
{
    int64_t id = 0, version = 0, tables = 0;
    int rc = ask(q, "PRAGMA application_id", &id, NULL, 0);
    rc = rc ? rc : ask(q, "PRAGMA user_version", &version, NULL, 0);
    rc = rc ? rc : ask(q, "SELECT count(*) FROM sqlite_schema", &tables, NULL, 0);
    if (rc)
        return fail(q, rc);
    if (id == 0 && version == 0 && tables == 0)
        return make_tables(q);
    if (id != APPLICATION_ID)
        return foreign(q, "a database of another program");
    if (version > SCHEMA_VERSION)
        return foreign(q, "a quota store of a newer version of Weir");
    int error = look_at_schema(q);
    return error ? error : look_through(q);
}

static int on_commit(void *arg, sqlite3 *db, const char *name, int pages)
{
    struct quota_store *q = arg;
    (void)db;
    (void)name;
    q->wal_pages = pages;
    return SQLITE_OK;
}

static int configure(struct quota_store *q)
{
    char mode[16];
    int64_t n;
    (void)sqlite3_extended_result_codes(q->db, 1);
    (void)sqlite3_busy_timeout(q->db, (int)LOCK_WAIT_MS);
    (void)sqlite3_db_config(q->db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
    (void)sqlite3_db_config(q->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, (int *)NULL);
    int rc =
        exec(q, "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY");
    rc = rc ? rc : ask(q, "PRAGMA journal_mode = WAL", &n, mode, sizeof mode);
    if (rc)
        return fail(q, rc);
    if (strcmp(mode, "wal") != 0 && q->lock_fd >= 0) {
        err_set(&q->trouble,
                "the quota store %s cannot be used: its file system has no shared memory for a "
                "write-ahead log; put it on a local disk",
                q->path);
        return -ENOTSUP;
    }
    rc = exec(q, "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0");
    if (rc)
        return fail(q, rc);
    (void)sqlite3_wal_hook(q->db, on_commit, q);
    return 0;
}

static int open_lock(struct quota_store *q)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s-lock", q->path);
    if (n < 0 || (size_t)n >= sizeof path)
        return fail_errno(q, -ENAMETOOLONG);
    q->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return q->lock_fd < 0 ? fail_errno(q, -errno) : lock(q);
}

static int open_file(struct quota_store *q)
{
    struct stat st;
    if (stat(q->path, &st) == 0 && !S_ISREG(st.st_mode))
        return fail_errno(q, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL);
    mode_t before = umask(0077);
    int rc = sqlite3_open_v2(
        q->path, &q->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    int error = rc ? fail(q, rc) : configure(q);
    error = error ? error : look_at_file(q);
    (void)umask(before);
    if (!error && stat(q->path, &st) == 0) {
        q->dev = st.st_dev;
        q->ino = st.st_ino;
    }
    return error;
}

int quota_open(struct quota_store **out, const char *path, struct err *e)
{
    struct quota_store *q = calloc(1, sizeof *q);
    *out = NULL;
    if (q) {
        q->lock_fd = -1;
        q->path = strdup(path);
    }
    if (!q || !q->path) {
        free(q);
        err_set(e, "out of memory");
        return -ENOMEM;
    }
    q->tidy.kind = -1;
    int error = strcmp(path, ":memory:") == 0 ? 0 : open_lock(q);
    error = error ? error : open_file(q);
    for (int i = 0; !error && i < STATEMENTS; i++) {
        int rc =
            sqlite3_prepare_v3(q->db, SQL[i], -1, SQLITE_PREPARE_PERSISTENT, &q->stmt[i], NULL);
        if (rc)
            error = fail(q, rc);
    }
    if (error) {
        if (e)
            *e = q->trouble;
        quota_close(&q);
        return error;
    }
    unlock(q);
    *out = q;
    return 0;
}

/* Is the file that we write still the one of that name? */
static bool is_there(const struct quota_store *q)
{
    struct stat st;
    return !q->ino || (stat(q->path, &st) == 0 && st.st_dev == q->dev && st.st_ino == q->ino);
}

void quota_close(struct quota_store **qp)
{
    struct quota_store *q = *qp;
    *qp = NULL;
    if (!q)
        return;
    quota_rollback(q);
    for (int i = 0; i < STATEMENTS; i++)
        (void)sqlite3_finalize(q->stmt[i]);
    /* The last one to close copies the log into the file and removes it: only under the lock, and
     * never another file's. Left where it is it is read at the next start. */
    if (q->db && (!is_there(q) || lock(q)))
        (void)sqlite3_db_config(q->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    int rc = sqlite3_close(q->db);
    must(rc == SQLITE_OK);
    if (q->lock_fd >= 0)
        close(q->lock_fd);
    free(q->path);
    free(q);
}

/* ---- groups ---- */

int quota_begin(struct quota_store *q)
{
    must(!q->in_group);
    int error = lock(q);
    if (error)
        return error;
    int rc = run(q->stmt[S_BEGIN]);
    if (rc) {
        error = fail(q, rc);
        unlock(q);
        return error;
    }
    q->in_group = true;
    return 0;
}

void quota_rollback(struct quota_store *q)
{
    if (!q->in_group)
        return;
    q->in_group = false;
    /* Where SQLite has done so by itself there is nothing to roll back. */
    if (!sqlite3_get_autocommit(q->db))
        (void)run(q->stmt[S_ROLLBACK]);
    unlock(q);
}

/* A failure here loses nothing: the log is read until it was copied, and the next one tries again.
 */
static void checkpoint(struct quota_store *q)
{
    if (q->wal_pages < WAL_PAGES)
        return;
    int pages = -1, copied = -1;
    int rc = sqlite3_wal_checkpoint_v2(q->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &copied);
    if (rc == SQLITE_OK && pages == copied)
        q->wal_pages = 0;
}

int quota_commit(struct quota_store *q)
{
    must(q->in_group);
    int rc = run(q->stmt[S_COMMIT]);
    if (rc) {
        int error = fail(q, rc);
        quota_rollback(q);
        return error;
    }
    q->in_group = false;
    checkpoint(q);
    unlock(q);
    q->trouble.text[0] = '\0';
    return 0;
}

/* ---- operations ---- */

/* What is known of an operation. */
struct known {
    bool is, refunded;
    struct periods p;
    int64_t day_n, month_n;
};

/* Leaves the statement at its row, for user and route; done() follows. */
static int find_op(struct quota_store *q, const struct quota_op *op, struct known *out)
{
    sqlite3_stmt *s = q->stmt[S_OP_FIND];
    *out = (struct known){0};
    int rc = sqlite3_bind_blob(s, 1, op->id, sizeof op->id, SQLITE_STATIC);
    if (rc)
        return fail(q, rc);
    rc = sqlite3_step(s);
    if (rc == SQLITE_DONE)
        return 0;
    if (rc != SQLITE_ROW)
        return fail(q, rc);
    out->is = true;
    out->p = (struct periods){sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1)};
    out->day_n = sqlite3_column_int64(s, 2);
    out->month_n = sqlite3_column_int64(s, 3);
    out->refunded = sqlite3_column_int64(s, 4) != 0;
    return 0;
}

static int add_op(struct quota_store *q, const struct quota_op *op, int64_t now_s, bool refunded,
                  struct slice user, struct slice route, struct periods p,
                  const struct quota_use *use)
{
    sqlite3_stmt *s = q->stmt[S_OP_ADD];
    int rc = sqlite3_bind_blob(s, 1, op->id, sizeof op->id, SQLITE_STATIC);
    rc = rc ? rc : bind(s, 2, now_s);
    rc = rc ? rc : bind(s, 3, refunded);
    rc = rc ? rc : bind_text(s, 4, user);
    rc = rc ? rc : bind_text(s, 5, route);
    rc = rc ? rc : bind(s, 6, p.day);
    rc = rc ? rc : bind(s, 7, p.month);
    rc = rc ? rc : bind(s, 8, use->day);
    rc = rc ? rc : bind(s, 9, use->month);
    rc = rc ? rc : run(s);
    return rc ? fail(q, rc) : 0;
}

static int count(struct quota_store *q, struct slice user, struct slice route, int kind,
                 int64_t period, int64_t *n)
{
    sqlite3_stmt *s = q->stmt[S_COUNT];
    int rc = bind_count(s, user, route, kind, period);
    if (!rc) {
        rc = sqlite3_step(s);
        *n = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
        rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : rc;
    }
    int error = rc ? fail(q, rc) : 0;
    done(s);
    return error;
}

static int change(struct quota_store *q, enum statement which, struct slice user,
                  struct slice route, struct periods p)
{
    int rc = bind_count(q->stmt[which], user, route, KIND_DAY, p.day);
    rc = rc ? rc : run(q->stmt[which]);
    rc = rc ? rc : bind_count(q->stmt[which], user, route, KIND_MONTH, p.month);
    rc = rc ? rc : run(q->stmt[which]);
    return rc ? fail(q, rc) : 0;
}

int quota_spend(struct quota_store *q, struct quota_op op, struct slice user, struct slice route,
                struct quota_limits limits, int64_t now_s, enum quota_verdict *verdict,
                struct quota_use *use)
{
    must(q->in_group);
    *verdict = QUOTA_SPENT;
    *use = (struct quota_use){0};
    if (now_s < 0 || now_s > NOW_S_MAX || user.n >= NAME_BYTES || route.n >= NAME_BYTES)
        return -ERANGE;
    struct periods p = periods_of(now_s);
    struct known known;
    int error = find_op(q, &op, &known);
    done(q->stmt[S_OP_FIND]);
    if (error)
        return error;
    if (known.is) {
        *use = (struct quota_use){.day = known.day_n, .month = known.month_n};
        /* A refund that came first knows no day; a damaged file may say anything. */
        use_ends(use, known.p.month > 0 && known.p.month < 12 * 10000 && known.p.day >= 0 &&
                              known.p.day <= NOW_S_MAX / 86400
                          ? known.p
                          : p);
        return 0;
    }
    use_ends(use, p);
    error = count(q, user, route, KIND_DAY, p.day, &use->day);
    error = error ? error : count(q, user, route, KIND_MONTH, p.month, &use->month);
    if (error)
        return error;
    if (limits.day >= 0 && use->day >= limits.day)
        *verdict = QUOTA_DAY_OVER;
    else if (limits.month >= 0 && use->month >= limits.month)
        *verdict = QUOTA_MONTH_OVER;
    if (*verdict != QUOTA_SPENT)
        return 0;
    use->day++;
    use->month++;
    error = change(q, S_COUNT_UP, user, route, p);
    return error ? error : add_op(q, &op, now_s, false, user, route, p, use);
}

/* user and route are the row's of S_OP_FIND: they are gone with done(). */
static int undo(struct quota_store *q, const struct known *known)
{
    sqlite3_stmt *s = q->stmt[S_OP_FIND];
    const char *user = (const char *)sqlite3_column_text(s, 5);
    const char *route = (const char *)sqlite3_column_text(s, 6);
    if (!user || !route)
        return fail(q, SQLITE_NOMEM);
    return change(q, S_COUNT_DOWN, slice_of(user, (size_t)sqlite3_column_bytes(s, 5)),
                  slice_of(route, (size_t)sqlite3_column_bytes(s, 6)), known->p);
}

int quota_refund(struct quota_store *q, struct quota_op op, int64_t now_s)
{
    must(q->in_group);
    struct known known;
    int error = find_op(q, &op, &known);
    if (!error && known.is && !known.refunded)
        error = undo(q, &known);
    done(q->stmt[S_OP_FIND]);
    if (error || known.refunded)
        return error;
    if (!known.is)
        return add_op(q, &op, now_s, true, SLICE(""), SLICE(""), (struct periods){0},
                      &(struct quota_use){0});
    sqlite3_stmt *s = q->stmt[S_OP_REFUND];
    int rc = sqlite3_bind_blob(s, 1, op.id, sizeof op.id, SQLITE_STATIC);
    rc = rc ? rc : run(s);
    return rc ? fail(q, rc) : 0;
}

int quota_usage(struct quota_store *q, struct slice user, int64_t now_s, struct quota_row *rows,
                unsigned most, unsigned *n)
{
    *n = 0;
    if (now_s < 0 || now_s > NOW_S_MAX)
        return -ERANGE;
    struct periods p = periods_of(now_s);
    sqlite3_stmt *s = q->stmt[S_USAGE];
    int rc = bind_text(s, 1, user);
    rc = rc ? rc : bind(s, 2, p.day);
    rc = rc ? rc : bind(s, 3, p.month);
    struct quota_row *row = NULL;
    while (!rc && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        const char *route = (const char *)sqlite3_column_text(s, 0);
        char name[QUOTA_ROUTE_BYTES];
        snprintf(name, sizeof name, "%s", route ? route : "");
        if (!row || strcmp(row->route, name) != 0) {
            if (*n == most)
                break;
            row = &rows[(*n)++];
            *row = (struct quota_row){0};
            memcpy(row->route, name, sizeof name);
            use_ends(&row->use, p);
        }
        *(sqlite3_column_int64(s, 1) == KIND_DAY ? &row->use.day : &row->use.month) =
            sqlite3_column_int64(s, 2);
        rc = 0;
    }
    int error = rc == 0 || rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : fail(q, rc);
    done(s);
    return error;
}

/* ---- tidying ---- */

static int bind_place(sqlite3_stmt *s, int at, const struct place *p)
{
    int rc = bind_text(s, at, slice_of(p->user, p->user_bytes));
    rc = rc ? rc : bind_text(s, at + 1, slice_of(p->route, p->route_bytes));
    rc = rc ? rc : bind(s, at + 2, p->kind);
    return rc ? rc : bind(s, at + 3, p->period);
}

static void place_text(char to[NAME_BYTES], size_t *bytes, sqlite3_stmt *s, int column)
{
    const void *text = sqlite3_column_text(s, column);
    size_t n = text ? (size_t)sqlite3_column_bytes(s, column) : 0;
    *bytes = n < NAME_BYTES ? n : NAME_BYTES - 1;
    if (*bytes)
        memcpy(to, text, *bytes);
}

/* Where the next step over `counts` ends; *more false: at their end. */
static int tidy_end(struct quota_store *q, struct place *end, bool *more)
{
    sqlite3_stmt *s = q->stmt[S_TIDY_END];
    int rc = bind_place(s, 1, &q->tidy);
    rc = rc ? rc : sqlite3_step(s);
    *more = rc == SQLITE_ROW;
    if (*more) {
        place_text(end->user, &end->user_bytes, s, 0);
        place_text(end->route, &end->route_bytes, s, 1);
        end->kind = sqlite3_column_int64(s, 2);
        end->period = sqlite3_column_int64(s, 3);
    }
    int error = rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : fail(q, rc);
    done(s);
    return error;
}

static int tidy_counts(struct quota_store *q, struct periods p, bool *more)
{
    struct place end = {.kind = -1};
    int error = tidy_end(q, &end, more);
    if (error)
        return error;
    sqlite3_stmt *s = q->stmt[S_TIDY_COUNTS];
    int rc = bind_place(s, 1, &q->tidy);
    if (*more)
        rc = rc ? rc : bind_place(s, 5, &end);
    rc = rc ? rc : bind(s, 9, p.day - DAYS_KEPT);
    rc = rc ? rc : bind(s, 10, p.month - MONTHS_KEPT);
    rc = rc ? rc : run(s);
    if (rc)
        return fail(q, rc);
    q->tidy = end; /* or the beginning */
    return 0;
}

int quota_tidy(struct quota_store *q, int64_t now_s)
{
    if (now_s < 0 || now_s > NOW_S_MAX)
        return -ERANGE;
    if (!is_there(q)) {
        err_set(&q->trouble, "the quota store %s was removed or replaced while it was in use",
                q->path);
        return -ESTALE;
    }
    int error = quota_begin(q);
    if (error)
        return error;
    bool more = false;
    sqlite3_stmt *s = q->stmt[S_TIDY_OPS];
    int rc = bind(s, 1, now_s - OP_AGE_S);
    rc = rc ? rc : run(s);
    bool more_ops = !rc && sqlite3_changes(q->db) >= TIDY_MOST;
    error = rc ? fail(q, rc) : tidy_counts(q, periods_of(now_s), &more);
    if (error) {
        quota_rollback(q);
        return error;
    }
    error = quota_commit(q);
    return error ? error : more || more_ops;
}

const char *quota_trouble(const struct quota_store *q)
{
    return q->trouble.text;
}
