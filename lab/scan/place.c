/* place.c: see place.h.
 *
 * A place is hashed as the 24 bytes that it is, so that comparing and hashing cannot disagree.
 */
#include "place.h"

#include <string.h>

#define NETWORK_BYTES_4 3
#define NETWORK_BYTES_6 8

static uint64_t
rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static void
sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

uint64_t
place_hash(const struct place *p, const uint64_t key[2])
{
    uint64_t words[4],
        v[4] = {key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
                key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573)};

    memcpy(words, p->address, sizeof(p->address));
    words[2] = p->family;
    words[3] = (uint64_t)24 << 56; /* the length, in the last word's last byte */
    for (int i = 0; i < 4; i++) {
        v[3] ^= words[i];
        sip_round(v);
        v[0] ^= words[i];
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct place
place_network(const struct place *p)
{
    struct place n = {.family = p->family};

    memcpy(n.address, p->address, p->family == 4 ? NETWORK_BYTES_4 : NETWORK_BYTES_6);
    return n;
}
