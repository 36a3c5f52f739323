"""Queues under event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
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


async def used_by(how: str, q: aio.Queue, buf: virtio.Buffer) -> virtio.Used:
    """The answer to a request of its own, taken in each of the ways."""
    token = q.add(writable=[buf])
    q.notify()
    match how:
        case "wait":
            return await q.wait(token)
        case "get":
            return await q.get()
    return await anext(aiter(q))


@pytest.mark.parametrize("how", ["transfer", "wait", "get", "iterate"])
def test_what_a_task_asks_for_after_its_cancellation_is_given_once(run: Any, how: str) -> None:
    async def main() -> None:
        dev, q = device("soft:entropy")
        with dev:
            first, second = dev.pool(2, 16)
            begun = asyncio.Event()

            async def cleans_up() -> None:
                try:
                    begun.set()
                    await asyncio.Event().wait()
                finally:
                    if how == "transfer":
                        assert await q.transfer(writable=[first]) == 16
                    else:
                        assert (await used_by(how, q, first)).written == 16

            task = asyncio.create_task(cleans_up())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not q._kept
            token = q.add(writable=[second])
            q.notify()
            assert (await q.get()).token == token

    run(main())


async def cancelled_as_it_is_done(q: aio.Queue, task: asyncio.Task[Any], end: Callable[[], None]) -> None:
    """The task is told that its request has ended, and cancelled before it runs again."""
    await asyncio.sleep(0)
    end()
    q._turn()
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("how", ["wait", "get", "iterate"])
def test_what_a_cancelled_task_did_not_see_is_kept(run: Any, how: str) -> None:
    async def main() -> None:
        dev, q = device("soft:entropy?run=inline")
        with dev:
            token = q.add(writable=[dev.alloc(16)])
            ways = {"wait": lambda: q.wait(token), "get": q.get, "iterate": q.__anext__}
            await cancelled_as_it_is_done(q, asyncio.create_task(ways[how]()), q.notify)
            assert (await q.get()).token == token
            assert not q._kept

    run(main())


def test_what_a_cancelled_task_did_not_see_goes_to_the_next_that_waits(run: Any) -> None:
    async def main() -> None:
        dev, q = device("soft:entropy?run=inline")
        with dev:
            token = q.add(writable=[dev.alloc(16)])
            first, second = (asyncio.create_task(q.get()) for _ in range(2))
            await cancelled_as_it_is_done(q, first, q.notify)
            async with asyncio.timeout(5):
                assert (await second).token == token

    run(main())


def test_a_cancelled_task_s_indeterminate_request_is_told_of_to_who_asks_next(run: Any) -> None:
    async def main() -> None:
        dev, q = device("soft:console")
        with dev:
            token = q.add(writable=[dev.alloc(16)])
            q.notify()
            await cancelled_as_it_is_done(q, asyncio.create_task(q.wait(token)), dev.reset)
            with pytest.raises(virtio.IndeterminateError) as told:
                await q.wait(token)
            assert told.value.token == token

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
