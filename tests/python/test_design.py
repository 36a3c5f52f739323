"""The programs of the design, as they stand there."""

import inspect
import io

import virtio
from virtio import aio


def test_what_is_told_of_a_block_device_by_its_signature() -> None:
    """Each default is shown, as the design has them."""
    told = "(address, *, queues=1, queue_size=None, timeout=30.0, control_timeout=2.0, reconnect='fail')"
    assert str(inspect.signature(virtio.Block)) == told
    for opens in (virtio.Block, virtio.Entropy, aio.Block, virtio.open):
        defaults = [parameter.default for parameter in inspect.signature(opens).parameters.values()]
        assert ... not in defaults


def test_find_lists_devices_without_opening_them() -> None:
    for info in virtio.find(type=virtio.DeviceType.BLOCK):
        assert info.type is virtio.DeviceType.BLOCK
        print(info.address, info.type.name, info.driver or "unbound")


def test_entropy_by_hand() -> None:
    with virtio.open("soft:entropy") as dev:
        dev.negotiate(want=virtio.Feature.EVENT_IDX)
        with dev.queue(0, size=64) as q:
            dev.start()
            buf = dev.alloc(64)
            token = q.add(writable=[buf])
            q.notify()
            used = q.get(timeout=1.0)
            assert used.token == token
            assert 0 < used.written <= 64
            first = bytes(memoryview(buf)[: used.written])
            assert first != bytes(used.written)
            assert q.transfer(writable=[buf], timeout=1.0) > 0
            assert bytes(memoryview(buf)[: used.written]) != first


def test_block() -> None:
    with virtio.Block("soft:block?size=1M&queues=2", queues=2) as disk:
        assert (disk.size, disk.read_only, disk.queues) == (1 << 20, False, 2)
        mbr = disk.pread(512, 0)
        assert mbr == bytes(512)
        disk.pwrite(b"\x55\xaa" * 256, 512)
        disk.flush()
        assert io.BufferedReader(disk.raw()).read(600) == bytes(512) + b"\x55\xaa" * 44
