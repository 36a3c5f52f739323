"""Reads of a block device at random places, in three ways."""

from __future__ import annotations

import random
import struct
import time
from array import array
from errno import EIO, ETIMEDOUT
from typing import TYPE_CHECKING, Any

import virtio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["NAMES", "measure"]

NAMES = {"one": "one at a time", "batch": "batches", "asyncio": "asyncio"}
SECTOR = 512
# A block request's header (VIRTIO 1.4 §5.2.6): type, reserved, sector. Type 0 is a read; status 0 is success.
HEADER = struct.Struct("<IIQ")
PLACES = 4096


class _Clock:
    """Counts requests and their latencies until the time is over."""

    def __init__(self, seconds: float) -> None:
        self.latencies: list[float] = []
        self.requests = 0
        self.start = time.perf_counter()
        self.end = self.start + seconds

    def running(self) -> bool:
        return time.perf_counter() < self.end

    def add(self, begun: float, requests: int) -> None:
        self.latencies.append(time.perf_counter() - begun)
        self.requests += requests

    def result(self, mode: str, depth: int) -> dict[str, Any]:
        seconds = time.perf_counter() - self.start
        ordered = sorted(self.latencies) or [0.0]
        return {
            "mode": mode,
            "depth": depth,
            "requests": self.requests,
            "seconds": seconds,
            "iops": self.requests / seconds,
            "latency_us": {
                "median": ordered[len(ordered) // 2] * 1e6,
                "p99": ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)] * 1e6,
            },
        }


def _places(size: int, block_size: int) -> list[int]:
    """Offsets at random, the same in each run."""
    if block_size <= 0 or block_size % SECTOR:
        raise ValueError(f"a read is a multiple of {SECTOR} bytes, not {block_size}")
    if size < block_size:
        raise ValueError(f"the device has {size} bytes, less than a read of {block_size}")
    blocks = size // block_size
    chosen = random.Random(1)
    return [chosen.randrange(blocks) * block_size for _ in range(PLACES)]


def _for_ever(places: list[int]) -> Iterator[int]:
    while True:
        yield from places


def _one(address: str, seconds: float, block_size: int, _depth: int, timeout: float) -> dict[str, Any]:
    with virtio.Block(address, timeout=timeout) as disk:
        places = _for_ever(_places(disk.size, block_size))
        clock = _Clock(seconds)
        while clock.running():
            begun = time.perf_counter()
            disk.pread(block_size, next(places))
            clock.add(begun, 1)
        return clock.result("one", 1)


def _batch(address: str, seconds: float, block_size: int, depth: int, timeout: float) -> dict[str, Any]:
    with virtio.Block(address, timeout=timeout) as disk:
        places = _places(disk.size, block_size)
        batches = [array("q", (places * (1 + depth // PLACES))[at : at + depth]) for at in range(0, PLACES - depth, 64)]
        batches = batches or [array("q", (places * (1 + depth // PLACES))[:depth])]
        pool = disk.pool(depth, block_size)
        clock = _Clock(seconds)
        while clock.running():
            for offsets in batches:
                begun = time.perf_counter()
                disk.read_many(offsets, pool)
                clock.add(begun, depth)
                if not clock.running():
                    break
        return clock.result("batch", depth)


def _asyncio(address: str, seconds: float, block_size: int, depth: int, timeout: float) -> dict[str, Any]:
    import asyncio

    from virtio import aio

    async def worker(
        q: aio.Queue, parts: tuple[virtio.Buffer, ...], places: Iterator[int], clock: _Clock
    ) -> None:
        header, data, status = parts
        ask, answer = memoryview(header), memoryview(status)
        while clock.running():
            begun = time.perf_counter()
            HEADER.pack_into(ask, 0, 0, 0, next(places) // SECTOR)
            answer[0] = 0xFF
            await q.transfer([header], [data, status])
            if answer[0] != 0:
                raise virtio.RequestError(EIO, f"a read ended with status {answer[0]}", address)
            clock.add(begun, 1)

    async def all_workers(dev: virtio.Device, queue: virtio.Queue) -> dict[str, Any]:
        shared = aio.Queue(queue)
        places = _for_ever(_places(dev.config["capacity"] * SECTOR, block_size))
        pools = dev.pool(depth, HEADER.size), dev.pool(depth, block_size), dev.pool(depth, 1)
        clock = _Clock(seconds)
        async with asyncio.TaskGroup() as group:
            for at in range(depth):
                parts = pools[0][at], pools[1][at], pools[2][at]
                group.create_task(worker(shared, parts, places, clock))
        return clock.result("asyncio", depth)

    with virtio.open(address) as dev:
        dev.negotiate(want=virtio.Feature.EVENT_IDX | virtio.Feature.INDIRECT_DESC)
        with dev.queue(0) as queue:
            dev.start()
            try:
                with asyncio.Runner() as runner:
                    return runner.run(asyncio.wait_for(all_workers(dev, queue), seconds + timeout))
            except TimeoutError:
                raise virtio.VirtioTimeoutError(ETIMEDOUT, f"no answer within {timeout} s", address) from None
            except ExceptionGroup as several:
                # One says enough: what broke the queue broke all its requests.
                raise several.exceptions[0] from None


_WAYS: dict[str, Callable[[str, float, int, int, float], dict[str, Any]]] = {
    "one": _one,
    "batch": _batch,
    "asyncio": _asyncio,
}


def measure(
    mode: str, address: str, *, seconds: float, block_size: int = 4096, depth: int = 32, timeout: float = 30.0
) -> dict[str, Any]:
    """Reads for so many seconds; answers requests, IOPS and latencies: of a request, or of a batch."""
    if depth < 1:
        raise ValueError("at least one read is in flight")
    return _WAYS[mode](address, seconds, block_size, depth, timeout)
