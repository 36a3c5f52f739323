"""Drive VirtIO devices from user space: transports, virtqueues and drivers that trust no device.

>>> import virtio
>>> with virtio.Entropy("soft:entropy") as source:
...     len(source.read(32))
32
"""

from virtio import block
from virtio._virtio import (
    Block,
    Buffer,
    Device,
    DeviceInfo,
    Entropy,
    Events,
    Features,
    Pool,
    Queue,
    Region,
    Used,
    __version__,
    find,
    open,
)
from virtio._find import find_one
from virtio.enums import DeviceType, Feature, Status
from virtio.errors import (
    ClosedError,
    DeviceBusyError,
    DeviceNeedsResetError,
    DeviceNotFoundError,
    DisconnectedError,
    FeatureError,
    IndeterminateError,
    MemoryLimitError,
    ProtocolError,
    QueueFullError,
    RequestError,
    StaleTokenError,
    VirtioError,
    VirtioTimeoutError,
)

__all__ = [
    "Block",
    "Buffer",
    "ClosedError",
    "Device",
    "DeviceBusyError",
    "DeviceInfo",
    "DeviceNeedsResetError",
    "DeviceNotFoundError",
    "DeviceType",
    "DisconnectedError",
    "Entropy",
    "Events",
    "Feature",
    "FeatureError",
    "Features",
    "IndeterminateError",
    "MemoryLimitError",
    "Pool",
    "ProtocolError",
    "Queue",
    "QueueFullError",
    "Region",
    "RequestError",
    "StaleTokenError",
    "Status",
    "Used",
    "VirtioError",
    "VirtioTimeoutError",
    "__version__",
    "block",
    "find",
    "find_one",
    "open",
]
