"""`virtio block read`, `write` and `bench`."""

from __future__ import annotations

import hashlib
import sys
import time
from contextlib import ExitStack
from errno import EBADF, ENOSPC, EROFS
from typing import IO, TYPE_CHECKING, Any, cast

import virtio
from virtio.cli.bench import NAMES, compare, measure
from virtio.cli.output import Progress, number, print_json, table

if TYPE_CHECKING:
    import argparse

CHUNK = 1 << 20


def _standard(stream: object, what: str) -> IO[bytes]:
    if stream is None:
        raise OSError(EBADF, f"standard {what} is closed")
    binary = cast("IO[bytes]", getattr(stream, "buffer", stream))
    if binary.isatty():
        raise ValueError(f"standard {what} is a terminal: name a file, or redirect it")
    return binary


def _range(disk: virtio.Block, args: argparse.Namespace) -> int:
    """How many bytes there are from --offset on, at most --length."""
    if not 0 <= args.offset <= disk.size:
        raise ValueError(f"--offset is from 0 to the device's size, {disk.size}")
    room: int = disk.size - args.offset
    if args.length is not None and args.length > room:
        raise ValueError(f"{args.length} bytes do not fit: the device has {room} from there on")
    return room if args.length is None else cast("int", args.length)


def _copy(source: Any, to: Any, length: int | None, progress: Progress) -> tuple[int, str]:
    """Copies so many bytes, or all there are; answers how many, and their SHA-256."""
    digest, done = hashlib.sha256(), 0
    while length is None or done < length:
        data = source.read(CHUNK if length is None else min(CHUNK, length - done))
        if not data:
            break
        at = 0
        while at < len(data):
            at += to.write(data[at:] if at else data)
        digest.update(data)
        done += len(data)
        progress.add(len(data))
    return done, digest.hexdigest()


def _read(args: argparse.Namespace) -> int:
    if args.json and args.output == "-":
        raise ValueError("--json wants standard output for itself: give -o FILE")
    with ExitStack() as stack:
        disk = stack.enter_context(virtio.Block(args.address, timeout=args.timeout))
        length = _range(disk, args)
        if args.output == "-":
            out = _standard(sys.stdout, "output")
        else:
            out = stack.enter_context(open(args.output, "wb"))
        # It is closed before the device, which it flushes then.
        source = stack.enter_context(disk.raw())
        source.seek(args.offset)
        start = time.monotonic()
        with Progress("read", length, shown=args.progress) as progress:
            done, digest = _copy(source, out, length, progress)
        out.flush()
        _summary(args, done, digest, time.monotonic() - start)
    return 0


def _write(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        if args.input == "-":
            source = _standard(sys.stdin, "input")
        else:
            source = stack.enter_context(open(args.input, "rb"))
        disk = stack.enter_context(virtio.Block(args.address, timeout=args.timeout))
        if disk.read_only:
            raise virtio.VirtioError(EROFS, "the device takes no writes", args.address)
        _range(disk, args)
        to = stack.enter_context(disk.raw())
        to.seek(args.offset)
        start = time.monotonic()
        try:
            with Progress("write", args.length, shown=args.progress) as progress:
                done, digest = _copy(source, to, args.length, progress)
        except virtio.VirtioError as error:
            if error.errno != ENOSPC:
                raise
            raise ValueError("the device is full: the input is longer than it") from None
        if args.length is not None and done < args.length:
            raise ValueError(f"the input ended after {done} bytes of {args.length}")
        if virtio.block.Feature.FLUSH in disk.features:
            disk.flush()
        _summary(args, done, digest, time.monotonic() - start)
    return 0


def _summary(args: argparse.Namespace, done: int, digest: str, seconds: float) -> None:
    if args.json:
        print_json(
            {"address": args.address, "offset": args.offset, "bytes": done, "sha256": digest, "seconds": seconds}
        )
    elif args.verb == "write":
        print(f"{done} bytes, sha256 {digest}")


def _bench_several(args: argparse.Namespace) -> int:
    """Several devices, side by side."""
    if len(set(args.address)) < len(args.address):
        raise ValueError("each address is measured once: they are not all different")
    rows = compare(
        args.mode or list(NAMES),
        args.address,
        seconds=args.seconds,
        block_size=args.block_size,
        depth=args.depth,
        timeout=args.timeout,
        told=lambda mode, address: print(f"measuring: {NAMES[mode]}, {address}", file=sys.stderr),
    )
    if args.json:
        print_json({"addresses": args.address, "block_size": args.block_size, "results": rows})
        return 0
    head = ["READS", "DEVICE", "IN FLIGHT", "IOPS", "TO THE FIRST", "MEDIAN us", "P99 us"]
    cells = []
    for row in rows:
        first = next(other for other in rows if other["mode"] == row["mode"])
        latency, ratio = row["latency_us"], row["iops"] / max(first["iops"], 1e-9)
        cells.append([NAMES[row["mode"]], row["address"], str(row["depth"]), number(row["iops"]), f"{ratio:.2f}"])
        cells[-1] += [f"{latency['median']:.1f}", f"{latency['p99']:.1f}"]
    table(head, cells, right=range(2, len(head)))
    return 0


def _bench(args: argparse.Namespace) -> int:
    if len(args.address) > 1:
        return _bench_several(args)
    [address] = args.address
    rows = []
    for mode in args.mode or NAMES:
        print(f"measuring: {NAMES[mode]}", file=sys.stderr)
        rows.append(
            measure(
                mode,
                address,
                seconds=args.seconds,
                block_size=args.block_size,
                depth=args.depth,
                timeout=args.timeout,
            )
        )
    if args.json:
        print_json({"address": address, "block_size": args.block_size, "results": rows})
    else:
        show(rows)
    return 0


def show(rows: list[dict[str, Any]]) -> None:
    """A table of measurements; those of a software device know what interrupts were saved."""
    head = ["READS", "IN FLIGHT", "IOPS", "MEDIAN us", "P99 us", "KICKS SAVED"]
    saved = ["kicks_saved"]
    if "interrupts_saved" in rows[0]:
        head.append("INTERRUPTS SAVED")
        saved.append("interrupts_saved")
    cells = []
    for row in rows:
        latency = row["latency_us"]
        cells.append([NAMES[row["mode"]], str(row["depth"]), number(row["iops"])])
        cells[-1] += [f"{latency['median']:.1f}", f"{latency['p99']:.1f}"]
        cells[-1] += [f"{row[key]:.1%}" for key in saved]
    table(head, cells, right=range(1, len(head)))


def run(args: argparse.Namespace) -> int:
    return {"read": _read, "write": _write, "bench": _bench}[args.verb](args)
