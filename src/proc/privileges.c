/* privileges: see the header. */
#include "proc/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- names ---- */

/* A number that an id can be: (uid_t)-1 means "unchanged" to the kernel. */
static bool id_of(const char *text, int base, long max, long *out)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *out = strtol(text, &end, base);
    return !*end && !errno && *out <= max;
}

static int resolve_user(struct privileges *p, const char *text, const struct passwd **pw,
                        struct err *e)
{
    long n;
    bool number = id_of(text, 10, UINT32_MAX - 1L, &n);
    errno = 0;
    *pw = number ? getpwuid((uid_t)n) : getpwnam(text);
    if (!*pw && !number)
        return err_set(e, "user: there is no user '%.100s'; give a name of /etc/passwd or a number",
                       text);
    p->uid = number ? (uid_t)n : (*pw)->pw_uid;
    return 0;
}

static int resolve_group(struct privileges *p, const char *text, struct err *e)
{
    long n;
    if (id_of(text, 10, UINT32_MAX - 1L, &n)) {
        p->gid = (gid_t)n;
        return 0;
    }
    const struct group *g = getgrnam(text);
    if (!g)
        return err_set(
            e, "group: there is no group '%.100s'; give a name of /etc/group or a number", text);
    p->gid = g->gr_gid;
    return 0;
}

/* ---- what this process may do ---- */

static bool has_capability(unsigned number)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capget, &head, data))
        return geteuid() == 0;
    return data[CAP_TO_INDEX(number)].effective & CAP_TO_MASK(number);
}

/* Is the process exactly this group, with no others? */
static bool groups_are(const struct privileges *p)
{
    gid_t real, effective, saved, now[PRIVILEGES_GROUPS_MAX];
    if (getresgid(&real, &effective, &saved) || real != p->gid || effective != p->gid ||
        saved != p->gid)
        return false;
    int n = getgroups(PRIVILEGES_GROUPS_MAX, now);
    for (int i = 0; i < n; i++) {
        bool wanted = now[i] == p->gid;
        for (unsigned k = 0; k < p->n_groups && !wanted; k++)
            wanted = now[i] == p->groups[k];
        if (!wanted)
            return false;
    }
    return n >= 0;
}

static bool user_is(uid_t uid)
{
    uid_t real, effective, saved;
    return getresuid(&real, &effective, &saved) == 0 && real == uid && effective == uid &&
           saved == uid;
}

static int resolve_umask(struct privileges *p, const char *text, struct err *e)
{
    long n;
    if (!*text)
        return 0;
    if (!id_of(text, 8, 0777, &n))
        return err_set(e, "umask: '%.40s' is not an octal mode; give 0 to 777, as 027", text);
    p->has_umask = true;
    p->umask = (mode_t)n;
    return 0;
}

static int take_groups(struct privileges *p, const struct passwd *pw, bool initgroups,
                       struct err *e)
{
    p->groups[0] = p->gid;
    p->n_groups = 1;
    if (!initgroups)
        return 0;
    if (!pw)
        return err_set(e,
                       "initgroups: the groups of a user are known by its name; give user the name "
                       "of a user of /etc/passwd");
    int n = PRIVILEGES_GROUPS_MAX;
    if (getgrouplist(pw->pw_name, p->gid, p->groups, &n) < 0)
        n = PRIVILEGES_GROUPS_MAX;
    p->n_groups = (unsigned)n;
    return 0;
}

