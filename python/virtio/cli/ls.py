"""`virtio ls`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import virtio
from virtio.cli.output import print_json, table

if TYPE_CHECKING:
    import argparse


def device_type(text: str) -> virtio.DeviceType:
    """A type by its name, in any case and with - or _, or by its number."""
    try:
        return virtio.DeviceType(int(text, 0))
    except ValueError:
        pass
    name = text.upper().replace("-", "_")
    if name not in virtio.DeviceType.__members__:
        known = ", ".join(member.name.lower() for member in virtio.DeviceType)
        raise ValueError(f"no device type is {text}; known are {known}")
    return virtio.DeviceType[name]


def run(args: argparse.Namespace) -> int:
    wanted = None if args.type is None else device_type(args.type)
    found = list(virtio.find(args.address, type=wanted))
    if args.driver is not None:
        driver = None if args.driver == "none" else args.driver
        found = [info for info in found if info.driver == driver]
    if args.json:
        rows = [
            {
                "address": info.address,
                "type": info.type.name.lower(),
                "type_id": int(info.type),
                "transport": info.transport,
                "driver": info.driver,
            }
            for info in found
        ]
        print_json({"devices": rows})
    elif found:
        cells = [[info.address, info.type.name.lower(), info.transport, info.driver or "-"] for info in found]
        table(["ADDRESS", "TYPE", "TRANSPORT", "DRIVER"], cells)
    elif args.address is None:
        print("no virtio device was found; virtio info soft:block shows one in software")
    else:
        print("no virtio device was found in that machine")
    return 0
