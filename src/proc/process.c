/* process: see the header. */
#include "proc/process.h"

#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "proc/title.h"

static const char *app_of(const struct conf *c)
{
    return *c->app ? c->app : "an application";
}

static void name_main(const struct process *p, const struct conf *c)
{
    title_role(p->supervises ? "supervisor" : "server", c->proc_name, app_of(c));
}

static int resolve(const struct process *p, const struct conf *c, struct privileges *out,
                   struct err *e)
{
    if (privileges_resolve(out, c->user, c->group, c->initgroups, c->umask, e))
        return -1;
    if (out->drops && !p->supervises)
        return err_set(e,
                       "user and group are for workers, and this process serves without them; give "
                       "--workers 1 or more");
    return 0;
}

int process_begin(struct process *p, const struct conf *c, bool supervises,
                  const struct process_env *env, struct err *e)
{
    *p = (struct process){.supervises = supervises};
    upgrade_init(&p->upgrade);
    if (resolve(p, c, &p->privileges, e) ||
        upgrade_read(&p->upgrade, env->upgrade, env->gunicorn_pid, env->gunicorn_fd, e))
        return -1;
    privileges_umask(&p->privileges);
    notify_init(&p->notify, env->notify_socket, env->watchdog_usec, env->watchdog_pid);
    if (p->upgrade.old_pid) {
        notify_hold(&p->notify);
        upgrade_watch(&p->upgrade);
    }
    if (*c->pid_file && pid_file_make(&p->pid_file, c->pid_file, p->upgrade.old_pid ? ".2" : "", e))
        return -1;
    title_init();
    name_main(p, c);
    p->begun = true;
    return 0;
}

int process_reload(struct process *p, const struct conf *c, struct err *e)
{
    struct privileges fresh;
    if (resolve(p, c, &fresh, e))
        return -1;
    const char *suffix = p->upgrade.old_pid ? ".2" : "";
    if (!*c->pid_file)
        pid_file_drop(&p->pid_file);
    else if (p->pid_file.path && !*suffix ? pid_file_rename(&p->pid_file, c->pid_file, 0, e)
             : !p->pid_file.path          ? pid_file_make(&p->pid_file, c->pid_file, suffix, e)
                                          : 0)
        return -1;
    p->privileges = fresh;
    privileges_umask(&p->privileges);
    name_main(p, c);
    return 0;
}

int process_before_reload(struct process *p, const struct conf *c, struct err *e)
{
    if (!p->begun)
        return 0;
    if (resolve(p, c, &p->privileges, e))
        return -1;
    privileges_umask(&p->privileges);
    return 0;
}

static int own(const struct process *p, const char *path, struct err *e)
{
    int rc = privileges_own_file(&p->privileges, path);
    if (rc)
        return err_set(e, "cannot give the log file %s to the user of the workers (uid %u): %s",
                       path, p->privileges.uid, strerror(-rc));
    return 0;
}

int process_own_logs(const struct process *p, const struct conf *c, struct err *e)
{
    if (own(p, c->error_log, e) || own(p, c->access_log, e))
        return -1;
    return 0;
}

int process_own_socket(const struct process *p, const char *path, struct err *e)
{
    int rc = privileges_own_socket(&p->privileges, path);
    if (rc)
        return err_set(e, "cannot give the socket %s to the user of the workers (uid %u): %s", path,
                       p->privileges.uid, strerror(-rc));
    return 0;
}

/* Code that is only mapped and never written: it comes back from the page cache when it is used. */
static int drop_code(struct dl_phdr_info *info, size_t n, void *unused)
{
    (void)n;
    (void)unused;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type != PT_LOAD || !(h->p_flags & PF_X) || (h->p_flags & PF_W))
            continue;
        uintptr_t begin = (info->dlpi_addr + h->p_vaddr) & ~(page - 1);
        uintptr_t end = (info->dlpi_addr + h->p_vaddr + h->p_filesz) & ~(page - 1);
        if (end > begin)
            (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
    return 0;
}

/* What the start needed, of the interpreter above all, and a supervisor at rest does not. */
static void give_back_memory(void)
{
    malloc_trim(0);
    (void)dl_iterate_phdr(drop_code, NULL);
}

void process_ready(struct process *p, unsigned workers)
{
    if (p->supervises)
        give_back_memory();
    char status[64] = "serving";
    if (workers)
        snprintf(status, sizeof status, "%u worker%s serve%s", workers, workers == 1 ? "" : "s",
                 workers == 1 ? "s" : "");
    notify_ready(&p->notify, status);
    upgrade_tell_ready(&p->upgrade);
}

bool process_main(struct process *p, const struct conf *c, unsigned workers)
{
    struct err e;
    if (!upgrade_is_over(&p->upgrade))
        return false;
    log_line(LOG_INFO, 0, "the supervisor %d has ended; this one (%d) is the main one now",
             (int)p->upgrade.old_pid, (int)getpid());
    pid_t gone = p->upgrade.old_pid;
    p->upgrade.old_pid = 0;
    if (*c->pid_file && pid_file_rename(&p->pid_file, c->pid_file, gone, &e))
        log_line(LOG_ERROR, 0, "%s", e.text);
    notify_release(&p->notify);
    if (workers || !p->supervises)
        process_ready(p, workers);
    return true;
}

void process_reloading(struct process *p)
{
    notify_reloading(&p->notify);
}

void process_stopping(struct process *p, int successor)
{
    if (successor)
        notify_main_pid(&p->notify, successor);
    else
        notify_stopping(&p->notify);
}

void process_end(struct process *p)
{
    if (!p->begun)
        return;
    pid_file_drop(&p->pid_file);
    upgrade_free(&p->upgrade);
    p->begun = false;
}

void process_template(const struct process *p, const struct conf *c)
{
    if (p->begun)
        title_role("template", c->proc_name, app_of(c));
}

int process_worker(const struct process *p, const struct conf *c, struct err *e)
{
    title_role("worker", c->proc_name, app_of(c));
    return privileges_drop(&p->privileges, e);
}

int process_keeper(const struct process *p, const struct conf *c, struct err *e)
{
    title_role("keeper", c->proc_name, app_of(c));
    return privileges_drop(&p->privileges, e);
}
