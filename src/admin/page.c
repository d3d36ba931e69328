/* page: stands in for what is made from src/admin/page/ at build time. */
#include "admin/page.h"

#define HTML "<!doctype html><title>Weir</title><p><a href=\"/status.json\">status.json</a>\n"

const struct admin_page admin_page = {
    .html = {HTML, sizeof HTML - 1},
    .csp = "default-src 'none'",
    .etag = "\"none\"",
};
