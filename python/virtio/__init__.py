"""Drive VirtIO devices from user space: transports, virtqueues and drivers that trust no device.

>>> import virtio
>>> with virtio.Entropy("soft:entropy") as source:
...     len(source.read(32))
32
"""

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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from virtio import block
    from virtio._find import find_one
    from virtio.enums import DeviceType, Feature, Status
else:
    # Python's enum takes longer to import than all of this package: what needs it comes when it is asked for.
    _LATE = {"DeviceType": "enums", "Feature": "enums", "Status": "enums", "find_one": "_find", "block": "block"}

    def __getattr__(name):
        if name not in _LATE:
            raise AttributeError(f"module 'virtio' has no attribute {name!r}")
        from importlib import import_module

        module = import_module(f"virtio.{_LATE[name]}")
        found = module if name == "block" else getattr(module, name)
        globals()[name] = found
        return found

    def __dir__():
        return sorted({*globals(), *__all__})


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
