/*
 * frames: see the header.
 *
 * A thread's frames are a list, newest first: thread state > cframe > current_frame > previous …
 * Calls through C stand in the same list. While such a list is read its thread goes on: frames are
 * popped and their memory is used again. So it is read frame by frame, the names are fetched, and
 * then everything is read once more in a single call. What is the same twice was there all the
 * time, since each frame holds its code object, and with it the names.
 *
 * The instruction of the newest frame is left out of that comparison: a computing thread changes it
 * always, and each value is a place in that function.
 */
#define Py_BUILD_CORE 1
#include <Python.h>

#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030C0000
#define KNOWN 1
#else
#define KNOWN 0
#endif

#if KNOWN
/* Inline functions of others, which this build's warnings are not about. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wundef"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <internal/pycore_frame.h>
#include <internal/pycore_runtime.h>
#pragma GCC diagnostic pop
#endif

#include "wsgi/frames.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

#if KNOWN

/* A stack that changes while it is read is read again so often. */
#define TRIES 5
/* The same for the list of threads. */
#define LIST_TRIES 5
#define INTERPRETERS_MAX 16
/* Frames that are not shown: they have not begun yet. */
#define UNSHOWN_MAX 16
#define LINKS_MAX (FRAMES_MAX + UNSHOWN_MAX)
/* Characters of a name. */
#define NAME_MAX_CHARS 300
#define FILE_MAX_CHARS 1024
/* A longer table of lines is not looked at. */
#define LINETABLE_BYTES_MAX ((size_t)512 * 1024)
/* Texts and tables of one struct frames. */
#define TEXT_BYTES_MAX ((size_t)32 * 1024 * 1024)
#define BUCKETS (FRAMES_CODES_MAX * 2)

/* What is read of each. Layouts are those of the headers. */
#define FRAME_HEAD offsetof(_PyInterpreterFrame, localsplus)
#define CODE_HEAD offsetof(PyCodeObject, co_code_adaptive)

/* A copy of a code object's head, and what was made of it. */
struct code {
    uintptr_t at; /* 0: the bucket is empty */
    const char *function, *file;
    const unsigned char *table; /* of lines */
    size_t table_bytes;
    int units;           /* of instructions */
    int first_traceable; /* the unit at which a frame has begun */
    int first_line;
    uintptr_t is[4]; /* the pointers by which it is known again */
};

/* One frame of the list. */
struct link {
    uintptr_t at;
    struct code *code;
    unsigned char bytes[FRAME_HEAD]; /* a _PyInterpreterFrame */
};

struct frames {
    const struct peek *peek; /* lent */
    struct arena text;
    struct code codes[BUCKETS]; /* open addressing */
    unsigned n_codes;
    struct frames_thread threads[FRAMES_THREADS_MAX];
    unsigned n_threads;
    struct link links[LINKS_MAX];
    unsigned n_links;
    /* the second reading */
    unsigned char again[LINKS_MAX][FRAME_HEAD];
    unsigned char codes_again[LINKS_MAX][CODE_HEAD];
};

bool frames_known(void)
{
    return true;
}

const char *frames_unknown(void)
{
    return NULL;
}

struct frames *frames_new(const struct peek *p)
{
    struct frames *f = calloc(1, sizeof *f);
    if (f) {
        f->peek = p;
        f->text.max = TEXT_BYTES_MAX;
    }
    return f;
}

void frames_free(struct frames **f)
{
    if (!*f)
        return;
    arena_fini(&(*f)->text);
    free(*f);
    *f = NULL;
}

static bool aligned(uintptr_t p)
{
    return p && !(p & (sizeof(void *) - 1));
}

static bool get(const struct frames *f, void *to, uintptr_t from, size_t n)
{
    return aligned(from) && !peek(f->peek, to, from, n);
}

/* ---- texts ---- */

