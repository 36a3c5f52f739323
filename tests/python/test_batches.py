"""Many requests a call, through arrays."""

from __future__ import annotations

from array import array

import pytest

import virtio

np = pytest.importorskip("numpy")
Running = tuple[virtio.Device, virtio.Queue]


@pytest.mark.parametrize("code", ["Q", "q", "I", "i", "H", "L"])
def test_slots_go_in_and_tokens_come_out(entropy: Running, code: str) -> None:
    dev, q = entropy
    pool = dev.pool(32, 16)
    added, tokens, written = array("Q", bytes(8 * 32)), array("Q", bytes(8 * 32)), array("I", bytes(4 * 32))
    assert q.add_many(None, array(code, range(32)), added) == 32
    assert pool.in_flight == 32
    q.notify()
    assert q.get_many(tokens, written, timeout=5) == 32
    assert tokens == added and set(written) == {16} and pool.in_flight == 0
    assert np.asarray(pool).any(axis=1).all()


def test_a_full_queue_takes_as_many_as_it_can_and_says_so(entropy: Running) -> None:
    dev, q = entropy
    pool = dev.pool(100, 16)
    slots = np.arange(pool.count, dtype=np.uint32)
    assert q.add_many(None, slots) == 64
    with pytest.raises(virtio.QueueFullError) as full:
        q.add_many(None, slots[64:])
    assert isinstance(full.value, BlockingIOError)
    q.notify()
    tokens = np.empty(100, dtype=np.uint64)
    assert q.get_many(tokens, timeout=5) == 64
    assert q.add_many(None, slots[64:]) == 36


def test_chains_of_three_read_a_block_device() -> None:
    with virtio.open("soft:block?size=1M&run=inline") as dev:
        dev.negotiate(want=[virtio.Feature.EVENT_IDX, virtio.Feature.INDIRECT_DESC])
        with dev.queue(0, size=64) as q:
            dev.start()
            heads, data, states = dev.pool(8, 16), dev.pool(8, 4096), dev.pool(8, 1)
            requests = np.asarray(heads).view("<u4")
            requests[:, 0] = 0  # a read
            requests[:, 2] = np.arange(8) * 8
            np.asarray(states)[:] = 0xFF
            writable = (np.arange(8) + data.first, np.arange(8) + states.first)
            assert q.add_many(np.arange(8) + heads.first, writable) == 8
            q.notify()
            tokens, written = np.empty(8, np.uint64), np.empty(8, np.uint32)
            assert q.get_many(tokens, written, timeout=5) == 8
            assert (written == 4097).all() and not np.asarray(states).any()
            # The same with the two columns in one array.
            columns = np.stack(writable, axis=1)
            assert q.add_many(np.arange(8) + heads.first, columns) == 8
            q.notify()
            assert q.get_many(tokens, written, timeout=5) == 8 and (written == 4097).all()


def test_a_bad_slot_further_on_stops_the_batch_and_is_told_when_it_is_first(entropy: Running) -> None:
    dev, q = entropy
    pool = dev.pool(4, 16)
    slots = array("q", [0, 1, 1, 2])
    assert q.add_many(None, slots) == 2
    with pytest.raises(ValueError, match="in flight already"):
        q.add_many(None, slots[2:])
    for unknown in (4, -1, 1 << 40):
        with pytest.raises(ValueError, match="number"):
            q.add_many(None, array("q", [unknown]))
    assert pool.in_flight == 2


def test_what_is_no_array_of_integers_is_refused(entropy: Running) -> None:
    dev, q = entropy
    dev.pool(4, 16)
    tokens = array("Q", [0] * 4)
    for wrong in ([0, 1], array("d", [0.0]), b"\0\1", np.zeros((2, 2, 2), np.uint32), np.arange(8)[::2], 3):
        with pytest.raises(TypeError):
            q.add_many(None, wrong)
    with pytest.raises(TypeError, match="tokens"):
        q.get_many(array("I", [0]), timeout=0)
    with pytest.raises(TypeError):
        q.get_many(memoryview(tokens).toreadonly(), timeout=0)
    with pytest.raises(ValueError):
        q.get_many(array("Q"), timeout=0)
    with pytest.raises(ValueError, match="one number for each chain"):
        q.add_many(array("I", [0]), array("I", [1, 2]))
    with pytest.raises(ValueError, match="tokens"):
        q.add_many(None, array("I", [0, 1]), array("Q", [0]))
    with pytest.raises(virtio.VirtioTimeoutError):
        q.get_many(tokens, timeout=0.01)
    assert q.outstanding == 0


def test_completions_of_others_are_not_taken_by_a_batch() -> None:
    with virtio.open("soft:entropy?run=inline") as dev:
        dev.negotiate()
        with dev.queue(0, size=16) as q:
            dev.start()
            pool = dev.pool(8, 16)
            one = q.add(writable=[pool[7]])
            tokens = array("Q", [0] * 16)
            q.add_many(None, array("I", range(4)), tokens)
            q.notify()
            assert q.wait(one, timeout=5).token == one
            assert q.get_many(tokens, timeout=5) == 4
            assert one not in tokens[:4] and q.pop() is None


@pytest.mark.parametrize("queues", [1, 2])
def test_scattered_reads_and_writes_of_a_disk(queues: int) -> None:
    with virtio.Block(f"soft:block?size=8M&queues={queues}", queues=queues) as disk:
        offsets = np.random.default_rng(1).permutation(2048)[:300] * 4096
        data = np.random.default_rng(2).integers(0, 256, (300, 4096), dtype=np.uint8)
        disk.write_many(offsets, data)
        copy = np.zeros_like(data)
        disk.read_many(offsets, copy)
        assert (copy == data).all()
        pool = disk.pool(300, 4096)
        disk.read_many(offsets, pool)
        assert (np.asarray(pool) == data).all() and pool.in_flight == 0
        np.asarray(pool)[:] += 1
        disk.write_many(offsets, pool)
        disk.read_many(offsets[:1], copy[:1])
        assert (copy[0] == data[0] + 1).all()
        assert disk.pread(4096, int(offsets[9])) == (data[9] + 1).tobytes()
        large = np.zeros((3, 1 << 20), dtype=np.uint8)
        disk.read_many(np.array([0, 1 << 20, 2 << 20]), large)
        assert large.tobytes() == disk.pread(3 << 20, 0)


def test_a_bad_offset_is_found_before_anything_is_sent() -> None:
    with virtio.Block("soft:block?size=1M") as disk:
        pool = disk.pool(2, 512)
        for bad in (100, 1 << 20, -512):
            with pytest.raises(ValueError):
                disk.read_many(array("q", [0, bad]), pool)
        with pytest.raises(ValueError, match="one length"):
            disk.read_many(array("q", [0, 512]), bytearray(1025))
        with pytest.raises(ValueError):
            disk.read_many(array("q", [0, 512, 1024]), pool)
        assert pool.in_flight == 0
