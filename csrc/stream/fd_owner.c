/* fd_owner.c: which number has an owner here.
 *
 * The table has for each number the id of the hs_fd that owns it, or 0. An owner enters itself
 * once, and takes out only itself, before the number is closed or given away. An owner that is not
 * found there lost its number to a close(2) of somebody else's, after which the kernel gave it to
 * another of ours: it neither uses nor closes it.
 */
#include "fd_owner.h"

#include "../base/sys.h"

#include <stdlib.h>
#include <unistd.h>

#define BLOCK_NUMBERS 4096
/* Numbers from 2^24 on, sixteen times what fs.nr_open allows by default, are not in the table. */
#define BLOCKS 4096

struct block {
    _Atomic uint64_t owners[BLOCK_NUMBERS];
};
static struct block first_block;
static struct block *_Atomic blocks[BLOCKS]; /* never freed */

static struct block *
block_of(unsigned i, bool make)
{
    struct block *found, *made;

    if (i == 0)
        return &first_block;
    if (i >= BLOCKS || (found = atomic_load(&blocks[i])) != NULL || !make)
        return i < BLOCKS ? found : NULL;
    if ((made = hs_sys_calloc(1, sizeof(*made))) == NULL)
        return NULL;
    if (atomic_compare_exchange_strong(&blocks[i], &found, made))
        return made;
    free(made);
    return found;
}

_Atomic uint64_t *
hs_fd_owner(int number, bool make)
{
    struct block *block = block_of((unsigned)number / BLOCK_NUMBERS, make);

    return block != NULL ? &block->owners[(unsigned)number % BLOCK_NUMBERS] : NULL;
}

void
hs_fd_close_number(int number)
{
    _Atomic uint64_t *owner = hs_fd_owner(number, false);

    if (owner != NULL)
        atomic_store(owner, 0);
    (void)close(number);
}
