/* admin: see the header. */
#include "admin/admin.h"

int admin_new(struct admin **out, uv_loop_t *loop, const struct admin_config *c, struct err *e)
{
    (void)loop;
    (void)c;
    (void)e;
    *out = NULL;
    return 0;
}

void admin_free(struct admin **a)
{
    *a = NULL;
}

int admin_listen(int *fd, const struct conf *c, struct err *e)
{
    (void)c;
    (void)e;
    *fd = -1;
    return 0;
}
