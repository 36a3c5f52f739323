"""Clients for asyncio: `depth` tasks of one event loop, each of which awaits one read of 4 KiB after the other."""

from __future__ import annotations

import asyncio
import time

from clients import BLOCK, offsets


class Nbd:
    """libnbd in an event loop: its descriptor is watched, and a read is a future."""

    def __init__(self) -> None:
        import nbd

        self.nbd = nbd

    async def open(self, path: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.disk = self.nbd.NBD()
        self.disk.connect_uri(f"nbd+unix:///disk?socket={path}")
        self.fd = self.disk.aio_get_fd()
        self.writes = False
        self.loop.add_reader(self.fd, self.readable)

    def watch(self) -> None:
        """Watches for what libnbd waits for now."""
        wants = bool(self.disk.aio_get_direction() & self.nbd.AIO_DIRECTION_WRITE)
        if wants != self.writes:
            self.writes = wants
            if wants:
                self.loop.add_writer(self.fd, self.writable)
            else:
                self.loop.remove_writer(self.fd)

    def readable(self) -> None:
        self.disk.aio_notify_read()
        self.watch()

    def writable(self) -> None:
        self.disk.aio_notify_write()
        self.watch()

    def pread(self, length: int, offset: int) -> asyncio.Future[bytearray]:
        future, buffer = self.loop.create_future(), self.nbd.Buffer(length)

        def told(error: object) -> int:
            future.set_result(buffer)
            return 1

        self.disk.aio_pread(buffer, offset, completion=told)
        self.watch()
        return future

    async def close(self) -> None:
        self.loop.remove_reader(self.fd)
        self.loop.remove_writer(self.fd)
        self.disk.shutdown()


class Ours:
    """virtio.aio.Block."""

    def __init__(self) -> None:
        import virtio.aio

        self.aio = virtio.aio

    async def open(self, path: str) -> None:
        self.disk = self.aio.Block(f"vhost-user:{path}")
        await self.disk.open()
        self.pread = self.disk.pread

    async def close(self) -> None:
        await self.disk.close()


async def rate(client: Nbd | Ours, path: str, depth: int, seconds: float) -> float:
    await client.open(path)
    places, made = offsets(), 0
    start = time.perf_counter() + seconds / 4
    end = start + seconds

    async def task(number: int) -> None:
        nonlocal made
        at, pread, clock = number, client.pread, time.perf_counter
        while (now := clock()) < end:
            await pread(BLOCK, places[at])
            at = (at + depth) % len(places)
            made += now >= start

    await asyncio.gather(*(task(number) for number in range(depth)))
    taken = time.perf_counter() - start
    await client.close()
    return made / taken
