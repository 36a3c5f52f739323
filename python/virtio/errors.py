"""Exceptions. All that a device or its surroundings do wrong is a VirtioError, which is an OSError with errno,
strerror and, as filename, the device's address. What the caller does wrong is a ValueError or a TypeError."""

from __future__ import annotations

__all__ = [
    "ClosedError",
    "DeviceBusyError",
    "DeviceNeedsResetError",
    "DeviceNotFoundError",
    "DisconnectedError",
    "FeatureError",
    "IndeterminateError",
    "MemoryLimitError",
    "ProtocolError",
    "QueueFullError",
    "RequestError",
    "StaleTokenError",
    "VirtioError",
    "VirtioTimeoutError",
]


class VirtioError(OSError):
    """Anything that went wrong with a device."""


class DeviceNotFoundError(VirtioError, FileNotFoundError):
    """Nothing is at the address."""


class DeviceBusyError(VirtioError):
    """Somebody else has the device."""

    holder: str = ""
    """The kernel driver or the process."""


class FeatureError(VirtioError):
    """Driver and device do not agree on features."""

    offered: str = ""
    """Names of what the device offers."""
    required: str = ""
    """Names of what was asked of it."""
    missing: str = ""
    """What is missing, and why."""


class QueueFullError(VirtioError, BlockingIOError):
    """No room for another chain: take completions first. Nothing was changed."""


class VirtioTimeoutError(VirtioError, TimeoutError):
    """No answer in time. Nothing was freed: what is in flight stays so, and can be waited for again."""

    token: int | None = None
    """The request that transfer() waited for."""


class RequestError(VirtioError):
    """The device answered a request with an error status."""

    status: int = 0
    """The status, as the device type defines it."""


class DeviceNeedsResetError(VirtioError):
    """The device asks for a reset."""


class ProtocolError(VirtioError):
    """The device broke the specification."""

    clause: str = ""
    """The clause that it broke, where one is known."""
    detail: str = ""
    """What it did."""


class DisconnectedError(VirtioError, ConnectionError):
    """The device, or the process behind it, is gone."""


class ClosedError(VirtioError, ValueError):
    """The handle was closed, or belongs to the process that forked this one."""


class StaleTokenError(VirtioError, ValueError):
    """The token is not in flight: it was taken already, is another queue's, or of before a reset."""

    token: int = 0
    """The token."""


class MemoryLimitError(VirtioError, MemoryError):
    """More memory is needed than a limit allows."""

    needed: int = 0
    """Bytes that are needed."""
    have: int = 0
    """Bytes that may be had."""


class IndeterminateError(VirtioError):
    """The device went away or was reset while it had the request: whether it was done, nobody can know."""

    token: int = 0
    """The request's token."""
