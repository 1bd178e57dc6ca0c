/* shed.c: telling the flight recorder of clients that were sent away before they were served.
 *
 * Each place that sends one away counts it in its own statistics, and says here who and why.
 */
#include "shed.h"

#include "../base/addr.h"
#include "../base/recorder.h"

#include <stdio.h>

void
hs_shed_note(enum hs_shed why, const char *who)
{
    static const char *const texts[] = {
#define SHED_TEXT(name, text) text,
        HS_SHEDS_ALL(SHED_TEXT)
#undef SHED_TEXT
    };
    struct hs_event e = {0};
    char text[sizeof(e.text) * 2];

    (void)snprintf(text, sizeof(text), "%s (%s)", who, texts[why]);
    hs_event_text(&e, text);
    hs_event_note(HS_EVENT_SHED, &e);
}

void
hs_shed_note_addr(enum hs_shed why, const struct hs_addr *who)
{
    char text[HS_ADDR_TEXT_SIZE];

    hs_shed_note(why, who->len != 0 ? hs_addr_text(who, text, sizeof(text)) : "?");
}

void
hs_shed_note_conn(enum hs_shed why, struct hs_conn *conn)
{
    struct hs_addr peer = {0};

    if (hs_conn_peer_addr(conn, NULL, &peer) != HS_OK)
        peer.len = 0;
    hs_shed_note_addr(why, &peer);
}
