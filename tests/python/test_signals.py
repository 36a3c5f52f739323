"""Ctrl-C at any moment: raised within 100 ms, and no completion lost (row M7)."""

from __future__ import annotations

import random
import signal
import threading
import time
from array import array
from collections.abc import Callable, Iterator

import pytest

import virtio
from virtio import testing

# A busy machine runs nobody for a while: what all but a few must keep, and what the worst may take.
PROMPT, WORST = 0.1, 0.5


class Interrupter:
    """A thread that sends SIGINT to the main one, at random moments after each call of aim(). It holds the interpreter's
    lock as it does: then the main thread is in a wait, a spin, or between two steps of Python."""

    def __init__(self, moments: random.Random, longest: float) -> None:
        self._moments, self._longest = moments, longest
        self._due, self._sent = threading.Event(), 0.0
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self.delays: list[float] = []

    def _run(self) -> None:
        while self._due.wait() and not self._over:
            self._due.clear()
            time.sleep(self._moments.uniform(0, self._longest))
            self._sent = time.monotonic()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def interrupt(self, work: Callable[[], object]) -> None:
        """Repeats `work` until a signal ends it."""
        try:
            self._due.set()
            while True:
                work()
        except KeyboardInterrupt:
            self.delays.append(time.monotonic() - self._sent)

    def __enter__(self) -> Interrupter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._due.set()
        self._thread.join()

    def check(self, count: int) -> None:
        delays = sorted(self.delays)
        assert len(delays) == count
        assert delays[(count - 1) * 95 // 100] < PROMPT, delays[-5:]
        assert delays[-1] < WORST, delays[-5:]


class Ledger:
    """Tokens that were given out, and those that came back."""

    def __init__(self, q: virtio.Queue, pool: virtio.Pool) -> None:
        self.q, self.pool = q, pool
        self.given: list[int] = []
        self.back: list[int] = []

    def give(self, tokens: list[int]) -> None:
        self.given += tokens

    def settle(self) -> None:
        """Takes what nobody has taken, and compares."""
        while len(self.back) < len(self.given):
            self.back.append(self.q.get(timeout=10).token)
        assert sorted(self.back) == sorted(self.given), "each once"
        assert self.q.pop() is None and self.q.outstanding == 0 and self.pool.in_flight == 0
        self.given.clear()
        self.back.clear()


def late(work: Callable[[], object]) -> Callable[[], None]:
    """The same, where a time limit may pass."""

    def run() -> None:
        try:
            work()
        except virtio.VirtioTimeoutError:
            pass

    return run


def fill(ledger: Ledger) -> None:
    """As many requests as there are buffers, shown to the device."""
    ledger.give([ledger.q.add(writable=[buf]) for buf in ledger.pool])
    ledger.q.notify()


@pytest.fixture
def seed() -> int:
    return random.randrange(1 << 32)


@pytest.fixture
def running() -> Iterator[Ledger]:
    """A device with a thread of its own, a queue that spins long, and two buffers."""
    with virtio.open("soft:entropy") as dev:
        dev.negotiate(want=virtio.Feature.EVENT_IDX)
        with dev.queue(0, size=64) as q:
            dev.start()
            q.set_spin(0.003)
            yield Ledger(q, dev.pool(2, 16))


def waits(ledger: Ledger, how: str) -> Callable[[], None]:
    """A wait that takes what it finds into the ledger."""
    q, back = ledger.q, ledger.back
    if how == "get":
        return late(lambda: back.append(q.get(timeout=0.002).token))
    if how == "pop":

        def pop() -> None:
            if (used := q.pop()) is not None:
                back.append(used.token)

        return pop
    if how == "wait":

        def wait() -> None:
            missing = [token for token in ledger.given if token not in back]
            back.append((q.wait(missing[-1], timeout=0.002) if missing else q.get(timeout=0.002)).token)

        return late(wait)
    # When nothing is left to come, the signal alone ends it.
    return lambda: back.append(q.get().token)


@pytest.mark.soak(run="Python, signals in waits", unit="signals", usual=200, full=1000)
def test_m7_signals_at_random_moments_of_waits_are_raised_at_once_and_lose_no_completion(
    running: Ledger, seed: int, amount: int
) -> None:
    moments = random.Random(seed)
    with Interrupter(moments, 0.006) as interrupter:
        for number in range(amount):
            how = ["get", "wait", "pop", "get for ever"][number % 4]
            fill(running)
            interrupter.interrupt(waits(running, how))
            running.settle()
    interrupter.check(amount)


@pytest.mark.soak(run="Python, signals while threads wait for their own", unit="signals", usual=40, full=500)
def test_m7_a_signal_reaches_who_waits_while_another_thread_reaps(running: Ledger, seed: int, amount: int) -> None:
    """The main thread sleeps on the one that reaps for all."""
    q, moments, over = running.q, random.Random(seed), threading.Event()

    def reap() -> None:
        while not over.is_set():
            late(lambda: q.wait(silent, timeout=0.05))()

    other = threading.Thread(target=reap)
    # Not shown to the device before the end: its waiter keeps the role of the reaper.
    silent = q.add(writable=[running.pool[0]])
    other.start()
    try:
        with Interrupter(moments, 0.006) as interrupter:
            for _ in range(amount):
                interrupter.interrupt(lambda: q.get())
        interrupter.check(amount)
    finally:
        over.set()
        other.join()
    running.give([silent])
    q.notify()
    running.settle()


@pytest.mark.soak(run="Python, signals in transfers", unit="signals", usual=60, full=1000)
def test_m7_a_transfer_that_a_signal_ends_leaves_its_completion_to_whoever_asks(
    running: Ledger, seed: int, amount: int
) -> None:
    q, moments, done = running.q, random.Random(seed), []
    buffers = list(running.pool)
    with Interrupter(moments, 0.003) as interrupter:
        for number in range(amount):
            buf = buffers[number % 2]

            def work() -> None:
                done.append(q.transfer(writable=[buf], timeout=10))

            interrupter.interrupt(work)
            added = q.counters["added"]
            # The last one was sent or not, and ended or not: what is missing is there to be taken.
            while len(done) < added:
                done.append(q.get(timeout=10).written)
            assert len(done) == added == q.counters["used"], f"seed {seed}"
    assert set(done) == {16}
    interrupter.check(amount)


@pytest.mark.soak(run="Python, signals in batches", unit="signals", usual=60, full=1000)
def test_m7_batches_that_a_signal_ends_are_in_the_arrays(running: Ledger, seed: int, amount: int) -> None:
    q, moments = running.q, random.Random(seed)
    tokens = array("Q", bytes(8 * 8))
    with Interrupter(moments, 0.006) as interrupter:
        for _ in range(amount):
            fill(running)

            def work() -> None:
                tokens[:] = array("Q", bytes(8 * 8))
                late(lambda: q.get_many(tokens, timeout=0.002))()
                running.back.extend(filter(None, tokens))
                tokens[:] = array("Q", bytes(8 * 8))

            interrupter.interrupt(work)
            # Where the signal came before the count, the array tells. It may have been read already.
            running.back.extend(token for token in tokens if token and token not in running.back)
            running.settle()
    interrupter.check(amount)


@pytest.mark.soak(run="Python, signals in reads of a disk", unit="signals", usual=30, full=1000)
def test_m7_a_read_that_a_signal_ends_harms_nothing_that_comes_after_it(seed: int, amount: int) -> None:
    moments = random.Random(seed)
    device = testing.block(size=1 << 20, lies=["no_interrupts"])
    with device as address, virtio.Block(address, timeout=20) as disk:
        sectors = [bytes([n]) * 512 for n in range(64)]
        for n, data in enumerate(sectors):
            disk.pwrite(data, n * 512)
        out, whole = bytearray(64 * 512), b"".join(sectors)
        with Interrupter(moments, 0.004) as interrupter:
            for number in range(amount):
                at = number % 64

                def work() -> None:
                    assert disk.pread(512, at * 512) == sectors[at]
                    assert disk.readinto(out, 0) == len(out)

                interrupter.interrupt(work)
                assert disk.pread(512, at * 512) == sectors[at]
                assert disk.pread(len(whole), 0) == whole
    interrupter.check(amount)


def test_m7_a_spin_of_any_length_is_left_for_a_signal(seed: int) -> None:
    with virtio.open("soft:console") as dev:
        dev.negotiate()
        q = dev.queue(0)
        dev.start()
        q.set_spin(60)
        token = q.add(writable=[dev.alloc(8)])
        q.notify()
        with Interrupter(random.Random(seed), 0.05) as interrupter:
            for work in [q.get, lambda: q.wait(token)] * 4:
                interrupter.interrupt(work)
        interrupter.check(8)
        assert q.outstanding == 1
