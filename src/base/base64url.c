/* base64url: see the header. */
#include "base/base64url.h"

#include <stdint.h>

/* What a character stands for; 64 or more: it stands for nothing. */
static unsigned value_of(unsigned char c)
{
    /* One more than the value, so that all that is not named is 0 and becomes a large number. */
    static const uint8_t PLUS_ONE[256] = {
        ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,
        ['H'] = 8,  ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14,
        ['O'] = 15, ['P'] = 16, ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21,
        ['V'] = 22, ['W'] = 23, ['X'] = 24, ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28,
        ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32, ['g'] = 33, ['h'] = 34, ['i'] = 35,
        ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40, ['o'] = 41, ['p'] = 42,
        ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49,
        ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
        ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['-'] = 63,
        ['_'] = 64,
    };
    return PLUS_ONE[c] - 1U;
}

bool base64url_decode(struct slice text, unsigned char *to)
{
    unsigned bits = 0, n_bits = 0;
    if (text.n % 4 == 1)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned v = value_of((unsigned char)text.p[i]);
        if (v >= 64)
            return false;
        bits = bits << 6 | v;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            *to++ = (unsigned char)(bits >> n_bits);
            bits &= (1U << n_bits) - 1;
        }
    }
    return bits == 0;
}
