"""`virtio demo`: a software block device through the whole stack, and its data compared with the file behind it."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import virtio
from virtio import testing
from virtio.cli.bench import NAMES, measure
from virtio.cli.block import show
from virtio.cli.info import describe
from virtio.cli.output import Progress, print_json, size, table

if TYPE_CHECKING:
    import argparse

CHUNK = 1 << 20


def _image(path: Path, length: int) -> str:
    """Makes an image of random bytes; answers its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as image:
        for at in range(0, length, CHUNK):
            data = os.urandom(min(CHUNK, length - at))
            digest.update(data)
            image.write(data)
    return digest.hexdigest()


def _read_all(disk: virtio.Block, progress: bool) -> str:
    digest = hashlib.sha256()
    with Progress("reading", disk.size, shown=progress) as bar:
        for at in range(0, disk.size, CHUNK):
            data = disk.pread(min(CHUNK, disk.size - at), at)
            digest.update(data)
            bar.add(len(data))
    return digest.hexdigest()


def _write_pattern(disk: virtio.Block, path: Path) -> bool:
    """Writes a pattern over the middle of the device and flushes; answers whether the file has it, and only it."""
    length = min(CHUNK, disk.size // 4 // 512 * 512)
    at = disk.size // 2 // 512 * 512
    pattern = b"".join(number.to_bytes(8, "little") for number in range(length // 8))
    before = path.read_bytes()
    disk.pwrite(pattern, at)
    disk.flush()
    return path.read_bytes() == before[:at] + pattern + before[at + length :]


def _measure(device: testing.Device, address: str, mode: str, seconds: float) -> dict[str, Any]:
    """One row: kicks and interrupts are counted by the device."""
    before = device.report()
    row = measure(mode, address, seconds=seconds)
    after = device.report()
    chains = max(after.chains - before.chains, 1)
    kicks, interrupts = after.notifications - before.notifications, after.interrupts - before.interrupts
    row |= {"kicks": kicks, "interrupts": interrupts}
    row |= {"kicks_saved": 1 - kicks / chains, "interrupts_saved": 1 - interrupts / chains}
    return row


def _demonstrate(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    say = print if not args.json else (lambda *words: print(*words, file=sys.stderr))
    wanted = _image(path, args.size)
    say(f"image:    {size(args.size)} of random bytes, sha256 {wanted[:16]}…")
    # First a device that watches its driver, then one that does nothing but serve.
    checked = testing.block(path=path, transport=args.transport)
    with virtio.Block(checked.address) as disk:
        found = _read_all(disk, args.progress)
        say(f"read:     sha256 {found[:16]}… through {args.transport}: {'equal' if found == wanted else 'WRONG'}")
        written = _write_pattern(disk, path)
        say(f"written:  a pattern, flushed; the file {'has it' if written else 'is WRONG'}")
    broken = checked.report().rule
    checked.close()
    say(f"rules:    {broken or f'the driver kept the {len(testing.RULES)} that the device looks at'}")
    device = testing.block(path=path, transport=args.transport, checked=False)
    with device as address:
        rows = []
        for mode in NAMES:
            print(f"measuring: {NAMES[mode]}", file=sys.stderr)
            rows.append(_measure(device, address, mode, args.seconds))
        return {
            "transport": args.transport,
            "size": args.size,
            "sha256": {"image": wanted, "read": found},
            "read_ok": found == wanted,
            "write_ok": written,
            "rule_broken": broken,
            "ok": found == wanted and written and broken is None,
            "features": describe(address)["features"],
            "table": rows,
        }


def run(args: argparse.Namespace) -> int:
    if args.size <= 0 or args.size % 4096:
        raise ValueError("--size is a multiple of 4096")
    with tempfile.TemporaryDirectory(prefix="virtio-demo-") as directory:
        result = _demonstrate(args, Path(directory) / "disk.img")
    if args.json:
        print_json(result)
    else:
        print()
        table(
            ["FEATURE", "ACCEPTED", "WHY NOT"],
            [[f["name"], "yes" if f["accepted"] else "no", f["why_not"] or ""] for f in result["features"]],
        )
        print()
        show(result["table"])
        print()
        print("all data is right" if result["ok"] else "WRONG: see above")
    return 0 if result["ok"] else 1
