"""Clients of a block device, each with open(path, depth), turn() and close(): turn() makes some reads of 4 KiB and
answers how many. Importing one imports what it is a client of."""

from __future__ import annotations

import array
import os
import random
from collections.abc import Callable

BLOCK = 4096
CAPACITY = 1 << 30
TURN = 512


def offsets(count: int = 1 << 16) -> list[int]:
    chance = random.Random(1)
    return [chance.randrange(CAPACITY // BLOCK) * BLOCK for _ in range(count)]


class Client:
    def __init__(self) -> None:
        self.offsets = offsets()
        self.at = 0

    def some(self, count: int) -> list[int]:
        """The next offsets."""
        start, self.at = self.at, (self.at + count) % (len(self.offsets) - count)
        return self.offsets[start : start + count]

    def open(self, path: str, depth: int) -> None:
        raise NotImplementedError

    def turn(self) -> int:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class One(Client):
    """virtio.Block.readinto() with a buffer of the device's, a call at a time."""

    def __init__(self) -> None:
        import virtio

        super().__init__()
        self.virtio = virtio

    def open(self, path: str, depth: int) -> None:
        self.disk = self.virtio.Block(f"vhost-user:{path}")
        self.pool = self.disk.pool(1, BLOCK)
        self.buffer = self.pool[0]

    def turn(self) -> int:
        readinto, buffer = self.disk.readinto, self.buffer
        for offset in self.some(TURN):
            readinto(buffer, offset)
        return TURN

    def close(self) -> None:
        del self.buffer, self.pool
        self.disk.close()


class Batch(Client):
    """virtio.Block.read_many() into a pool of the device's, `depth` at a time."""

    def __init__(self) -> None:
        import virtio

        super().__init__()
        self.virtio = virtio

    def open(self, path: str, depth: int) -> None:
        self.depth = depth
        self.disk = self.virtio.Block(f"vhost-user:{path}")
        self.pool = self.disk.pool(depth, BLOCK)
        self.batches = [array.array("Q", self.some(depth)) for _ in range(TURN // depth)]

    def turn(self) -> int:
        read_many, pool = self.disk.read_many, self.pool
        for batch in self.batches:
            read_many(batch, pool)
        return self.depth * len(self.batches)

    def close(self) -> None:
        del self.pool
        self.disk.close()


class Pure(Client):
    """pure.Plain, or another of that module, always topped up to `depth`."""

    def __init__(self, kind: str = "Plain") -> None:
        import pure

        super().__init__()
        self.kind = getattr(pure, kind)

    def open(self, path: str, depth: int) -> None:
        self.depth = depth
        self.disk = self.kind(path)

    def turn(self) -> int:
        disk, add, take, under_way, made = self.disk, self.disk.add, self.disk.take, 0, 0
        waiting = self.some(TURN)
        while made < TURN:
            more = min(self.depth - under_way, len(waiting))
            for _ in range(more):
                add(waiting.pop())
            if more:
                disk.show()
            done = take()
            made += done
            under_way += more - done
        return made

    def close(self) -> None:
        self.disk.close()


class Nbd(Client):
    """libnbd: aio_pread() into buffers of its own, always topped up to `depth`."""

    def __init__(self) -> None:
        import nbd

        super().__init__()
        self.nbd = nbd

    def open(self, path: str, depth: int) -> None:
        self.disk = self.nbd.NBD()
        self.disk.connect_uri(f"nbd+unix:///disk?socket={path}")
        self.depth = depth
        self.buffers = [self.nbd.Buffer(BLOCK) for _ in range(depth)]
        self.free = list(range(depth))

    def turn(self) -> int:
        disk, free, buffers, pread, poll = self.disk, self.free, self.buffers, self.disk.aio_pread, self.disk.poll
        made = 0

        def done(slot: int) -> Callable[[object], int]:
            def told(error: object) -> int:
                nonlocal made
                made += 1
                free.append(slot)
                return 1

            return told

        waiting = self.some(TURN)
        while made < TURN:
            while free and waiting:
                slot = free.pop()
                pread(buffers[slot], waiting.pop(), completion=done(slot))
            poll(-1)
        assert disk.aio_in_flight() == 0
        return made

    def close(self) -> None:
        self.disk.shutdown()


class Pread(Client):
    """os.pread() of a file in a tmpfs: no device at all."""

    def open(self, path: str, depth: int) -> None:
        self.file = os.memfd_create("pread", os.MFD_CLOEXEC)
        for start in range(0, CAPACITY // 16, 1 << 20):
            os.pwrite(self.file, bytes(1 << 20), start)
        self.offsets = [offset % (CAPACITY // 16) for offset in self.offsets]

    def turn(self) -> int:
        pread, file = os.pread, self.file
        for offset in self.some(TURN):
            pread(file, BLOCK, offset)
        return TURN

    def close(self) -> None:
        os.close(self.file)
