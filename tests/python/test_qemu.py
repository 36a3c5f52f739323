"""QEMU's devices from Python: other hands made them, and a process of its own has them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import virtio
from conftest import FEW_PLUGINS, descriptors
from virtio import aio, testing
from virtio.cli import main

pytest_plugins = ["pytester"]

Start = Callable[..., testing.Qemu]

RNG = ["-object", "rng-builtin,id=r"]
SOON = 20.0

# How a device is reached: machine, a device's text, the end of its address, what transport it turns out to be.
WAYS: dict[str, tuple[testing.Machine, str, str, str]] = {
    "modern": ("pc", "virtio-{}-pci,disable-legacy=on", "", "pci-modern"),
    "legacy": ("pc", "virtio-{}-pci,disable-legacy=off,disable-modern=on", "", "pci-legacy"),
    "transitional, modern side": ("pc", "virtio-{}-pci,disable-legacy=off", "", "pci-modern"),
    "transitional, legacy side": ("pc", "virtio-{}-pci,disable-legacy=off", "&interface=legacy", "pci-legacy"),
    "express": ("q35", "virtio-{}-pci", "", "pci-modern"),
    "mmio": ("microvm", "virtio-{}-device", "", "mmio"),
    "mmio 1": ("microvm-legacy", "virtio-{}-device", "", "mmio-legacy"),
    "big-endian": ("g3beige", "virtio-{}-pci,disable-modern=on,disable-legacy=off", "", "pci-legacy"),
    "big-endian mmio": ("m68k-virt", "virtio-{}-device", "", "mmio"),
}


def running(address: str, size: int = 64) -> tuple[virtio.Device, virtio.Queue]:
    dev = virtio.open(address)
    dev.negotiate(want=virtio.Feature.EVENT_IDX)
    queue = dev.queue(0, size=size)
    dev.start()
    return dev, queue


@pytest.mark.parametrize("way", WAYS)
def test_block_and_entropy_of_one_machine_at_once(virtio_qemu: Start, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    machine, device, end, transport = WAYS[way]
    devices = [device.format("blk") + ",drive=d,serial=it", device.format("rng") + ",rng=r"]
    qemu = virtio_qemu(machine, devices, disks={"d": "8M"}, args=RNG)
    disk_address, rng_address = (address + end for address in qemu.addresses)
    with virtio.Block(disk_address) as disk, virtio.Entropy(rng_address) as source:
        assert (disk.size, disk.get_id()) == (8 << 20, "it")
        data = source.read(100_000 // 512 * 512)
        assert len(set(data)) == 256
        disk.pwrite(data, 4096)
        disk.flush()
        assert disk.pread(len(data), 4096) == data
        assert (Path(qemu.dir) / "d").read_bytes()[4096 : 4096 + len(data)] == data
        with pytest.raises(virtio.DeviceBusyError) as caught:
            virtio.open(rng_address)
        assert "another handle" in caught.value.holder
    assert main(["info", disk_address, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["type"], shown["transport"]) == ("block", transport)
    assert shown["config"]["capacity"] == 16384


def test_find_lists_the_devices_of_a_machine(virtio_qemu: Start, capsys: pytest.CaptureFixture[str]) -> None:
    for machine, end, transport in [("pc", "pci", "pci"), ("microvm", "device", "mmio")]:
        qemu = virtio_qemu(machine, [f"virtio-rng-{end},rng=r", f"virtio-serial-{end}"], args=RNG)
        found = sorted(virtio.find(qemu.address), key=lambda info: info.type, reverse=True)
        assert [info.address for info in found] == qemu.addresses
        assert [info.type for info in found] == [virtio.DeviceType.ENTROPY, virtio.DeviceType.CONSOLE]
        assert {(info.transport, info.driver) for info in found} == {(transport, None)}
        one = virtio.find_one(qemu.address, type=virtio.DeviceType.CONSOLE)
        assert one == found[1]
        with pytest.raises(virtio.DeviceNotFoundError) as caught:
            virtio.find_one(qemu.address, type=virtio.DeviceType.NET)
        assert caught.value.filename == qemu.address
        assert main(["ls", qemu.address, "--type", "entropy"]) == 0
        assert qemu.addresses[0] in capsys.readouterr().out
        assert main(["ls", qemu.address, "--json"]) == 0
        assert {row["address"] for row in json.loads(capsys.readouterr().out)["devices"]} == set(qemu.addresses)


def test_addresses_that_name_no_machine_have_codes_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for address, code, text in [
        ("soft:block", 2, "qtest:"),
        ("qtest:/nowhere/qtest", 2, "ram= is needed"),
        ("qtest:/nowhere/qtest?ram=/nowhere/ram", 3, "is it running?"),
    ]:
        assert main(["ls", address]) == code
        out, err = capsys.readouterr()
        assert text in err and not out
    with pytest.raises(ValueError, match="qtest:"):
        virtio.find("soft:block")


# By messages and by the line of PCI; MMIO has a line only.
INTERRUPTS = {
    "MSI-X": ("pc", "virtio-{}-pci"),
    "INTx": ("pc", "virtio-{}-pci,vectors=0"),
    "INTx, legacy": ("pc", "virtio-{}-pci,vectors=0,disable-modern=on,disable-legacy=off"),
    "MMIO": ("microvm", "virtio-{}-device"),
}


@pytest.fixture(params=INTERRUPTS)
def entropy_address(request: pytest.FixtureRequest, virtio_qemu: Start) -> str:
    machine, device = INTERRUPTS[request.param]
    [address] = virtio_qemu(machine, [device.format("rng") + ",rng=r"], args=RNG).addresses
    return address


def test_get_and_wait_have_time_limits(virtio_qemu: Start) -> None:
    for machine, device in INTERRUPTS.values():
        args = ["-chardev", "null,id=c"]
        qemu = virtio_qemu(machine, [device.format("serial"), "virtconsole,chardev=c"], args=args)
        dev, queue = running(qemu.addresses[0])
        with dev:
            token = queue.add(writable=[dev.alloc(16)])
            queue.notify()
            start = time.monotonic()
            with pytest.raises(virtio.VirtioTimeoutError):
                queue.get(timeout=0.05)
            with pytest.raises(virtio.VirtioTimeoutError):
                queue.wait(token, timeout=0.05)
            assert 0.1 <= time.monotonic() - start < SOON


def test_get_wakes_when_the_device_answers(entropy_address: str) -> None:
    dev, queue = running(entropy_address)
    with dev:
        pool = dev.pool(8, 64)
        for _ in range(10):
            tokens = {queue.add(writable=[buf]) for buf in pool}
            queue.notify()
            got = {queue.get(timeout=SOON).token for _ in pool}
            assert got == tokens


def test_fileno_becomes_readable_when_the_device_answers(entropy_address: str) -> None:
    dev, queue = running(entropy_address)
    with dev:
        for _ in range(20):
            token = queue.add(writable=[dev.alloc(64)])
            queue.notify()
            got = None
            while got is None:
                if not queue.enable_interrupts():
                    assert select.select([queue], [], [], SOON)[0], "nobody tells of the used buffer"
                got = queue.pop()
            assert (got.token, got.written) == (token, 64)


def test_asyncio_waits_for_a_device_of_qemu(entropy_address: str) -> None:
    async def one(queue: aio.Queue, buf: virtio.Buffer) -> bytes:
        size = await queue.transfer(writable=[buf])
        return bytes(buf)[:size]

    async def run() -> list[bytes]:
        dev, queue = running(entropy_address)
        with dev:
            waiting = aio.Queue(queue)
            pool = dev.pool(8, 64)
            answers: list[bytes] = []
            for _ in range(10):
                answers += await asyncio.wait_for(asyncio.gather(*(one(waiting, buf) for buf in pool)), SOON)
            return answers

    answers = asyncio.run(run())
    assert len(set(answers)) == 80


def test_a_resize_by_qmp_is_an_event(virtio_qemu: Start) -> None:
    for machine, device in INTERRUPTS.values():
        qemu = virtio_qemu(machine, [device.format("blk") + ",drive=d"], disks={"d": 1 << 20})
        with virtio.Block(qemu.addresses[0]) as disk:
            assert not disk.events().config_changed
            assert qemu.qmp("block_resize", **{"node-name": "d", "size": 2 << 20}) == {}
            end = time.monotonic() + SOON
            while not disk.events().config_changed or disk.size != 2 << 20:
                assert time.monotonic() < end
                time.sleep(0.001)
            disk.pwrite(b"end!" * 128, (2 << 20) - 512)


def test_qmp_gives_and_refuses_and_tells_of_events(virtio_qemu: Start) -> None:
    qemu = virtio_qemu("pc", ["virtio-rng-pci,rng=r,id=one,addr=4"], args=RNG)
    assert qemu.qmp("query-status")["running"] is True
    assert "." in qemu.monitor("info version")
    with pytest.raises(virtio.ProtocolError, match="Device 'two' not found"):
        qemu.qmp("device_del", id="two")
    dev, queue = running(qemu.addresses[0])
    assert queue.transfer(writable=[dev.alloc(8)], timeout=SOON) == 8
    with pytest.raises(virtio.VirtioTimeoutError, match="an event of QEMU"):
        qemu.event("DEVICE_DELETED", timeout=0.01)
    assert qemu.qmp("system_reset") == {}
    assert qemu.event("RESET")["guest"] is False
    dev.close()


@pytest.mark.parametrize("machine", ["pc", "microvm"])
def test_v12_a_qemu_that_is_killed_ends_waits_with_errors(virtio_qemu: Start, machine: str) -> None:
    end = "pci" if machine == "pc" else "device"
    args = ["-chardev", "null,id=c"]
    qemu = virtio_qemu(machine, [f"virtio-serial-{end}", "virtconsole,chardev=c"], args=args)
    dev, queue = running(qemu.addresses[0])
    token = queue.add(writable=[dev.alloc(16)])
    queue.notify()
    killer = threading.Timer(0.05, os.kill, (qemu.pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(virtio.IndeterminateError) as caught:
        queue.get(timeout=None)
    assert caught.value.token == token
    for _ in range(2):
        with pytest.raises(virtio.DisconnectedError):
            queue.get(timeout=None)
    assert dev.events().gone
    killer.join()
    # Its process is dead, so that nothing has to be kept: no ResourceWarning, no error.
    dev.close()
    with pytest.raises(virtio.ProtocolError, match=r"QEMU has ended \(signal: 9"):
        qemu.qmp("query-status")
    with pytest.raises(virtio.DeviceNotFoundError, match="is it running"):
        virtio.open(qemu.addresses[0])


def test_v12_a_kill_ends_block_calls_and_asyncio(virtio_qemu: Start) -> None:
    throttled = "throttle,node-name=t,throttle-group=g,file.driver=null-co,file.read-zeroes=on,file.size=1048576"
    args = ["-object", "throttle-group,id=g,x-iops-total=1", "-blockdev", throttled, "-chardev", "null,id=c"]
    devices = ["virtio-blk-pci,drive=t", "virtio-serial-pci,id=s", "virtconsole,chardev=c"]
    qemu = virtio_qemu("pc", devices, args=args)

    async def wait() -> None:
        dev, queue = running(qemu.addresses[1])
        try:
            await aio.Queue(queue).transfer(writable=[dev.alloc(16)])
        finally:
            dev.close()

    with virtio.Block(qemu.addresses[0]) as disk:
        killer = threading.Timer(0.1, qemu.kill)
        killer.start()
        with pytest.raises((virtio.IndeterminateError, virtio.DisconnectedError)):
            asyncio.run(asyncio.wait_for(wait(), SOON))
        with pytest.raises((virtio.IndeterminateError, virtio.DisconnectedError)):
            for _ in range(100):
                disk.pread(512, 0)
        killer.join()


def test_v13_a_stopped_qemu_is_late_and_busy_and_goes_on(virtio_qemu: Start) -> None:
    qemu = virtio_qemu("pc", ["virtio-blk-pci,drive=d"], disks={"d": "1M"})
    address = qemu.addresses[0] + "&timeout=500"
    with virtio.Block(address, timeout=0.5) as disk:
        disk.pwrite(b"1" * 512, 0)
        qemu.stop()
        with pytest.raises(virtio.VirtioTimeoutError):
            disk.pread(512, 0)
        qemu.resume()
        end = time.monotonic() + SOON
        while True:
            try:
                assert disk.pread(512, 0) == b"1" * 512
                break
            except virtio.VirtioTimeoutError:
                assert time.monotonic() < end


def test_a_machine_that_somebody_else_has_is_busy(virtio_qemu: Start) -> None:
    qemu = virtio_qemu("pc", ["virtio-rng-pci,rng=r"], args=RNG)
    with socket.socket(socket.AF_UNIX) as holder:
        holder.connect(str(Path(qemu.dir) / "qtest"))
        with pytest.raises(virtio.DeviceBusyError) as caught:
            virtio.open(qemu.addresses[0] + "&timeout=100")
        assert "serves one" in caught.value.holder
        with pytest.raises(virtio.DeviceBusyError):
            virtio.find(qemu.address + "&timeout=100")
    with virtio.Entropy(qemu.addresses[0]) as source:
        assert len(source.read(10)) == 10


def test_a_rig_that_cannot_start_says_why() -> None:
    with pytest.raises(virtio.DeviceNotFoundError, match="install the Debian package qemu-system-x86"):
        testing.qemu(program="/nowhere/qemu-system-x86_64")
    with pytest.raises(virtio.DeviceNotFoundError, match="install the Debian package qemu-system-misc"):
        testing.qemu("m68k-virt", program="/nowhere/qemu-system-m68k")
    with pytest.raises(virtio.ProtocolError, match="'no-such-device' is not a valid device model name"):
        testing.qemu(devices=["no-such-device"])
    with pytest.raises(ValueError, match="no machine is 'vax'; known are pc, q35, microvm, "):
        testing.qemu("vax")  # type: ignore[arg-type]
    for memory in ("1000K", 0):
        with pytest.raises(ValueError, match="multiple of 1 MiB"):
            testing.qemu(memory=memory)


def test_what_qemu_said_goes_with_the_exception_after_its_end() -> None:
    with pytest.raises(virtio.ProtocolError) as caught:
        with testing.qemu(devices=["virtio-balloon-pci"]) as qemu:
            qemu.qmp("quit")
            end = time.monotonic() + SOON
            while time.monotonic() < end:
                qemu.qmp("query-status")
    assert "QEMU has ended (exit status: 0)" in str(caught.value)
    [note] = caught.value.__notes__
    assert "QEMU has ended (exit status: 0)" in note
    # One that lives has nothing to add.
    with pytest.raises(KeyError) as other:
        with testing.qemu():
            raise KeyError
    assert not hasattr(other.value, "__notes__")


def test_a_machine_leaves_nothing_behind() -> None:
    # Whatever is made once is there.
    testing.qemu().close()
    before = descriptors()
    for _ in range(3):
        with testing.qemu("pc", ["virtio-rng-pci,rng=r"], args=RNG) as qemu:
            pid, directory = qemu.pid, Path(qemu.dir)
            assert (directory / "ram").exists() and str(pid) in repr(qemu)
            with virtio.Entropy(qemu.addresses[0]) as source:
                source.read(1)
        assert not directory.exists() and not Path(f"/proc/{pid}").exists()
        qemu.close()
        with pytest.raises(virtio.ClosedError):
            qemu.qmp("query-status")
        assert qemu.stderr == ""
    assert descriptors() == before


def test_a_machine_ends_with_the_program_that_forgets_it_and_not_with_its_child() -> None:
    code = textwrap.dedent("""
        import builtins, os, sys
        from virtio import testing

        builtins.kept = testing.qemu()
        if (child := os.fork()) == 0:
            sys.exit()
        os.waitpid(child, 0)
        builtins.kept.qmp("query-status")
        print(builtins.kept.pid, builtins.kept.dir, os.path.exists(builtins.kept.dir))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    pid, directory, there = done.stdout.split()
    assert there == "True"
    assert not Path(f"/proc/{pid}").exists() and not Path(directory).exists()


def test_the_machine_that_docs_qemu_md_starts_by_hand(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "qemu.md").read_text(encoding="utf-8")
    [commands] = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    commands = commands.replace("/tmp/q.sock", f"{tmp_path}/q").replace("/dev/shm/ram", f"{tmp_path}/ram")
    there = f" &\nuntil [ -S {tmp_path}/q ]; do kill -0 $!; sleep 0.01; done\n"
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", "trap 'kill $!' EXIT\n" + commands.replace(" &\n", there)],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"qtest:{tmp_path}/q?ram={tmp_path}/ram&pci=04.0") == 2, done.stdout


def test_the_fixture_ends_machines_and_shows_what_they_said(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        textwrap.dedent("""
            from pathlib import Path

            def test_bad(virtio_qemu):
                qemu = virtio_qemu("pc", ["virtio-balloon-pci"])
                Path("pid").write_text(str(qemu.pid))
                Path(qemu.dir, "stderr").write_text("a word of QEMU's")
                assert False
        """)
    )
    result = pytester.runpytest_subprocess(*FEW_PLUGINS)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*a word of QEMU's*"])
    assert not Path(f"/proc/{(pytester.path / 'pid').read_text()}").exists()
