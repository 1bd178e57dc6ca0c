/* told.c: a notifier, whose alarms are about tokens.
 *
 * Each is told once, in the moment in which its token ends, or as soon as the one who tells is free
 * again; and one that was ended is not told any more.
 */
#include "world.h"

#include <string.h>

#define ALARMS 12

struct alarm {
    struct hs_token *token;
    struct hs_alarm *alarm; /* NULL: it was ended */
    int64_t due_ns;
    bool held, told, ended, released;
};

static struct hs_notifier *notifier; /* NULL: there is none */
static struct alarm alarms[ALARMS];
static bool tells; /* a callback runs, and takes its time */
static int64_t free_ns, started_ns;

/* ---- Being told ---------------------------------------------------------------------------- */

static hs_err
step(void *arg, struct hs_op *op, struct hs_error *err)
{
    (void)arg;
    return hs_token_await(op, err);
}

static void
hold(void *arg)
{
    struct alarm *a = arg;

    if (a->ended)
        sim_violation("an alarm is told after its end");
    a->held = true;
}

static void
release(void *arg)
{
    struct alarm *a = arg;

    if (a->released)
        sim_violation("an alarm is released twice");
    a->released = true;
}

/* For want of memory a notifier pauses, again and again. */
static bool
is_exact(void)
{
    return !sim_settings.stalls && !world_is_poor();
}

static void
tell(struct alarm *a)
{
    sim_log("is told of alarm %d", (int)(a - alarms));
    if (a->told || !a->held || a->released)
        sim_violation("alarm %d is told %s", (int)(a - alarms),
                      a->told ? "twice" : "after it was let go of");
    if (hs_token_check(a->token) == HS_OK)
        sim_violation("alarm %d is told, and its token goes on", (int)(a - alarms));
    if (is_exact() && sim_now() > a->due_ns && sim_now() != free_ns && sim_now() != started_ns)
        sim_violation("alarm %d is told %lld ns late", (int)(a - alarms),
                      (long long)(sim_now() - a->due_ns));
    a->told = true;
    if (!sim_chance(200))
        return;
    tells = true;
    sim_sleep(sim_between(0, 2 * SIM_S));
    tells = false;
    free_ns = sim_now();
}

static void
serve(struct hs_notifier *n, void *arg)
{
    struct alarm *a;

    (void)arg;
    while ((a = hs_notifier_next(n)) != NULL)
        tell(a);
}

void
told_look(void)
{
    if (notifier == NULL || tells || world_is_poor())
        return;
    for (int i = 0; i < ALARMS; i++)
        if (alarms[i].alarm != NULL && !alarms[i].told && alarms[i].due_ns <= sim_now())
            sim_violation("alarm %d is due, and nobody is told", i);
}

/* ---- Making, cancelling, ending ------------------------------------------------------------ */

static void
cancel(struct alarm *a)
{
    sim_log("cancels the token of alarm %d", (int)(a - alarms));
    a->due_ns = sim_now() < a->due_ns ? sim_now() : a->due_ns;
    (void)hs_token_cancel(a->token, "told", 0, NULL);
}

static void
make(struct alarm *a)
{
    const struct hs_alarm_hooks hooks = {.step = step, .hold = hold, .release = release};
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);
    struct hs_error err = {0};

    a->due_ns = sim_chance(600) ? sim_now() + any_span() : HS_NEVER;
    must(hs_token_new(NULL, 0, a->due_ns, NULL, &err, &a->token), "no token", &err);
    if (sim_chance(150))
        cancel(a);
    op.token = a->token;
    must(hs_alarm_new(notifier, &hooks, a, &op, &err, &a->alarm), "no alarm", &err);
    must(hs_notifier_start(notifier, &err), "no thread to tell", &err);
    started_ns = sim_now();
}

static void
end(struct alarm *a)
{
    struct hs_alarm *alarm = a->alarm;

    sim_log("ends alarm %d", (int)(a - alarms));
    a->alarm = NULL;
    hs_alarm_end(alarm);
    a->ended = !a->held;
}

static bool
all_are_told(void *arg)
{
    (void)arg;
    for (int i = 0; i < ALARMS; i++)
        if (alarms[i].alarm != NULL && !alarms[i].told)
            return false;
    return true;
}

static void
stop(void)
{
    struct hs_notifier *n = notifier;

    notifier = NULL;
    hs_notifier_stop(n, HS_STOP_ALL);
    hs_notifier_unref(n);
    for (int i = 0; i < ALARMS; i++) {
        if (!alarms[i].released)
            sim_violation("alarm %d is ended, and somebody still knows it", i);
        hs_token_unref(alarms[i].token);
    }
}

static void
run_alarmist(void *arg)
{
    const struct hs_notifier_hooks hooks = {.serve = serve};
    struct hs_error err = {0};
    struct alarm *other;

    (void)arg;
    must(hs_notifier_new(&hooks, &err, &notifier), "no notifier", &err);
    for (int i = 0; i < ALARMS; i++) {
        make(&alarms[i]);
        other = &alarms[sim_below((uint64_t)i + 1)];
        if (sim_chance(300) && other->alarm != NULL)
            cancel(other);
        other = &alarms[sim_below((uint64_t)i + 1)];
        if (sim_chance(200) && other->alarm != NULL)
            end(other);
        if (sim_chance(700))
            sim_sleep(sim_between(0, 5 * SIM_S));
    }
    for (int i = 0; i < ALARMS; i++)
        if (alarms[i].alarm != NULL && sim_chance(800))
            cancel(&alarms[i]);
        else if (alarms[i].alarm != NULL)
            end(&alarms[i]);
    (void)sim_wait(all_are_told, NULL, SIM_NEVER);
    for (int i = 0; i < ALARMS; i++)
        if (alarms[i].alarm != NULL)
            end(&alarms[i]);
    stop();
}

void
told_begin(void)
{
    sim_spawn("alarmist", DISTURBER_HOST, run_alarmist, NULL);
}
