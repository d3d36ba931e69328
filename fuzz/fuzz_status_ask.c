/*
 * Any bytes as the query of /status.json: what is accepted is within its bounds, and what is refused
 * is told in one plain line.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "admin/status.h"
#include "base/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_end(const char *text, size_t room)
{
    must(memchr(text, '\0', room) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 4096)
        return 0;
    struct status_ask ask, again;
    struct err e = {{0}};
    char *text = malloc(size + 1); /* as long as it is: ASan sees who reads behind it */
    must(text);
    memcpy(text, data, size);
    int rc = status_ask_parse(&ask, slice_of(text, size), &e);
    must(rc == (e.text[0] ? -1 : 0));
    for (const char *p = e.text; *p; p++)
        must((unsigned char)*p >= ' ' && (unsigned char)*p < 0x7f);
    if (rc == 0) {
        must(ask.flights <= STATUS_FLIGHTS_MAX || ask.flights == STATUS_NO_FLIGHTS);
        must(ask.sort <= STATUS_BY_STATE);
        must(ask.state >= 0 && ask.state < FLIGHT_STATES);
        must(ask.worker >= 0 && ask.worker <= SCOREBOARD_SLOTS_MAX);
        must_end(ask.route, sizeof ask.route);
        must_end(ask.find, sizeof ask.find);
        must(status_ask_parse(&again, slice_of(text, size), NULL) == 0);
        must(again.flights == ask.flights && strcmp(again.find, ask.find) == 0);
    }
    free(text);
    return 0;
}
