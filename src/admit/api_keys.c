/* api_keys: see the header. One mapping holds everything: the struct, the table, then the texts. */
#include "admit/api_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/must.h"
#include "base/secret.h"
#include "base/siphash.h"

struct item {
    uint64_t hash[2]; /* of the key */
    struct slice name, tier;
    unsigned line; /* 0: the place is free */
};

struct api_keys {
    size_t map_bytes;
    struct siphash_key secret;
    unsigned n;
    uint32_t mask;   /* of slots; their number is a power of two, and twice the items at least */
    uint32_t *slots; /* index + 1 in items; 0: free. Probed one after the other */
    struct item *items;
    char *texts; /* the end of what is used */
};

struct reader {
    struct api_keys *keys;
    const char *path;
    unsigned line;
    struct err *e;
};

static int complain(const struct reader *r, const char *what)
{
    return err_set(r->e, "%.400s:%u: %s", r->path, r->line, what);
}

/* ---- the table ---- */

static uint32_t slot_of(const struct api_keys *k, const uint64_t hash[2])
{
    uint32_t at = (uint32_t)hash[0] & k->mask;
    /* Without a branch on how much of two hashes is equal, though whoever cannot know the secret
     * learns nothing from it. */
    while (k->slots[at]) {
        const struct item *i = &k->items[k->slots[at] - 1];
        if (((i->hash[0] ^ hash[0]) | (i->hash[1] ^ hash[1])) == 0)
            break;
        at = (at + 1) & k->mask;
    }
    return at;
}

static size_t round_up(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

/* Room for so many lines with so many bytes in all. */
static struct api_keys *make(size_t lines, size_t bytes)
{
    unsigned char random[SIPHASH_KEY_BYTES];
    size_t items = lines < API_KEYS_MAX ? lines : API_KEYS_MAX;
    uint32_t slots = 16;
    while (slots < 2 * items)
        slots *= 2;
    size_t head = round_up(sizeof(struct api_keys));
    size_t slot_bytes = slots * sizeof(uint32_t), item_bytes = items * sizeof(struct item);
    /* Each name and tier gets a NUL, and has a blank or line end in the file, but for the last. */
    size_t all = head + slot_bytes + item_bytes + bytes + 2;
    struct api_keys *k = secret_map(all, false);
    if (!k)
        return NULL;
    k->map_bytes = all;
    k->mask = slots - 1;
    k->items = (struct item *)(void *)((char *)k + head);
    k->slots = (uint32_t *)(void *)((char *)k->items + item_bytes);
    k->texts = (char *)k->slots + slot_bytes;
    if (!secret_random(random, sizeof random)) {
        api_keys_free(&k);
        return NULL;
    }
    k->secret = siphash_key(random);
    explicit_bzero(random, sizeof random);
    return k;
}

static struct slice keep(struct api_keys *k, struct slice text)
{
    char *copy = k->texts;
    if (text.n)
        memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    k->texts += text.n + 1;
    return slice_of(copy, text.n);
}

/* ---- lines ---- */

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static struct slice take_word(struct slice *rest)
{
    while (rest->n && blank(*rest->p))
        rest->p++, rest->n--;
    struct slice word = slice_of(rest->p, 0);
    while (rest->n && !blank(*rest->p))
        rest->p++, rest->n--, word.n++;
    return word;
}

static bool visible(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] > '~')
            return false;
    return true;
}

