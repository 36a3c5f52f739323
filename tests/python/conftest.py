"""What the tests share."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import virtio

# A shell starts what it puts into the background with SIGINT ignored, and Python leaves it so: tests send that signal, to
# themselves and to programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a pytest of a test's own is started with: to import hypothesis takes most of its time.
FEW_PLUGINS = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]

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


@dataclass(frozen=True)
class Memory:
    """What a process takes of memory."""

    mappings: int
    resident: int

    @staticmethod
    def now() -> Memory:
        gc.collect()
        with open("/proc/self/maps") as maps, open("/proc/self/statm") as statm:
            return Memory(len(maps.readlines()), int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))


# Long runs: the tests marked as such, each with the amount that the lane python-soak asks for, or the part of it that
# VIRTIO_SOAK_PERCENT does. They end with the rows of a table.

SOAKING = "VIRTIO_PYTHON_SOAK" in os.environ


@pytest.fixture
def amount(request: pytest.FixtureRequest) -> int:
    """How much a test with the mark soak does."""
    mark = request.node.get_closest_marker("soak")
    if not SOAKING:
        return int(mark.kwargs["usual"])
    return max(mark.kwargs["full"] * int(os.environ.get("VIRTIO_SOAK_PERCENT", "100")) // 100, 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if SOAKING:
        others = [item for item in items if item.get_closest_marker("soak") is None]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item.get_closest_marker("soak") is not None]
        for item in items:
            item.add_marker(pytest.mark.timeout(3600))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Reports a soak's row."""
    mark = item.get_closest_marker("soak")
    if not SOAKING or mark is None:
        return (yield)
    start, result = time.monotonic(), "FAILED"
    try:
        returned = yield
        result = "ok"
        return returned
    finally:
        cells = [
            mark.kwargs["run"] + (f", {item.callspec.id}" if hasattr(item, "callspec") else ""),
            f"{item.funcargs['amount']:,} {mark.kwargs['unit']}",  # type: ignore[attr-defined]
            f"{time.monotonic() - start:.1f}",
            result,
        ]
        # On a line of its own, behind pytest's dots.
        item.config.pluginmanager.get_plugin("terminalreporter").write_line("\nsoak | " + " | ".join(cells))
