/* attr: compiler attributes and the few macros that the language lacks. */
#ifndef WEIR_BASE_ATTR_H
#define WEIR_BASE_ATTR_H

#include <stddef.h>

#define WEIR_MUST_USE __attribute__((warn_unused_result))
#define WEIR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define WEIR_NORETURN __attribute__((noreturn))
#define WEIR_COLD __attribute__((cold, noinline))
#define WEIR_FALLTHROUGH __attribute__((fallthrough))
/* For a large local of which only a part is used: the build zeroes all others. */
#if defined(__has_attribute) && __has_attribute(uninitialized)
#define WEIR_UNINITIALIZED __attribute__((uninitialized))
#else
#define WEIR_UNINITIALIZED
#endif
#define WEIR_LIKELY(x) __builtin_expect(!!(x), 1)
#define WEIR_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* The struct that contains `member` at address `ptr`. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define countof(a) (sizeof(a) / sizeof((a)[0]))

#endif
