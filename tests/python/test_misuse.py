"""What callers do wrong with devices and queues, and calls of several threads on one device (rows M4, M7, M10, M11, M15)."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable

import pytest
from test_waits import interrupted_after

import virtio
from virtio import testing

Running = tuple[virtio.Device, virtio.Queue]


def test_m10_chains_that_no_driver_may_build_are_refused_before_anything_is_shown(entropy: Running) -> None:
    dev, q = entropy
    before = q.counters
    buf = dev.alloc(16)
    with pytest.raises(ValueError, match="at least one buffer"):
        q.add()
    with pytest.raises(ValueError, match="in flight already"):
        q.add(writable=[buf, buf])
    with pytest.raises(ValueError, match="in flight already"):
        q.add(readable=[buf], writable=[buf])
    with pytest.raises(ValueError):
        dev.alloc(0)
    pool = dev.pool(q.size + 1, 16)
    with pytest.raises(ValueError, match="more buffers than"):
        q.add(writable=list(pool))
    for wrong in (b"bytes", bytearray(16), memoryview(buf), None, 7):
        with pytest.raises(TypeError):
            q.add(writable=[wrong])
    # A failed call leaves nothing behind.
    assert not buf.in_flight and pool.in_flight == 0
    assert q.counters == before and q.outstanding == 0


@pytest.mark.parametrize("bad", [-1.0, -1, float("nan"), 10**400])
def test_m10_what_is_no_time_limit_is_refused_before_anything_is_shown(bad: float) -> None:
    with virtio.open("soft:entropy?run=inline") as dev:
        dev.negotiate()
        q = dev.queue(0, size=8)
        dev.start()
        buf = dev.alloc(8)
        before = q.counters
        with pytest.raises((ValueError, OverflowError)):
            q.transfer(writable=[buf], timeout=bad)
        assert q.counters == before and not buf.in_flight
        # With a completion there as without one.
        token = q.add(writable=[buf])
        q.notify()
        tokens = memoryview(bytearray(8)).cast("Q")
        waits: list[Callable[[], object]] = [
            lambda: q.get(timeout=bad), lambda: q.get(bad), lambda: q.wait(token, timeout=bad),
            lambda: q.get_many(tokens, timeout=bad),
        ]  # fmt: skip
        for wait in waits:
            with pytest.raises((ValueError, OverflowError)):
                wait()
        assert q.get(timeout=1).token == token


def test_m11_memory_of_another_device_is_refused(entropy: Running) -> None:
    _, q = entropy
    with virtio.open("soft:entropy") as other:
        foreign = other.alloc(16)
        with pytest.raises(ValueError, match="not mapped"):
            q.add(writable=[foreign])
        assert not foreign.in_flight


def test_m15_steps_out_of_their_order_are_refused() -> None:
    with virtio.open("soft:entropy?run=inline") as dev:
        with pytest.raises(ValueError, match="after the negotiation"):
            dev.queue(0)
        with pytest.raises(ValueError):
            dev.start()
        dev.negotiate()
        with pytest.raises(ValueError, match="once"):
            dev.negotiate()
        q = dev.queue(0)
        with pytest.raises(virtio.VirtioError, match="already") as twice:
            dev.queue(0)
        assert twice.value.errno == errno.ENXIO
        q.add(writable=[dev.alloc(8)])
        with pytest.raises(ValueError, match="after the device was started"):
            q.notify()
        dev.start()
        q.notify()
        assert q.get(timeout=5).written == 8
        with pytest.raises(ValueError):
            dev.negotiate()
        with pytest.raises(ValueError):
            dev.queue(0)


def test_m15_a_kick_is_refused_where_a_notification_is() -> None:
    with testing.entropy() as address, virtio.open(address) as dev:
        dev.negotiate()
        q = dev.queue(0, size=8)
        with pytest.raises(ValueError, match="after the device was started"):
            q.kick()
        dev.start()
        q.kick()
        dev.reset()
        with pytest.raises(virtio.ClosedError):
            q.kick()
    # The device saw no notification before it was ready: the fixture's end would tell of the rule.


def test_a_region_of_what_is_no_descriptor_is_refused_by_its_kind() -> None:
    with pytest.raises(OSError, match="descriptor") as bad:
        virtio.Region(999_999)
    assert bad.value.errno == errno.EBADF
    for number in (-1, 2**40, -(2**70)):
        with pytest.raises(ValueError):
            virtio.Region(number)
    for wrong in (3.5, None, "x"):
        with pytest.raises(TypeError, match="fileno"):
            virtio.Region(wrong)  # type: ignore[arg-type]


def test_more_bytes_than_any_object_has_are_refused() -> None:
    with virtio.Entropy("soft:entropy") as source:
        for length in (2**63, 2**64 - 1):
            with pytest.raises(ValueError):
                source.read(length)


def test_a_device_writes_no_bytes_over_objects() -> None:
    numpy = pytest.importorskip("numpy")
    with virtio.Block("soft:block?size=1M") as disk:
        objects = numpy.array([None] * 64)
        for call in (disk.readinto, lambda to, at: disk.pwrite(to, at)):
            with pytest.raises(TypeError):
                call(objects, 0)
        assert list(objects) == [None] * 64


class Beside:
    """A call in a thread of its own; how it ended."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._call, self._thread = call, threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except Exception as error:
            self.error = error

    def join(self) -> BaseException | None:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.error


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_m4_a_close_ends_a_read_of_random_bytes_in_another_thread() -> None:
    device = testing.entropy(lies=["stalls"], checked=False)
    with device as address:
        source = virtio.Entropy(address, timeout=None)
        reading = Beside(lambda: source.read(5))
        until(lambda: device.report().notifications)
        with pytest.raises(RuntimeError, match="another call"):
            source.read(1)
        start = time.monotonic()
        source.close()
        assert time.monotonic() - start < 1, "a read looks around every 50 ms"
        assert isinstance(reading.join(), virtio.ClosedError)
        with pytest.raises(virtio.ClosedError):
            source.read(1)


