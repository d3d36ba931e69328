/* library: see the header. */
#include "base/library.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The path of `file` in the folder of the executable or object that this code is in. */
static int path_beside(const struct library *l, char *out, size_t room, struct err *e)
{
    static const char HERE = 0;
    Dl_info here;
    if (!dladdr((void *)(uintptr_t)&HERE, &here) || !here.dli_fname)
        return err_set(e, "%s cannot be used: the folder that Weir is installed in is unknown; %s",
                       l->what, l->cure);
    const char *slash = strrchr(here.dli_fname, '/');
    int folder = slash ? (int)(slash - here.dli_fname) + 1 : 0;
    /* Without a slash dlopen would search the system's folders. */
    int n = snprintf(out, room, "%s%.*s%s", slash ? "" : "./", folder, here.dli_fname, l->file);
    if (n < 0 || (size_t)n >= room)
        return err_set(e,
                       "%s cannot be used: the path of the folder that Weir is installed in is too "
                       "long; install it elsewhere",
                       l->what);
    return 0;
}

int library_load(const void **table, const struct library *l, const char *path, struct err *e)
{
    char beside[4096];
    *table = NULL;
    if (!path) {
        if (path_beside(l, beside, sizeof beside, e))
            return -1;
        path = beside;
    }
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object)
        return err_set(e, "%s cannot be used: %s; %s", l->what, dlerror(), l->cure);
    const struct library_head *head = dlsym(object, l->symbol);
    if (!head || strcmp(head->version, l->head.version) != 0 || head->bytes != l->head.bytes) {
        dlclose(object);
        return err_set(e,
                       "%s cannot be used: %s belongs to another version of Weir; install Weir "
                       "again",
                       l->what, path);
    }
    *table = head;
    return 0;
}
