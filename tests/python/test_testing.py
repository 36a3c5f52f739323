"""`virtio.testing`: devices that lie, what they say of their driver, the fixtures."""

from __future__ import annotations

import struct
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FEW_PLUGINS

import virtio
from virtio import testing

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("transport", testing.TRANSPORTS)
def test_a_published_device_opens_by_its_address_any_number_of_times(transport: testing.Transport) -> None:
    device = testing.block(size="1M", transport=transport)
    with device as address:
        for round in range(3):
            with virtio.Block(address) as disk:
                assert disk.address == address
                assert disk.pread(512, 0) == bytes([round] * 512)
                disk.pwrite(bytes([round + 1] * 512), 0)
        report = device.report()
        assert (report.rule, report.status) == (None, 0)
        assert report.chains >= 6
        assert 0 < report.notifications <= report.chains
    with pytest.raises(virtio.DeviceNotFoundError) as caught:
        virtio.open(address)
    assert caught.value.filename == address


def test_parameters_reach_the_device(tmp_path: Path) -> None:
    image = tmp_path / "a b&c=d%.img"
    image.write_bytes(b"\x17" * 8192)
    with testing.block(path=image, readonly=True, id="it", queues=3, event_idx=False) as address:
        with virtio.Block(address, queues=2) as disk:
            assert (disk.size, disk.read_only, disk.queues) == (8192, True, 2)
            assert disk.get_id() == "it"
            assert disk.pread(512, 512) == b"\x17" * 512
            assert virtio.Feature.EVENT_IDX not in disk.offered
    with pytest.raises(ValueError, match="size of a device over a file"):
        testing.block(path=image, size=512)
    with pytest.raises(ValueError, match="unknown parameter"):
        testing.net(speed=3)


def test_every_lie_can_be_made_and_told() -> None:
    """None crashes anything, whatever becomes of the driver."""
    values: dict[str, object] = {"bytes": b"\1\2", "features": virtio.Feature.VERSION_1}
    for name, fields in testing.LIES.items():
        lie = testing.Lie(name, **{field: values.get(field, 1) for field in fields})
        assert lie.name == name and repr(lie).startswith(f"Lie({name!r}")
        device = testing.block(size="64K", lies=[lie], checked=False, run="inline")
        with device as address:
            try:
                with virtio.Block(address, timeout=0.02, control_timeout=0.02) as disk:
                    disk.pread(512, 0)
                    device.tell(lie)
                    disk.pread(512, 0)
            except OSError as error:
                assert error.errno
        device.be_honest()
        device.report()


def test_d4_a_lie_with_a_used_element_breaks_the_ring_and_names_the_clause() -> None:
    lie = testing.Lie("used_id_range", id=4_000_000_000, chain=1)
    with testing.entropy(lies=[lie], checked=False) as address, virtio.open(address) as dev:
        dev.negotiate()
        with dev.queue(0, size=8) as q:
            dev.start()
            buf = dev.alloc(16)
            assert q.transfer(writable=[buf], timeout=5) > 0
            with pytest.raises(virtio.ProtocolError) as caught:
                q.transfer(writable=[buf], timeout=5)
            assert caught.value.clause


def test_c26_a_device_that_stalls_times_out_and_goes_on_when_it_is_honest_again() -> None:
    device = testing.entropy(lies=["stalls"])
    with device as address, virtio.open(address) as dev:
        dev.negotiate()
        with dev.queue(0, size=8) as q:
            dev.start()
            token = q.add(writable=[dev.alloc(16)])
            q.notify()
            with pytest.raises(virtio.VirtioTimeoutError):
                q.wait(token, timeout=0.02)
            device.be_honest()
            assert q.wait(token, timeout=5).written > 0


def test_lies_that_do_not_exist_or_lack_a_field_are_refused() -> None:
    with pytest.raises(ValueError, match="no lie is 'fibs'; known are .*stalls"):
        testing.Lie("fibs")
    with pytest.raises(TypeError, match="needs size="):
        testing.Lie("queue_size", queue=0)
    with pytest.raises(TypeError, match="takes no field"):
        testing.Lie("stalls", by=1)
    with pytest.raises(ValueError, match="does not take this by="):
        testing.Lie("used_idx_ahead", by=70_000)
    assert testing.Lie("used_idx_ahead", by=7) == testing.Lie("used_idx_ahead", chain=0, by=7)


