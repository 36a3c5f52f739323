"""Software devices behind Unix sockets: part of virtio.testing."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Literal, cast

from virtio._virtio import Lie, Report, _VhostUserDevice

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from tempfile import TemporaryDirectory

__all__ = ["VhostUserDevice", "vhost_user"]


class VhostUserDevice:
    """A software device behind a Unix socket, served by a thread of this process: a vhost-user back-end. In a `with` it
    gives its address, and at the end it says whether the driver kept the rules of rings.

    One driver is served at a time, of whatever process; the next one waits until it is gone.
    """

    def __init__(
        self,
        address: str,
        path: str | os.PathLike[str] | None = None,
        *,
        null: bool = False,
        checked: bool = True,
        lies: Iterable[Lie | str] = (),
    ) -> None:
        import os
        import tempfile

        told = [lie if isinstance(lie, Lie) else Lie(lie) for lie in lies]
        own = tempfile.TemporaryDirectory(prefix="virtio-") if path is None else None
        try:
            place = os.path.join(own.name, "device.sock") if own is not None else os.fspath(cast("str", path))
            self._device = _VhostUserDevice(address, place, null=null, checked=checked, lies=told)
        except BaseException:
            if own is not None:
                own.cleanup()
            raise
        self._path = place
        # Also at the end of the interpreter: a directory would be left behind.
        self._end = weakref.finalize(self, _end, self._device, own)

    @property
    def address(self) -> str:
        """What opens it, until close(): `vhost-user:PATH?type=TYPE`."""
        return self._device.address

    @property
    def path(self) -> str:
        """Its socket, for other drivers than this package's."""
        return self._path

    @property
    def connected(self) -> bool:
        """Whether a driver is connected."""
        return self._device.connections()[0]

    @property
    def connections(self) -> int:
        """How many drivers have connected."""
        return self._device.connections()[1]

    @property
    def error(self) -> BaseException | None:
        """What ended the last connection that did not end in peace: a ProtocolError, mostly. None where there is none."""
        return self._device.error()

    def report(self) -> Report:
        """What it did and saw: its notifications are the kicks that were taken, its interrupts the calls."""
        return self._device.report()

    def check(self) -> None:
        """RuleBroken if the driver broke a rule so far, or the error that ended a connection."""
        from virtio.testing import RuleBroken

        report, error = self.report(), self.error
        if report.rule is not None:
            raise RuleBroken(report)
        if error is not None:
            raise error

    def hang_up(self) -> None:
        """Ends the connection that there is; the next driver is taken."""
        self._device.hang_up()

    def tell(self, lie: Lie | str) -> None:
        """Tells a lie from now on: one about features, configuration or rings."""
        self._device.tell(lie if isinstance(lie, Lie) else Lie(lie))

    def be_honest(self) -> None:
        """Tells no lie any more. What was written to memory stays."""
        self._device.be_honest()

    def change_config(self, offset: int, data: bytes) -> None:
        """Changes the configuration space from `offset` on, and tells the driver."""
        self._device.change_config(offset, data)

    def close(self) -> None:
        """Hangs up, and removes the socket. A second call does nothing."""
        self._end()

    def __enter__(self) -> str:
        return self.address

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            self.check()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address}, {self.report()})"


def _end(device: _VhostUserDevice, own: TemporaryDirectory[str] | None) -> None:
    device.close()
    if own is not None:
        own.cleanup()


def vhost_user(
    device: Literal["block", "entropy", "console", "net"] = "block",
    *,
    path: str | os.PathLike[str] | None = None,
    null: bool = False,
    spin: bool = False,
    lies: Iterable[Lie | str] = (),
    checked: bool = True,
    **parameters: object,
) -> VhostUserDevice:
    """A software device behind a Unix socket at `path`, or at a place of its own.

    `parameters` are those that the `soft:` address of its type takes: `size=`, `queues=`, `readonly=`, `id=` and, for
    the file of a block device, `image=`; `seed=`; `event_idx=`, `indirect=`.

    With `null` it is a block device that completes every request at once and touches no data, for benchmarks of
    drivers; it takes `size=` and `queues=`. With `spin` it looks at its rings all the time and wants no notifications,
    for which it takes a processor; without, it sleeps until it is notified.

    ValueError for parameters that do not go together.

    >>> import virtio
    >>> from virtio import testing
    >>> with testing.vhost_user("block", size="1M") as address, virtio.Block(address) as disk:
    ...     disk.pwrite(b"virtio" + bytes(506), 512)
    ...     disk.pread(512, 512)[:6]
    512
    b'virtio'
    """
    from virtio.testing import _parameter

    if spin and not null:
        raise ValueError("spin= is for the device that null= makes")
    if null and (device != "block" or lies):
        raise ValueError("null= makes a block device, which tells no lies")
    image = parameters.pop("image", None)
    given = {**({"spin": spin} if null else {}), "path": image, **parameters}
    pairs = "&".join(f"{key}={_parameter(value)}" for key, value in given.items() if value is not None)
    place = f"soft:{device}?{pairs}" if pairs else f"soft:{device}"
    return VhostUserDevice(place, path, null=null, checked=checked, lies=lies)
