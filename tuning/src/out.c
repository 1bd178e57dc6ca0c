/* out.c: see out.h.
 *
 * The JSON writer keeps only a depth and whether a comma is due, since every command writes one
 * document from top to bottom.
 */
#include "out.h"

#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DEPTH 16
#define COLUMNS 100 /* where nobody says */
#define COLUMNS_MIN 40
#define COLUMNS_MAX 400

static struct {
    char closing[MAX_DEPTH];
    bool filled[MAX_DEPTH];
    size_t depth;
    bool begun;
} json;

/* How many bytes at s need no escape and are plain ASCII. */
static size_t
plain_length(const char *s)
{
    size_t n = 0;

    while (s[n] >= ' ' && s[n] < 0x7f && s[n] != '"' && s[n] != '\\')
        n++;
    return n;
}

static void
put_json_text(const char *s)
{
    (void)putchar_unlocked('"');
    while (*s != '\0') {
        unsigned char c = (unsigned char)*s;
        size_t n = plain_length(s);

        if (n == 0)
            n = utf8_length(s);
        if (c == '"' || c == '\\')
            (void)printf("\\%c", c);
        else if (c < ' ' || c == 0x7f)
            (void)printf("\\u%04x", c);
        else if (n == 0)
            (void)fputs("\\ufffd", stdout);
        else
            (void)fwrite_unlocked(s, 1, n, stdout);
        s += n == 0 ? 1 : n;
    }
    (void)putchar_unlocked('"');
}

/* Indented; there is one thread, so that no lock is needed for any character. */
_Static_assert(MAX_DEPTH == 16, "new_line indents by two blanks for each level");

static void
new_line(void)
{
    static const char indented[] = "\n                                ";

    (void)fwrite_unlocked(indented, 1, 1 + 2 * json.depth, stdout);
}

static void
begin(const char *key)
{
    if (json.depth > 0) {
        if (json.filled[json.depth - 1])
            (void)putchar_unlocked(',');
        json.filled[json.depth - 1] = true;
        new_line();
    }
    if (key != NULL) {
        put_json_text(key);
        (void)fwrite_unlocked(": ", 1, 2, stdout);
    }
}

void
json_open(const char *key, char bracket)
{
    json.begun = true;
    begin(key);
    (void)putchar(bracket);
    if (json.depth < MAX_DEPTH) {
        json.closing[json.depth] = bracket == '{' ? '}' : ']';
        json.filled[json.depth++] = false;
    }
}

void
json_close(void)
{
    bool filled = json.filled[--json.depth];

    if (filled)
        new_line();
    (void)putchar(json.closing[json.depth]);
    if (json.depth == 0)
        (void)putchar('\n');
}

void
json_text(const char *key, const char *text)
{
    begin(key);
    if (text == NULL)
        (void)fputs("null", stdout);
    else
        put_json_text(text);
}

void
json_number(const char *key, int64_t n)
{
    begin(key);
    (void)printf("%lld", (long long)n);
}

void
json_bool(const char *key, bool b)
{
    begin(key);
    (void)fputs(b ? "true" : "false", stdout);
}

bool
json_begun(void)
{
    return json.begun;
}

void
json_head(const char *command)
{
    json.depth = 0;
    json_open(NULL, '{');
    json_number("version", 1);
    json_text("command", command);
}

void
json_tail(enum exit_code rv)
{
    size_t n;
    const struct message *messages = said(&n);

    json_text("verdict", exit_name(rv));
    json_number("exit", rv);
    json_open("messages", '[');
    for (size_t i = 0; i < n; i++)
        json_text(NULL, messages[i].text);
    json_close();
    json_close();
}

void
json_rows(const struct options *o, const char *command, const char *key)
{
    if (o->format != FORMAT_JSON)
        return;
    json_head(command);
    json_open(key, '[');
}

void
json_rows_end(const struct options *o, enum exit_code rv)
{
    if (o->format != FORMAT_JSON)
        return;
    json_close();
    json_tail(rv);
}

static void
put_tsv(const char *s)
{
    for (; *s != '\0'; s += printable_length(s) == 0 ? 1 : printable_length(s))
        switch (*s) {
        case '\t':
            (void)fputs("\\t", stdout);
            break;
        case '\n':
            (void)fputs("\\n", stdout);
            break;
        case '\\':
            (void)fputs("\\\\", stdout);
            break;
        default:
            if (printable_length(s) == 0)
                (void)putchar('?');
            else
                (void)fwrite(s, 1, printable_length(s), stdout);
            break;
        }
}

void
tsv_put(const char *const texts[])
{
    for (size_t i = 0; texts[i] != NULL; i++) {
        if (i > 0)
            (void)putchar('\t');
        put_tsv(texts[i]);
    }
    (void)putchar('\n');
}

