"""Queues under event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

import virtio
from virtio import aio


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Any:
    def runs(main: Coroutine[Any, Any, Any]) -> Any:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(main, 30))

    return runs


def device(address: str) -> tuple[virtio.Device, aio.Queue]:
    dev = virtio.open(address)
    dev.negotiate(want=virtio.Feature.EVENT_IDX)
    queue = aio.Queue(dev.queue(0, size=64))
    dev.start()
    return dev, queue


@pytest.mark.parametrize("how", ["thread", "inline"])
def test_each_task_gets_the_answer_to_its_own_request(run: Any, how: str) -> None:
    async def main() -> list[int]:
        dev, q = device(f"soft:entropy?run={how}")
        with dev:
            bufs = [dev.alloc(n) for n in range(1, 33)]
            for _ in range(20):
                sizes = await asyncio.gather(*(q.transfer(writable=[buf]) for buf in bufs))
                assert sizes == list(range(1, 33))
            return sizes

    assert len(run(main())) == 32


def test_a_queue_is_iterated_over(run: Any) -> None:
    async def main() -> None:
        dev, q = device("soft:entropy")
        with dev:
            pool = dev.pool(8, 16)
            tokens = {q.add(writable=[buf]) for buf in pool}
            q.notify()
            async for used in q:
                tokens.remove(used.token)
                if not tokens:
                    break

    run(main())


def test_cancelling_detaches_the_waiter_only(run: Any) -> None:
    async def main() -> None:
        dev, q = device("soft:entropy")
        with dev:
            buf = dev.alloc(16)
            token = q.add(writable=[buf])  # not shown yet
            task = asyncio.create_task(q.wait(token))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert buf.in_flight
            q.notify()
            assert (await q.wait(token)).token == token

    run(main())


def test_m1_a_token_that_is_not_in_flight_is_refused_at_once(run: Any) -> None:
    async def main() -> None:
        dev, q = device("soft:entropy")
        with dev:
            buf = dev.alloc(16)
            token = q.add(writable=[buf])
            with pytest.raises(virtio.StaleTokenError):
                await q.wait(token + (1 << 32))
            q.notify()
            assert (await q.wait(token)).token == token
            for stale in (token, 0):
                with pytest.raises(virtio.StaleTokenError):
                    await q.wait(stale)
            assert await q.transfer(writable=[buf]) == 16

    run(main())


def test_a_token_that_was_added_elsewhere_is_waited_for_as_any_other(run: Any) -> None:
    async def main() -> None:
        dev = virtio.open("soft:entropy")
        with dev:
            dev.negotiate()
            queue = dev.queue(0, size=8)
            dev.start()
            q = aio.Queue(queue)
            token = queue.add(writable=[dev.alloc(16)])
            task = asyncio.create_task(q.wait(token))
            await asyncio.sleep(0)
            assert not task.done()
            queue.notify()
            assert (await task).token == token

    run(main())


def test_a_close_ends_every_wait(run: Any) -> None:
    async def main() -> None:
        dev, q = device("soft:console")
        token = q.add(writable=[dev.alloc(16)])
        q.notify()
        tasks = [asyncio.create_task(q.wait(token)), asyncio.create_task(q.get())]
        await asyncio.sleep(0.05)
        dev.close()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(error, virtio.ClosedError)

    run(main())
