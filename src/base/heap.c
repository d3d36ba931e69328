/* heap: see the header. */
#include "base/heap.h"

#include "base/must.h"

/* One tree of two, each without siblings; either may be NULL. */
static struct heap_node *join(struct heap_node *a, struct heap_node *b)
{
    if (!a || !b)
        return a ? a : b;
    if (b->key < a->key) {
        struct heap_node *other = a;
        a = b;
        b = other;
    }
    b->prev = a;
    b->next = a->child;
    if (b->next)
        b->next->prev = b;
    a->child = b;
    return a;
}

/* One tree of a row of siblings: pairs from left to right, then all pairs from right to left. */
static struct heap_node *gather(struct heap_node *row)
{
    struct heap_node *pairs = NULL, *all = NULL;
    while (row) {
        struct heap_node *a = row, *b = a->next;
        row = b ? b->next : NULL;
        a->next = NULL;
        if (b)
            b->next = NULL;
        a = join(a, b);
        a->next = pairs; /* a stack: what has no place in a tree yet needs no `next` */
        pairs = a;
    }
    while (pairs) {
        struct heap_node *a = pairs;
        pairs = a->next;
        a->next = NULL;
        all = join(all, a);
    }
    return all;
}

static void set_top(struct heap *h, struct heap_node *n)
{
    h->top = n;
    if (n)
        n->prev = n;
}

void heap_add(struct heap *h, struct heap_node *n, int64_t key)
{
    must(!heap_has(n));
    n->child = n->next = NULL;
    n->key = key;
    set_top(h, join(h->top, n));
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    must(heap_has(n));
    struct heap_node *below = gather(n->child);
    if (n == h->top) {
        set_top(h, below);
    } else {
        if (n->prev->child == n)
            n->prev->child = n->next;
        else
            n->prev->next = n->next;
        if (n->next)
            n->next->prev = n->prev;
        set_top(h, join(h->top, below));
    }
    n->child = n->next = n->prev = NULL;
}
