"""Reads of a block device at random places, in three ways."""

from __future__ import annotations

import random
import time
from array import array
from typing import TYPE_CHECKING, Any

import virtio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["NAMES", "compare", "measure"]

NAMES = {"one": "one at a time", "batch": "batches", "asyncio": "asyncio"}
SECTOR = 512
PLACES = 4096
ROUNDS = 3


class _Clock:
    """Counts requests and their latencies until the time is over; one is done in any time."""

    def __init__(self, seconds: float) -> None:
        self.latencies: list[float] = []
        self.requests = 0
        self.start = time.perf_counter()
        self.end = self.start + seconds

    def running(self) -> bool:
        # What takes longer to begin than the time would have nothing to show.
        return not self.requests or time.perf_counter() < self.end

    def add(self, begun: float, requests: int) -> None:
        self.latencies.append(time.perf_counter() - begun)
        self.requests += requests

    def result(self, mode: str, depth: int, counted: Mapping[str, int]) -> dict[str, Any]:
        seconds = time.perf_counter() - self.start
        ordered = sorted(self.latencies)
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
            "kicks": counted["kicks"],
            "kicks_saved": 1 - counted["kicks"] / max(counted["used"], 1),
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
        return clock.result("one", 1, disk.counters[0])


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
        return clock.result("batch", depth, disk.counters[0])


def _asyncio(address: str, seconds: float, block_size: int, depth: int, timeout: float) -> dict[str, Any]:
    import asyncio

    from virtio import aio

    async def worker(disk: aio.Block, places: Iterator[int], clock: _Clock) -> None:
        while clock.running():
            begun = time.perf_counter()
            await disk.pread(block_size, next(places))
            clock.add(begun, 1)

    async def all_workers() -> dict[str, Any]:
        async with aio.Block(address, timeout=timeout) as disk:
            places = _for_ever(_places(disk.size, block_size))
            clock = _Clock(seconds)
            async with asyncio.TaskGroup() as group:
                for _ in range(depth):
                    group.create_task(worker(disk, places, clock))
            return clock.result("asyncio", depth, disk.counters)

    try:
        return asyncio.run(all_workers())
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
    """Reads for so many seconds; answers requests, IOPS, latencies (of a request, or of a batch), and what the driver
    counted."""
    if depth < 1:
        raise ValueError("at least one read is in flight")
    return _WAYS[mode](address, seconds, block_size, depth, timeout)


def compare(
    modes: Sequence[str],
    addresses: Sequence[str],
    *,
    seconds: float,
    block_size: int,
    depth: int,
    timeout: float,
    told: Callable[[str, str], None],
) -> list[dict[str, Any]]:
    """Measures several devices in turns, so that what else the machine does concerns all of them alike; answers a row
    for each mode and address: of its rounds the one in the middle. `told` hears of each measurement before it starts."""
    rows = []
    for mode in modes:
        rounds: dict[str, list[dict[str, Any]]] = {address: [] for address in addresses}
        for _ in range(ROUNDS):
            for address in addresses:
                told(mode, address)
                rounds[address].append(
                    measure(
                        mode, address, seconds=seconds / ROUNDS, block_size=block_size, depth=depth, timeout=timeout
                    )
                )
        for address, of_one in rounds.items():
            ordered = sorted(of_one, key=lambda row: row["iops"])
            rows.append({"address": address, **ordered[len(ordered) // 2]})
    return rows
