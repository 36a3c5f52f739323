"""Exceptions and enumerations."""

from __future__ import annotations

import asyncio
import errno
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

import virtio
from virtio import _virtio, aio, block, errors


@pytest.mark.parametrize("address", ["", "soft", "soft:", "/dev/vda", "nothing:here", "soft:block?size", "soft:block?x=1", "pci:04.0", "mmio:slot"])
def test_an_address_that_cannot_be_parsed_is_a_value_error(address: str) -> None:
    for opener in (virtio.open, virtio.Block, virtio.Entropy):
        with pytest.raises(ValueError) as bad:
            opener(address)
        assert not isinstance(bad.value, OSError)


@pytest.mark.parametrize(
    "address",
    ["soft:toaster", "pci:0000:ff:1f.7", "mmio:0xfeb00000", "uio:/dev/uio9", "vhost-user:/nowhere.sock?type=block",
     "vdpa:/dev/vhost-vdpa-9", "qtest:/nowhere.sock?ram=/nowhere&pci=04.0"],
)  # fmt: skip
def test_an_address_with_nothing_behind_it_is_not_found(address: str) -> None:
    # For a daemon that may be about to start, an opener waits that long.
    for opener in (partial(virtio.open, control_timeout=0.1), partial(virtio.Block, control_timeout=0.1), virtio.Entropy):
        with pytest.raises(virtio.DeviceNotFoundError) as missing:
            opener(address)
        assert isinstance(missing.value, FileNotFoundError)
        assert (missing.value.errno, missing.value.filename) == (errno.ENOENT, address)


def test_every_other_failure_to_open_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError) as missing:
        virtio.Block("soft:block?path=/nowhere/disk.img")
    assert missing.value.filename.startswith("soft:block")
    for wrong_type in (lambda: virtio.Block("soft:entropy"), lambda: virtio.Entropy("soft:block")):
        with pytest.raises(virtio.VirtioError):
            wrong_type()


def test_features_that_are_missing_are_named() -> None:
    with virtio.open("soft:entropy?event_idx=off") as dev:
        with pytest.raises(virtio.FeatureError) as missing:
            dev.negotiate(require=virtio.Feature.EVENT_IDX)
        assert "EVENT_IDX" in missing.value.missing and "VERSION_1" in missing.value.offered
        assert missing.value.required == "EVENT_IDX|VERSION_1"
        assert dev.phase == "failed"
        dev.reset()
        assert virtio.Feature.VERSION_1 in dev.negotiate()


OUT_OF_RANGE = (-1, -512, 1 << 70)


@pytest.mark.parametrize("number", OUT_OF_RANGE)
def test_m10_a_number_that_no_call_can_mean_is_a_value_error(number: int) -> None:
    """Not an OverflowError, which is none."""

    async def tasks() -> None:
        async with aio.Block("soft:block?size=1M") as disk:
            for call in (
                lambda: disk.pread(number, 0), lambda: disk.pread(512, number), lambda: disk.pwrite(bytes(512), number),
                lambda: disk.pread_into(bytearray(512), number), lambda: disk.discard(number, 512),
                lambda: disk.write_zeroes(0, number), lambda: disk.pool(number, 512),
            ):
                with pytest.raises(ValueError):
                    call()

    asyncio.run(tasks())
    with virtio.Block("soft:block?size=1M") as disk, virtio.open("soft:block?size=1M") as dev:
        dev.negotiate()
        q = dev.queue(0)
        dev.start()
        calls: list[Callable[[], object]] = [
            lambda: disk.pread(number, 0), lambda: disk.pread(512, number), lambda: disk.pwrite(bytes(512), number),
            lambda: disk.readinto(bytearray(512), number), lambda: disk.discard(number, 512),
            lambda: disk.write_zeroes(0, number), lambda: disk.pool(number, 512), lambda: disk.pool(1, number),
            lambda: dev.alloc(number), lambda: dev.pool(number, 512), lambda: dev.queue(number),
            lambda: dev.queue(0, size=number), lambda: dev.read_config(number, 1), lambda: dev.read_config(0, number),
            lambda: dev.write_config(0, 1, number), lambda: q.wait(number, timeout=0),
            lambda: virtio.Region.create(number), lambda: virtio.Region(0, offset=number),
            lambda: virtio.Region(0, length=number), lambda: virtio.Entropy("soft:entropy").read(number),
            lambda: virtio.Block("soft:block", queues=number), lambda: virtio.Block("soft:block", queue_size=number),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(ValueError, match=f"{number} is below 0, or larger") as refused:
                call()
            assert type(refused.value) is ValueError


def test_a_read_only_disk_says_so() -> None:
    with virtio.Block("soft:block?size=1M&readonly=on") as disk, pytest.raises(virtio.VirtioError) as denied:
        assert disk.read_only
        disk.pwrite(bytes(512), 0)
    assert denied.value.errno == errno.EROFS


def test_every_class_is_what_the_design_says() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(virtio, name), virtio.VirtioError) and issubclass(getattr(virtio, name), OSError)
    for name, base in [
        ("DeviceNotFoundError", FileNotFoundError), ("QueueFullError", BlockingIOError),
        ("VirtioTimeoutError", TimeoutError), ("DisconnectedError", ConnectionError), ("ClosedError", ValueError),
        ("StaleTokenError", ValueError), ("MemoryLimitError", MemoryError),
    ]:  # fmt: skip
        assert issubclass(getattr(virtio, name), base)
    again = pickle.loads(pickle.dumps(virtio.ClosedError(9, "closed", "soft:x")))
    assert (again.errno, again.filename) == (9, "soft:x")


