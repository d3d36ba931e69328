/* mime: see the header. */
#include "handler/mime.h"

#include <stdlib.h>

#define UTF8 "; charset=utf-8"

/* Sorted by extension: it is searched by halves. */
static const struct row {
    const char *extension;
    const char *type;
    bool dense;
} rows[] = {
    {"7z", "application/x-7z-compressed", true},
    {"aac", "audio/aac", true},
    {"apng", "image/apng", true},
    {"atom", "application/atom+xml", false},
    {"avif", "image/avif", true},
    {"bmp", "image/bmp", false},
    {"br", "application/octet-stream", true},
    {"bz2", "application/x-bzip2", true},
    {"cjs", "text/javascript" UTF8, false},
    {"css", "text/css" UTF8, false},
    {"csv", "text/csv" UTF8, false},
    {"doc", "application/msword", false},
    {"docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", true},
    {"eot", "application/vnd.ms-fontobject", false},
    {"epub", "application/epub+zip", true},
    {"flac", "audio/flac", true},
    {"gif", "image/gif", true},
    {"glb", "model/gltf-binary", false},
    {"gltf", "model/gltf+json", false},
    {"gz", "application/gzip", true},
    {"heic", "image/heic", true},
    {"htm", "text/html" UTF8, false},
    {"html", "text/html" UTF8, false},
    {"ico", "image/vnd.microsoft.icon", false},
    {"ics", "text/calendar" UTF8, false},
    {"jpeg", "image/jpeg", true},
    {"jpg", "image/jpeg", true},
    {"js", "text/javascript" UTF8, false},
    {"json", "application/json", false},
    {"jsonld", "application/ld+json", false},
    {"jxl", "image/jxl", true},
    {"m3u8", "application/vnd.apple.mpegurl", false},
    {"m4a", "audio/mp4", true},
    {"m4v", "video/mp4", true},
    {"map", "application/json", false},
    {"md", "text/markdown" UTF8, false},
    {"mid", "audio/midi", false},
    {"mjs", "text/javascript" UTF8, false},
    {"mov", "video/quicktime", true},
    {"mp3", "audio/mpeg", true},
    {"mp4", "video/mp4", true},
    {"mpeg", "video/mpeg", true},
    {"oga", "audio/ogg", true},
    {"ogg", "audio/ogg", true},
    {"ogv", "video/ogg", true},
    {"opus", "audio/ogg", true},
    {"otf", "font/otf", false},
    {"pdf", "application/pdf", true},
    {"png", "image/png", true},
    {"ppt", "application/vnd.ms-powerpoint", false},
    {"pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation", true},
    {"rss", "application/rss+xml", false},
    {"rtf", "application/rtf", false},
    {"svg", "image/svg+xml", false},
    {"tar", "application/x-tar", false},
    {"tif", "image/tiff", false},
    {"tiff", "image/tiff", false},
    {"ts", "video/mp2t", true},
    {"ttf", "font/ttf", false},
    {"txt", "text/plain" UTF8, false},
    {"vtt", "text/vtt" UTF8, false},
    {"wasm", "application/wasm", false},
    {"wav", "audio/wav", false},
    {"webm", "video/webm", true},
    {"webmanifest", "application/manifest+json", false},
    {"webp", "image/webp", true},
    {"woff", "font/woff", true},
    {"woff2", "font/woff2", true},
    {"xhtml", "application/xhtml+xml", false},
    {"xls", "application/vnd.ms-excel", false},
    {"xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", true},
    {"xml", "application/xml", false},
    {"xz", "application/x-xz", true},
    {"yaml", "application/yaml", false},
    {"yml", "application/yaml", false},
    {"zip", "application/zip", true},
    {"zst", "application/zstd", true},
};

static const size_t EXTENSION_BYTES_MAX = 12;

static int compare(const void *key, const void *row)
{
    return strcmp(key, ((const struct row *)row)->extension);
}

struct mime_type mime_of(struct slice path)
{
    char extension[16];
    size_t n = 0;
    while (n < path.n && path.p[path.n - 1 - n] != '.' && path.p[path.n - 1 - n] != '/')
        n++;
    if (n < path.n && path.p[path.n - 1 - n] == '.' && n <= EXTENSION_BYTES_MAX) {
        for (size_t i = 0; i < n; i++)
            extension[i] = (char)slice_lower((unsigned char)path.p[path.n - n + i]);
        extension[n] = 0;
        const struct row *row =
            bsearch(extension, rows, sizeof rows / sizeof rows[0], sizeof rows[0], compare);
        if (row)
            return (struct mime_type){slice_str(row->type), row->dense};
    }
    return (struct mime_type){SLICE("application/octet-stream"), false};
}
