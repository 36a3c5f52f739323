"""Lists the VirtIO devices of this machine, without privileges and without opening one.

    python examples/python/find.py [TYPE]
"""

from __future__ import annotations

import sys

import virtio


def main(arguments: list[str]) -> None:
    wanted = virtio.DeviceType[arguments[0].upper()] if arguments else None
    for info in virtio.find(type=wanted):
        print(info.address, info.type.name.lower(), info.driver or "unbound")


if __name__ == "__main__":
    main(sys.argv[1:])
