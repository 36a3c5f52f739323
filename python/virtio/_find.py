"""Finding exactly one device."""

from __future__ import annotations

import errno

from virtio._virtio import DeviceInfo, find
from virtio.errors import DeviceNotFoundError


def find_one(
    address: str | None = None, /, *, type: int | None = None, transport: str | None = None, driver: str | None = None
) -> DeviceInfo:
    """The first device that fits, as find() takes it. DeviceNotFoundError where there is none."""
    for info in find(address, type=type, transport=transport, driver=driver):
        return info
    raise DeviceNotFoundError(errno.ENOENT, "no device of this machine fits: list all with find()", address)
