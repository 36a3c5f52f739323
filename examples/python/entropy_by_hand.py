"""Takes random bytes from an entropy device by its queue, step by step.

    python examples/python/entropy_by_hand.py [ADDRESS]
"""

from __future__ import annotations

import sys

import virtio


def main(arguments: list[str]) -> None:
    address = arguments[0] if arguments else "soft:entropy"
    with virtio.open(address) as dev:  # reset, ACKNOWLEDGE, DRIVER
        dev.negotiate(want=virtio.Feature.EVENT_IDX)  # FEATURES_OK, read back
        print("features:", dev.features)
        with dev.queue(0, size=64) as q:  # the ring's memory is set up
            dev.start()  # DRIVER_OK
            buf = dev.alloc(32)
            token = q.add(writable=[buf])  # visible to nobody yet
            q.notify()  # published, and the device is kicked if it wants that
            used = q.get(timeout=1.0)
            assert used.token == token
            print("by hand: ", bytes(memoryview(buf)[: used.written]).hex())
            written = q.transfer(writable=[buf], timeout=1.0)  # the same in one call
            print("transfer:", bytes(memoryview(buf)[:written]).hex())


if __name__ == "__main__":
    main(sys.argv[1:])
