/* out.h: writing results: JSON, tab-separated lines, and text for people.
 *
 * Everything goes to stdout through stdio; out_finish notices a full disk or a closed pipe.
 */
#ifndef TUNE_OUT_H
#define TUNE_OUT_H

#include "tune.h"

/* JSON, one value after the other; commas and indentation come by themselves. A NULL key is for
 * members of lists, a NULL text becomes null. Bytes that are no UTF-8 become U+FFFD. */
void json_open(const char *key, char bracket);
void json_close(void);
void json_text(const char *key, const char *text);
void json_number(const char *key, int64_t n);
void json_bool(const char *key, bool b);
/* Whether anything was opened yet. */
bool json_begun(void);
/* Opens the document of a command, and ends it: verdict, exit code, and what was said. */
void json_head(const char *command);
void json_tail(enum exit_code rv);

/* The document of a command that answers with rows, if o wants JSON: opened, and ended. */
void json_rows(const struct options *o, const char *command, const char *key);
void json_rows_end(const struct options *o, enum exit_code rv);

/* One line; each text has its tabs, newlines and backslashes escaped; NULL ends the list. */
void tsv_put(const char *const texts[]);
#define tsv_line(...) tsv_put((const char *const[]){__VA_ARGS__})

enum paint { PAINT_NONE, PAINT_GOOD, PAINT_BAD, PAINT_WARN, PAINT_DIM, PAINT_BOLD };
/* Colours only if o says so; width pads (negative: none). */
void put_painted(const struct options *o, enum paint paint, const char *text, int width);
/* Of the terminal, or COLUMNS, or 100; 40 at least. */
int out_columns(void);
/* Wraps text that begins at a column: at the terminal's width, or COLUMNS, or 100. */
void put_rest(int column, int indent, const char *text);
/* The same behind an indentation, after a label. */
void put_wrapped(int indent, const char *label, const char *text);
/* The text on the line that has reached the column, after a gap, where it fits; else below it,
 * wrapped. */
void put_beside(int column, const char *gap, const char *text);
/* "  word     key      text", in columns where the screen is wide enough for them. */
void put_entry(const char *word, int word_width, const char *key, const char *text);
/* Everything written from now on goes to a new file, which out_finish puts in the place of path: a
 * reader finds the old one or the new one, whole. Says why not. */
bool out_to_file(const char *path);
/* The same with a text that is here already; option stands in front of what is said. */
bool out_replace(const char *option, const char *path, const char *text, size_t len);
/* EXIT_SYSTEM if not everything could be written. */
enum exit_code out_finish(enum exit_code rv);
const char *exit_name(enum exit_code rv);

#endif
