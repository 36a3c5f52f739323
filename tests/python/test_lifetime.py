"""What callers do wrong, or at the wrong moment: rows M1 to M15 of the fault model, one test each at least."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
from conftest import INTERFACES, descriptors

import virtio
from virtio import testing

Running = tuple[virtio.Device, virtio.Queue]


def program(text: str) -> subprocess.CompletedProcess[str]:
    """Runs a Python program of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_m1_a_token_is_good_once_and_on_its_own_queue_only(entropy: Running) -> None:
    dev, q = entropy
    buf = dev.alloc(8)
    token = q.add(writable=[buf])
    q.notify()
    assert q.wait(token, timeout=5).token == token
    with pytest.raises(virtio.StaleTokenError) as stale:
        q.wait(token, timeout=5)
    assert stale.value.token == token and stale.value.errno == errno.ESTALE
    assert isinstance(stale.value, ValueError) and stale.value.filename == dev.address
    for foreign in (token ^ 1 << 48, token + (1 << 32), 0, (1 << 64) - 1):
        with pytest.raises(virtio.StaleTokenError):
            q.wait(foreign, timeout=0)
    second = q.add(writable=[buf])
    assert second != token


def test_m1_a_token_of_before_a_reset_is_stale() -> None:
    with virtio.open("soft:entropy?run=inline") as dev:
        dev.negotiate()
        q = dev.queue(0, size=8)
        dev.start()
        token = q.add(writable=[dev.alloc(8)])
        dev.reset()
        dev.negotiate()
        again = dev.queue(0, size=8)
        dev.start()
        # Of the same slot, and in flight.
        live = again.add(writable=[dev.alloc(8)])
        again.notify()
        with pytest.raises(virtio.StaleTokenError):
            again.wait(token, timeout=0)
        assert again.wait(live, timeout=5).token == live


def test_m1_a_token_of_another_device_is_stale(entropy: Running) -> None:
    dev, q = entropy
    with virtio.open("soft:entropy?run=inline") as other:
        other.negotiate()
        theirs = other.queue(0, size=q.size)
        other.start()
        foreign = theirs.add(writable=[other.alloc(8)])
        token = q.add(writable=[dev.alloc(8)])
        with pytest.raises(virtio.StaleTokenError):
            q.wait(foreign, timeout=0)
        q.notify()
        assert q.wait(token, timeout=5).token == token


def test_m2_a_queue_left_with_requests_in_flight_keeps_their_buffers_until_the_reset(silent: Running) -> None:
    dev, q = silent
    buf = dev.alloc(64)
    with pytest.raises(KeyError), q:
        q.add(writable=[buf])
        q.notify()
        raise KeyError
    assert buf.in_flight, "the device runs, and has it"
    with pytest.raises(virtio.ClosedError):
        q.pop()
    dev.reset()
    assert not buf.in_flight


def test_m2_a_queue_that_is_forgotten_keeps_what_is_in_flight_until_the_reset(silent: Running) -> None:
    dev, _ = silent
    dev.reset()
    dev.negotiate()
    q = dev.queue(0)
    dev.start()
    buf = dev.alloc(64)
    q.add(writable=[buf])
    q.notify()
    del q
    gc.collect()
    assert buf.in_flight
    dev.close()
    assert not buf.in_flight


def test_m2_exits_in_any_order_give_every_buffer_back() -> None:
    def exits(transport: str, first: str) -> None:
        dev = virtio.open(f"soft:console?transport={transport}")
        dev.negotiate()
        q = dev.queue(0)
        dev.start()
        pool = dev.pool(4, 256)
        for buf in (pool[0], pool[1]):
            q.add(writable=[buf])
        q.notify()
        assert pool.in_flight == 2
        for one in (dev, q) if first == "device" else (q, dev):
            one.__exit__(None, None, None)
        assert pool.in_flight == 0
        assert memoryview(pool).tobytes() == bytes(4 * 256)

    # All at a time, as a queue that goes first waits a second for its buffers.
    with ThreadPoolExecutor(2 * len(INTERFACES)) as threads:
        cases = product(INTERFACES, ("device", "queue"))
        for case, outcome in [(case, threads.submit(exits, *case)) for case in cases]:
            assert outcome.exception(timeout=30) is None, case