int privileges_resolve(struct privileges *out, const char *user, const char *group, bool initgroups,
                       const char *umask_text, struct err *e)
{
    struct privileges *p = out;
    const struct passwd *pw = NULL; /* libc's; until the next look-up of a user */
    *p = (struct privileges){.uid = geteuid(), .gid = getegid()};
    if (resolve_umask(p, umask_text, e) || (*user && resolve_user(p, user, &pw, e)))
        return -1;
    if (*group ? resolve_group(p, group, e) : 0)
        return -1;
    if (!*group && pw)
        p->gid = pw->pw_gid;
    if (!*user && !*group)
        return initgroups ? err_set(e, "initgroups has no meaning without user; give user a name")
                          : 0;
    if (take_groups(p, pw, initgroups, e))
        return -1;
    p->change_uid = *user && !user_is(p->uid);
    p->change_gid = (*group || pw) && !groups_are(p);
    /* A process that is the user already does not have to lose the other groups it came with. */
    if (!p->change_uid && getegid() == p->gid && !initgroups && !has_capability(CAP_SETGID))
        p->change_gid = false;
    p->drops = p->change_uid || p->change_gid;
    if (p->change_uid && !has_capability(CAP_SETUID))
        return err_set(e,
                       "user: only root can become '%.100s' (uid %u), and this process is uid %u; "
                       "start as root, or leave user out",
                       user, p->uid, geteuid());
    if (p->change_gid && !has_capability(CAP_SETGID))
        return err_set(e,
                       "group: only root can change to the group %u, and this process is uid %u; "
                       "start as root, or leave group and initgroups out",
                       p->gid, geteuid());
    return 0;
}

/* ---- doing it ---- */

void privileges_umask(const struct privileges *p)
{
    if (p->has_umask)
        umask(p->umask);
}

int privileges_own_file(const struct privileges *p, const char *path)
{
    if (!p->drops || !*path || strcmp(path, "-") == 0)
        return 0;
    /* The folder may belong to the workers' user: no link of theirs may lead root to another file.
     */
    int fd = open(
        path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno == ELOOP || errno == ENXIO ? 0 : -errno;
    struct stat st;
    int rc = 0;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 &&
        (st.st_uid != p->uid || st.st_gid != p->gid) && fchown(fd, p->uid, p->gid))
        rc = -errno;
    close(fd);
    return rc;
}

int privileges_own_socket(const struct privileges *p, const char *path)
{
    struct stat st;
    if (!p->drops)
        return 0;
    if (lstat(path, &st))
        return -errno;
    if (!S_ISSOCK(st.st_mode))
        return -ENOTSOCK;
    return lchown(path, p->uid, p->gid) ? -errno : 0;
}

static int refused(struct err *e, const char *what, unsigned id)
{
    return err_set(e, "a worker cannot change its %s to %u: %s", what, id, strerror(errno));
}

/* The try to become root again must fail. */
static bool can_return(const struct privileges *p)
{
    if (p->uid == 0)
        return false; /* the workers were told to be root */
    return setresuid((uid_t)-1, 0, (uid_t)-1) == 0 || setuid(0) == 0 ||
           (p->change_gid && p->gid != 0 && setresgid((gid_t)-1, 0, (gid_t)-1) == 0);
}

int privileges_drop(const struct privileges *p, struct err *e)
{
    int death_signal = 0;
    if (!p->drops)
        return 0;
    (void)prctl(PR_GET_PDEATHSIG, &death_signal);
    /* The groups first: without the user's rights they could not be changed any more. */
    if (p->change_gid) {
        if (setgroups(p->n_groups, p->groups))
            return refused(e, "groups", p->gid);
        if (setresgid(p->gid, p->gid, p->gid))
            return refused(e, "group", p->gid);
    }
    if (p->change_uid && setresuid(p->uid, p->uid, p->uid))
        return refused(e, "user", p->uid);
    if ((p->change_uid && (!user_is(p->uid) || can_return(p))) || (p->change_gid && !groups_are(p)))
        return err_set(e,
                       "a worker that has become uid %u could still become root; it ends (is it "
                       "granted capabilities?)",
                       p->uid);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return err_set(e, "a worker cannot give up new privileges (PR_SET_NO_NEW_PRIVS): %s",
                       strerror(errno));
    /* The kernel forgets it with the user id. */
    if (death_signal)
        (void)prctl(PR_SET_PDEATHSIG, death_signal);
    return 0;
}
