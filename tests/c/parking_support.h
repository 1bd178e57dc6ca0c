/* parking_support.h: parking connections, and hearing what became of them.
 *
 * One parking, whose connections all have the same argument: a test names them by their pairs.
 */
#ifndef TESTS_C_PARKING_SUPPORT_H
#define TESTS_C_PARKING_SUPPORT_H

#include "support_tls.h"

#include "../../csrc/stream/conn_probe.h"

#define CROWD 8

extern int parking_mark; /* what arguments point to */

struct hs_parking *parking(void);
enum hs_parking_answer ask(struct hs_parking *p, struct hs_conn *c, int64_t span, bool newcomer);
/* Asks, and is not refused. */
void park(struct hs_parking *p, struct hs_conn *c, int64_t span);
/* Waits for the next news; the reference to the connection is the caller's. */
struct hs_parked_conn next(struct hs_parking *p);
/* The next news are these, of c. */
void expect(struct hs_parking *p, const struct hs_conn *c, enum hs_parked_news news);
/* The next news are that c has ended so, and not because it was closed here. */
void expect_ended(struct hs_parking *p, struct hs_conn *c, enum hs_ending ending);
size_t parked(struct hs_parking *p);
size_t due(struct hs_parking *p);

void recv_exactly(struct hs_conn *c, size_t n);
void peek_at(struct hs_conn *c, size_t n);

#endif
