/* sys.h: the only way to /proc/sys.
 *
 * Opens /proc/sys once, in the namespace that was asked for, and from then on opens files beneath
 * that descriptor only (openat2 with RESOLVE_BENEATH). With a root directory other than / the same
 * code works on plain files, for tests and for images: writes then replace the file atomically.
 */
#ifndef TUNE_SYS_H
#define TUNE_SYS_H

#include "kb.h"

struct saved;
struct memory;

struct sys {
    const char *root; /* "" for the real one */
    bool fake;
    bool image;    /* no kernel runs in it: no setting can be read */
    bool first_ns; /* global keys are visible */
    int proc_sys;
    const struct saved *saved; /* instead of /proc/sys; then nothing else is known either */
    char kernel[65];
    char arch[65];
    uint64_t ns_inode, ns_cookie;
    struct memory *memory; /* of what was read; NULL: each read asks the kernel */
};

enum access { ACCESS_OK, ACCESS_MISSING, ACCESS_DENIED, ACCESS_FAILED };

/* Enters o->netns for the rest of the process, then opens. Says why it failed. */
enum exit_code sys_open(const struct options *o, struct sys *ret_sys);
void sys_close(struct sys *s);
/* False for the empty /proc of an image. */
bool sys_has_settings(const struct sys *s);

/* From now on each key is read once: for a look that writes nothing, over many profiles. */
void sys_remember(struct sys *s);
/* The raw text, in the arena. *ret_errno is set unless ACCESS_OK. */
enum access sys_read(const struct sys *s, const char *path, const char **ret_text, int *ret_errno);
/* One write(2). 0, an errno, or EMSGSIZE for a short write. Does not read back. */
int sys_write(const struct sys *s, const char *path, const char *text);
/* Whether a write has a chance: 0 or the errno that it would meet. */
int sys_may_write(const struct sys *s, const char *path);
/* Why a key is not there, as a sentence. */
const char *sys_why_missing(const struct sys *s, const char *path);
/* Reads and parses by what is known about the key. */
enum access sys_value(const struct sys *s, const char *path, struct value *ret_value,
                      const char **ret_text, int *ret_errno);
bool sys_has_module(const struct sys *s, const char *name);
/* Names in a directory beneath /proc/sys, such as net/ipv4/conf; NULL-terminated. */
char **sys_names(const struct sys *s, const char *dir);
/* A small file of the system (not a setting), beneath root; NULL if it cannot be read. */
char *sys_file(const struct sys *s, const char *path, size_t limit, size_t *ret_len);

#endif
