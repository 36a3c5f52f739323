"""Eight threads on one queue, and on one device with a queue each: nothing lost, nothing doubled (row M5)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from conftest import SOAKING

import virtio
from virtio import testing

np = pytest.importorskip("numpy")

THREADS = 8
LIMIT = 3000 if SOAKING else 100


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Threads change places between nearly any two steps of Python."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], None]) -> None:
    """Runs `work` in all threads, and raises what one of them raised."""
    errors: list[BaseException] = []
    begin = threading.Barrier(THREADS)

    def run(number: int) -> None:
        try:
            begin.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


def once_each(given: list[list[int]], total: int) -> None:
    tokens = np.concatenate([np.asarray(part, dtype=np.uint64) for part in given])
    assert len(tokens) == total == len(np.unique(tokens)), "each request has a token of its own"


@pytest.mark.soak(run="Python, one queue, 8 threads, inline", unit="requests", usual=500_000, full=10_000_000)
def test_m5_one_queue_of_a_device_that_answers_at_once(amount: int) -> None:
    device, each = testing.entropy(run="inline"), amount // THREADS
    with device as address, virtio.open(address) as dev:
        dev.negotiate(want=virtio.Feature.EVENT_IDX)
        q = dev.queue(0, size=64)
        dev.start()
        given: list[list[int]] = [[] for _ in range(THREADS)]

        def work(number: int) -> None:
            # By its length each knows its own answer.
            length, buf = number + 1, dev.alloc(number + 1)
            mine, steps = given[number], each // 4
            for _ in range(each - steps):
                assert q.transfer(writable=[buf], timeout=60) == length
            for _ in range(steps):
                token = q.add(writable=[buf])
                q.notify()
                used = q.wait(token, timeout=60)
                assert (used.token, used.written) == (token, length)
                mine.append(token)

        together(work)
        total = each * THREADS
        assert q.counters["added"] == q.counters["used"] == device.report().chains == total
        once_each(given, each // 4 * THREADS)
        assert q.outstanding == 0 and q.pop() is None


@pytest.mark.soak(run="Python, one queue, 8 threads, threaded", unit="requests", usual=40_000, full=1_000_000)
def test_m5_one_queue_of_a_device_with_a_thread_of_its_own(amount: int) -> None:
    device, each = testing.entropy(), amount // THREADS
    with device as address, virtio.open(address) as dev:
        dev.negotiate(want=virtio.Feature.EVENT_IDX)
        # Half as many descriptors as threads: they run out.
        q = dev.queue(0, size=4)
        dev.start()
        full = [0] * THREADS

        def work(number: int) -> None:
            length, buf = number + 1, dev.alloc(number + 1)
            done = 0
            while done < each:
                try:
                    assert q.transfer(writable=[buf], timeout=60) == length
                    done += 1
                except virtio.QueueFullError:
                    full[number] += 1

        together(work)
        total = each * THREADS
        assert q.counters["added"] == q.counters["used"] == device.report().chains == total
        assert q.outstanding == 0 and q.pop() is None


@pytest.mark.soak(run="Python, one queue, what 8 threads take in batches", unit="requests", usual=40_000, full=2_000_000)
def test_m5_one_queue_whose_answers_go_to_whoever_asks(amount: int) -> None:
    """Four add, four take, in arrays, and no answer is anybody's own."""
    device, each = testing.entropy(), amount // 4
    with device as address, virtio.open(address) as dev:
        dev.negotiate(want=virtio.Feature.EVENT_IDX)
        q = dev.queue(0, size=64)
        dev.start()
        added: list[list[int]] = [[] for _ in range(4)]
        taken: list[list[int]] = [[] for _ in range(4)]
        over = threading.Event()

        def add(number: int) -> None:
            # A buffer comes home with its answer, whoever takes that.
            pool, tokens, mine = dev.pool(16, 16), np.zeros(16, np.uint64), added[number]
            while len(mine) < each:
                free = [buf.slot for buf in pool if not buf.in_flight][: each - len(mine)]
                if free:
                    try:
                        count = q.add_many(None, np.asarray(free, np.uint32), tokens)
                        mine.extend(tokens[:count].tolist())
                    except virtio.QueueFullError:
                        pass
                    q.notify()

        def take(number: int) -> None:
            tokens = np.zeros(32, np.uint64)
            while not over.is_set():
                try:
                    count = q.get_many(tokens, timeout=0.05)
                    taken[number].extend(tokens[:count].tolist())
                except virtio.VirtioTimeoutError:
                    pass

        adders = iter(range(4))
        left = threading.Semaphore(0)

        def work(number: int) -> None:
            if number >= 4:
                take(number - 4)
                return
            try:
                add(next(adders))
            finally:
                left.release()
                if number == 0:
                    for _ in range(4):
                        left.acquire(timeout=LIMIT)
                    while q.outstanding:
                        pass
                    over.set()

        together(work)
        while (used := q.pop()) is not None:
            taken[0].append(used.token)
        total = each * 4
        once_each(added, total)
        once_each(taken, total)
        assert sorted(sum(added, [])) == sorted(sum(taken, []))


@pytest.mark.soak(run="Python, a queue for each of 8 threads", unit="requests", usual=500_000, full=10_000_000)
@pytest.mark.parametrize("how", ["inline", "thread"])
def test_m5_a_queue_for_each_thread(amount: int, how: str) -> None:
    """Reads of a block device in batches of 32: each answer is the thread's own, and holds what was asked for."""
    batch, blocks = 32, 256
    rounds = amount // 2 // THREADS // batch
    device = testing.block(size=blocks * 512, queues=THREADS, run=how)
    with device as address:
        with virtio.Block(address) as disk:
            disk.pwrite(np.arange(blocks, dtype="<u4").repeat(128), 0)
        with virtio.open(address) as dev:
            wanted = [virtio.Feature.EVENT_IDX, virtio.Feature.INDIRECT_DESC]
            dev.negotiate(want=wanted, require=[virtio.block.Feature.MQ])
            queues = [dev.queue(n, size=128) for n in range(THREADS)]
            dev.start()
            chains = device.report().chains

            def work(number: int) -> None:
                q, random = queues[number], np.random.default_rng(number)
                heads, data, states = dev.pool(batch, 16), dev.pool(batch, 512), dev.pool(batch, 1)
                requests, answers, verdicts = np.asarray(heads).view("<u4"), np.asarray(data), np.asarray(states)
                writable = (np.arange(batch) + data.first, np.arange(batch) + states.first)
                given, tokens, written = np.empty(batch, "u8"), np.empty(batch, "u8"), np.empty(batch, "u4")
                for _ in range(rounds):
                    sectors = random.integers(0, blocks, batch)
                    requests[:, 2] = sectors
                    verdicts[:] = 0xFF
                    assert q.add_many(np.arange(batch) + heads.first, writable, given) == batch
                    q.notify()
                    got = 0
                    while got < batch:
                        got += q.get_many(tokens[got:], written[got:], timeout=60)
                    assert (np.sort(tokens) == np.sort(given)).all() and (written == 513).all()
                    assert not verdicts.any() and (answers.view("<u4")[:, ::127] == sectors[:, None]).all()

            together(work)
            assert device.report().chains - chains == rounds * THREADS * batch
            for q in queues:
                assert q.counters["added"] == q.counters["used"] == rounds * batch
                assert q.outstanding == 0 and q.pop() is None