class Unstoppable:
    """Opens a device, which then never confirms a reset."""

    def __init__(self, kind: str) -> None:
        self.device = testing.block(size="1M", checked=False) if kind != "Entropy" else testing.entropy(checked=False)
        if kind == "open":
            self.handle: virtio.Device | virtio.Block | virtio.Entropy = virtio.open(
                self.device.address, control_timeout=0.05
            )
        elif kind == "Block":
            self.handle = virtio.Block(self.device.address, control_timeout=0.05)
        else:
            self.handle = virtio.Entropy(self.device.address)
        self.device.tell("removed")

    def forget(self) -> None:
        del self.handle
        gc.collect()


KINDS = ["open", "Block", "Entropy"]


@pytest.mark.parametrize("kind", KINDS)
def test_m2_memory_that_is_kept_is_told_of_by_a_close(kind: str) -> None:
    unstoppable = Unstoppable(kind)
    with pytest.warns(ResourceWarning, match="kept for the life of the process"):
        with pytest.raises(virtio.DisconnectedError):
            unstoppable.handle.close()


@pytest.mark.parametrize("kind", KINDS)
def test_m2_memory_that_is_kept_is_told_of_when_a_device_is_forgotten(kind: str) -> None:
    unstoppable = Unstoppable(kind)
    with pytest.warns(ResourceWarning, match="kept for the life of the process"):
        unstoppable.forget()


@pytest.mark.parametrize("kind", KINDS)
def test_m2_the_exception_that_ends_a_with_is_the_context_of_what_its_close_raises(kind: str) -> None:
    unstoppable = Unstoppable(kind)
    with pytest.warns(ResourceWarning), pytest.raises(virtio.DisconnectedError) as lost:
        with unstoppable.handle:
            raise KeyError("the program's own")
    assert isinstance(lost.value.__context__, KeyError)


def test_m2_a_device_that_is_forgotten_while_an_exception_is_on_its_way_harms_it_not() -> None:
    def work() -> None:
        forgotten = Unstoppable("open")
        assert forgotten.handle
        raise KeyError("the program's own")

    with pytest.warns(ResourceWarning, match="kept for the life of the process"):
        with pytest.raises(KeyError) as raised:
            work()
        raised.value.__traceback__ = None
        del raised
        gc.collect()


def test_m3_every_use_after_close_is_a_closed_error(entropy: Running) -> None:
    dev, q = entropy
    buf, other = dev.alloc(8), dev.alloc(8)
    view = memoryview(other)
    dev.close()
    dev.close()
    calls = [
        lambda: q.add(writable=[buf]),
        q.notify,
        q.publish,
        q.pop,
        q.get,
        lambda: q.transfer(writable=[buf]),
        q.enable_interrupts,
        lambda: dev.alloc(8),
        dev.negotiate,
        dev.start,
        dev.reset,
        dev.fileno,
        lambda: dev.queue(1),
        dev.isr,
        dev.events,
        lambda: dev.status,
        lambda: dev.offered,
        lambda: dev.config,
        lambda: dev.read_config(0, 1),
        lambda: dev.write_config(0, 1, 0),
    ]
    for call in calls:
        with pytest.raises(virtio.ClosedError) as closed:
            call()
        assert isinstance(closed.value, ValueError) and closed.value.errno == errno.EBADF
    # Memory is never pulled from under a view.
    view[:3] = b"abc"
    assert bytes(memoryview(other)[:3]) == b"abc"
    assert "closed" in repr(dev) and "Stopped" in repr(q)


