"""`virtio info` and `virtio diff`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import virtio
from virtio._virtio import _answers, _names, _queues, _transport
from virtio.cli.output import print_json, table

if TYPE_CHECKING:
    import argparse

PCI = Path("/sys/bus/pci/devices")


def describe(address: str) -> dict[str, Any]:
    """What a device is, in JSON's types. It is opened, and all that it offers is negotiated as far as this library
    can; then it is reset."""
    with virtio.open(address) as dev:
        dev.negotiate(want=dev.offered)
        transport, legacy, config_length = _transport(dev)
        features = [
            {
                "bit": bit,
                "name": name or f"bit {bit}",
                "offered": offered,
                "accepted": accepted,
                "why_not": why or None,
            }
            for bit, name, offered, accepted, why in _answers(dev)
        ]
        return {
            "address": dev.address,
            "type": dev.type.name.lower(),
            "type_id": int(dev.type),
            "transport": transport,
            "legacy": legacy,
            "status": _flags(dev.status),
            "features": features,
            "config_length": config_length,
            "config": dict(dev.config),
            "queues": [{"index": index, "max_size": size} for index, size in _queues(dev)],
            "opened": True,
        }


def _flags(status: virtio.Status) -> list[str]:
    return [flag.name for flag in virtio.Status if flag in status and flag.name]


def kernels_view(address: str, why: str, sysfs: Path = PCI) -> dict[str, Any] | None:
    """What sysfs says of a device that cannot be opened: a kernel driver has it, or this version does not reach it."""
    found = next((info for info in virtio.find() if info.address == address), None)
    if found is None:
        return None
    view: dict[str, Any] = {
        "address": address,
        "type": found.type.name.lower(),
        "type_id": int(found.type),
        "transport": found.transport,
        "driver": found.driver,
        "opened": False,
        "why_not": why,
    }
    for child in sorted((sysfs / address.removeprefix("pci:")).glob("virtio*")):
        # Of each bit a digit, bit 0 first: what the kernel's driver accepted.
        bits = (child / "features").read_text().strip()
        accepted = sum(1 << at for at, digit in enumerate(bits) if digit == "1")
        names = _names(accepted, int(found.type))
        numbers = [at for at in range(128) if accepted >> at & 1]
        view["features"] = [
            {"bit": bit, "name": name, "offered": True, "accepted": True, "why_not": None}
            for bit, name in zip(numbers, names, strict=True)
        ]
        view["status"] = _flags(virtio.Status(int((child / "status").read_text(), 0)))
    return view


def look(address: str) -> dict[str, Any]:
    """What can be told of a device."""
    try:
        return describe(address)
    except (virtio.VirtioError, PermissionError) as error:
        view = kernels_view(address, error.strerror or str(error))
        if view is None:
            raise
        return view


def _show(device: dict[str, Any]) -> None:
    for title, key in (("address", "address"), ("type", "type"), ("transport", "transport"), ("driver", "driver")):
        if device.get(key):
            legacy = ", by its legacy interface" if key == "transport" and device.get("legacy") else ""
            print(f"{title + ':':<11}{device[key]}{legacy}")
    if "status" in device:
        print(f"{'status:':<11}{' '.join(device['status']) or '0'}")
    if not device["opened"]:
        print(f"{'note:':<11}not opened: {device['why_not']}; what follows is sysfs's")
    features = device.get("features", [])
    if features:
        print()
        table(
            ["BIT", "FEATURE", "OFFERED", "ACCEPTED", "WHY NOT"],
            [
                [str(f["bit"]), f["name"], _yes(f["offered"]), _yes(f["accepted"]), f["why_not"] or ""]
                for f in features
            ],
            right=[0],
        )
    if device.get("config"):
        print()
        table(["CONFIGURATION", "VALUE"], [[name, str(value)] for name, value in device["config"].items()])
    if device.get("queues"):
        print()
        rows = [[str(queue["index"]), str(queue["max_size"])] for queue in device["queues"]]
        table(["QUEUE", "MOST DESCRIPTORS"], rows, right=[0, 1])


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def compare(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """What two devices have not in common: a row for each thing."""

    def facts(device: dict[str, Any]) -> dict[str, Any]:
        found = {key: device.get(key) for key in ("type", "transport", "legacy", "driver", "config_length")}
        for feature in device.get("features", []):
            if feature["offered"]:
                found[f"feature {feature['name']}"] = "accepted" if feature["accepted"] else "offered"
        found |= {f"config {name}": value for name, value in device.get("config", {}).items()}
        found |= {f"queue {queue['index']}": queue["max_size"] for queue in device.get("queues", [])}
        return found

    left, right = facts(a), facts(b)
    names = list(dict.fromkeys([*left, *right]))
    rows = [{"what": name, "a": left.get(name), "b": right.get(name)} for name in names]
    return [row for row in rows if row["a"] != row["b"]]


def run(args: argparse.Namespace) -> int:
    if args.command == "info":
        device = look(args.address)
        if args.json:
            print_json(device)
        else:
            _show(device)
        return 0
    differences = compare(look(args.a), look(args.b))
    if args.json:
        print_json({"a": args.a, "b": args.b, "differences": differences})
    elif differences:
        table(["WHAT", args.a, args.b], [[row["what"], _cell(row["a"]), _cell(row["b"])] for row in differences])
    else:
        print("no difference")
    return 1 if differences else 0


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
