"""TLS in front of a server that speaks none: what comes is passed on, both ways, end by end.

python tls_terminator.py CERTIFICATE KEY HOST:PORT [LISTEN]
"""

import asyncio
import sys

import hardsock as hs
from hardsock import aio

CHUNK, MAX_QUIET = 65536, 300


async def pass_on(source: aio.Connection, target: aio.Connection) -> None:
    """Until the source ends; then the target is told, and may still answer."""
    while data := await source.recv(CHUNK, timeout=MAX_QUIET):
        await target.sendall(data, timeout=MAX_QUIET)
    await target.close_write(timeout=MAX_QUIET)


class Terminator:
    def __init__(self, backend: str) -> None:
        self.backend = backend

    async def __call__(self, client: aio.Connection) -> None:
        async with await aio.connect(self.backend, timeout=5) as server:
            ways = [
                asyncio.ensure_future(pass_on(*way)) for way in ((client, server), (server, client))
            ]
            try:
                await asyncio.gather(*ways)  # If one fails, so does this, and both ends are reset.
            except BaseException:
                server.abort()
                raise
            finally:
                for way in ways:
                    way.cancel()


async def main(certificate: str, key: str, backend: str, address: str) -> None:
    tls = hs.TLSConfig(role="server", certificates=hs.Certificate(chain=certificate, key=key))
    async with aio.serve(Terminator(backend), address, tls=tls, drain_timeout=10) as server:
        print(f"serving {server.address}", flush=True)
        await server.wait()  # until Ctrl-C or SIGTERM


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    certificate, key, backend, *listen = sys.argv[1:]
    asyncio.run(main(certificate, key, backend, listen[0] if listen else "127.0.0.1:8443"))
