"""Block devices under event loops."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
import weakref
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from conftest import INTERFACES, descriptors
from storage import StorageDaemon

import virtio
from virtio import aio, testing


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Any:
    def runs(main: Coroutine[Any, Any, Any]) -> Any:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(main, 60))

    return runs


@pytest.mark.parametrize("transport", INTERFACES)
@pytest.mark.parametrize("how", ["thread", "inline"])
def test_every_call_does_its_work(run: Any, tmp_path: Path, transport: str, how: str) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4 << 20))

    async def main() -> None:
        async with aio.Block(f"soft:block?path={image}&transport={transport}&run={how}") as disk:
            assert (disk.size, disk.block_size, disk.read_only) == (4 << 20, 512, False)
            data = os.urandom(3 << 20)
            assert await disk.pwrite(data, 512) == len(data)
            assert image.read_bytes()[512 : 512 + len(data)] == data
            assert await disk.pread(len(data), 512) == data
            assert await disk.pwrite(memoryview(data)[:1024], 0, retry=True) == 1024
            into = np.zeros((2, 512), np.uint8)
            assert await disk.pread_into(into, 0) == 1024
            assert into.tobytes() == data[:1024]
            buf = disk.pool(2, 8192)[1]
            assert await disk.pread_into(buf, 0) == 8192
            assert memoryview(buf)[:1024] == data[:1024]
            memoryview(buf)[:] = b"z" * 8192
            assert await disk.pwrite(buf, 8192) == 8192
            assert await disk.pread(8192, 8192) == b"z" * 8192
            await disk.write_zeroes(0, 1024, unmap=True)
            await disk.discard(1024, 512)
            await disk.flush()
            assert await disk.pread(1536, 0) == bytes(1536)
            assert await disk.pread(0, 0) == b"" and await disk.pwrite(b"", 0) == 0
            assert isinstance(await disk.get_id(), str)
            assert not disk.events()
            assert virtio.Feature.VERSION_1 in disk.features or "legacy" in transport

    run(main())


async def tasks_do_not_mix_their_data(disk: aio.Block, seed: int, tasks: int = 128, rounds: int = 12) -> None:
    """Each has a part of the disk of its own, and knows what is there."""
    part = disk.size // tasks // 512 * 512

    async def work(number: int) -> None:
        chosen = random.Random(seed * 1000 + number)
        model = bytearray(await disk.pread(part, number * part))
        for _ in range(rounds):
            length = chosen.randrange(1, min(part // 512, 40)) * 512
            at = chosen.randrange((part - length) // 512) * 512
            if chosen.random() < 0.5:
                data = chosen.randbytes(length)
                await disk.pwrite(data, number * part + at)
                model[at : at + length] = data
            else:
                assert await disk.pread(length, number * part + at) == model[at : at + length]
        assert await disk.pread(part, number * part) == model

    await asyncio.gather(*(work(number) for number in range(tasks)))


@pytest.mark.parametrize("transport", INTERFACES)
@pytest.mark.parametrize("how", ["thread", "inline"])
def test_128_tasks_do_not_mix_their_data(run: Any, transport: str, how: str) -> None:
    async def main() -> None:
        async with aio.Block(f"soft:block?size=4M&transport={transport}&run={how}") as disk:
            await tasks_do_not_mix_their_data(disk, 1)

    run(main())


def test_128_tasks_on_a_storage_daemon(run: Any, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(8 << 20))

    async def main() -> None:
        with StorageDaemon(tmp_path, image=image) as daemon:
            async with aio.Block(daemon.address) as disk:
                await tasks_do_not_mix_their_data(disk, 2)
                await disk.pwrite(b"x" * 512, 0)
                await disk.flush()
                assert image.read_bytes()[:512] == b"x" * 512
                await disk.write_zeroes(0, 512)
                await disk.discard(512, 512)
                assert image.read_bytes()[:512] == bytes(512)

    run(main())


def test_what_tasks_ask_for_in_one_turn_costs_one_notification(run: Any) -> None:
    async def main() -> None:
        async with aio.Block("soft:block?size=1M&run=inline") as disk:
            for _ in range(10):
                await asyncio.gather(*(disk.pread(512, n * 512) for n in range(64)))
            counters = disk.counters
            assert counters["used"] == 640 and counters["kicks"] <= 10

    run(main())


def test_requests_are_futures_that_may_be_awaited_later(run: Any) -> None:
    async def main() -> None:
        async with aio.Block("soft:block?size=1M") as disk:
            write = disk.pwrite(b"a" * 512, 0)
            assert asyncio.isfuture(write)
            await asyncio.sleep(0.01)
            assert write.done() and await write == 512
            done = []
            disk.pread(512, 0).add_done_callback(lambda future: done.append(future.result()))
            await asyncio.wait([disk.pread(512, 0), asyncio.ensure_future(disk.flush())])
            await disk.flush()
            assert done == [b"a" * 512]

    run(main())


@asynccontextmanager
async def stalled() -> AsyncIterator[tuple[testing.Device, aio.Block]]:
    """A device that answers nothing until it is told to be honest."""
    device = testing.block(size=1 << 20, lies=["stalls"])
    with device as address:
        async with aio.Block(address, queue_size=16) as disk:
            yield device, disk


def test_cancelling_detaches_the_waiter_only(run: Any) -> None:
    async def main() -> None:
        async with stalled() as (device, disk):
            buf = disk.pool(1, 512)[0]
            memoryview(buf)[:] = b"q" * 512
            task = asyncio.ensure_future(disk.pwrite(buf, 0))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await task
            plain = disk.pread(512, 0)
            plain.cancel()
            with pytest.raises(asyncio.CancelledError):
                await plain
            assert buf.in_flight, "the device has it"
            device.be_honest()
            assert await disk.pread(512, 0) == b"q" * 512, "the write was done all the same"
            assert not buf.in_flight

    run(main())


def test_a_future_that_was_done_by_its_caller_is_left_alone(run: Any) -> None:
    """Nothing is raised, not even unraisably: pytest would tell."""

    async def main() -> None:
        async with stalled() as (device, disk):
            given, failed, cancelled = (disk.pread(512, 0) for _ in range(3))
            await asyncio.sleep(0)
            given.set_result(b"mine")
            failed.set_exception(KeyError())
            cancelled.cancel()
            device.be_honest()
            assert await disk.pread(512, 0) == bytes(512)
            assert await given == b"mine" and isinstance(failed.exception(), KeyError)

    run(main())


def test_a_close_ends_what_is_under_way_with_a_typed_error(run: Any) -> None:
    async def main() -> None:
        async with stalled() as (_, disk):
            buf = disk.pool(1, 512)[0]
            futures = [disk.pread_into(buf, 0), *(disk.pread(512, n * 512) for n in range(40))]
            await asyncio.sleep(0.01)
            await disk.close()
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            kinds = {type(outcome) for outcome in outcomes}
            assert kinds == {virtio.IndeterminateError, virtio.ClosedError}, "in flight, and not sent yet"
            assert all(isinstance(outcome, OSError) for outcome in outcomes)
            assert not buf.in_flight
            with pytest.raises(virtio.ClosedError):
                disk.pread(512, 0)
            await disk.close()

    run(main())


def test_a_second_open_is_refused_and_leaves_the_device_as_it_is(run: Any) -> None:
    async def main() -> None:
        with testing.block(size="1M") as address:
            async with aio.Block(address) as disk:
                await disk.pwrite(b"x" * 512, 0)
                with pytest.raises(RuntimeError, match="open already"):
                    await disk.open()
                assert await disk.pread(512, 0) == b"x" * 512
            with pytest.raises(virtio.ClosedError):
                await disk.open()

    run(main())


def test_leaving_by_an_exception_closes_the_device(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(KeyError):
            async with stalled() as (_, disk):
                future = disk.pread(512, 0)
                raise KeyError
        assert isinstance(future.exception(), virtio.VirtioError)

    run(main())


def test_a_device_that_does_not_answer_is_a_timeout_and_can_be_used_again(run: Any) -> None:
    async def main() -> None:
        device = testing.block(size=1 << 20, lies=["stalls"])
        with device as address:
            async with aio.Block(address, timeout=0.2) as disk:
                before = time.monotonic()
                with pytest.raises(virtio.VirtioTimeoutError) as late:
                    await disk.pread(512, 0)
                assert 0.2 <= time.monotonic() - before < 5
                assert late.value.filename == address and isinstance(late.value, TimeoutError)
                device.be_honest()
                assert await disk.pread(512, 0) == bytes(512)

    run(main())


def test_what_a_call_cannot_have_is_refused_by_the_call(run: Any) -> None:
    async def main() -> None:
        disk = aio.Block("soft:block?size=1M")
        with pytest.raises(RuntimeError, match="async with"):
            disk.pread(512, 0)
        await disk.close()
        async with aio.Block("soft:block?size=1M") as disk:
            for length, offset in [(512, 1), (511, 0), (1 << 40, 0), (512, 1 << 20)]:
                with pytest.raises(ValueError, match=r"512|beyond|bytes"):
                    disk.pread(length, offset)
            with pytest.raises(ValueError, match="read-only"):
                disk.pread_into(bytes(512), 0)
            buf = disk.pool(1, 512)[0]
            first = disk.pread_into(buf, 0)
            with pytest.raises(ValueError, match="in flight"):
                disk.pread_into(buf, 0)
            await first
            with pytest.raises(RuntimeError, match="open already"):
                await disk.open()
        with pytest.raises(ValueError, match="address"):
            await aio.Block("nonsense").open()
        with pytest.raises(virtio.DeviceNotFoundError):
            await aio.Block("vhost-user:/nowhere.sock", control_timeout=0.05).open()

    run(main())


def test_e1_a_daemon_that_is_killed_ends_what_it_had_as_indeterminate(run: Any, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))

    async def main() -> None:
        with StorageDaemon(tmp_path, image=image, throttle=1) as daemon:
            async with aio.Block(daemon.address) as disk:
                await disk.pread(512, 0)
                futures = [disk.pread(512, 0) for _ in range(10)]
                await asyncio.sleep(0.1)
                daemon.kill()
                outcomes = await asyncio.gather(*futures, return_exceptions=True)
                assert {type(outcome) for outcome in outcomes} == {virtio.IndeterminateError}
                with pytest.raises(virtio.DisconnectedError):
                    await disk.pread(512, 0)

    run(main())


def test_e1_reads_and_marked_writes_go_on_when_the_daemon_was_killed(run: Any, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(2 << 20))

    async def worker(disk: aio.Block, number: int, stop: asyncio.Event) -> int:
        chosen = random.Random(number)
        model, own = bytearray(64 << 10), disk.pool(1, 4096)[0]
        base, rounds = number * len(model), 0
        while not stop.is_set():
            at = chosen.randrange(len(model) // 512 - 16) * 512
            data = chosen.randbytes(8192)
            await disk.pwrite(data, base + at, retry=True)
            model[at : at + 8192] = data
            assert await disk.pread(len(model), base) == model
            assert await disk.pread_into(own, base) == 4096
            assert memoryview(own) == model[:4096]
            rounds += 1
        return rounds

    async def main() -> None:
        with StorageDaemon(tmp_path, image=image) as daemon:
            async with aio.Block(daemon.address, reconnect="retry", timeout=20) as disk:
                stop = asyncio.Event()
                workers = [asyncio.ensure_future(worker(disk, n, stop)) for n in range(32)]
                for _ in range(5):
                    await asyncio.sleep(0.05)
                    daemon.kill()
                    await asyncio.sleep(0.05)
                    daemon.start()
                await asyncio.sleep(0.2)
                stop.set()
                assert min(await asyncio.gather(*workers)) > 0
                for told in range(8):
                    try:
                        await disk.flush()
                        break
                    except virtio.IndeterminateError:
                        assert told == 0, "of writes that may be lost, once"

    run(main())


def test_a_daemon_that_does_not_come_back_ends_every_call_and_a_close_does_not_wait(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        with StorageDaemon(tmp_path, image=None) as daemon:
            async with aio.Block(daemon.address, reconnect="retry", timeout=0.3, control_timeout=0.1) as disk:
                await disk.pread(512, 0)
                daemon.kill()
                # Sent before the death was noticed or not: it changed nothing, and nobody took it up again.
                for _ in range(2):
                    with pytest.raises(ConnectionRefusedError, match=str(daemon.socket)):
                        await disk.pread(512, 0)
                daemon.start()
                assert await disk.pread(512, 0) == bytes(512)
            async with aio.Block(daemon.address, reconnect="retry", timeout=60, control_timeout=0.1) as disk:
                await disk.pread(512, 0)
                daemon.kill()
                future = disk.pread(512, 0)
                await asyncio.sleep(0.1)
                before = time.monotonic()
                await disk.close()
                assert time.monotonic() - before < 5
                assert isinstance(future.exception(), virtio.ClosedError | virtio.IndeterminateError)

    run(main())


def test_opened_and_closed_many_times_it_leaves_nothing(run: Any) -> None:
    async def main() -> None:
        async def once() -> weakref.ref[aio.Block]:
            async with aio.Block("soft:block?size=1M") as disk:
                await asyncio.gather(*(disk.pread(512, n * 512) for n in range(8)))
                return weakref.ref(disk)

        await once()
        before = descriptors()
        refs = [await once() for _ in range(50)]
        gc.collect()
        assert descriptors() == before and not any(ref() for ref in refs)

    run(main())


def test_m2_memory_that_is_kept_is_told_of() -> None:
    async def main(how: str) -> None:
        device = testing.block(size="1M", checked=False)
        disk = await aio.Block(device.address, control_timeout=0.05).open()
        device.tell("removed")
        if how == "close":
            with pytest.raises(virtio.DisconnectedError):
                await disk.close()
        else:
            del disk

    for how in ("close", "forgotten"):
        with pytest.warns(ResourceWarning, match="kept for the life of the process"):
            asyncio.run(main(how))
            gc.collect()


def test_a_loop_that_is_forgotten_with_tasks_under_way_takes_the_device_along() -> None:
    device = testing.block(size=1 << 20, lies=["stalls"])
    with device as address:
        before = descriptors()

        def forget() -> weakref.ref[aio.Block]:
            loop = asyncio.new_event_loop()
            disk = loop.run_until_complete(aio.Block(address).open())
            waits = disk.pread(512, 0)
            loop.run_until_complete(asyncio.sleep(0.01))
            assert not waits.done()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            return weakref.ref(disk)

        ref = forget()
        gc.collect()
        assert ref() is None and descriptors() == before
