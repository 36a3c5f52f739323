"""asyncio: block devices and queues that are awaited, by the event loop's own look at their descriptors. No thread is
started but for what cannot be done without waiting: opening, closing and reconnecting a block device.

Cancelling a task detaches its waiter only: the request stays the device's until that is done with it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import virtio
from virtio._virtio import Buffer, Used, _AsyncBlock

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Block", "Queue"]


class Block(_AsyncBlock):
    """A block device for the tasks of one event loop: `async with virtio.aio.Block(address) as disk`, and then
    `await disk.pread(4096, 0)`. Parameters are those of virtio.Block, of which it uses one queue.

    A request is a future of the loop's: it may be awaited at once, or later, and any number may be under way. Offsets
    and lengths are in bytes, multiples of 512, and refused by the call itself; everything else is raised by the future:
    VirtioTimeoutError where the device answers nothing for `timeout` seconds. Cancelling it detaches the waiter only.
    Leaving the `async with` ends what is under way: IndeterminateError where the device had it, ClosedError where not."""

    _loop: asyncio.AbstractEventLoop
    _recovery: asyncio.Task[None] | None = None

    async def open(self) -> Self:
        """Opens the device; `async with` does it by itself."""
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(None, self._open, self._loop)
        self._watch()
        return self

    async def close(self) -> None:
        """Resets and closes the device. A second call does nothing."""
        if not hasattr(self, "_loop"):
            return
        try:
            await self._loop.run_in_executor(None, self._close)
        finally:
            self._leave()
            if self._recovery is not None:
                await self._recovery

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _lost(self) -> None:
        """The device's back-end went away, and may come back."""
        if self._recovery is None:
            self._recovery = self._loop.create_task(self._bring_back())

    async def _bring_back(self) -> None:
        try:
            await self._loop.run_in_executor(None, self._recover)
            self._watch()
        except OSError:
            # Told to everybody who waits.
            self._turn()
        finally:
            self._recovery = None


class Queue:
    """A virtio.Queue for the tasks of one event loop. Use nothing else to take its completions meanwhile.

    Iterating over it gives every request that is done and that no task waits for by its token.
    """

    def __init__(self, queue: virtio.Queue) -> None:
        self._queue = queue
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owned: dict[int, asyncio.Future[Used]] = {}
        self._any: collections.deque[asyncio.Future[Used]] = collections.deque()
        self._kept: dict[int, Used | Exception] = {}
        # Added here, and not taken yet.
        self._added: set[int] = set()

    def add(self, readable: Sequence[Buffer] = (), writable: Sequence[Buffer] = ()) -> int:
        """As virtio.Queue.add()."""
        token = self._queue.add(readable, writable)
        self._added.add(token)
        return token

    def notify(self) -> None:
        """As virtio.Queue.notify()."""
        self._queue.notify()

    async def transfer(self, readable: Sequence[Buffer] = (), writable: Sequence[Buffer] = ()) -> int:
        """Adds a chain, notifies the device and waits for the answer: how many bytes the device says it wrote."""
        token = self.add(readable, writable)
        self.notify()
        return (await self.wait(token)).written

    async def wait(self, token: int) -> Used:
        """Waits for the request of this token. StaleTokenError where it is not in flight."""
        if token in self._kept:
            return self._give(self._kept.pop(token))
        if token in self._owned:
            raise ValueError("another task waits for this token")
        if token not in self._added:
            # The queue knows; nobody would ever be told of a token that it does not know.
            with contextlib.suppress(virtio.VirtioTimeoutError):
                return self._queue.wait(token, timeout=0)
        future: asyncio.Future[Used] = asyncio.get_running_loop().create_future()
        self._owned[token] = future
        try:
            return await self._answer(future)
        finally:
            self._owned.pop(token, None)
            self._leave()

    async def get(self) -> Used:
        """Waits for any request that is done and that no task waits for by its token."""
        if self._kept:
            return self._give(self._kept.pop(next(iter(self._kept))))
        future: asyncio.Future[Used] = asyncio.get_running_loop().create_future()
        self._any.append(future)
        try:
            return await self._answer(future)
        finally:
            if future in self._any:
                self._any.remove(future)
            self._leave()

    def __aiter__(self) -> AsyncIterator[Used]:
        return self

    async def __anext__(self) -> Used:
        try:
            return await self.get()
        except virtio.ClosedError:
            raise StopAsyncIteration from None

    @staticmethod
    def _give(kept: Used | Exception) -> Used:
        if isinstance(kept, Exception):
            raise kept
        return kept

    async def _answer(self, future: asyncio.Future[Used]) -> Used:
        """What a waiter is given. What he did not see, since he was cancelled, is given to the next, or kept."""
        try:
            self._turn()
            return await future
        except BaseException as error:
            if future.done() and not future.cancelled():
                unseen = future.exception()
                if unseen is None:
                    self._hand(future.result().token, future.result())
                elif unseen is not error and isinstance(unseen, virtio.IndeterminateError):
                    self._hand(unseen.token, unseen)
            raise

    def _leave(self) -> None:
        """A waiter has gone."""
        if not self._owned and not self._any:
            self._stop()

    def _turn(self) -> None:
        """Takes what is done, and asks for an event while anybody waits."""
        try:
            while True:
                self._take()
                if not (self._owned or self._any):
                    return
                if not self._queue.enable_interrupts():
                    break
        except virtio.VirtioError as error:
            for future in [*self._owned.values(), *self._any]:
                if not future.done():
                    future.set_exception(error)
            self._any.clear()
            return
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._queue.fileno(), self._turn)

    def _take(self) -> None:
        while True:
            try:
                used = self._queue.pop()
            except virtio.IndeterminateError as error:
                self._hand(error.token, error)
                continue
            if used is None:
                return
            self._hand(used.token, used)

    def _hand(self, token: int, result: Used | Exception) -> None:
        self._added.discard(token)
        future = self._owned.pop(token, None)
        while (future is None or future.done()) and self._any:
            future = self._any.popleft()
        if future is None or future.done():
            self._kept[token] = result
        elif isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def _stop(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._queue.fileno())
        self._loop = None
