"""Many who come at once to a pool that is empty."""

from __future__ import annotations

import asyncio

from hardsock import aio
from support.echo import EchoServer

SIZE, DIALS = 20, 3


def test_a_crowd_on_an_empty_pool_is_served_with_few_dials_at_a_time() -> None:
    async def main(address: tuple[str, int]) -> None:
        pool = aio.Pool(address, max_size=SIZE, max_dials=DIALS)
        # Nobody returns anything, and nobody comes later: only the dials' own ends go on.
        held = await asyncio.gather(*(pool.acquire(timeout=20) for _ in range(SIZE)))
        stats = pool.stats()
        assert (stats.lent, stats.opened, stats.waiting) == (SIZE, SIZE, 0)
        for conn in held:
            await pool.release(conn)
        await pool.close()

    with EchoServer() as server:
        host, port = server.address
        asyncio.run(main((str(host), int(port))))
