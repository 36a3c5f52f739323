"""Many requests of many tasks on one queue, awaited.

    python examples/python/asyncio_entropy.py [ADDRESS [TASKS]]
"""

from __future__ import annotations

import asyncio
import sys

import virtio
from virtio import aio


async def take(q: aio.Queue, buf: virtio.Buffer, requests: int) -> int:
    """One task: one buffer, one request after the other."""
    total = 0
    for _ in range(requests):
        total += await q.transfer(writable=[buf])
    return total


async def main(arguments: list[str]) -> None:
    address = arguments[0] if arguments else "soft:entropy"
    tasks = int(arguments[1]) if len(arguments) > 1 else 16
    with virtio.open(address) as dev:
        dev.negotiate(want=virtio.Feature.EVENT_IDX)
        with dev.queue(0, size=64) as queue:
            dev.start()
            q = aio.Queue(queue)
            pool = dev.pool(tasks, 64)
            got = await asyncio.gather(*(take(q, pool[n], 100) for n in range(tasks)))
            print(f"{sum(got)} bytes to {tasks} tasks")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