static size_t utf8(unsigned char *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (unsigned char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (unsigned char)(0xc0 | c >> 6);
        to[1] = (unsigned char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c >= 0xdc80 && c <= 0xdcff) { /* a byte of a file name that is no UTF-8 (PEP 383) */
        to[0] = (unsigned char)(c - 0xdc00);
        return 1;
    }
    if (c >= 0xd800 && c <= 0xdfff)
        c = 0xfffd;
    if (c < 0x10000) {
        to[0] = (unsigned char)(0xe0 | c >> 12);
        to[1] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
        to[2] = (unsigned char)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (unsigned char)(0xf0 | (c >> 18 & 7));
    to[1] = (unsigned char)(0x80 | (c >> 12 & 0x3f));
    to[2] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
    to[3] = (unsigned char)(0x80 | (c & 0x3f));
    return 4;
}

/* A str as UTF-8, at most `max` characters of it. NULL: it is none, or there is no room. */
static const char *copy_text(struct frames *f, uintptr_t at, size_t max)
{
    PyASCIIObject head;
    unsigned char raw[FILE_MAX_CHARS * 4];
    unsigned char out[FILE_MAX_CHARS * 4 + 1];
    if (!get(f, &head, at, sizeof head) || head.ob_base.ob_type != &PyUnicode_Type ||
        !head.state.ready || head.length < 0)
        return NULL;
    size_t width = head.state.kind;
    if (width != 1 && width != 2 && width != 4)
        return NULL;
    uintptr_t data =
        at + (head.state.ascii ? sizeof(PyASCIIObject) : sizeof(PyCompactUnicodeObject));
    if (!head.state.compact && !get(f, &data, at + offsetof(PyUnicodeObject, data), sizeof data))
        return NULL;
    size_t n = (size_t)head.length < max ? (size_t)head.length : max, bytes = 0;
    if (n && peek(f->peek, raw, data, n * width))
        return NULL;
    for (size_t i = 0; i < n; i++) {
        uint32_t c = raw[i];
        if (width == 2) {
            uint16_t half;
            memcpy(&half, raw + i * 2, 2);
            c = half;
        } else if (width == 4) {
            memcpy(&c, raw + i * 4, 4);
        }
        bytes += utf8(out + bytes, c);
    }
    out[bytes++] = '\0';
    for (size_t i = 0; i + 1 < bytes; i++)
        if (!out[i])
            out[i] = '?'; /* ends no text */
    return arena_copy(&f->text, slice_of((const char *)out, bytes)).p;
}

/* ---- code objects ---- */

static void identity(const unsigned char *head, uintptr_t is[4])
{
    memcpy(&is[0], head + offsetof(PyCodeObject, co_filename), sizeof is[0]);
    memcpy(&is[1], head + offsetof(PyCodeObject, co_qualname), sizeof is[1]);
    memcpy(&is[2], head + offsetof(PyCodeObject, co_linetable), sizeof is[2]);
    memcpy(&is[3], head + offsetof(PyCodeObject, ob_base.ob_base.ob_type), sizeof is[3]);
}

static bool copy_table(struct frames *f, struct code *c, uintptr_t at)
{
    PyVarObject head;
    c->table = NULL;
    c->table_bytes = 0;
    if (!get(f, &head, at, sizeof head) || head.ob_base.ob_type != &PyBytes_Type)
        return false;
    if (head.ob_size <= 0 || (size_t)head.ob_size > LINETABLE_BYTES_MAX)
        return head.ob_size >= 0; /* its lines are not known */
    unsigned char *copy = arena_alloc(&f->text, (size_t)head.ob_size);
    if (!copy || peek(f->peek, copy, at + offsetof(PyBytesObject, ob_sval), (size_t)head.ob_size))
        return false;
    c->table = copy;
    c->table_bytes = (size_t)head.ob_size;
    return true;
}

static bool copy_code(struct frames *f, uintptr_t at, struct code *out)
{
    union {
        PyCodeObject code;
        unsigned char bytes[sizeof(PyCodeObject)];
    } u;
    struct code c = {.at = at};
    if (!get(f, u.bytes, at, CODE_HEAD) || u.code.ob_base.ob_base.ob_type != &PyCode_Type ||
        u.code.ob_base.ob_size < 0 || u.code.ob_base.ob_size > INT_MAX)
        return false;
    identity(u.bytes, c.is);
    c.units = (int)u.code.ob_base.ob_size;
    c.first_traceable = u.code._co_firsttraceable;
    c.first_line = u.code.co_firstlineno;
    c.function = copy_text(f, (uintptr_t)u.code.co_qualname, NAME_MAX_CHARS);
    c.file = copy_text(f, (uintptr_t)u.code.co_filename, FILE_MAX_CHARS);
    if (!c.function || !c.file || !copy_table(f, &c, (uintptr_t)u.code.co_linetable))
        return false;
    *out = c;
    return true;
}

/* NULL: it is none, or there is no room. */
static struct code *code_of(struct frames *f, uintptr_t at)
{
    size_t i = (size_t)((uint64_t)at * UINT64_C(0x9E3779B97F4A7C15) >> 40) % BUCKETS;
    if (!aligned(at))
        return NULL;
    for (; f->codes[i].at; i = (i + 1) % BUCKETS)
        if (f->codes[i].at == at)
            return &f->codes[i];
    if (f->n_codes == FRAMES_CODES_MAX || !copy_code(f, at, &f->codes[i]))
        return NULL;
    f->n_codes++;
    return &f->codes[i];
}

/* ---- lines ---- */

/* Numbers of 6 bits a byte, the lowest first, 0x40: one more follows. */
static unsigned long varint(const unsigned char **p, const unsigned char *end)
{
    unsigned long v = 0;
    unsigned shift = 0;
    while (*p < end) {
        unsigned char b = *(*p)++;
        if (shift < 30)
            v |= (unsigned long)(b & 0x3f) << shift;
        shift += 6;
        if (!(b & 0x40))
            break;
    }
    return v;
}

static long signed_varint(const unsigned char **p, const unsigned char *end)
{
    unsigned long v = varint(p, end);
    return v & 1 ? -(long)(v >> 1) : (long)(v >> 1);
}

/* The line of an instruction unit; 0: it has none. Each entry is a byte 1 kkkk nnn (kind, units -
 * 1) and what belongs to the kind; a byte with the high bit begins the next. */
static int line_of(const struct code *c, int unit)
{
    enum { ONE_LINE = 10, NO_COLUMNS = 13, LONG = 14, NONE = 15 };
    const unsigned char *p = c->table, *end = p + c->table_bytes;
    long line = c->first_line;
    int at = 0;
    if (unit < 0)
        return c->first_line;
    while (p < end) {
        unsigned char first = *p++;
        int kind = first >> 3 & 15, units = (first & 7) + 1;
        if (kind >= ONE_LINE && kind < NO_COLUMNS)
            line += kind - ONE_LINE;
        else if (kind == NO_COLUMNS || kind == LONG)
            line += signed_varint(&p, end);
        at += units;
        if (unit < at)
            return kind == NONE || line < 0 || line > INT_MAX ? 0 : (int)line;
        while (p < end && !(*p & 0x80))
            p++;
    }
    return 0;
}

/* ---- the list of threads ---- */

/* One pass; false: the list changed under it. */
static bool list_threads(struct frames *f, uintptr_t interp)
{
    uintptr_t at, before = 0;
    if (!get(f, &at, interp + offsetof(PyInterpreterState, threads.head), sizeof at))
        return false;
    while (at && f->n_threads < FRAMES_THREADS_MAX) {
        PyThreadState ts;
        _PyCFrame c;
        if (!get(f, &ts, at, sizeof ts) || (uintptr_t)ts.prev != before ||
            (uintptr_t)ts.interp != interp)
            return false;
        if (ts.native_thread_id > 0 && ts.native_thread_id <= INT32_MAX)
            f->threads[f->n_threads++] = (struct frames_thread){
                .id = (int32_t)ts.native_thread_id,
                .state = at,
                .in_python = get(f, &c, (uintptr_t)ts.cframe, sizeof c) && c.current_frame != NULL,
            };
        before = at;
        at = (uintptr_t)ts.next;
    }
    return true;
}

const struct frames_thread *frames_threads(struct frames *f, unsigned *n)
{
    uintptr_t interp = 0;
    f->n_threads = 0;
    if (get(f, &interp, (uintptr_t)&_PyRuntime.interpreters.head, sizeof interp))
        for (unsigned i = 0; interp && i < INTERPRETERS_MAX; i++) {
            unsigned before = f->n_threads, tries = 0;
            /* After the last try what was found stays: each is checked when it is read. */
            while (!list_threads(f, interp) && ++tries < LIST_TRIES)
                f->n_threads = before;
            if (!get(f, &interp, interp + offsetof(PyInterpreterState, next), sizeof interp))
                break;
        }
    *n = f->n_threads;
    return f->threads;
}

/* ---- the frames of a thread ---- */

static _PyInterpreterFrame *frame_of(struct link *l, _PyInterpreterFrame *to)
{
    memcpy(to, l->bytes, FRAME_HEAD);
    return to;
}

/* Where a thread's newest frame is. False: it cannot be read, or is another thread by now. */
static bool top_of(const struct frames *f, const struct frames_thread *t, uintptr_t *cframe,
                   uintptr_t *top)
{
    unsigned long id;
    return get(f, &id, t->state + offsetof(PyThreadState, native_thread_id), sizeof id) &&
           id == (unsigned long)t->id &&
           get(f, cframe, t->state + offsetof(PyThreadState, cframe), sizeof *cframe) &&
           get(f, top, *cframe + offsetof(_PyCFrame, current_frame), sizeof *top);
}

/* Unit of the instruction that a frame is in; below 0: it is before the first. */
static int unit_of(const _PyInterpreterFrame *frame, const struct code *c)
{
    intptr_t n =
        (intptr_t)frame->prev_instr - (intptr_t)(c->at + offsetof(PyCodeObject, co_code_adaptive));
    n /= (intptr_t)sizeof(_Py_CODEUNIT);
    return n < 0 ? -1 : n < c->units ? (int)n : c->units - 1;
}

/* Part way through its own beginning (or not there yet): Python does not show it either. */
static bool has_begun(const _PyInterpreterFrame *frame, const struct code *c)
{
    return frame->owner == FRAME_OWNED_BY_GENERATOR || unit_of(frame, c) >= c->first_traceable;
}

/* Read the list from the newest on. False: what is there cannot be a list of frames. */
static bool read_links(struct frames *f, uintptr_t at, bool *more)
{
    unsigned shown = 0;
    f->n_links = 0;
    while (at && shown < FRAMES_MAX && f->n_links < LINKS_MAX) {
        struct link *l = &f->links[f->n_links];
        _PyInterpreterFrame frame;
        if (!get(f, l->bytes, at, FRAME_HEAD))
            return false;
        frame_of(l, &frame);
        l->at = at;
        l->code = (unsigned char)frame.owner <= FRAME_OWNED_BY_FRAME_OBJECT
                      ? code_of(f, (uintptr_t)frame.f_code)
                      : NULL;
        if (!l->code)
            return false;
        shown += has_begun(&frame, l->code);
        f->n_links++;
        at = (uintptr_t)frame.previous;
    }
    *more = at != 0;
    return true;
}

/* Is it all still as it was read? */
static bool same_again(struct frames *f, const struct frames_thread *t, uintptr_t cframe,
                       uintptr_t top)
{
    struct peek_part parts[2 + 2 * LINKS_MAX];
    static_assert(countof(parts) <= PEEK_PARTS_MAX, "one call reads all");
    uintptr_t cframe_now = 0, top_now = 0;
    unsigned n = 0;
    parts[n++] = (struct peek_part){&cframe_now, t->state + offsetof(PyThreadState, cframe),
                                    sizeof cframe_now};
    parts[n++] =
        (struct peek_part){&top_now, cframe + offsetof(_PyCFrame, current_frame), sizeof top_now};
    for (unsigned i = 0; i < f->n_links; i++) {
        parts[n++] = (struct peek_part){f->again[i], f->links[i].at, FRAME_HEAD};
        parts[n++] = (struct peek_part){f->codes_again[i], f->links[i].code->at, CODE_HEAD};
    }
    if (peek_parts(f->peek, parts, n) || cframe_now != cframe || top_now != top)
        return false;
    bool same = true;
    for (unsigned i = 0; i < f->n_links; i++) {
        _PyInterpreterFrame was, is;
        struct code *c = f->links[i].code;
        uintptr_t known[4];
        frame_of(&f->links[i], &was);
        memcpy(&is, f->again[i], FRAME_HEAD);
        identity(f->codes_again[i], known);
        if (memcmp(known, c->is, sizeof known)) {
            /* Another code object has its place: the next try reads it. Its bucket stays taken. */
            same = false;
            if (!copy_code(f, c->at, c))
                *c = (struct code){.at = c->at, .function = "?", .file = "?"};
        }
        same = same && was.f_code == is.f_code && was.previous == is.previous &&
               was.owner == is.owner && (i == 0 || was.prev_instr == is.prev_instr);
    }
    return same;
}

static void note_frames(struct frames *f, struct frame_stack *out)
{
    out->n = 0;
    for (unsigned i = 0; i < f->n_links && out->n < FRAMES_MAX; i++) {
        _PyInterpreterFrame frame;
        const struct code *c = f->links[i].code;
        if (!has_begun(frame_of(&f->links[i], &frame), c))
            continue;
        out->frames[out->n++] = (struct frame_note){
            .function = c->function, .file = c->file, .line = line_of(c, unit_of(&frame, c))};
    }
}

void frames_read(struct frames *f, const struct frames_thread *t, struct frame_stack *out)
{
    out->n = 0;
    out->more = out->complete = false;
    for (unsigned i = 0; i < TRIES && !out->complete; i++) {
        uintptr_t cframe, top;
        bool more = false;
        if (!top_of(f, t, &cframe, &top))
            return;
        bool whole = read_links(f, top, &more);
        out->complete = whole && same_again(f, t, cframe, top);
        if (!out->complete && i + 1 < TRIES)
            continue;
        note_frames(f, out);
        out->more = more;
    }
}

/* ---- the lock ---- */

bool frames_lock(const struct frames *f, struct frames_lock *out)
{
    /* 3.11 has one lock for all interpreters, and a wish to drop it for each: those of others than
     * the main one are not looked at. */
    struct _gil_runtime_state gil;
    uintptr_t interp = 0, of_holder = 0;
    int wanted = 0;
    *out = (struct frames_lock){0};
    if (!get(f, &gil, (uintptr_t)&_PyRuntime.ceval.gil, sizeof gil))
        return false;
    memcpy(&out->holder, &gil.last_holder, sizeof out->holder);
    int locked = 0;
    memcpy(&locked, &gil.locked, sizeof locked);
    out->held = locked == 1;
    out->number = gil.switch_number;
    if (out->held && out->holder &&
        get(f, &interp, (uintptr_t)&_PyRuntime.interpreters.main, sizeof interp) &&
        get(f, &of_holder, out->holder + offsetof(PyThreadState, interp), sizeof of_holder) &&
        interp == of_holder &&
        !peek(f->peek, &wanted, interp + offsetof(PyInterpreterState, ceval.gil_drop_request),
              sizeof wanted))
        out->wanted = wanted == 1;
    return true;
}

bool frames_waits_for_lock(uintptr_t futex)
{
    const struct _gil_runtime_state *gil = &_PyRuntime.ceval.gil;
    return (futex >= (uintptr_t)&gil->cond && futex < (uintptr_t)(&gil->cond + 1)) ||
           (futex >= (uintptr_t)&gil->mutex && futex < (uintptr_t)(&gil->mutex + 1));
}

#else /* another version: its structures are not known here */

struct frames {
    char none;
};

bool frames_known(void)
{
    return false;
}

const char *frames_unknown(void)
{
    return "frames can be read with CPython 3.11 only";
}

struct frames *frames_new(const struct peek *p)
{
    (void)p;
    return calloc(1, sizeof(struct frames));
}

void frames_free(struct frames **f)
{
    free(*f);
    *f = NULL;
}

const struct frames_thread *frames_threads(struct frames *f, unsigned *n)
{
    (void)f;
    *n = 0;
    return NULL;
}

void frames_read(struct frames *f, const struct frames_thread *t, struct frame_stack *out)
{
    (void)f;
    (void)t;
    out->n = 0;
    out->more = out->complete = false;
}

bool frames_lock(const struct frames *f, struct frames_lock *out)
{
    (void)f;
    *out = (struct frames_lock){0};
    return false;
}

bool frames_waits_for_lock(uintptr_t futex)
{
    (void)futex;
    return false;
}

#endif
