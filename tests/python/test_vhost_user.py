"""The device end behind a Unix socket: virtio.testing.vhost_user, and its fixture."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FEW_PLUGINS
from storage import StorageDaemon

import virtio
from virtio import testing
from virtio.enums import Feature

pytest_plugins = ["pytester"]


def test_each_type_is_served_behind_a_socket(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    with testing.vhost_user("block", image=image, id="mine") as address, virtio.Block(address) as disk:
        assert address.endswith("?type=block")
        assert (disk.size, disk.get_id()) == (1 << 20, "mine")
        disk.pwrite(b"v" * 4096, 8192)
        disk.flush()
        assert image.read_bytes()[8192:12288] == b"v" * 4096 == disk.pread(4096, 8192)
    device = testing.vhost_user("entropy", seed=5)
    with device as address, virtio.Entropy(address) as source:
        assert len(source.read(1000)) == 1000
    assert device.report().chains > 0
    for kind in ("console", "net"):
        with testing.vhost_user(kind) as address, virtio.open(address) as dev:
            dev.negotiate()
            assert Feature.VERSION_1 in dev.features


CALLS: dict[str, Callable[[virtio.Device], object]] = {
    "new memory": lambda dev: dev.pool(1, 64 << 20),
    "a write of the configuration": lambda dev: dev.write_config(32, 1, 1),
    "a reset": lambda dev: dev.reset(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_the_daemon_answers_leaves_the_interpreter_to_others(call: str, tmp_path: Path) -> None:
    """The daemon is stopped, and the thread that lets it go on has its turn only when the call waits."""
    with StorageDaemon(tmp_path, image=None) as daemon:
        with virtio.open(f"{daemon.address}?type=block", control_timeout=10) as dev:
            dev.negotiate(want=dev.offered)
            waits, before = threading.Event(), sys.getswitchinterval()

            def resume() -> None:
                waits.wait()
                daemon.resume()

            thread = threading.Thread(target=resume)
            thread.start()
            sys.setswitchinterval(1000)
            try:
                daemon.stop()
                waits.set()
                CALLS[call](dev)
            finally:
                sys.setswitchinterval(before)
                daemon.resume()
                thread.join()


@pytest.mark.parametrize("spin", [False, True])
def test_a_null_device_completes_everything(spin: bool) -> None:
    device = testing.vhost_user(null=True, spin=spin, size="1G", queues=2)
    with device as address, virtio.Block(address, queues=2) as disk:
        assert (disk.size, disk.queues) == (1 << 30, 2)
        assert disk.pwrite(b"x" * 8192, 0) == 8192
        assert len(disk.pread(4096, 0)) == 4096
        disk.read_many(array("q", range(0, 32 * 4096, 4096)), disk.pool(32, 4096))
    report = device.report()
    assert report.chains >= 34, "also when it is closed"
    assert report.notifications == 0 or not spin


def test_a_device_is_open_to_other_processes_and_to_the_next_driver(tmp_path: Path) -> None:
    place = tmp_path / "device.sock"
    with testing.vhost_user("block", path=place, size="1M") as address:
        code = f"import virtio; virtio.Block({address!r}).pwrite(b'o' * 512, 0)"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
        with virtio.Block(address) as disk:
            assert disk.pread(512, 0) == b"o" * 512
        assert place.exists()
    assert not place.exists()


def test_it_is_closed_once_and_leaves_nothing() -> None:
    device = testing.vhost_user("entropy")
    folder = Path(device.path).parent
    assert folder.exists() and not device.connected and device.connections == 0
    assert "vhost-user:" in repr(device)
    device.close()
    device.close()
    assert not folder.exists()
    with pytest.raises(ValueError, match="closed"):
        device.hang_up()


def test_hung_up_on_the_driver_fails_and_can_come_again() -> None:
    device = testing.vhost_user("block", size="1M")
    with device as address:
        disk = virtio.Block(address)
        disk.pwrite(bytes(512), 0)
        device.hang_up()
        with pytest.raises(virtio.VirtioError):
            disk.pread(512, 0)
        # Nothing proves that a process which hung up writes no more: this one lives.
        with pytest.warns(ResourceWarning, match="kept"):
            del disk
        with virtio.Block(address) as disk:
            disk.pread(512, 0)
        assert device.connections == 2


def test_a_changed_configuration_and_a_lie_reach_the_driver() -> None:
    device = testing.vhost_user("block", size="1M", checked=False)
    with device as address:
        disk = virtio.Block(address, timeout=5)
        device.change_config(0, struct.pack("<Q", 64))
        end = time.monotonic() + 10
        while disk.size != 64 * 512:
            assert time.monotonic() < end
            disk.pread(512, 0)
        device.tell(testing.Lie("needs_reset", after=0))
        with pytest.raises(virtio.DeviceNeedsResetError):
            disk.pread(512, 0)
        # A device that asks for a reset gives nothing back, which nobody needs to wait for long.
        with pytest.warns(ResourceWarning, match="kept"):
            del disk


def test_a_front_end_that_breaks_the_protocol_is_told_of_at_the_end() -> None:
    device = testing.vhost_user("block", size="1M")
    with pytest.raises(virtio.ProtocolError, match="not known"), device:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(device.path)
            raw.sendall(struct.pack("=III", 999, 1, 0))
            assert raw.recv(1) == b""
        end = time.monotonic() + 10
        while device.error is None:
            assert time.monotonic() < end
            os.sched_yield()


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"spin": True}, "spin= is for the device that null= makes"),
        ({"device": "net", "null": True}, "null= makes a block device"),
        ({"null": True, "lies": ["stalls"]}, "no lies"),
        ({"transport": "mmio"}, "no transport"),
        ({"bogus": 1}, "bogus"),
        ({"null": True, "queues": 300}, "1 to 256"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(
    parameters: dict[str, object], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValueError, match=text):
        testing.vhost_user(**parameters)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_fixture_serves_a_driver(virtio_vhost_user: Callable[..., testing.VhostUserDevice]) -> None:
    device = virtio_vhost_user("entropy", seed=2)
    with virtio.Entropy(device.address) as source:
        assert source.read(16) != bytes(16)


def test_the_fixture_fails_a_test_whose_driver_broke_the_protocol(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os, socket, time

        def test_broken(virtio_vhost_user):
            device = virtio_vhost_user()
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(device.path)
                raw.sendall(bytes(12))
                assert raw.recv(1) == b""
            while device.error is None:
                os.sched_yield()
        """
    )
    result = pytester.runpytest_subprocess(*FEW_PLUGINS)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ProtocolError*version*"])
