"""A line server: a small store of keys and values, for any number of clients that are mostly quiet.

python line_server.py [HOST:PORT]

    SET key value    OK
    GET key          value, or NONE
    QUIT             BYE, and the end
"""

import asyncio
import sys

import hardsock as hs
from hardsock import aio

MAX_LINE, MAX_SECONDS = 1024, 10

store: dict[str, str] = {}


def answer(line: str) -> str:
    match line.split(maxsplit=2):
        case ["SET", key, value]:
            store[key] = value
            return "OK"
        case ["GET", key]:
            return store.get(key, "NONE")
        case ["QUIT"]:
            return "BYE"
        case _:
            return "ERROR: SET key value, GET key, or QUIT"


async def handler(conn: aio.Connection) -> None:
    """Called when a line has begun to arrive; between two lines a client has no task."""
    try:
        line = await conn.recv_until(b"\n", max_size=MAX_LINE)
        said = answer(line.decode().strip())
    except (hs.FrameTooLarge, UnicodeDecodeError):
        said = "ERROR: at most 1024 bytes of UTF-8"
    await conn.sendall(said.encode() + b"\n")
    if said == "BYE" or said.startswith("ERROR: at most"):
        await conn.close_write()  # The server waits for the client's end.


async def main(address: str) -> None:
    async with aio.serve(
        handler,
        address,
        per="message",
        idle_timeout=600,
        read_timeout=MAX_SECONDS,  # one line, from its first byte
        write_timeout=MAX_SECONDS,
        drain_timeout=10,
    ) as server:
        print(f"serving {server.address}", flush=True)
        await server.wait()  # until Ctrl-C or SIGTERM: lines that have arrived are answered first


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7000"))
