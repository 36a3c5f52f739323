"""Software devices for the tests of drivers: no hardware, no privileges, and a device that lies where it is told to.

>>> import virtio
>>> from virtio import testing
>>> device = testing.entropy()
>>> with device as address:
...     with virtio.Entropy(address) as source:
...         len(source.read(100))
100
>>> device.report().rule is None
True

Each device checks the driver against the rules of VIRTIO 1.4 (`RULES`); leaving the `with` raises RuleBroken if one
was broken. It opens at its address any number of times, in this process only. pytest has fixtures for the same:
`virtio_device`, `virtio_transport` (see `virtio.testing.plugin`).
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import quote

from virtio._virtio import Lie, Report, _lies, _rules, _SoftDevice

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

__all__ = [
    "LIES",
    "RULES",
    "TRANSPORTS",
    "Device",
    "Lie",
    "Report",
    "RuleBroken",
    "Transport",
    "block",
    "console",
    "device",
    "entropy",
    "net",
]

Transport: TypeAlias = Literal["pci-modern", "pci-transitional", "pci-legacy", "mmio", "mmio-legacy"]

TRANSPORTS: Final[tuple[Transport, ...]] = ("pci-modern", "pci-transitional", "pci-legacy", "mmio", "mmio-legacy")
"""Register interfaces that a software device can have."""

LIES: Final[dict[str, tuple[str, ...]]] = {name: tuple(fields) for name, _, fields in _lies()}
"""Every lie that a device can tell, with the names of what it takes: `Lie(name, field=value, …)`."""

RULES: Final[dict[str, tuple[str, str]]] = {name: (clause, what) for name, clause, what in _rules()}
"""Every rule that a driver is held to: its clause of VIRTIO 1.4, and what a driver does that breaks it."""


class RuleBroken(AssertionError):
    """The driver broke a rule of the specification."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"{report.rule} (VIRTIO 1.4 {report.clause}): {report.what}")
        self.report: Report = report


class Device:
    """A software device. In a `with` it gives its address, and at the end it says whether the driver kept the rules.

    `run` says who serves the device: "thread", a thread of its own; "inline", each notification in the driver's thread;
    "stepped", calls of step().
    """

    def __init__(
        self, address: str, *, checked: bool = True, run: str = "thread", lies: Iterable[Lie | str] = ()
    ) -> None:
        told = [lie if isinstance(lie, Lie) else Lie(lie) for lie in lies]
        if run != "stepped":
            address = f"{address}{'&' if '?' in address else '?'}run={run}"
        self._device = _SoftDevice(address, checked=checked, stepped=run == "stepped", lies=told)

    @property
    def address(self) -> str:
        """What opens it, until close()."""
        return self._device.address

    @property
    def transport(self) -> str:
        """Its register interface."""
        return self._device.transport

    def report(self) -> Report:
        """What it did and saw."""
        return self._device.report()

    def check(self) -> None:
        """RuleBroken if the driver broke a rule so far."""
        report = self.report()
        if report.rule is not None:
            raise RuleBroken(report)

    def tell(self, lie: Lie | str) -> None:
        """Tells a lie from now on. One about a ring is told at once, where the queue is in use."""
        self._device.tell(lie if isinstance(lie, Lie) else Lie(lie))

    def be_honest(self) -> None:
        """Tells no lie any more. What was written to memory stays."""
        self._device.be_honest()

    def change_config(self, offset: int, data: bytes) -> None:
        """Changes the configuration space from `offset` on, with a notification."""
        self._device.change_config(offset, data)

    def step(self) -> bool:
        """Serves one chain of a stepped device; answers whether there was one."""
        return self._device.step()

    def settle(self) -> int:
        """Steps until nothing is left to do; answers how many chains were used."""
        return self._device.settle()

    def close(self) -> None:
        """The address leads nowhere from now on. A driver that has the device keeps it."""
        self._device.unpublish()

    def __enter__(self) -> str:
        return self.address

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            self.check()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address}, {self.transport}, {self.report()})"


def _parameter(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return quote(str(value), safe="/")


def device(
    kind: str,
    *,
    transport: Transport = "pci-modern",
    run: Literal["thread", "inline", "stepped"] = "thread",
    lies: Iterable[Lie | str] = (),
    checked: bool = True,
    **parameters: object,
) -> Device:
    """A software device of a type: "block", "entropy", "console" or "net". `parameters` are those that its `soft:`
    address takes, such as `event_idx=False` or `endian="big"`."""
    given = {"transport": transport, **parameters}
    pairs = "&".join(f"{key}={_parameter(value)}" for key, value in given.items() if value is not None)
    return Device(f"soft:{kind}?{pairs}", checked=checked, run=run, lies=lies)


def block(
    *,
    size: int | str | None = None,
    path: str | os.PathLike[str] | None = None,
    queues: int = 1,
    readonly: bool = False,
    id: str | None = None,
    transport: Transport = "pci-modern",
    run: Literal["thread", "inline", "stepped"] = "thread",
    lies: Iterable[Lie | str] = (),
    checked: bool = True,
    **parameters: object,
) -> Device:
    """A block device: of `size` bytes in memory (64 MiB unless told; "1G" is a size, too), or over the file `path`."""
    import os

    own = {"size": size, "path": path and os.fspath(path), "queues": queues, "readonly": readonly, "id": id}
    return device(
        "block", transport=transport, run=run, lies=lies, checked=checked, **own, **parameters
    )


def entropy(
    *,
    seed: int = 1,
    transport: Transport = "pci-modern",
    run: Literal["thread", "inline", "stepped"] = "thread",
    lies: Iterable[Lie | str] = (),
    checked: bool = True,
    **parameters: object,
) -> Device:
    """An entropy device, whose bytes follow from `seed`: for tests, not for keys."""
    return device(
        "entropy", seed=seed, transport=transport, run=run, lies=lies, checked=checked, **parameters
    )


def console(
    *,
    transport: Transport = "pci-modern",
    run: Literal["thread", "inline", "stepped"] = "thread",
    lies: Iterable[Lie | str] = (),
    checked: bool = True,
    **parameters: object,
) -> Device:
    """A console that gives back what is sent to it."""
    return device("console", transport=transport, run=run, lies=lies, checked=checked, **parameters)


def net(
    *,
    transport: Transport = "pci-modern",
    run: Literal["thread", "inline", "stepped"] = "thread",
    lies: Iterable[Lie | str] = (),
    checked: bool = True,
    **parameters: object,
) -> Device:
    """A network card whose cable leads back to itself."""
    return device("net", transport=transport, run=run, lies=lies, checked=checked, **parameters)
