"""Devices as Python files."""

from __future__ import annotations

import gc
from typing import Any, cast

import pytest

import virtio
from virtio.io import BlockIO


def test_a_raw_disk_flushes_what_was_written_and_nothing_else() -> None:
    disk = Counted(virtio.Block("soft:block?size=1M"))
    with BlockIO(cast("virtio.Block", disk)) as raw:
        raw.read(512)
    assert disk.flushes == 0
    with BlockIO(cast("virtio.Block", disk)) as raw:
        raw.write(b"abc")
        raw.flush()
        raw.flush()
        assert disk.flushes == 1
        raw.write(b"abc")
    assert disk.flushes == 2
    raw = BlockIO(cast("virtio.Block", disk))
    raw.write(b"abc")
    disk.disk.close()
    with pytest.raises(virtio.ClosedError):
        raw.close()
    # By itself nothing is raised, not even unraisably: pytest would tell.
    left = BlockIO(cast("virtio.Block", disk))
    left._written = True
    del left, raw
    gc.collect()


class Counted:
    """A disk that counts its flushes."""

    def __init__(self, disk: virtio.Block) -> None:
        self.disk, self.flushes = disk, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.disk, name)

    def flush(self) -> None:
        self.flushes += 1
        self.disk.flush()