def test_m7_a_signal_reaches_who_waits_for_the_queue_of_another_call() -> None:
    device = testing.block(size="1M", lies=["stalls"], checked=False)
    with device as address:
        disk = virtio.Block(address, timeout=None)
        busy = Beside(lambda: disk.pread(512, 0))
        until(lambda: device.report().notifications)
        calls: list[Callable[[], object]] = [lambda: disk.pread(512, 0), disk.flush]
        for call in calls:
            assert interrupted_after(0.05, call) < 0.5
        disk.close()
        assert isinstance(busy.join(), virtio.VirtioError)


def test_threads_of_one_queue_each_have_their_turn() -> None:
    with virtio.Block("soft:block?size=1M") as disk:
        for n in range(8):
            disk.pwrite(bytes([n]) * 512, n * 512)

        def read(n: int) -> None:
            for _ in range(300):
                assert disk.pread(512, n * 512) == bytes([n]) * 512

        reading = [Beside(lambda n=n: read(n)) for n in range(8)]
        assert [one.join() for one in reading] == [None] * 8


def test_errors_at_the_end_of_the_interpreter_are_what_they_are_else() -> None:
    code = textwrap.dedent("""
        import virtio

        class Late:
            def __init__(self):
                self.dev = virtio.open("soft:entropy")
                self.dev.negotiate()
                self.q = self.dev.queue(0)
                self.dev.close()
                # Not freed before modules are.
                self.me = self

            def __del__(self):
                try:
                    self.q.pop()
                except Exception as error:
                    print(type(error).__name__, flush=True)

        late = Late()
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("ClosedError\n", "")


def test_a_spin_that_is_no_length_of_time_is_refused_as_that(silent: Running) -> None:
    _, q = silent
    for bad in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="spin"):
            q.set_spin(bad)