def test_a_driver_that_breaks_a_rule_fails_at_the_end_of_the_with() -> None:
    # The only rule that this face lets anybody break: configuration is written before FEATURES_OK.
    with pytest.raises(testing.RuleBroken, match=r"INIT_CONFIG_WRITTEN .*§3\.1\.1") as caught:
        with testing.block(size="1M") as address, virtio.open(address) as dev:
            dev.write_config(32, 1, 1)
    assert isinstance(caught.value, AssertionError)
    assert caught.value.report.rule in testing.RULES
    # An exception of the test's own is not hidden, and an unchecked device says nothing.
    with pytest.raises(KeyError):
        with testing.block(size="1M") as address, virtio.open(address) as dev:
            dev.write_config(32, 1, 1)
            raise KeyError
    with testing.block(size="1M", checked=False) as address, virtio.open(address) as dev:
        dev.write_config(32, 1, 1)


def test_a_stepped_device_does_nothing_by_itself() -> None:
    device = testing.entropy(run="stepped")
    with device as address, virtio.open(address) as dev:
        dev.negotiate()
        q = dev.queue(0, size=8)
        dev.start()
        tokens = [q.add(writable=[dev.alloc(16)]) for _ in range(3)]
        q.notify()
        assert q.pop() is None
        assert device.step() and device.settle() == 2 and not device.step()
        assert [q.wait(token, timeout=1).written for token in tokens] == [16, 16, 16]
    with pytest.raises(ValueError, match="stepped"):
        testing.entropy().step()


def test_a_changed_configuration_is_an_event() -> None:
    device = testing.block(size="1M")
    with device as address, virtio.Block(address) as disk:
        assert not disk.events().config_changed
        device.change_config(0, (4096).to_bytes(8, "little"))
        assert disk.events().config_changed
        assert disk.size == 4096 * 512


def test_a_driver_keeps_a_device_whose_address_is_gone() -> None:
    device = testing.block(size="1M")
    disk = virtio.Block(device.address)
    device.close()
    device.close()
    assert disk.pread(512, 0) == bytes(512)
    disk.close()


def test_the_fixtures_run_a_test_over_each_interface_and_fail_it_for_a_broken_rule(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        textwrap.dedent("""
            import virtio

            def test_good(virtio_device, virtio_transport):
                device = virtio_device("block", size="1M", transport=virtio_transport)
                assert device.transport == virtio_transport
                virtio.Block(device.address).close()

            def test_bad(virtio_device):
                device = virtio_device("block", size="1M")
                with virtio.open(device.address) as dev:
                    dev.write_config(32, 1, 1)
        """)
    )
    result = pytester.runpytest_subprocess(*FEW_PLUGINS)
    result.assert_outcomes(passed=6, errors=1)
    result.stdout.fnmatch_lines(["*RuleBroken: INIT_CONFIG_WRITTEN*"])


def test_fixture_device_is_a_factory(virtio_device: Callable[..., testing.Device]) -> None:
    assert virtio_device("net").address != virtio_device("net").address


def test_a_ring_end_uses_the_chains_of_a_ring_of_ones_own_and_says_what_breaks_a_rule() -> None:
    region = virtio.Region.create(4096)
    end = testing.RingEnd(region, 8)
    memory, (avail, used) = memoryview(region), end.areas
    assert 8 * 16 <= avail < used < end.ring_bytes <= len(region)
    struct.pack_into("<QIHH", memory, 0, 1 << 32, 16, 1, 1)  # the device reads, and goes on at 1
    struct.pack_into("<QIHH", memory, 16, 2 << 32, 64, 2, 0)  # the device writes
    struct.pack_into("<HHH", memory, avail, 0, 1, 0)
    assert (end.run(), end.run()) == (1, 0)
    assert struct.unpack_from("<HHII", memory, used) == (0, 1, 0, 64)

    struct.pack_into("<QIHH", memory, 0, 1 << 32, 16, 1, 9)
    struct.pack_into("<HHHH", memory, avail, 0, 2, 0, 0)
    with pytest.raises(virtio.ProtocolError, match="descriptor 9 is outside"):
        end.run()
    with pytest.raises(ValueError, match="power of two"):
        testing.RingEnd(region, 3)


def test_a_blank_device_gives_every_buffer_back_as_it_was() -> None:
    for run in ("inline", "thread", "stepped"):
        device = testing.device("blank", run=run)
        with device as address, virtio.open(address) as dev:
            dev.negotiate()
            with dev.queue(0) as q:
                dev.start()
                pool = dev.pool(2, 32)
                memoryview(pool[1])[:] = bytes(range(32))
                token = q.add(readable=[pool[0]], writable=[pool[1]])
                q.notify()
                if run == "stepped":
                    assert device.settle() == 1
                assert q.wait(token, timeout=10).written == 32
                assert memoryview(pool[1]) == bytes(range(32))
