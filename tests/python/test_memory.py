"""A device's memory comes back when nobody refers to it any more: programs that allocate in a loop stay flat."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import descriptors
from storage import StorageDaemon

import virtio

Running = tuple[virtio.Device, virtio.Queue]
MANY = 3000


def mappings() -> tuple[int, int]:
    """Device mappings of this process, and their bytes."""
    gc.collect()
    count = size = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "virtio-dma" in line:
            begin, end = (int(part, 16) for part in line.split(maxsplit=1)[0].split("-"))
            count, size = count + 1, size + end - begin
    return count, size


def holdings() -> tuple[int, tuple[int, int]]:
    return descriptors(), mappings()


def flat(step: Callable[[int], object], times: int = MANY, few: int = 20) -> None:
    """Whether so many steps leave no more behind than a few do."""
    for n in range(few):
        step(n)
    before = holdings()
    for n in range(times):
        step(n)
    assert holdings() == before


def test_thousands_of_buffers_and_pools_that_are_dropped_leave_nothing(entropy: Running) -> None:
    dev, _ = entropy
    flat(lambda n: dev.alloc(100_000))
    flat(lambda n: dev.pool(16, 16_384))
    # Sizes that fit no hole of those before.
    flat(lambda n: dev.pool(1 + n % 64, 4096 * (1 + n % 61)), few=64 * 61)


def test_a_block_device_s_pools_that_are_dropped_leave_nothing() -> None:
    with virtio.Block("soft:block?size=4M") as disk:
        flat(lambda n: disk.read_many(array("Q", [0, 4096]), disk.pool(2, 65_536)))


def test_regions_come_and_go_beyond_the_eight_that_a_device_has_at_a_time(entropy: Running) -> None:
    dev, _ = entropy
    flat(lambda n: dev.pool(1, 4096, region=virtio.Region.create(4096)), 200)
    kept = [dev.pool(1, 4096, region=virtio.Region.create(4096)) for _ in range(5)]
    flat(lambda n: dev.pool(1, 4096, region=virtio.Region.create(4096)), 200)
    with pytest.raises(virtio.MemoryLimitError):
        kept += [dev.pool(1, 4096, region=virtio.Region.create(4096)) for _ in range(8)]
    # One region can be lent again and again.
    del kept
    region = virtio.Region.create(4096)
    for n in range(50):
        pool = dev.pool(1, 4096, region=region)
        assert memoryview(pool)[0, 0] == n
        memoryview(pool).cast("B")[0] = n + 1
        del pool


def test_regions_come_and_go_behind_another_process(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(range(256)) * 4096)
    with StorageDaemon(tmp_path, image=image) as daemon, virtio.Block(daemon.address) as disk:

        def step(n: int) -> None:
            pool = disk.pool(1, 4096, region=virtio.Region.create(4096))
            disk.read_many(array("Q", [4096]), pool)
            assert bytes(memoryview(pool)[:1].cast("B")[:256]) == bytes(range(256))

        flat(step, 100)


def test_memory_that_a_view_shows_stays_and_is_not_given_out_again(entropy: Running) -> None:
    dev, q = entropy
    views = []
    for n in range(256):
        buf = dev.alloc(64)
        view = memoryview(buf)
        view[:] = bytes([n]) * 64
        views.append(view)
        del buf, view
        q.transfer(writable=[dev.alloc(64)], timeout=5)
    assert all(view == bytes([n]) * 64 for n, view in enumerate(views))
    dev.close()
    assert all(view == bytes([n]) * 64 for n, view in enumerate(views))


def test_memory_in_flight_stays_the_device_s(silent: Running) -> None:
    dev, q = silent
    tokens = []
    for _ in range(8):
        tokens.append(q.add(writable=[dev.alloc(64)]))
    q.notify()
    gc.collect()
    # The device has all of the eight; what is allocated now is none of them.
    bufs = [dev.alloc(64) for _ in range(64)]
    assert q.outstanding == 8 and not any(buf.in_flight for buf in bufs)
    q.close()
    more = [dev.alloc(64) for _ in range(64)]
    assert not any(buf.in_flight for buf in more), "quarantine has them still"
    dev.reset()


def test_numbers_of_pools_that_are_gone_name_nothing(entropy: Running) -> None:
    dev, q = entropy
    pools = [dev.pool(4, 64) for _ in range(10)]
    numbers = [pool.first for pool in pools]
    assert numbers == list(range(0, 40, 4))
    gone = numbers[3]
    del pools[3]
    for number in (gone, gone + 3):
        with pytest.raises(ValueError, match="no buffer"):
            q.add_many(None, array("Q", [number]))
    # Those on either side are what they were, and new ones get new numbers.
    assert q.add_many(None, array("Q", [gone - 1, gone + 4])) == 2
    assert dev.pool(4, 64).first == 40
    q.notify()
