/*
 * fuzz_file_ask: any bytes as a path, a Range, an Accept-Encoding, an entity tag and a date.
 *
 * Input: a selector byte, eight bytes of a size, then the text.
 * Oracles: a path never leaves its folder and holds no segment that is hidden, whoever reads it; a
 * part lies inside the file; weights are between 0 and 1000; a date that is read is written and
 * read as the same second.
 */
#include <stdint.h>
#include <string.h>

#include "base/must.h"
#include "handler/date.h"
#include "handler/file_ask.h"
#include "handler/mime.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at_path(struct slice raw)
{
    static char out[FILE_PATH_BYTES_MAX];
    if (!file_path(raw, out))
        return;
    size_t n = strlen(out);
    must(n < sizeof out && n <= raw.n);
    must(out[0] != '/' && !strchr(out, '\\') && !strstr(out, "//"));
    for (const char *p = out; *p; p += strcspn(p, "/"), p += *p == '/') {
        size_t k = strcspn(p, "/");
        must(k > 0);
        must(p[0] != '.' || slice_eq(slice_of(p, k), SLICE(".well-known")));
    }
    for (const char *p = out; *p; p++)
        must((unsigned char)*p >= ' ' && *p != 0x7f);
    must(mime_of(slice_of(out, n)).text.n > 0);
    size_t at = file_prefix(raw, SLICE("/a"));
    must(at == SIZE_MAX || (at >= 2 && at <= raw.n && (at == raw.n || raw.p[at] == '/')));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t bytes, first = 0, n = 0;
    int64_t second;
    if (size < 9)
        return 0;
    memcpy(&bytes, data + 1, 8);
    bytes >>= data[0] & 63;
    struct slice text = slice_of((const char *)data + 9, size - 9);
    struct file_codings c = FILE_CODINGS_NONE;
    char again[DATE_BYTES];
    switch (data[0] >> 6) {
    case 0:
        look_at_path(text);
        break;
    case 1:
        if (file_range(text, bytes, &first, &n) == FILE_PART)
            must(n >= 1 && first < bytes && n <= bytes - first);
        break;
    case 2:
        file_codings_add(&c, text);
        for (int i = FILE_IDENTITY; i <= FILE_BR; i++) {
            int weight = file_coding_weight(&c, (enum file_coding)i);
            must(weight >= 0 && weight <= 1000);
        }
        break;
    default:
        if (date_parse(text, 1790000000, &second)) {
            int64_t twin;
            date_format(second, again);
            must(date_parse(slice_of(again, sizeof again), 0, &twin) && twin == second);
        }
        must(!file_etag_listed(text, SLICE("\"x\""), false) ||
             file_etag_listed(text, SLICE("\"x\""), true));
    }
    return 0;
}
