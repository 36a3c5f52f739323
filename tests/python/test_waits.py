"""Waiting: time limits, signals, the interpreter's lock, descriptors."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable

import pytest

import virtio

Running = tuple[virtio.Device, virtio.Queue]


def test_a_timeout_frees_nothing_and_the_request_can_be_waited_for_again(silent: Running) -> None:
    dev, q = silent
    buf = dev.alloc(16)
    token = q.add(writable=[buf])
    q.notify()
    for call in (lambda: q.get(timeout=0.01), lambda: q.wait(token, timeout=0.01), lambda: q.get(timeout=0)):
        with pytest.raises(virtio.VirtioTimeoutError) as late:
            call()
        assert isinstance(late.value, TimeoutError) and late.value.filename == dev.address
    assert buf.in_flight and q.outstanding == 1


def test_a_transfer_that_times_out_tells_its_token(silent: Running) -> None:
    dev, q = silent
    with pytest.raises(virtio.VirtioTimeoutError) as late:
        q.transfer(writable=[dev.alloc(16)], timeout=0.01)
    assert late.value.token is not None
    with pytest.raises(virtio.VirtioTimeoutError):
        q.wait(late.value.token, timeout=0)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), -0.5])
def test_a_time_limit_that_is_none_is_a_value_error(silent: Running, bad: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        silent[1].get(timeout=bad)


def test_infinite_seconds_are_for_ever(entropy: Running) -> None:
    dev, q = entropy
    assert q.transfer(writable=[dev.alloc(8)], timeout=float("inf")) == 8


def test_the_interpreter_is_free_for_others_while_a_thread_waits(silent: Running) -> None:
    _, q = silent
    waiter = threading.Thread(target=lambda: pytest.raises(virtio.VirtioTimeoutError, q.get, timeout=0.5))
    waiter.start()
    turns = 0
    while waiter.is_alive():
        turns += 1
    waiter.join()
    assert turns > 10_000


def test_a_descriptor_of_the_queue_is_readable_when_a_request_is_done() -> None:
    with virtio.open("soft:entropy") as dev:
        dev.negotiate()
        with dev.queue(0, size=8) as q:
            dev.start()
            assert q.enable_interrupts() is False
            assert select.select([q], [], [], 0)[0] == []
            token = q.add(writable=[dev.alloc(8)])
            q.notify()
            assert select.select([q], [], [], 10)[0] == [q]
            assert q.get(timeout=0).token == token


def test_each_thread_gets_the_answer_to_its_own_token() -> None:
    with virtio.open("soft:entropy") as dev:
        dev.negotiate(want=virtio.Feature.EVENT_IDX)
        with dev.queue(0, size=32) as q:
            dev.start()
            lengths = list(range(1, 17))
            wrong: list[object] = []

            def work(length: int) -> None:
                buf = dev.alloc(length)
                for _ in range(300):
                    written = q.transfer(writable=[buf], timeout=20)
                    if written != length:
                        wrong.append((length, written))

            threads = [threading.Thread(target=work, args=(n,)) for n in lengths]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not wrong and q.outstanding == 0


def test_a_completion_that_an_interrupted_wait_reaped_is_kept_and_given_back_at_the_end() -> None:
    dev = virtio.open("soft:entropy")
    dev.negotiate()
    q = dev.queue(0, size=8)
    dev.start()
    pool = dev.pool(2, 16)
    tokens = [q.add(writable=[buf]) for buf in (pool[0], pool[1])]
    q.notify()
    assert q.wait(tokens[1], timeout=5).token == tokens[1]  # keeps the other one for whoever asks
    assert q.outstanding == 0 and pool.in_flight == 1
    q.close()
    assert pool.in_flight == 0
    dev.close()


def interrupted_after(seconds: float, wait: Callable[[], object]) -> float:
    """Runs a wait for ever, sends SIGINT meanwhile; answers the seconds between signal and exception."""
    sent: list[float] = []

    def send() -> None:
        time.sleep(seconds)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    try:
        sender.start()
        while True:
            wait()
    except KeyboardInterrupt:
        return time.monotonic() - sent[0]
    finally:
        sender.join()


@pytest.mark.parametrize("spin", [0, 0.02])
def test_a_signal_ends_a_wait_for_ever(silent: Running, spin: float) -> None:
    dev, q = silent
    q.set_spin(spin)
    token = q.add(writable=[dev.alloc(8)])
    q.notify()
    for wait in (q.get, lambda: q.wait(token)):
        assert interrupted_after(0.03, wait) < 0.15


def test_a_handler_cannot_use_the_block_device_that_waits() -> None:
    said: list[str] = []
    with virtio.Block("soft:block?size=1M") as disk:

        def handler(*_: object) -> None:
            try:
                disk.pread(512, 0)
            except RuntimeError as error:
                said.append(str(error))

        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
            end = time.monotonic() + 2
            while time.monotonic() < end and not said:
                disk.pread(4096, 0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert all("signal handler" in text for text in said)
