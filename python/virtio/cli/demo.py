"""`virtio demo`: a block device through the whole stack, and its data compared with the file behind it. The device is one
in software, or that of a qemu-storage-daemon."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from errno import EIO, ENOENT
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import virtio
from virtio import testing
from virtio.cli.bench import NAMES, measure
from virtio.cli.block import show
from virtio.cli.info import describe
from virtio.cli.output import Progress, print_json, size, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    _Say = Callable[[str], None]

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


DAEMON = "qemu-storage-daemon"
PATIENCE = 10.0
SLICE = 0.2


def _wait_for(address: str, process: subprocess.Popen[bytes], said: IO[str]) -> None:
    """Until the daemon serves its socket. Opening waits for one that is not there yet, but not for a daemon's end."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            virtio.open(address, control_timeout=SLICE).close()
            return
        except (virtio.DeviceNotFoundError, virtio.VirtioTimeoutError):
            if process.poll() is None and time.monotonic() < end:
                continue
            if process.poll() is None:
                raise
        said.seek(0)
        words = said.read().strip() or f"exit status {process.returncode}"
        raise virtio.VirtioError(EIO, f"{DAEMON} ended: {words}")


@contextmanager
def _daemon(path: Path) -> Iterator[str]:
    """A qemu-storage-daemon over the file, as long as this lives; gives its address."""
    socket = path.with_name("vhost-user.sock")
    command = [
        DAEMON,
        "--blockdev", f"driver=file,node-name=disk,filename={path},discard=unmap",
        "--export", f"type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path={socket},writable=on",
    ]  # fmt: skip
    # Its words are shown where it fails; else nobody wants them.
    with tempfile.TemporaryFile("w+", dir=path.parent) as said:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        except FileNotFoundError:
            words = f"{DAEMON} is not installed: apt install qemu-system-common"
            raise virtio.VirtioError(ENOENT, words) from None
        try:
            address = f"vhost-user:{socket}?type=block"
            _wait_for(address, process, said)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _correct(address: str, path: Path, wanted: str, through: str, args: argparse.Namespace, say: _Say) -> dict[str, Any]:
    """Reads all that there is and writes a pattern; answers what was right."""
    with virtio.Block(address) as disk:
        found = _read_all(disk, args.progress)
        say(f"read:     sha256 {found[:16]}… through {through}: {'equal' if found == wanted else 'WRONG'}")
        written = _write_pattern(disk, path)
        say(f"written:  a pattern, flushed; the file {'has it' if written else 'is WRONG'}")
    return {
        "size": args.size,
        "sha256": {"image": wanted, "read": found},
        "read_ok": found == wanted,
        "write_ok": written,
    }


def _rows(row: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for mode in NAMES:
        print(f"measuring: {NAMES[mode]}", file=sys.stderr)
        rows.append(row(mode))
    return rows


def _software(args: argparse.Namespace, path: Path, wanted: str, say: _Say) -> dict[str, Any]:
    # First a device that watches its driver, then one that does nothing but serve.
    checked = testing.block(path=path, transport=args.transport)
    result = _correct(checked.address, path, wanted, args.transport, args, say)
    broken = checked.report().rule
    checked.close()
    say(f"rules:    {broken or f'the driver kept the {len(testing.RULES)} that the device looks at'}")
    device = testing.block(path=path, transport=args.transport, checked=False)
    with device as address:
        rows = _rows(lambda mode: _measure(device, address, mode, args.seconds))
        features = describe(address)["features"]
    return {"transport": args.transport, **result, "rule_broken": broken, "features": features, "table": rows}


def _storage_daemon(args: argparse.Namespace, path: Path, wanted: str, say: _Say) -> dict[str, Any]:
    with _daemon(path) as address:
        say(f"daemon:   {DAEMON} at {address}")
        result = _correct(address, path, wanted, "vhost-user", args, say)
        rows = _rows(lambda mode: measure(mode, address, seconds=args.seconds))
        features = describe(address)["features"]
    # Nobody watched the driver: that is what the software devices are for.
    return {"transport": "vhost-user", **result, "rule_broken": None, "features": features, "table": rows}


def _demonstrate(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    say: _Say = print if not args.json else (lambda *words: print(*words, file=sys.stderr))
    wanted = _image(path, args.size)
    say(f"image:    {size(args.size)} of random bytes, sha256 {wanted[:16]}…")
    result = (_storage_daemon if args.vhost_user else _software)(args, path, wanted, say)
    return result | {"ok": result["read_ok"] and result["write_ok"] and result["rule_broken"] is None}


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
