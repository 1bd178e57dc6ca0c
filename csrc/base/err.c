/* err.c: error values and their texts.
 *
 * One table (HS_ERRORS in hardsock.h) is the source of codes, classes and texts. Nothing here is
 * global or thread-local, and nothing prints.
 */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *
hs_version(void)
{
    return HS_VERSION;
}

const char *
hs_err_text(hs_err code)
{
    switch (code) {
    case HS_OK:
        return "success";
    case HS_INTR:
        return "interrupted, call again";
    case HS_WANT:
        return "would wait, call again";
#define HS_ERR_CASE(name, class_, number, text)                                                    \
    case HS_E_##name:                                                                              \
        return text;
        HS_ERRORS(HS_ERR_CASE)
#undef HS_ERR_CASE
    default:
        return "unknown error";
    }
}

/* strerror_r of GNU returns the text, that of POSIX (musl) whether it has written one. */
static inline const char *
text_of_gnu(const char *said, const char *written)
{
    (void)written;
    return said;
}

static inline const char *
text_of_posix(int failed, const char *written)
{
    return failed == 0 ? written : "unknown error";
}

#define TEXT_OF(call, written)                                                                     \
    _Generic((call), char * : text_of_gnu, int : text_of_posix)((call), (written))

static void
append_errno(struct hs_error *err)
{
    char text[96] = "";
    size_t used = strlen(err->msg);

    (void)snprintf(err->msg + used, sizeof(err->msg) - used, "%s%s", used > 0 ? ": " : "",
                   TEXT_OF(strerror_r(err->sys, text, sizeof(text)), text));
}

void
hs_err_fill(struct hs_error *err, hs_err code, int sys, const char *op, const char *fmt, ...)
{
    va_list ap;

    if (err == NULL || err->code != HS_OK)
        return;
    err->code = code;
    err->sys = sys;
    err->op = op;
    if (strchr(fmt, '%') ==
        NULL) { /* the usual case of a cancel or a deadline, and ten times faster */
        (void)strncpy(err->msg, fmt, sizeof(err->msg) - 1);
    } else {
        va_start(ap, fmt);
        (void)vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
        va_end(ap);
    }
    if (sys != 0)
        append_errno(err);
}
