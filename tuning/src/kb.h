/* kb.h: what is known about each kernel setting, compiled in.
 *
 * The facts stand in kb/, in YAML, a file for each family of keys; kbgen turns them into tables
 * when the program is built. Ranges and defaults are hints for people and for early warnings: the
 * kernel's own answer rules, since both have changed inside stable series.
 *
 * Texts are offsets into one pool, so that the tables need no relocations at start.
 */
#ifndef TUNE_KB_H
#define TUNE_KB_H

#include "value.h"

enum scope {
    SCOPE_NAMESPACE, /* each network namespace has its own */
    SCOPE_GLOBAL,    /* one for the machine; net.* keys are absent in other namespaces */
    SCOPE_READONLY,  /* one for the machine; other network namespaces may read it */
    SCOPE_IPC,       /* each IPC namespace has its own */
    SCOPE_NONE,      /* not a setting (any more) */
};

enum effect { EFFECT_LIVE, EFFECT_NEW, EFFECT_LISTEN, EFFECT_CALL, EFFECT_PARTLY };

/* How the kernel combines conf.all and conf.INTERFACE into what rules a packet. */
enum combine {
    COMBINE_NONE,      /* no such key */
    COMBINE_OWN,       /* the interface's value alone; conf.all does nothing to it */
    COMBINE_MAX,       /* the larger of both */
    COMBINE_MIN,       /* the smaller of both */
    COMBINE_OR,        /* on if one of them is */
    COMBINE_AND,       /* on if both are */
    COMBINE_FIRST,     /* conf.all unless that is 0, else the interface's */
    COMBINE_REDIRECTS, /* `and` on an interface that forwards, `or` on one that does not */
    COMBINE_COPY,      /* the interface's value; a write to conf.all writes every interface's */
    COMBINE_ALL,       /* conf.all alone */
};

enum kb_text {
    KB_MEANING,
    KB_UNIT,
    KB_DEFAULT,     /* of the newest kernels that were looked at */
    KB_DEFAULT_ALL, /* of conf.all, where that is another one */
    KB_COMPUTED,    /* the same as an expression of what usual.h knows of the machine */
    KB_NEAR,        /* so too, but the kernel counts what was free while it started */
    KB_COMPUTED_SOURCE,
    KB_WHEN,
    KB_RULES,
    KB_RISK,
    KB_MYTH,
    KB_TWIN,  /* a key for the other family */
    KB_ALIAS, /* another name of the same variable */
    KB_MODULE,
    KB_SCOPE_UNTIL, /* "6.1 global": what it was seen to be in that version, and before */
    KB_SINCE,
    KB_ABSENT,  /* the last version that was seen without the key */
    KB_PRESENT, /* the first one that was seen with it */
    KB_REMOVED,
    KB_CHECK_ONLY, /* why `apply` leaves it alone */
    KB_NOTE,       /* a word on scopes of older versions, and the like */
    KB_SOURCE,
    KB_RULE_SOURCE, /* where the kernel combines conf.all and conf.INTERFACE */
    KB_RISK_SOURCE, /* from risks.yaml: where the cases stand written */
    KB_VERIFIED,
    /* From seen.yaml, which a run of booted kernels writes: */
    KB_SEEN,    /* by kernel: what it starts with */
    KB_AGREED,  /* which of these facts the kernels confirmed */
    KB_DIFFERS, /* and which not */
    KB_TEXTS
};

/* From bad to good, which is the order in which cases stand and are tried. */
enum level {
    LEVEL_HARMFUL,   /* hurts, whatever the machine does */
    LEVEL_DOUBTFUL,  /* hurts where a condition holds, which the text names */
    LEVEL_POINTLESS, /* does nothing */
    LEVEL_RANGE,     /* outside the range that makes sense */
    LEVEL_NONE,      /* nothing is known about the value */
    LEVEL_FINE,      /* looked into, and no harm in it */
};

/* "<128", "0", "16..64", "!1", "&4" (that bit), "1:<10000" (the first of several numbers). Without
 * a place, bad cases hold for any of the numbers and good ones for all of them. Of a list of ports
 * it is how many there are. */
