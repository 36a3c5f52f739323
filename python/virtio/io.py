"""Devices as Python files."""

from __future__ import annotations

import io
import operator
from errno import ENOSPC
from typing import TYPE_CHECKING

from virtio.errors import DisconnectedError, VirtioError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from virtio._virtio import Block

__all__ = ["BlockIO"]

SECTOR = 512
# The kernel's positions have 63 bits.
FARTHEST = (1 << 63) - 1


class BlockIO(io.RawIOBase):
    """A block device as a raw file, for what wants one: any offset and any length. A write that does not begin and
    end at a sector reads the rest of that sector first. Made by Block.raw(); closing it leaves the device open."""

    # What was never made is closed as well.
    _written: bool = False

    def __init__(self, disk: Block) -> None:
        self._disk = disk
        self._at = 0

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
        whence = operator.index(whence)
        if whence not in base:
            raise ValueError(f"whence is 0, 1 or 2, not {whence}")
        at = base[whence] + operator.index(offset)
        if at < 0:
            raise ValueError("a position before the beginning of the device")
        if at > FARTHEST:
            raise OverflowError("a position that no file has: it has more than 63 bits")
        self._at = at
        return at

    def readinto(self, buffer: Buffer, /) -> int:
        self._check()
        with memoryview(buffer).cast("B") as to:
            length = self._room(len(to))
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
            length = self._room(len(source))
            if len(source) == 0:
                return 0
            if length == 0:
                # Who is told of 0 bytes tries again for ever, or takes the rest for written.
                raise VirtioError(ENOSPC, f"the device is full: it ends at {self._disk.size}", self._disk.address)
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
        # Nobody is there to be told, as of a device that was closed before. At the interpreter's exit there are no
        # modules any more, be it for an error's class.
        try:
            self.close()
        except (ImportError, OSError, ValueError):
            pass

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _room(self, length: int) -> int:
        """How many bytes of so many there are from the position on. Where there are none no request is made, which
        would tell that the device is closed."""
        room = max(0, min(length, self._disk.size - self._at))
        if room == 0:
            try:
                _ = self._disk.offered
            except DisconnectedError:
                # It may come back.
                pass
        return room
