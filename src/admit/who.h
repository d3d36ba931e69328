/* who: who asks, as admission found it. Texts are lent for the time of the request. */
#ifndef WEIR_ADMIT_WHO_H
#define WEIR_ADMIT_WHO_H

#include "base/slice.h"

struct who {
    const char *by;      /* "jwt", "bearer", "api_key", "address": what told; a literal */
    struct slice user;   /* "" = nobody that is known */
    struct slice tier;   /* "" = none */
    struct slice claims; /* of a verified token: its claims as JSON; "" = none */
};

#endif
