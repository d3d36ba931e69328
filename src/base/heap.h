/*
 * heap: what comes first? Intrusive, smallest key on top.
 *
 * A pairing heap: adding is a comparison, and so is removing a node below which nothing stands,
 * which is what a timer that never fires costs. Taking the top, or a node with others below it, is
 * O(log n) over time. No allocation, no recursion.
 *
 * A zeroed heap is empty, and a zeroed node is on no heap; removing it again is harmless. Which of
 * several equal keys is on top is not told. Owner:   nodes are the caller's. Threads: none inside.
 * Source:  Fredman, Sedgewick, Sleator and Tarjan, "The pairing heap" (1986), two-pass form.
 */
#ifndef WEIR_BASE_HEAP_H
#define WEIR_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    struct heap_node *child; /* first of those below it; none has a smaller key */
    struct heap_node *next;  /* its next sibling */
    struct heap_node *prev;  /* the sibling before it, for the first one the node above; the top's
                                own  address; NULL: on no heap */
    int64_t key;             /* read it; heap_add alone writes it */
};

struct heap {
    struct heap_node *top; /* smallest key; NULL: empty */
};

static inline bool heap_has(const struct heap_node *n)
{
    return n->prev != NULL;
}

/* Add a node that is on no heap. */
void heap_add(struct heap *h, struct heap_node *n, int64_t key);

/* Remove a node of this heap. */
void heap_remove(struct heap *h, struct heap_node *n);

/* The same, of this heap or on none: most requests have no timer, and pay a comparison for that. */
static inline void heap_del(struct heap *h, struct heap_node *n)
{
    if (heap_has(n))
        heap_remove(h, n);
}

#endif
