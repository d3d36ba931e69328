/* The status page as it is built into the server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "admin/page.h"

static void the_page_is_one_document(void **state)
{
    (void)state;
    struct slice html = admin_page.html;
    assert_true(html.n > 10000);
    assert_memory_equal(html.p, "<!doctype html>", 15);
    assert_memory_equal(html.p + html.n - 8, "</html>\n", 8);
    assert_int_equal(html.p[html.n], 0);
    assert_non_null(strstr(html.p, "uPlot"));
    /* Nothing of it is somewhere else. */
    assert_null(strstr(html.p, " src=\""));
    assert_null(strstr(html.p, "rel=\"stylesheet\""));
}

static void its_compressed_form_is_a_gzip_of_the_same_length(void **state)
{
    (void)state;
    const unsigned char *p = (const unsigned char *)admin_page.gzip.p;
    size_t n = admin_page.gzip.n;
    assert_in_range(n, 1000, 150 * 1024);
    assert_int_equal(p[0], 0x1f);
    assert_int_equal(p[1], 0x8b);
    /* The time of its making is not in it (RFC 1952, MTIME), so that builds are the same. */
    assert_int_equal(p[4] | p[5] | p[6] | p[7], 0);
    /* ISIZE, the last four bytes. */
    uint32_t size = (uint32_t)p[n - 4] | (uint32_t)p[n - 3] << 8 | (uint32_t)p[n - 2] << 16 |
                    (uint32_t)p[n - 1] << 24;
    assert_int_equal(size, admin_page.html.n);
}

static void its_policy_allows_its_own_script_and_style_alone(void **state)
{
    (void)state;
    const char *csp = admin_page.csp;
    assert_memory_equal(csp, "default-src 'none'; script-src 'sha256-", 39);
    assert_non_null(strstr(csp, "; style-src 'sha256-"));
    assert_non_null(strstr(csp, "; frame-ancestors 'none'"));
    assert_null(strstr(csp, "unsafe"));
    assert_null(strchr(csp, '*'));
    size_t n = strlen(admin_page.etag);
    assert_true(n > 10 && admin_page.etag[0] == '"' && admin_page.etag[n - 1] == '"');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_is_one_document),
        cmocka_unit_test(its_compressed_form_is_a_gzip_of_the_same_length),
        cmocka_unit_test(its_policy_allows_its_own_script_and_style_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