struct kb_case {
    uint8_t level;
    uint8_t op;    /* '=': low to high, '!': not low, '&': any bit of low */
    uint8_t field; /* 0: none in particular */
    int64_t low, high;
    uint32_t word;      /* instead of numbers */
    uint32_t condition; /* as it was written */
    uint32_t text;      /* 0: none, for fine ones */
};

/* The default of versions before one. */
struct kb_before {
    uint32_t kernel, value;
};

struct kb_key {
    uint32_t path; /* "*" stands for one component */
    uint32_t text[KB_TEXTS];
    uint8_t type, scope, effect, combine;
    uint8_t fields; /* for TYPE_INTS; 0: unknown */
    uint8_t n_cases, n_older;
    uint16_t cases, older; /* the first of each */
    int64_t min, max;      /* of every field, as far as sense reaches; min > max: no hint */
};

/* A failure that people see, and the settings behind it. */
struct kb_symptom {
    uint32_t name;    /* EADDRNOTAVAIL */
    uint32_t message; /* Cannot assign requested address */
    uint32_t meaning;
    uint32_t keys; /* dotted names with blanks between */
};

const struct kb_key *kb_find(const char *path);
const struct kb_key *kb_at(size_t i); /* by name; NULL after the last */
const char *kb_path(const struct kb_key *k);
const char *kb_text(const struct kb_key *k, enum kb_text which); /* NULL: nothing is known */
/* Another path of the same variable of the kernel, or NULL. */
const char *kb_alias(const char *path);
/* What is wrong with one value for path and another for its alias; NULL: nothing. */
const char *kb_clash(const char *path, const struct value *v, const char *other,
                     const struct value *its);
/* "4096 (128 before 5.4)"; path decides between conf.all and the rest. NULL: not known. */
const char *kb_default(const struct kb_key *k, const char *path);
/* What that kernel starts with; an empty version is the newest. */
const char *kb_default_of(const struct kb_key *k, const char *path, const char *kernel);
/* The same as a value, without the remark in parentheses. False if it is none. */
bool kb_default_value(const struct kb_key *k, const char *path, const char *kernel,
                      struct value *ret_value);
const char *kb_scope_name(enum scope scope);
/* Of that kernel; an empty version is the newest. */
enum scope kb_scope_of(const struct kb_key *k, const char *kernel);
/* "namespace (global in Linux 6.1 and before)" */
const char *kb_scope_text(const struct kb_key *k);
/* "number", "3 numbers", "numbers", "ports", "word", "words", "text" */
const char *kb_type_text(const struct kb_key *k);
const char *kb_effect_text(const struct kb_key *k);
/* As a sentence; NULL for keys without interfaces. */
const char *kb_combine_text(enum combine combine);
/* "added in Linux 5.14", "not in Linux 6.1, there in 6.12"; NULL: not known. */
const char *kb_since_text(const struct kb_key *k);
/* What is known about a value that the kernel takes: *ret_text may become NULL. */
enum level kb_judge(const struct kb_key *k, const struct value *v, const char **ret_text);
/* So too, of that very key: one of conf.all may do nothing where those of interfaces rule. */
enum level kb_judge_at(const char *path, const struct value *v, const char **ret_text);
/* A word on a value that makes no sense or does harm, or NULL. */
const char *kb_doubt(const struct kb_key *k, const struct value *v);
/* "0: off, ...; 2: ..." of all cases of a level, or NULL. */
const char *kb_cases_text(const struct kb_key *k, enum level level);

const char *level_name(enum level level);

const struct kb_symptom *kb_symptom_at(size_t i); /* NULL after the last */
const char *kb_string(uint32_t offset);           /* of a symptom */

/* The tables that kbgen writes. */
extern const char kb_pool[];
extern const struct kb_key kb_keys[];
extern const size_t kb_n_keys;
extern const struct kb_case kb_cases[];
extern const struct kb_before kb_older[];
extern const struct kb_symptom kb_symptoms[];
extern const size_t kb_n_symptoms;

#endif
