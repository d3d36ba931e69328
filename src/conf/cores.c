/* cores: how many processors this process may use. */
#include "conf/conf.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* The first `n` numbers of a small file; "max" counts as 0. Returns how many were read. */
static int read_numbers(const char *path, long *out, int n)
{
    char text[128];
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    size_t got = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[got] = '\0';
    int found = 0;
    char *p = text;
    while (found < n && *p) {
        char *end;
        if (strncmp(p, "max", 3) == 0) {
            out[found++] = 0;
            end = p + 3;
        } else {
            out[found] = strtol(p, &end, 10);
            if (end == p)
                break;
            found++;
        }
        p = end + strspn(end, " \n");
    }
    return found;
}

/* Cores of the control group's quota, rounded up; 0 = no quota. As in a container, where the
 * group's own folder is mounted at the root of the tree. */
static unsigned quota(void)
{
    long v2[2], limit, period;
    if (read_numbers("/sys/fs/cgroup/cpu.max", v2, 2) == 2) {
        limit = v2[0];
        period = v2[1];
    } else if (read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", &limit, 1) != 1 ||
               read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_period_us", &period, 1) != 1) {
        return 0;
    }
    if (limit <= 0 || period <= 0)
        return 0;
    return (unsigned)((limit + period - 1) / period);
}

unsigned conf_cores(void)
{
    cpu_set_t set;
    int n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    unsigned q = quota();
    if (q && q < (unsigned)n)
        n = (int)q;
    return n > 0 ? (unsigned)n : 1;
}
