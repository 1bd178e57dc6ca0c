/* usual.c: see usual.h.
 *
 * Expressions know: memory (bytes), page (bytes), linux (5 * 1000 + 15 for Linux 5.15) and
 * tcp_hash, the buckets of established connections.
 */
#include "usual.h"

#include "expr.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB ((int64_t)1024 * 1024)
#define NEWEST 999999

int64_t
usual_memory(const struct sys *s)
{
    /* Of a saved list of settings: kernel/fork.c, set_max_threads, gives one thread to each eight
     * stacks of 16 KiB. */
    static const int64_t of_a_thread = 8 * 16384;
    struct value v;
    unsigned long long kib;
    size_t len;
    int sys;
    const char *text, *line;

    if (s->saved != NULL)
        return sys_value(s, "kernel/threads-max", &v, NULL, &sys) == ACCESS_OK &&
                       v.type == TYPE_INTS && v.num[0] > 0 && v.num[0] < INT32_MAX
                   ? v.num[0] * of_a_thread
                   : 0;
    text = sys_file(s, "/proc/meminfo", 4096, &len);
    line = text == NULL ? NULL : strstr(text, "MemTotal:");
    if (line == NULL)
        return 0;
    kib = strtoull(line + strlen("MemTotal:"), NULL, 10);
    return kib < INT64_MAX / 1024 ? (int64_t)kib * 1024 : 0;
}

int64_t
usual_page(const struct sys *s)
{
    return s->fake ? 4096 : sysconf(_SC_PAGESIZE);
}

/* From Linux 6.1 on the kernel tells it, below zero where a namespace shares the machine's. Before:
 * one bucket for each 128 KiB, in tcp_init (net/ipv4/tcp.c) and alloc_large_system_hash
 * (mm/mm_init.c:2412, Linux 6.12). */
static int64_t
tcp_hash(const struct sys *s, int64_t memory)
{
    int64_t n = 512, want = (memory + MIB - 1) / MIB * 8;
    struct value v;
    int sys;

    if (sys_value(s, "net/ipv4/tcp_ehash_entries", &v, NULL, &sys) == ACCESS_OK &&
        v.type == TYPE_INTS && v.num[0] != 0 && v.num[0] > INT32_MIN && v.num[0] <= INT32_MAX)
        return v.num[0] < 0 ? -v.num[0] : v.num[0];
    while (n < want && n < 512 * 1024)
        n *= 2;
    return memory == 0 ? 0 : n;
}

static int64_t
version_of(const char *kernel)
{
    char *end;
    const long major = strtol(kernel, &end, 10);

    if (major < 1 || major > 99 || *end != '.')
        return NEWEST;
    return major * 1000 + strtol(end + 1, NULL, 10);
}

bool
usual_computed(const struct sys *s, const struct kb_key *k, struct value *ret, bool *ret_near)
{
    const char *text = k == NULL ? NULL : kb_text(k, KB_COMPUTED), *why, *shown;
    struct vars known = {0};
    int64_t memory, hash;

    if (k == NULL || s->image)
        return false;
    *ret_near = text == NULL;
    if (text == NULL && (text = kb_text(k, KB_NEAR)) == NULL)
        return false;
    memory = usual_memory(s);
    hash = tcp_hash(s, memory);
    if (memory > 0)
        vars_add(&known, "memory", memory);
    if (hash > 0)
        vars_add(&known, "tcp_hash", hash);
    vars_add(&known, "page", usual_page(s));
    vars_add(&known, "linux", version_of(s->kernel));
    shown = expr_expand(&known, text, &why);
    return shown != NULL && value_parse(shown, (enum vtype)k->type, k->fields, false, ret, &why);
}

bool
usual_value(const struct sys *s, const struct kb_key *k, const char *path, struct value *ret,
            bool *ret_computed)
{
    bool near;

    *ret_computed = usual_computed(s, k, ret, &near) && !near;
    return *ret_computed || kb_default_value(k, path, s->kernel, ret);
}
