"""A storage daemon that is killed under a Python program, with both policies (faults E1, V12)."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage import StorageDaemon

import virtio

SIZE = 4 << 20


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[StorageDaemon]:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(SIZE))
    with StorageDaemon(tmp_path, image=image, queues=2) as started:
        yield started


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[StorageDaemon]:
    """One that does a request a second, so that some are in flight."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(SIZE))
    with StorageDaemon(tmp_path, image=image, throttle=1) as started:
        yield started


def killed_and_started_again(daemon: StorageDaemon, after: float) -> threading.Thread:
    def run() -> None:
        time.sleep(after)
        daemon.kill()
        daemon.start()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_e1_reads_and_marked_writes_go_on_when_the_daemon_was_killed(daemon: StorageDaemon) -> None:
    chosen = random.Random(5)
    flushes = 0
    with virtio.Block(daemon.address, queues=2, reconnect="retry", timeout=20) as disk:
        model = bytearray(SIZE)
        own = disk.pool(1, 4096)[0]
        for _ in range(8):
            thread = killed_and_started_again(daemon, chosen.uniform(0, 0.05))
            while thread.is_alive():
                at = chosen.randrange(SIZE // 65536) * 65536
                data = chosen.randbytes(65536)
                assert disk.pwrite(data, at, retry=True) == len(data)
                model[at : at + len(data)] = data
                at = chosen.randrange(SIZE // 4096) * 4096
                assert disk.pread(4096, at) == model[at : at + 4096]
                assert disk.readinto(own, at) == 4096
                assert memoryview(own) == model[at : at + 4096]
                memoryview(own)[:] = data[:4096]
                assert disk.pwrite(own, at, retry=True) == 4096
                model[at : at + 4096] = data[:4096]
                try:
                    disk.flush()
                except virtio.IndeterminateError:
                    flushes += 1
            thread.join()
        assert disk.pread(SIZE, 0) == model
    assert flushes <= 16, "of each death by the flush that was in flight, and by the first one after it"


def test_e1_with_fail_what_was_in_flight_is_indeterminate_and_the_device_gone(slow: StorageDaemon) -> None:
    with virtio.Block(slow.address, reconnect="fail", timeout=20) as disk:
        disk.pread(512, 0)
        thread = killed_and_started_again(slow, 0.1)
        with pytest.raises(virtio.IndeterminateError) as told:
            disk.pread(64 << 10, 0)
        assert told.value.filename == disk.address and isinstance(told.value, OSError)
        thread.join()
        with pytest.raises(virtio.DisconnectedError):
            disk.pread(512, 0)


def test_a_write_that_was_not_marked_is_not_made_again(slow: StorageDaemon) -> None:
    with virtio.Block(slow.address, reconnect="retry", timeout=20) as disk:
        disk.pread(512, 0)
        thread = killed_and_started_again(slow, 0.1)
        with pytest.raises(virtio.IndeterminateError):
            disk.pwrite(bytes(512), 0)
        thread.join()
        assert disk.pread(512, 0) == bytes(512)


def test_the_first_flush_after_a_reconnection_tells_once_of_writes_that_may_be_lost(daemon: StorageDaemon) -> None:
    with virtio.Block(daemon.address, reconnect="retry", timeout=20) as disk:
        disk.pwrite(bytes(512), 0)
        daemon.kill()
        daemon.start()
        disk.pread(512, 0)
        with pytest.raises(virtio.IndeterminateError):
            disk.flush()
        disk.flush()
        disk.pwrite(bytes(512), 0)
        disk.flush()
        daemon.kill()
        daemon.start()
        disk.pread(512, 0)
        disk.flush()


def test_ctrl_c_ends_the_wait_for_a_daemon_that_does_not_come_back(daemon: StorageDaemon) -> None:
    with virtio.Block(daemon.address, reconnect="retry", timeout=60, control_timeout=0.05) as disk:
        disk.pread(512, 0)
        daemon.kill()
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            disk.pread(512, 0)
        timer.join()
        daemon.start()
        assert disk.pread(512, 0) == bytes(512)


def test_a_policy_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="fail"):
        virtio.Block("soft:block?size=1M", reconnect="perhaps")
