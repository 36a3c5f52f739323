"""What the tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

import virtio

INTERFACES = ["pci-modern", "pci-transitional", "pci-legacy", "mmio", "mmio-legacy"]


@pytest.fixture
def entropy() -> Iterator[tuple[virtio.Device, virtio.Queue]]:
    """A running entropy device that answers inside notify(), and its queue."""
    with virtio.open("soft:entropy?run=inline") as dev:
        dev.negotiate(want=virtio.Feature.EVENT_IDX)
        with dev.queue(0, size=64) as q:
            dev.start()
            yield dev, q


@pytest.fixture
def silent() -> Iterator[tuple[virtio.Device, virtio.Queue]]:
    """A running device, and a queue of it that never answers: a console receives nothing."""
    with virtio.open("soft:console") as dev:
        dev.negotiate(want=virtio.Feature.EVENT_IDX)
        q = dev.queue(0, size=64)
        dev.start()
        yield dev, q


def descriptors() -> int:
    """Open descriptors of this process."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
