"""Devices as Python files."""

from __future__ import annotations

import errno
import gc
import io
import shutil
import subprocess
import sys
import textwrap
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


def test_a_write_at_the_end_of_a_raw_disk_is_told_that_there_is_no_room() -> None:
    with virtio.Block("soft:block?size=1M") as disk, disk.raw() as raw:
        raw.seek(-3, io.SEEK_END)
        assert raw.write(b"abcdef") == 3, "what there is room for"
        for at in (disk.size, disk.size + 1, 1 << 62):
            raw.seek(at)
            assert raw.write(b"") == 0
            with pytest.raises(virtio.VirtioError, match=f"full.*{disk.size}") as full:
                raw.write(b"def")
            assert (full.value.errno, full.value.filename) == (errno.ENOSPC, disk.address)
            assert raw.tell() == at


def test_what_is_copied_to_a_raw_disk_is_not_lost_silently() -> None:
    with virtio.Block("soft:block?size=1M") as disk:
        with disk.raw() as raw, pytest.raises(OSError, match="full") as full:
            shutil.copyfileobj(io.BytesIO(bytes((1 << 20) + 1)), raw, 4096)
        assert full.value.errno == errno.ENOSPC


def test_a_position_is_a_whole_number_that_a_file_can_have() -> None:
    with virtio.Block("soft:block?size=1M") as disk, disk.raw() as raw:
        raw.seek(512)
        for offset, whence in [(0.5, 0), (1.0, 0), ("1", 1), (None, 2), (0, 0.0)]:
            with pytest.raises(TypeError):
                raw.seek(cast("int", offset), cast("int", whence))
        for offset, whence in [(1 << 80, 0), (1 << 63, 0), ((1 << 63) - 512, 1), ((1 << 63) - 1, 2)]:
            with pytest.raises(OverflowError, match="63 bits"):
                raw.seek(offset, whence)
        for offset, whence in [(-1, 0), (-513, 1), (-(1 << 80), 2)]:
            with pytest.raises(ValueError, match="before the beginning"):
                raw.seek(offset, whence)
        assert raw.tell() == 512 and raw.read(512) == bytes(512)
        assert raw.seek((1 << 63) - 1) == (1 << 63) - 1 and raw.read(1) == b""


def test_a_raw_disk_says_that_the_device_is_closed_at_each_position() -> None:
    disk = virtio.Block("soft:block?size=1M")
    with disk.raw() as raw:
        disk.close()
        for at in (0, disk.size, disk.size + 1):
            raw.seek(at)
            with pytest.raises(virtio.ClosedError):
                raw.read(1)
            with pytest.raises(virtio.ClosedError):
                raw.write(b"a")
        raw._written = False


def test_a_raw_disk_that_was_never_made_says_so_once() -> None:
    with pytest.raises(TypeError, match="disk"):
        cast("Any", BlockIO)()
    gc.collect()


@pytest.mark.parametrize("where", ["here", "in a child"])
@pytest.mark.parametrize("keeper", ["virtio", "os"])
def test_a_raw_disk_that_is_left_to_the_exit_prints_nothing(where: str, keeper: str) -> None:
    """A module of those that go last has it."""
    code = f"""
        import os, virtio
        disk = virtio.Block("soft:block?size=1M")
        {keeper}.raw = raw = disk.raw()
        raw.write(b"abc")
        if {where == "here"}:
            disk.close()
        elif pid := os.fork():
            assert os.waitpid(pid, 0)[1] == 0
            raw.close()
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


class Counted:
    """A disk that counts its flushes."""

    def __init__(self, disk: virtio.Block) -> None:
        self.disk, self.flushes = disk, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.disk, name)

    def flush(self) -> None:
        self.flushes += 1
        self.disk.flush()
