/*
 * crash_vfs: a disk in memory for SQLite, that fails when it is told and forgets what was not
 * synced.
 *
 * Registered as "crash". Each file has two contents: what programs see, and what is on the platter;
 * a sync copies the first to the second. A file that was never synced is not there after a crash.
 * One process, one connection at a time; locks do nothing.
 */
#ifndef WEIR_TESTS_CRASH_VFS_H
#define WEIR_TESTS_CRASH_VFS_H

#include <stdbool.h>

/* Register it as the default of this process; once. */
void crash_vfs_register(void);

/* An empty disk, nothing fails. */
void crash_vfs_clean(void);

/* From now on the n-th write, sync, open, truncation or removal fails (n >= 1; 0: none), and with
 * `dead` all that follow it too. `full`: as a full disk, otherwise as a broken one. */
void crash_vfs_fail(unsigned n, bool dead, bool full);
/* Has it failed? */
bool crash_vfs_failed(void);
/* Operations since the last crash_vfs_fail that could have failed. */
unsigned crash_vfs_count(void);

/* The power goes: what was not synced is lost. With a seed (not 0) some of it is not: of each file
 * that was written since its last sync, blocks of 512 bytes chosen by the seed. All files are
 * closed by their owner before or after. */
void crash_vfs_crash(unsigned seed);

/* One bit of a file changes; false: there is no such file, or it is empty. */
bool crash_vfs_flip(const char *suffix, unsigned at);

#endif