def test_enumerations_are_the_crates() -> None:
    tables = _virtio._tables()
    kinds = {name.upper().replace("-", "_").replace("9P", "NINE_P"): id for name, id in tables["DeviceType"]}
    assert {kind.name: kind.value for kind in virtio.DeviceType} == kinds
    assert {flag.name: flag.value for flag in virtio.Status} == dict(tables["Status"])
    bits = {name: 1 << bit for name, bit in tables["Feature"]}
    assert {flag.name: flag.value for flag in virtio.Feature} == bits
    assert {flag.name: flag.value for flag in block.Feature} == {n: 1 << b for n, b in tables["block.Feature"]}


def test_unknown_numbers_survive() -> None:
    assert virtio.DeviceType(4711).value == 4711 and virtio.DeviceType(4711).name == "TYPE_4711"
    assert virtio.Status(0x21).value == 0x21 and virtio.Feature(1 << 100).value == 1 << 100
    for bad in (-1, 1 << 32, "block"):
        with pytest.raises(ValueError):
            virtio.DeviceType(bad)


def test_features_print_names_and_know_who_asked() -> None:
    with virtio.open("soft:block?size=1M") as dev:
        assert "EVENT_IDX" in repr(dev.offered) and virtio.Feature.EVENT_IDX in dev.offered
        assert not dev.features and len(dev.features) == 0 and dev.features.names == []
        dev.negotiate(want=virtio.Feature.EVENT_IDX | block.Feature.FLUSH | 1 << 90)
        assert dev.features.names == ["FLUSH", "EVENT_IDX", "VERSION_1"]
        assert int(dev.features) == block.Feature.FLUSH | virtio.Feature.EVENT_IDX | virtio.Feature.VERSION_1
        assert "FLUSH" in dev.features and block.Feature.RO not in dev.features
        assert 0 not in dev.features
        lines = dev.features.explain()
        assert "EVENT_IDX (wanted by caller): accepted" in lines
        assert any(line.startswith("bit 90 (wanted by caller): ") for line in lines)
        for wrong in ("EVENT_IDX", 1.5, -1, 1 << 128):
            with pytest.raises((TypeError, ValueError)):
                dev.negotiate(want=wrong)


def test_configuration_is_read_by_name_and_by_place() -> None:
    with virtio.open("soft:block?size=1M") as dev:
        dev.negotiate(want=block.Feature.CONFIG_WCE)
        assert dev.config["capacity"] == 2048 == dev.read_config(0, 8)
        assert dev.type is virtio.DeviceType.BLOCK
        for offset, width in ((1 << 20, 4), (0, 3), (1, 2)):
            with pytest.raises(ValueError):
                dev.read_config(offset, width)
        assert virtio.Status.FEATURES_OK in dev.status
        assert not dev.events()


def test_import_is_silent_and_depends_on_nothing() -> None:
    code = (
        "import sys, os, threading; before = set(sys.modules); fds = os.listdir('/proc/self/fd');"
        "import virtio; assert threading.active_count() == 1;"
        "assert os.listdir('/proc/self/fd') == fds;"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("['virtio']\n", "")


def test_find_refuses_a_transport_that_there_is_not() -> None:
    for wrong in ("nope", "PCI", ""):
        with pytest.raises(ValueError, match="pci"):
            virtio.find(transport=wrong)
    assert all(info.transport == "mmio" for info in virtio.find(transport="mmio"))


def test_find_one_says_that_nothing_fits() -> None:
    with pytest.raises(virtio.DeviceNotFoundError):
        virtio.find_one(driver="no-such-driver")
    found = virtio.find()
    assert iter(found) is found
