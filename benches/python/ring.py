"""A split virtqueue (VIRTIO 1.4 §2.7) in plain Python over shared memory: what somebody writes who has no library. It
checks what keeps a program alive, trusts its device for the rest, and has one request or many in flight."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence

NEXT, WRITE = 1, 2
NO_INTERRUPT = NO_NOTIFY = 1

DESCRIPTOR = struct.Struct("<QIHH")
ELEMENT = struct.Struct("<II")

Buffer = tuple[int, int]
"""Device address and length."""


class Ring:
    """The driver's end of the ring that begins with `memory`; `notify` is the doorbell."""

    def __init__(self, memory: memoryview, size: int, avail: int, used: int, notify: Callable[[], object]) -> None:
        self.memory, self.mask, self.used = memory, size - 1, used
        # struct.pack_into() clears what it is about to write: a device on another core would see an index of 0.
        self.avail_words = memory[avail : avail + 4 + 2 * size].cast("H")
        self.used_words = memory[used : used + 4].cast("H")
        self.ring_doorbell = notify
        self.free = list(range(size))
        self.in_flight: dict[int, list[int]] = {}
        self.avail_index = self.used_index = self.published = 0
        self.avail_words[0] = NO_INTERRUPT

    def add(self, readable: Sequence[Buffer] = (), writable: Sequence[Buffer] = ()) -> int:
        """Writes a chain's descriptors and its available entry; answers its head."""
        count = len(readable) + len(writable)
        if not 0 < count <= len(self.free):
            raise BufferError("no room in the ring")
        chain = [self.free.pop() for _ in range(count)]
        at = 0
        for buffers, flags in ((readable, 0), (writable, WRITE)):
            for address, length in buffers:
                last = at + 1 == count
                following = 0 if last else chain[at + 1]
                DESCRIPTOR.pack_into(
                    self.memory, 16 * chain[at], address, length, flags if last else flags | NEXT, following
                )
                at += 1
        head = chain[0]
        self.in_flight[head] = chain
        self.avail_words[2 + (self.avail_index & self.mask)] = head
        self.avail_index = (self.avail_index + 1) & 0xFFFF
        return head

    def notify(self) -> None:
        """Shows the device what was added, and rings if it wants that."""
        if self.published == self.avail_index:
            return
        self.avail_words[1] = self.avail_index
        self.published = self.avail_index
        if not self.used_words[0] & NO_NOTIFY:
            self.ring_doorbell()

    def pop(self) -> tuple[int, int] | None:
        """Takes a used element: head and bytes written."""
        if self.used_words[1] == self.used_index:
            return None
        head, written = ELEMENT.unpack_from(self.memory, self.used + 4 + 8 * (self.used_index & self.mask))
        self.used_index = (self.used_index + 1) & 0xFFFF
        self.free += self.in_flight.pop(head)
        return head, written

    def get(self, timeout: float) -> tuple[int, int]:
        """Waits for a used element."""
        found = self.pop()
        if found is None:
            deadline = time.monotonic() + timeout
            while (found := self.pop()) is None:
                if time.monotonic() > deadline:
                    raise TimeoutError("no used element")
        return found

    def transfer(self, readable: Sequence[Buffer] = (), writable: Sequence[Buffer] = (), timeout: float = 1.0) -> int:
        """The three in one call, for one request at a time."""
        self.add(readable, writable)
        self.notify()
        return self.get(timeout)[1]
