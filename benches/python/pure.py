"""A block device behind vhost-user, driven in pure Python: one split queue, polled. What Python can do without a library,
in two ways: `Plain` writes every request's descriptors, as drivers do; `Prepared` wrote all of them beforehand, a request
to each, checks nothing of what the device says, and has no room for any request but a read of one size."""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct

GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ENABLE = 12, 13, 18
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES = 15, 16
VERSION_1, PROTOCOL_FEATURES = 1 << 32, 1 << 30
BASE = 1 << 32
DESCRIPTOR, HEADER = struct.Struct("<QIHH"), struct.Struct("<IIQ")
NEXT, WRITE = 1, 2


class Disk:
    """Reads of `block` bytes, at most `size // 4` in flight: three descriptors each, at fixed places."""

    def __init__(self, path: str, size: int = 512, block: int = 4096) -> None:
        self.size, self.block = size, block
        slots = self.slots = size // 4
        self.avail_at = 16 * size
        self.used_at = (self.avail_at + 6 + 2 * size + 4095) & ~4095
        self.headers_at = (self.used_at + 6 + 8 * size + 4095) & ~4095
        self.status_at = self.headers_at + 64 * slots
        self.data_at = (self.status_at + 64 * slots + 4095) & ~4095
        length = self.data_at + block * slots
        self.file = os.memfd_create("pure-python", os.MFD_CLOEXEC)
        os.ftruncate(self.file, length)
        self.memory = mmap.mmap(self.file, length)
        view = memoryview(self.memory)
        # Words of the rings and of the headers, read and written in place.
        self.avail = view[self.avail_at : self.avail_at + 4 + 2 * size].cast("H")
        self.used16 = view[self.used_at : self.used_at + 4].cast("H")
        self.used32 = view[self.used_at + 4 : self.used_at + 4 + 8 * size].cast("I")
        self.sectors = view[self.headers_at : self.headers_at + 64 * slots].cast("Q")
        self.status = view[self.status_at : self.status_at + 64 * slots]
        self.data = view[self.data_at :]
        self.view = view
        self.free = list(range(slots))
        self.added = self.taken = 0
        self.connect(path, length)
        self.prepare()

    def prepare(self) -> None:
        """Before the first request."""
        raise NotImplementedError

    def add(self, offset: int) -> None:
        """A read into a free slot, which the device sees with the next show()."""
        raise NotImplementedError

    def show(self) -> None:
        """Shows the device what was added, and notifies it if it wants that."""
        self.avail[1] = self.added & 0xFFFF
        if not self.used16[0] & 1:
            os.eventfd_write(self.kick, 1)

    def take(self) -> int:
        """Takes all that is done, and answers how many that is."""
        raise NotImplementedError

    def connect(self, path: str, length: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect(path)
        features = self.ask(GET_FEATURES)
        if features & PROTOCOL_FEATURES:
            self.ask(GET_PROTOCOL_FEATURES)
            self.tell(SET_PROTOCOL_FEATURES, struct.pack("=Q", 0))
        self.tell(SET_OWNER)
        self.tell(SET_FEATURES, struct.pack("=Q", features & (VERSION_1 | PROTOCOL_FEATURES)))
        region = struct.pack("=IIQQQQ", 1, 0, BASE, length, BASE, 0)
        self.tell(SET_MEM_TABLE, region, self.file)
        self.avail[0] = 1  # no interrupts
        self.tell(SET_VRING_NUM, struct.pack("=II", 0, self.size))
        self.tell(SET_VRING_BASE, struct.pack("=II", 0, 0))
        areas = (BASE, BASE + self.used_at, BASE + self.avail_at, 0)
        self.tell(SET_VRING_ADDR, struct.pack("=IIQQQQ", 0, 0, *areas))
        self.call, self.kick = os.eventfd(0), os.eventfd(0)
        self.tell(SET_VRING_CALL, struct.pack("=Q", 0), self.call)
        self.tell(SET_VRING_KICK, struct.pack("=Q", 0), self.kick)
        if features & PROTOCOL_FEATURES:
            self.tell(SET_VRING_ENABLE, struct.pack("=II", 0, 1))

    def tell(self, request: int, payload: bytes = b"", fd: int | None = None) -> None:
        rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self.socket.sendmsg([struct.pack("=III", request, 1, len(payload)), payload], rights)

    def ask(self, request: int, payload: bytes = b"") -> int:
        self.tell(request, payload)
        return struct.unpack("=IIIQ", self.socket.recv(20, socket.MSG_WAITALL))[3]

    def close(self) -> None:
        while self.taken != self.added:
            self.take()
        self.ask(GET_VRING_BASE, struct.pack("=II", 0, 0))
        self.socket.close()
        for fd in (self.file, self.call, self.kick):
            os.close(fd)


class Plain(Disk):
    """Every request's header and descriptors are written as it is made, and its answer is looked at."""

    def prepare(self) -> None:
        self.under_way: dict[int, int] = {}

    def add(self, offset: int) -> None:
        slot = self.free.pop()
        view, head = self.view, 4 * slot
        header, status = self.headers_at + 64 * slot, self.status_at + 64 * slot
        HEADER.pack_into(view, header, 0, 0, offset >> 9)
        view[status] = 0xFF
        data = BASE + self.data_at + self.block * slot
        DESCRIPTOR.pack_into(view, 16 * head, BASE + header, 16, NEXT, head + 1)
        DESCRIPTOR.pack_into(view, 16 * head + 16, data, self.block, NEXT | WRITE, head + 2)
        DESCRIPTOR.pack_into(view, 16 * head + 32, BASE + status, 1, WRITE, 0)
        self.under_way[head] = slot
        self.avail[2 + self.added % self.size] = head
        self.added += 1

    def take(self) -> int:
        count = (self.used16[1] - self.taken) & 0xFFFF
        for _ in range(count):
            at = 2 * (self.taken % self.size)
            slot = self.under_way.pop(self.used32[at])
            self.taken += 1
            if self.used32[at + 1] != self.block + 1 or self.view[self.status_at + 64 * slot]:
                raise OSError("a read failed")
            self.free.append(slot)
        return count


class Prepared(Disk):
    """Three descriptors each, at fixed places."""

    def prepare(self) -> None:
        for slot in range(self.slots):
            head, block = 4 * slot, self.block
            parts = ((self.headers_at + 64 * slot, 16, NEXT), (self.data_at + block * slot, block, NEXT | WRITE))
            for index, (at, count, flags) in enumerate((*parts, (self.status_at + 64 * slot, 1, WRITE))):
                struct.pack_into("<QIHH", self.view, 16 * (head + index), BASE + at, count, flags, head + index + 1)

    def add(self, offset: int) -> None:
        slot = self.free.pop()
        self.sectors[8 * slot + 1] = offset >> 9
        self.avail[2 + self.added % self.size] = 4 * slot
        self.added += 1

    def take(self) -> int:
        count = (self.used16[1] - self.taken) & 0xFFFF
        for _ in range(count):
            slot = self.used32[2 * (self.taken % self.size)] >> 2
            self.taken += 1
            if self.status[64 * slot]:
                raise OSError("a read failed")
            self.free.append(slot)
        return count