void
put_painted(const struct options *o, enum paint paint, const char *text, int width)
{
    static const char *const codes[] = {"",         "\033[32m", "\033[31m",
                                        "\033[33m", "\033[2m",  "\033[1m"};
    int pad = width - (int)strlen(text);

    text = printable(text);
    if (o->color && paint != PAINT_NONE)
        (void)printf("%s%s\033[0m", codes[paint], text);
    else
        (void)fputs(text, stdout);
    if (pad > 0)
        (void)printf("%*s", pad, "");
}

/* Of the terminal; else what COLUMNS says. */
int
out_columns(void)
{
    static int known;
    const char *text;
    struct winsize size;
    long n = 0;

    if (known != 0)
        return known;
    text = getenv("COLUMNS");
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        n = size.ws_col;
    else if (text != NULL)
        n = strtol(text, NULL, 10);
    known = n <= 0 ? COLUMNS : (int)n;
    if (known < COLUMNS_MIN)
        known = COLUMNS_MIN;
    if (known > COLUMNS_MAX)
        known = COLUMNS_MAX;
    return known;
}

void
put_rest(int column, int indent, const char *text)
{
    text = printable(text);
    while (*text != '\0') {
        int len = (int)strcspn(text, " ");

        if (column + len > out_columns() && column > indent) {
            (void)printf("\n%*s", indent, "");
            column = indent;
        }
        (void)fwrite(text, 1, (size_t)len, stdout);
        column += len;
        text += len;
        if (*text == ' ') {
            if (column < out_columns() && text[1] != '\0' &&
                column + 1 + (int)strcspn(text + 1, " ") <= out_columns())
                (void)putchar(' ');
            column++;
            text++;
        }
    }
    (void)putchar('\n');
}

void
put_wrapped(int indent, const char *label, const char *text)
{
    int width = indent + (int)strlen(label);

    (void)printf("%*s%s", indent, "", label);
    put_rest(width, width, text);
}

void
put_beside(int column, const char *gap, const char *text)
{
    if (column + (int)(strlen(gap) + strlen(text)) <= out_columns()) {
        (void)printf("%s%s\n", gap, printable(text));
        return;
    }
    (void)putchar('\n');
    put_wrapped(4, "", text);
}

#define KEY_WIDTH 38
#define KEYS_FROM 80 /* columns from which keys are padded to it */

void
put_entry(const char *word, int word_width, const char *key, const char *text)
{
    const int width = out_columns() >= KEYS_FROM ? KEY_WIDTH : 0;

    put_beside(printf("  %-*s %-*s", word_width, word, width, printable(key)), " ", text);
}

static struct {
    const char *path, *draft; /* NULL: stdout is what it was */
} file;

static int
open_draft(const char *draft)
{
    return open(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
}

bool
out_replace(const char *option, const char *path, const char *text, size_t len)
{
    const char *draft = mem_format("%s.%ld.new", path, (long)getpid());
    int fd = open_draft(draft);
    bool ok;

    if (fd >= 0) {
        ok = write(fd, text, len) == (ssize_t)len && fsync(fd) == 0 && rename(draft, path) == 0;
        (void)close(fd);
        if (ok)
            return true;
    }
    say("%s: %s: %s", option, path, strerror(errno));
    if (fd >= 0)
        (void)unlink(draft);
    return false;
}

bool
out_to_file(const char *path)
{
    const char *draft = mem_format("%s.%ld.new", path, (long)getpid());
    int fd = open_draft(draft);

    /* The collector that reads it is another user, whatever our umask says. */
    if (fd < 0 || fchmod(fd, 0644) != 0 || dup2(fd, STDOUT_FILENO) < 0) {
        say("--output: %s: %s", path, strerror(errno));
        if (fd >= 0) {
            (void)close(fd);
            (void)unlink(draft);
        }
        return false;
    }
    (void)close(fd);
    file.path = path;
    file.draft = draft;
    return true;
}

enum exit_code
out_finish(enum exit_code rv)
{
    bool whole = fflush(stdout) == 0 && ferror(stdout) == 0;

    if (file.path == NULL && whole)
        return rv;
    if (file.path == NULL)
        return fail_with(EXIT_SYSTEM, "cannot write the answer: %s", strerror(errno));
    if (whole && fsync(STDOUT_FILENO) == 0 && rename(file.draft, file.path) == 0)
        return rv;
    rv = fail_with(EXIT_SYSTEM, "--output: %s: %s", file.path, strerror(errno));
    (void)unlink(file.draft);
    return rv;
}

const char *
exit_name(enum exit_code rv)
{
    static const char *const names[] = {
        "as wanted",      "drift",    "usage",        "bad profile", "no permission",   "refused",
        "partly applied", "conflict", "system error", "residue",     "global left out",
    };

    return names[rv];
}
