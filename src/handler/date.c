/* date: see the header. */
#include "handler/date.h"

#include <time.h>

static const char DAYS[] = "SunMonTueWedThuFriSat";
static const char MONTHS[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
static const char *const LONG_DAYS[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                        "Thursday", "Friday", "Saturday"};

/* ---- to a text ---- */

static char *put(char *p, const char *from, size_t n)
{
    memcpy(p, from, n);
    return p + n;
}

static char *put_two(char *p, int v)
{
    *p++ = (char)('0' + v / 10);
    *p++ = (char)('0' + v % 10);
    return p;
}

void date_format(int64_t second, char *out)
{
    struct tm tm;
    time_t t = (time_t)second;
    if (!gmtime_r(&t, &tm) || tm.tm_year < 1 - 1900 || tm.tm_year > 9999 - 1900)
        tm = (struct tm){.tm_mday = 1, .tm_year = 70, .tm_wday = 4};
    int year = tm.tm_year + 1900;
    char *p = put(out, DAYS + 3 * tm.tm_wday, 3);
    p = put(p, ", ", 2);
    p = put_two(p, tm.tm_mday);
    *p++ = ' ';
    p = put(p, MONTHS + 3 * tm.tm_mon, 3);
    *p++ = ' ';
    p = put_two(p, year / 100);
    p = put_two(p, year % 100);
    const int clock[3] = {tm.tm_hour, tm.tm_min, tm.tm_sec};
    for (int i = 0; i < 3; i++) {
        *p++ = i ? ':' : ' ';
        p = put_two(p, clock[i]);
    }
    put(p, " GMT", 4);
}

/* ---- from a text ---- */

static bool take(struct slice *s, const char *text)
{
    struct slice word = slice_str(text);
    if (!slice_starts(*s, word))
        return false;
    *s = slice_of(s->p + word.n, s->n - word.n);
    return true;
}

/* Exactly `n` digits; with `blank` the first may be a space. */
static bool take_number(struct slice *s, size_t n, bool blank, int *out)
{
    *out = 0;
    if (s->n < n)
        return false;
    for (size_t i = 0; i < n; i++) {
        char b = s->p[i];
        if (b == ' ' && i == 0 && blank)
            continue;
        if (b < '0' || b > '9')
            return false;
        *out = *out * 10 + (b - '0');
    }
    *s = slice_of(s->p + n, s->n - n);
    return true;
}

/* One of the names of three letters in `names`, by its number. */
static bool take_name(struct slice *s, const char *names, int *out)
{
    for (int i = 0; names[3 * i]; i++)
        if (s->n >= 3 && memcmp(s->p, names + 3 * i, 3) == 0) {
            *out = i;
            *s = slice_of(s->p + 3, s->n - 3);
            return true;
        }
    return false;
}

static bool take_clock(struct slice *s, struct tm *tm)
{
    return take_number(s, 2, false, &tm->tm_hour) && take(s, ":") &&
           take_number(s, 2, false, &tm->tm_min) && take(s, ":") &&
           take_number(s, 2, false, &tm->tm_sec);
}

/* "06 Nov 1994 08:49:37 GMT" behind "Sun, " */
static bool parse_fixed(struct slice s, struct tm *tm, int *year)
{
    return take_number(&s, 2, false, &tm->tm_mday) && take(&s, " ") &&
           take_name(&s, MONTHS, &tm->tm_mon) && take(&s, " ") && take_number(&s, 4, false, year) &&
           take(&s, " ") && take_clock(&s, tm) && take(&s, " GMT") && s.n == 0;
}

/* "06-Nov-94 08:49:37 GMT" behind "Sunday, " */
static bool parse_850(struct slice s, struct tm *tm, int *year)
{
    return take_number(&s, 2, false, &tm->tm_mday) && take(&s, "-") &&
           take_name(&s, MONTHS, &tm->tm_mon) && take(&s, "-") && take_number(&s, 2, false, year) &&
           take(&s, " ") && take_clock(&s, tm) && take(&s, " GMT") && s.n == 0;
}

/* "Nov  6 08:49:37 1994" behind "Sun " */
static bool parse_asctime(struct slice s, struct tm *tm, int *year)
{
    return take_name(&s, MONTHS, &tm->tm_mon) && take(&s, " ") &&
           take_number(&s, 2, true, &tm->tm_mday) && take(&s, " ") && take_clock(&s, tm) &&
           take(&s, " ") && take_number(&s, 4, false, year) && s.n == 0;
}

static int year_of(int64_t second)
{
    struct tm tm = {.tm_year = 70};
    time_t t = (time_t)second;
    (void)gmtime_r(&t, &tm);
    return tm.tm_year + 1900;
}

bool date_parse(struct slice s, int64_t now, int64_t *second)
{
    struct tm tm = {0};
    int year = 0, day;
    bool known = false;
    if (s.n > 32)
        return false;
    for (size_t i = 0; i < 7 && !known; i++) {
        struct slice rest = s;
        if (!take(&rest, LONG_DAYS[i]) || !take(&rest, ", "))
            continue;
        known = true;
        if (!parse_850(rest, &tm, &year))
            return false;
        int this_year = year_of(now);
        year += this_year - this_year % 100;
        if (year > this_year + 50)
            year -= 100;
    }
    if (!known) {
        if (!take_name(&s, DAYS, &day))
            return false;
        if (!(take(&s, ", ") ? parse_fixed(s, &tm, &year)
                             : take(&s, " ") && parse_asctime(s, &tm, &year)))
            return false;
    }
    if (tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
        return false;
    int mday = tm.tm_mday;
    tm.tm_sec = tm.tm_sec == 60 ? 59 : tm.tm_sec; /* a leap second */
    tm.tm_year = year - 1900;
    *second = timegm(&tm);
    return tm.tm_mday == mday; /* 30 February becomes another day */
}