def test_m3_a_closed_handle_does_nothing_to_the_device_of_its_next_owner() -> None:
    with testing.block(size="1M") as address:
        first = virtio.open(address)
        first.close()
        with virtio.open(address) as second:
            second.negotiate(want=virtio.block.Feature.CONFIG_WCE)
            assert second.config["writeback"] == 1
            with pytest.raises(virtio.ClosedError):
                first.write_config(32, 1, 0)
            assert second.config["writeback"] == 1


def test_m3_a_block_device_after_close(tmp_path: os.PathLike[str]) -> None:
    disk = virtio.Block("soft:block?size=1M")
    disk.close()
    disk.close()
    with pytest.raises(virtio.ClosedError):
        disk.pread(512, 0)


@pytest.mark.parametrize("how", ["queue", "device"])
def test_m4_who_waits_gets_closed_error_at_once_when_another_thread_closes(silent: Running, how: str) -> None:
    dev, q = silent
    token = q.add(writable=[dev.alloc(64)])
    q.notify()
    waits = [lambda: q.get(), lambda: q.get(timeout=20), lambda: q.wait(token)]
    ended: list[tuple[str, float]] = []

    def wait(call: object) -> None:
        try:
            call()  # type: ignore[operator]
        except Exception as error:
            ended.append((type(error).__name__, time.monotonic()))

    threads = [threading.Thread(target=wait, args=(call,)) for call in waits]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert not ended
    (q if how == "queue" else dev).close()
    closed = time.monotonic()
    for thread in threads:
        thread.join(10)
    assert [name for name, _ in ended] == ["ClosedError"] * 3
    assert max(when for _, when in ended) - closed < 1.0