static int take_line(struct reader *r, struct slice line)
{
    struct api_keys *k = r->keys;
    struct slice name = take_word(&line);
    if (!name.n || *name.p == '#')
        return 0;
    struct slice key = take_word(&line), tier = take_word(&line), more = take_word(&line);
    if (!key.n || *key.p == '#')
        return complain(r, "there is a name without a key; write NAME KEY [TIER]");
    if (tier.n && *tier.p == '#') {
        tier.n = 0;
        more.n = 0;
    }
    if (more.n && *more.p != '#')
        return complain(r, "there are more than three words; write NAME KEY [TIER], none of which "
                           "holds blanks");
    if (!visible(name) || !visible(key) || !visible(tier))
        return complain(r, "only visible ASCII characters can be in a name, a key and a tier");
    if (name.n > API_KEY_NAME_BYTES_MAX)
        return complain(r, "the name is longer than 128 characters; choose a shorter one");
    if (key.n < API_KEY_BYTES_MIN || key.n > API_KEY_BYTES_MAX)
        return complain(r, "the key has fewer than 16 or more than 512 characters; make one with "
                           "`openssl rand -hex 24`");
    if (tier.n > API_KEY_TIER_BYTES_MAX)
        return complain(r, "the tier is longer than 64 characters; name one of `tiers`");
    if (k->n == API_KEYS_MAX)
        return complain(r, "there are more than 10000 keys; so many belong into a database");

    struct item item = {.line = r->line};
    siphash128(&k->secret, key.p, key.n, item.hash);
    uint32_t at = slot_of(k, item.hash);
    if (k->slots[at])
        return err_set(r->e, "%.400s:%u: the same key stands in line %u already; give each its own",
                       r->path, r->line, k->items[k->slots[at] - 1].line);
    item.name = keep(k, name);
    item.tier = keep(k, tier);
    k->items[k->n++] = item;
    k->slots[at] = k->n;
    return 0;
}

int api_keys_parse(struct api_keys **out, const char *path, struct slice text, struct err *e)
{
    size_t lines = 1;
    *out = NULL;
    if (text.n > API_KEYS_FILE_BYTES_MAX)
        return err_set(e, "%.400s: larger than 1 MiB; this is not a file of NAME KEY lines", path);
    for (size_t i = 0; i < text.n; i++)
        lines += text.p[i] == '\n';
    struct reader r = {.keys = make(lines, text.n), .path = path, .line = 1, .e = e};
    if (!r.keys)
        return err_set(e, "%.400s: out of memory", path);
    /* Some editors put a byte order mark first. */
    if (slice_starts(text, SLICE("\xef\xbb\xbf")))
        text.p += 3, text.n -= 3;
    int rc = 0;
    while (rc == 0 && text.n) {
        const char *end = memchr(text.p, '\n', text.n);
        size_t n = end ? (size_t)(end - text.p) : text.n;
        rc = take_line(&r, slice_of(text.p, n));
        n += end != NULL;
        text.p += n;
        text.n -= n;
        r.line++;
    }
    if (rc == 0 && !r.keys->n)
        rc = err_set(e, "%.400s: there is no key in it; write lines NAME KEY [TIER]", path);
    if (rc)
        api_keys_free(&r.keys);
    *out = r.keys;
    return rc;
}

/* All bytes up to `room`; -errno. */
static ssize_t read_all(int fd, char *to, size_t room)
{
    size_t n = 0;
    while (n < room) {
        ssize_t got = read(fd, to + n, room - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    return (ssize_t)n;
}

int api_keys_read(struct api_keys **out, const char *path, struct err *e)
{
    const size_t room = API_KEYS_FILE_BYTES_MAX + 1;
    struct stat st;
    *out = NULL;
    /* Not to wait where somebody put a pipe. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(e, "%.400s: cannot be opened: %s; name a file that Weir's user may read",
                       path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, "%.400s: this is no file; name one with lines NAME KEY [TIER]", path);
    }
    void *text = secret_map(room, false);
    ssize_t n = text ? read_all(fd, text, room) : -ENOMEM;
    close(fd);
    int rc = n < 0 ? err_set(e, "%.400s: cannot be read: %s", path, strerror((int)-n))
                   : api_keys_parse(out, path, slice_of(text, (size_t)n), e);
    secret_unmap(&text, room);
    return rc;
}

void api_keys_free(struct api_keys **k)
{
    if (*k)
        secret_unmap((void **)k, (*k)->map_bytes);
}

unsigned api_keys_count(const struct api_keys *k)
{
    return k->n;
}

bool api_keys_find(const struct api_keys *k, struct slice key, struct api_key *out)
{
    uint64_t hash[2];
    if (key.n < API_KEY_BYTES_MIN || key.n > API_KEY_BYTES_MAX)
        return false;
    siphash128(&k->secret, key.p, key.n, hash);
    uint32_t slot = k->slots[slot_of(k, hash)];
    if (!slot)
        return false;
    *out = api_keys_at(k, slot - 1);
    return true;
}

struct api_key api_keys_at(const struct api_keys *k, unsigned i)
{
    must(i < k->n);
    return (struct api_key){k->items[i].name, k->items[i].tier};
}
