"""Devices for the tests of drivers: in software, which lie where they are told to, and QEMU's. No hardware is needed, and
no privileges.

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
`virtio_device`, `virtio_transport`, `virtio_vhost_user`, `virtio_qemu` (see `virtio.testing.plugin`).

`vhost_user()` puts the same devices behind a Unix socket, for drivers of any process, and has a block device that does
nothing but complete, for benchmarks. `qemu()` starts a machine whose devices somebody else made.
"""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import quote

from virtio._virtio import Lie, Report, RingEnd, _lies, _Qemu, _rules, _SoftDevice
from virtio.testing._vhost_user import VhostUserDevice, vhost_user

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

__all__ = [
    "LIES",
    "MACHINES",
    "RULES",
    "TRANSPORTS",
    "Device",
    "Lie",
    "Machine",
    "Qemu",
    "Report",
    "RingEnd",
    "RuleBroken",
    "Transport",
    "VhostUserDevice",
    "block",
    "console",
    "device",
    "entropy",
    "net",
    "qemu",
    "vhost_user",
]

Transport: TypeAlias = Literal["pci-modern", "pci-transitional", "pci-legacy", "mmio", "mmio-legacy"]

TRANSPORTS: Final[tuple[Transport, ...]] = ("pci-modern", "pci-transitional", "pci-legacy", "mmio", "mmio-legacy")
"""Register interfaces that a software device can have."""

Machine: TypeAlias = Literal["pc", "q35", "microvm", "microvm-legacy", "g3beige", "m68k-virt"]

MACHINES: Final[tuple[Machine, ...]] = ("pc", "q35", "microvm", "microvm-legacy", "g3beige", "m68k-virt")
"""Machines of QEMU: PCs with PCI and PCI Express; a small PC with MMIO slots of version 2, and of version 1; a big-endian
machine with PCI, and one with MMIO slots of version 2."""

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
    """A software device of a type: "blank", "block", "entropy", "console" or "net". `parameters` are those that its `soft:`
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


class Qemu:
    """A QEMU machine whose processor is halted, so that this process drives its devices; qemu() starts it. Leaving its
    `with` kills it. An exception that leaves the `with` after QEMU has ended carries what QEMU said as a note.
    """

    def __init__(self, machine: _Qemu) -> None:
        self._machine = machine
        # An interpreter that ends drops not every object, and would leave a process behind.
        self._end = weakref.finalize(self, machine.close)

    @property
    def address(self) -> str:
        """The address of the machine, as virtio.find() takes it."""
        return self._machine.address

    @property
    def addresses(self) -> list[str]:
        """An address for each of its `devices` that has registers of its own, in their order. `&interface=legacy` at the
        end of one chooses the legacy side of a transitional PCI function."""
        return self._machine.addresses

    @property
    def dir(self) -> str:
        """A directory of its own, where its disks are files; it goes with the machine."""
        return str(self._machine.dir)

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._machine.pid

    @property
    def stderr(self) -> str:
        """What QEMU wrote to its standard error; empty after close()."""
        return self._machine.stderr()

    def qmp(self, command: str, /, **arguments: object) -> Any:
        """Has a command of QEMU's control socket (QMP) executed; answers what it returned, mostly a dict. Arguments
        whose names have a hyphen go in as `**{"node-name": "d"}`. ProtocolError with QEMU's words where it refuses, and
        with its last words where it has ended."""
        import json

        return json.loads(self._machine.execute(command, json.dumps(arguments)))

    def event(self, name: str, timeout: float | None = 20.0) -> Any:
        """Waits for an event of QEMU's, such as "DEVICE_DELETED"; takes it, and gives its data. VirtioTimeoutError."""
        import json

        return json.loads(self._machine.event(name, timeout))

    def monitor(self, line: str) -> str:
        """Has a line of QEMU's human monitor executed, and gives what it printed."""
        return self._machine.monitor(line)

    def check(self) -> None:
        """ProtocolError with its exit status and its last words where QEMU has ended."""
        self._machine.check()

    def kill(self) -> None:
        """Kills QEMU in the middle of what it does, and waits for its end. Its files stay until close()."""
        self._machine.kill()

    def stop(self) -> None:
        """Stops QEMU: it does nothing until resume(), and tells nobody."""
        self._machine.stop()

    def resume(self) -> None:
        """Lets a stopped QEMU go on."""
        self._machine.resume()

    def close(self) -> None:
        """Kills QEMU, and removes its files. A second call does nothing."""
        self._end()

    def __enter__(self) -> Qemu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if raised is not None:
            try:
                self.check()
            except OSError as ended:
                raised.add_note(str(ended.strerror or ended))
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address}, process {self.pid})"


def _bytes(size: int | str) -> int:
    """A number of bytes, also as "64M"."""
    if isinstance(size, int):
        return size
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    unit = units.get(size[-1:].upper())
    return int(size, 0) if unit is None else int(size[:-1], 0) << unit


def qemu(
    machine: Machine = "pc",
    devices: Iterable[str] = (),
    *,
    disks: Mapping[str, int | str] | None = None,
    args: Iterable[str] = (),
    memory: int | str = "64M",
    program: str | os.PathLike[str] | None = None,
) -> Qemu:
    """Starts a machine of QEMU's, in less than a second and without privileges.

    `devices` are what QEMU's `-device` takes: "virtio-blk-pci,drive=d". `disks` are files of zeroes by the name that
    `drive=` takes, in the machine's directory, with their sizes. `args` are other arguments of QEMU's, such as
    `["-object", "rng-builtin,id=r"]`; @DIR in them is the machine's directory. `program` is another QEMU than the one
    that is installed.

    DeviceNotFoundError, with the name of the Debian package, where QEMU is not installed; ProtocolError with QEMU's
    words where it ends at once.
    """
    import os

    return Qemu(
        _Qemu(
            machine,
            devices=list(devices),
            disks=[(name, _bytes(size)) for name, size in (disks or {}).items()],
            args=list(args),
            memory=_bytes(memory),
            program=None if program is None else os.fspath(program),
        )
    )
