/*
 * must: assertions that stay on in release builds.
 *
 * Only for what our own bug alone can break; never for input from a socket, a
 * file, an application or an upstream.
 */
#ifndef WEIR_BASE_MUST_H
#define WEIR_BASE_MUST_H

#include "base/attr.h"

/* Print the broken condition with its place and abort. */
WEIR_NORETURN WEIR_COLD void must_fail(const char *what, const char *file, int line);

#define must(cond) (WEIR_LIKELY(cond) ? (void)0 : must_fail(#cond, __FILE__, __LINE__))

#endif
