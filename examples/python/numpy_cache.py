"""A cache that numpy holds, filled from a block device and written back without a copy in this process.

The cache is a memory file: numpy has it mapped, the device reads and writes it, and another process that is handed its
descriptor has the same bytes.

    python examples/python/numpy_cache.py [SIZE [ADDRESS]]      SIZE such as 1G; 64M unless told
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import numpy as np

import virtio

BLOCK = 64 << 10

# What the other process does: it maps the descriptor, and prints the number at a place.
OTHER = """
import mmap, sys
fd, size, at = map(int, sys.argv[1:])
print(int.from_bytes(mmap.mmap(fd, size)[at : at + 8], sys.byteorder))
"""


def size_of(text: str) -> int:
    return int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]]


def main(arguments: list[str]) -> None:
    text = arguments[0] if arguments else "64M"
    size = size_of(text)
    address = arguments[1] if len(arguments) > 1 else f"soft:block?size={text}"

    fd = os.memfd_create("cache", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    # numpy's own mapping of the file: nothing of this library is in its way.
    cache = np.frombuffer(mmap.mmap(fd, size), dtype=np.uint64).reshape(-1, BLOCK // 8)
    blocks = len(cache)
    offsets = np.arange(blocks, dtype=np.int64) * BLOCK

    with virtio.Block(address) as disk:
        region = virtio.Region(fd)
        pool = disk.pool(blocks, BLOCK, region=region)

        # What numpy writes into the cache goes to the device …
        cache[:] = np.arange(blocks, dtype=np.uint64)[:, None]
        disk.write_many(offsets, pool)
        disk.flush()

        # … and what is read from the device is in the cache.
        cache[:] = 0
        disk.read_many(offsets, pool)
        assert (cache == np.arange(blocks, dtype=np.uint64)[:, None]).all()

        # One block of it, and numpy's view of the same byte.
        view = np.frombuffer(pool[blocks // 2], dtype=np.uint64)
        view[0] = 12345
        assert cache[blocks // 2, 0] == 12345
        disk.pwrite(pool[blocks // 2], int(offsets[blocks // 2]))
        assert int.from_bytes(disk.pread(512, int(offsets[blocks // 2]))[:8], sys.byteorder) == 12345

        # Another process has what the device read, by the descriptor alone.
        disk.readinto(pool[blocks - 1], int(offsets[blocks // 2]))
        handed = [str(number) for number in (region.fileno(), size, (blocks - 1) * BLOCK)]
        command = [sys.executable, "-c", OTHER, *handed]
        assert int(subprocess.check_output(command, pass_fds=[region.fileno()])) == 12345
    print(f"{text} written and read in blocks of {BLOCK >> 10} KiB, sum {int(cache.sum()):#x}")
    os.close(fd)


if __name__ == "__main__":
    main(sys.argv[1:])
