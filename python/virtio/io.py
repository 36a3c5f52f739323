"""Devices as Python files."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from virtio._virtio import Block

__all__ = ["BlockIO"]

SECTOR = 512


class BlockIO(io.RawIOBase):
    """A block device as a raw file, for what wants one: any offset and any length. A write that does not begin and
    end at a sector reads the rest of that sector first. Made by Block.raw(); closing it leaves the device open."""

    def __init__(self, disk: Block) -> None:
        self._disk = disk
        self._at = 0
        self._written = False

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return not self._disk.read_only

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check()
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._check()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._disk.size}
        if whence not in base:
            raise ValueError(f"whence is 0, 1 or 2, not {whence}")
        if base[whence] + offset < 0:
            raise ValueError("a position before the beginning of the device")
        self._at = base[whence] + offset
        return self._at

    def readinto(self, buffer: Buffer, /) -> int:
        self._check()
        with memoryview(buffer).cast("B") as to:
            length = max(0, min(len(to), self._disk.size - self._at))
            if length == 0:
                return 0
            first = self._at - self._at % SECTOR
            last = -(-(self._at + length) // SECTOR) * SECTOR
            data = self._disk.pread(last - first, first)
            to[:length] = data[self._at - first : self._at - first + length]
        self._at += length
        return length

    def write(self, data: Buffer, /) -> int:
        self._check()
        if self._disk.read_only:
            raise io.UnsupportedOperation("the device is read-only")
        with memoryview(data).cast("B") as source:
            length = max(0, min(len(source), self._disk.size - self._at))
            if length == 0:
                return 0
            self._written = True
            first = self._at - self._at % SECTOR
            last = -(-(self._at + length) // SECTOR) * SECTOR
            if (first, last) == (self._at, self._at + length):
                self._disk.pwrite(source[:length], first)
            else:
                sectors = bytearray(self._disk.pread(last - first, first))
                sectors[self._at - first : self._at - first + length] = source[:length]
                self._disk.pwrite(sectors, first)
        self._at += length
        return length

    def flush(self) -> None:
        """Makes what was written permanent; nothing is asked of the device where nothing was written."""
        super().flush()
        if self._written:
            self._disk.flush()
            self._written = False

    def __del__(self) -> None:
        # Nobody is there to be told, as of a device that was closed before.
        with contextlib.suppress(OSError, ValueError):
            self.close()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
