"""Fixtures for pytest, there as soon as the package is installed.

`virtio_device(kind, **parameters)` makes software devices, as virtio.testing.device() does, and at the end of the test
fails it if its driver broke a rule; `virtio_transport` runs a test once over each register interface.
`virtio_vhost_user(device, **parameters)` makes those behind a Unix socket, as virtio.testing.vhost_user() does, and fails
a test whose driver broke a rule of rings or of the protocol.
`virtio_qemu(machine, devices, …)` starts machines of QEMU's, as virtio.testing.qemu() does, and ends them after the test; a
test that fails shows what they said.

    def test_my_driver(virtio_device, virtio_transport):
        device = virtio_device("entropy", transport=virtio_transport)
        with MyDriver(device.address) as driver:
            …
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from virtio.testing import Device, Qemu, Transport, VhostUserDevice

Made = TypeVar("Made", "Device", "VhostUserDevice")
TRANSPORTS = ("pci-modern", "pci-transitional", "pci-legacy", "mmio", "mmio-legacy")


def _checked(make: Callable[..., Made]) -> Iterator[Callable[..., Made]]:
    """Gives out what makes devices. All that were made are closed before the first is checked, so that one broken rule
    leaves nothing open."""
    made: list[Made] = []

    def making(*arguments: Any, **parameters: Any) -> Made:
        made.append(make(*arguments, **parameters))
        return made[-1]

    yield making
    for device in made:
        device.close()
    for device in made:
        device.check()


@pytest.fixture(params=TRANSPORTS)
def virtio_transport(request: pytest.FixtureRequest) -> Transport:
    """Each register interface in turn."""
    transport: Transport = request.param
    return transport


@pytest.fixture
def virtio_device() -> Iterator[Callable[..., Device]]:
    """Makes software devices that check their driver; what they found fails the test at its end."""
    # Not before: whoever only has the plugin installed does not pay for it.
    from virtio import testing

    yield from _checked(testing.device)


@pytest.fixture
def virtio_vhost_user() -> Iterator[Callable[..., VhostUserDevice]]:
    """Makes software devices behind Unix sockets; what they found fails the test at its end."""
    from virtio import testing

    yield from _checked(testing.vhost_user)


@pytest.fixture
def virtio_qemu() -> Iterator[Callable[..., Qemu]]:
    """Starts machines of QEMU's, and ends them after the test. What they said is printed, which pytest shows where the
    test fails."""
    from virtio import testing

    made: list[Qemu] = []

    def start(*arguments: Any, **parameters: Any) -> Qemu:
        made.append(testing.qemu(*arguments, **parameters))
        return made[-1]

    yield start
    for machine in made:
        if said := machine.stderr:
            print(f"QEMU, process {machine.pid}: {said}")
        machine.close()