def test_m5_eight_threads_on_one_queue_lose_and_double_nothing() -> None:
    with virtio.open("soft:entropy") as dev:
        dev.negotiate(want=virtio.Feature.EVENT_IDX)
        with dev.queue(0, size=64) as q:
            dev.start()
            pool = dev.pool(8, 16)
            done: list[int] = []

            def work(buf: virtio.Buffer) -> None:
                for _ in range(2000):
                    token = q.add(writable=[buf])
                    q.notify()
                    used = q.wait(token, timeout=20)
                    assert used.token == token
                    done.append(token)

            threads = [threading.Thread(target=work, args=(pool[i],)) for i in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert len(done) == len(set(done)) == 16000
            assert q.counters["used"] == 16000 and q.outstanding == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_m6_handles_are_closed_in_the_child_of_a_fork(silent: Running) -> None:
    dev, q = silent
    disk = virtio.Block("soft:block?size=1M")
    buf = dev.alloc(4)
    view = memoryview(buf)
    view[:] = b"view"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            calls = [q.pop, q.notify, lambda: dev.alloc(8), dev.start, lambda: disk.pread(512, 0)]
            for call in calls:
                with pytest.raises(virtio.ClosedError) as closed:
                    call()
                assert "fork" in str(closed.value)
            assert bytes(view) == b"view"
            dev.close()
            disk.close()
            del q, dev, disk
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # The parent is unharmed.
    assert disk.pread(512, 0) == bytes(512)
    q.add(writable=[buf])
    q.notify()
    assert dev.phase == "running" and q.outstanding == 1
    disk.close()


def test_m7_control_c_ends_a_wait_and_loses_nothing() -> None:
    with virtio.open("soft:entropy") as dev:
        dev.negotiate()
        with dev.queue(0, size=8) as q:
            dev.start()
            buf = dev.alloc(8)
            token = q.add(writable=[buf])  # not shown to the device yet
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            start = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                q.get()
            assert 0.05 < time.monotonic() - start < 1.0
            assert buf.in_flight
            q.notify()
            assert q.get(timeout=5).token == token


def test_m8_a_pool_outlives_whoever_views_it_and_cannot_be_resized() -> None:
    with virtio.open("soft:entropy?run=inline") as dev:
        pool = dev.pool(4, 16)
        view = memoryview(pool)
    del pool, dev
    gc.collect()
    view[3, 15] = 7
    assert view[3, 15] == 7
    assert view.shape == (4, 16)


def test_m9_a_buffer_that_is_written_while_the_device_reads_is_memory_still() -> None:
    with virtio.Block("soft:block?size=1M") as disk:
        pool = disk.pool(1, 4096)
        view = memoryview(pool).cast("B")
        stop = threading.Event()

        def scribble() -> None:
            while not stop.is_set():
                for byte in (b"\0", b"\xff"):
                    view[:] = byte * 4096

        thread = threading.Thread(target=scribble)
        thread.start()
        for _ in range(200):
            disk.pwrite(pool[0], 0)
        stop.set()
        thread.join()
        assert set(disk.pread(4096, 0)) <= {0, 255}


def test_m12_an_exception_between_adding_and_waiting_leaks_nothing(entropy: Running) -> None:
    dev, q = entropy
    buf = dev.alloc(16)
    for _ in range(200):
        try:
            token = q.add(writable=[buf])
            q.notify()
            raise RuntimeError
        except RuntimeError:
            assert q.get(timeout=5).token == token
    assert not buf.in_flight


def test_m12_a_handler_that_uses_the_queue_during_a_wait_may(silent: Running) -> None:
    dev, q = silent
    buf, token = dev.alloc(16), []

    def handler(*_: object) -> None:
        token.append(q.add(writable=[buf]))
        q.notify()
        assert q.pop() is None

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(virtio.VirtioTimeoutError):
            q.get(timeout=0.3)
        assert len(token) == 1 and buf.in_flight
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_m13_a_device_in_a_garbage_cycle_is_closed_by_the_collector() -> None:
    class Node:
        pass

    before = descriptors()
    node = Node()
    node.self, node.dev = node, virtio.open("soft:console")  # type: ignore[attr-defined]
    node.dev.negotiate()  # type: ignore[attr-defined]
    node.q = node.dev.queue(0)  # type: ignore[attr-defined]
    node.dev.start()  # type: ignore[attr-defined]
    node.q.add(writable=[node.dev.alloc(8)])  # type: ignore[attr-defined]
    node.q.notify()  # type: ignore[attr-defined]
    gone = weakref.ref(node)
    assert descriptors() > before
    del node
    gc.collect()
    assert gone() is None
    assert descriptors() == before


def test_m13_the_interpreter_may_end_with_everything_open_and_in_flight() -> None:
    done = program("""
        import sys, threading, virtio
        dev = virtio.open("soft:console"); dev.negotiate()
        q = dev.queue(0); dev.start()
        buf = dev.alloc(64); view = memoryview(buf)
        q.add(writable=[buf]); q.notify()
        disk = virtio.Block("soft:block?size=1M")
        sys.keep = [dev, q, view, disk]
        threading.Thread(target=q.get, daemon=True).start()
        class Cycle: pass
        cycle = Cycle(); cycle.me = cycle; cycle.all = (dev, q, buf)
        print("end")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_m14_a_second_interpreter_of_the_process_is_refused() -> None:
    done = program("""
        import virtio  # the process's one
        try:
            import _interpreters as sub
        except ImportError:
            import _xxsubinterpreters as sub
        code = '''
        try:
            import virtio
        except ImportError as error:
            print("refused", flush=True)
        '''
        import textwrap
        new = sub.create()
        sub.run_string(new, textwrap.dedent(code))
    """)
    assert done.stdout == "refused\n", done.stderr


def test_opens_and_closes_keep_no_descriptor_and_no_memory() -> None:
    def once() -> None:
        with virtio.open("soft:console") as dev:
            dev.negotiate()
            q = dev.queue(0)
            dev.start()
            q.add(writable=[dev.alloc(4096)])
            q.notify()

    def memory() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * 4096

    for _ in range(20):
        once()
    before, size = descriptors(), memory()
    for _ in range(1000):
        once()
    assert descriptors() == before
    assert memory() - size < 64 << 20
