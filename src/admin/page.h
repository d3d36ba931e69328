/*
 * page: the status page: one HTML document with its script and style inside, made from
 * src/admin/page/ at build time.
 *
 * Owner:   static.
 */
#ifndef WEIR_ADMIN_PAGE_H
#define WEIR_ADMIN_PAGE_H

#include "base/slice.h"

struct admin_page {
    struct slice html, gzip; /* the same, plain and compressed */
    const char *csp;         /* Content-Security-Policy */
    const char *etag;        /* with its quotes */
};
extern const struct admin_page admin_page;

#endif
