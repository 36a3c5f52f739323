"""The Python face beside the same in Rust, beside a ring in plain Python, and beside os.pread. Run by tools/bench-python,
with a Python that has the package; the peer in Rust is its first argument."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable
from operator import sub, truediv
from pathlib import Path
from time import perf_counter_ns

from ring import Ring

import virtio
from virtio import testing

# A device that gives every chain back inside the notification: rings alone, without the features that cost it more.
DEVICE = "soft:blank?run=inline&event_idx=off&indirect=off"
DISK = "soft:block?run=inline&size=16M"
DISK_BYTES = 16 << 20
BATCH = 32
PAGE = 4096
# Requests of one figure of one round: some milliseconds.
COUNT = 20_000


class Peer:
    """The same in Rust, in a process of its own that works when it is asked to."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen(
            [program, DEVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __call__(self, what: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what} {COUNT}\n")
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the peer in Rust ended with {self.process.wait()}")
        return float(answer)


def ours(queue: virtio.Queue, buf: virtio.Buffer) -> float:
    start = perf_counter_ns()
    for _ in range(COUNT):
        token = queue.add(writable=[buf])
        queue.notify()
        used = queue.get(timeout=1.0)
    spent = perf_counter_ns() - start
    assert used.token == token
    assert used.written == len(buf)
    return spent / COUNT


def ours_transfer(queue: virtio.Queue, buf: virtio.Buffer) -> float:
    start = perf_counter_ns()
    for _ in range(COUNT):
        written = queue.transfer(writable=[buf], timeout=1.0)
    spent = perf_counter_ns() - start
    assert written == len(buf)
    return spent / COUNT


def ours_batches(queue: virtio.Queue, pool: virtio.Pool) -> float:
    slots = array("I", range(pool.first, pool.first + BATCH))
    tokens, done, written = array("Q", [0]) * BATCH, array("Q", [0]) * BATCH, array("I", [0]) * BATCH
    rounds = COUNT // BATCH
    start = perf_counter_ns()
    for _ in range(rounds):
        queue.add_many(None, slots, tokens)
        queue.notify()
        count = queue.get_many(done, written, timeout=1.0)
    spent = perf_counter_ns() - start
    assert count == BATCH
    assert done == tokens
    return spent / (rounds * BATCH)


def plain(ring: Ring, buf: tuple[int, int]) -> float:
    count = COUNT // 4
    start = perf_counter_ns()
    for _ in range(count):
        token = ring.add(writable=[buf])
        ring.notify()
        head, written = ring.get(timeout=1.0)
    spent = perf_counter_ns() - start
    assert head == token
    assert written == buf[1]
    return spent / count


def plain_transfer(ring: Ring, buf: tuple[int, int]) -> float:
    count = COUNT // 4
    start = perf_counter_ns()
    for _ in range(count):
        written = ring.transfer(writable=[buf], timeout=1.0)
    spent = perf_counter_ns() - start
    assert written == buf[1]
    return spent / count


def reads(read: Callable[[int], bytes]) -> float:
    offsets = [(at * 7919 * PAGE) % DISK_BYTES for at in range(COUNT // 2)]
    start = perf_counter_ns()
    for offset in offsets:
        data = read(offset)
    spent = perf_counter_ns() - start
    assert len(data) == PAGE
    return spent / len(offsets)


def address(of: object) -> int:
    """Where a writable buffer's bytes are."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memoryview(of)))  # type: ignore[call-overload,no-any-return]


def no_copy() -> bool:
    """Whether a view of a buffer is the memory that the device writes: that of the region, by its address."""
    region = virtio.Region.create(8 * PAGE)
    with virtio.open("soft:entropy?run=inline") as device:
        device.negotiate()
        pool = device.pool(8, PAGE, region=region)
        with device.queue(0) as queue:
            device.start()
            before = memoryview(pool[5])
            written = queue.transfer(writable=[pool[5]], timeout=1.0)
            after = memoryview(pool[5])
            place = address(region) + 5 * PAGE
            same = address(before) == address(after) == place
            # What the view from before the request shows is what the device wrote.
            return same and before[:written] == memoryview(region)[5 * PAGE :][:written] and any(before[:written])


def importing() -> float:
    """Of a fresh interpreter, what the import takes beyond it."""
    code = "from time import perf_counter_ns as n; start = n(); import virtio; print(n() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)


def measure(peer: Peer, rounds: int) -> dict[str, list[float]]:
    """Nanoseconds a request, or an import: each figure once a round, after a round that warms up."""
    device = virtio.open(DEVICE)
    device.negotiate()
    queue = device.queue(0, size=64)
    device.start()
    buf, pool = device.alloc(64), device.pool(BATCH, 64)

    region = virtio.Region.create(1 << 16)
    end = testing.RingEnd(region, 64)
    ring = Ring(memoryview(region), 64, *end.areas, end.run)
    raw = (0x1_0000_0000, 64)

    disk = virtio.Block(DISK)
    file = tempfile.TemporaryFile(dir="/dev/shm")  # noqa: SIM115 (lives as long as the process)
    file.write(bytes(DISK_BYTES))
    file.flush()
    fd = file.fileno()

    series: dict[str, Callable[[], float]] = {
        "rust": lambda: peer("single"),
        "python": lambda: ours(queue, buf),
        "plain": lambda: plain(ring, raw),
        "python_transfer": lambda: ours_transfer(queue, buf),
        "plain_transfer": lambda: plain_transfer(ring, raw),
        "rust_batch": lambda: peer("batch"),
        "python_batch": lambda: ours_batches(queue, pool),
        "pread": lambda: reads(lambda offset: disk.pread(PAGE, offset)),
        "os_pread": lambda: reads(lambda offset: os.pread(fd, PAGE, offset)),
        "import": importing,
    }
    figures: dict[str, list[float]] = {name: [] for name in series}
    for turn in range(rounds + 1):
        for name, run in series.items():
            figure = run()
            if turn:
                figures[name].append(figure)
    disk.close()
    queue.close()
    device.close()
    return figures


def lower_quartiles(figures: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.quantiles(values, n=4)[0], 1) for name, values in figures.items()}


Row = tuple[str, float, str, float, float | None, bool]
"""Name, measured, unit, must, aim, whether more is better."""


def rows(figures: dict[str, list[float]], copies: bool) -> list[Row]:
    """By the rounds' own differences and ratios, as what slows a machine for seconds slows both sides of a round. Of ratios
    the median; of differences, which are times, the lower quartile, as of all times."""

    def median(of: Callable[[float, float], float], one: str, other: str) -> float:
        return statistics.median(map(of, figures[one], figures[other]))

    def beyond(one: str, other: str) -> float:
        return statistics.quantiles(map(sub, figures[one], figures[other]), n=4)[0]

    return [
        ("add, notify, get: beyond Rust", beyond("python", "rust"), "ns", 280, 200, False),
        ("add, notify, get: plain Python / it", median(truediv, "plain", "python"), "x", 7, None, True),
        ("transfer: beyond Rust", beyond("python_transfer", "rust"), "ns", 150, 90, False),
        ("transfer: plain Python / it", median(truediv, "plain_transfer", "python_transfer"), "x", 12, None, True),
        ("batches of 32: beyond Rust, a request", beyond("python_batch", "rust_batch"), "ns", 15, 6, False),
        ("Block.pread, 4 KiB: os.pread on tmpfs / it", median(truediv, "os_pread", "pread"), "x", 0.8, 1.2, True),
        ("import virtio: beyond the interpreter", lower_quartiles(figures)["import"] / 1e6, "ms", 20, None, False),
        ("memoryview(buffer): copies", float(copies), "", 0, None, False),
    ]


def met(value: float, limit: float, more: bool) -> bool:
    return value >= limit if more else value <= limit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer")
    parser.add_argument("--json", action="store_true", help="one object on the standard output")
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    # One core for both processes, which take turns.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures = measure(Peer(options.peer), max(options.rounds, 2))
    ns, table = lower_quartiles(figures), rows(figures, not no_copy())
    good = all(met(value, must, more) for _, value, _, must, _, more in table)
    if options.json:
        keys = ("name", "measured", "unit", "must", "aim", "more_is_better")
        found = [dict(zip(keys, row, strict=True)) for row in table]
        print(json.dumps({"ns": ns, "rows": found, "met": good}))
        return 0
    print(f"Python {platform.python_version()}, virtio {virtio.__version__}; ns a request, lower quartile of {options.rounds} rounds:")
    for name, value in ns.items():
        print(f"  {name:18}{value:12.1f}")
    print(f"\n| {'measure':44} | measured | must | aim | met |\n| --- | ---: | ---: | ---: | --- |")
    for name, value, unit, must, aim, more in table:
        sign = ">=" if more else "<="
        state = "no" if not met(value, must, more) else "must" if aim is None or not met(value, aim, more) else "aim"
        text = f"{value:.2f}" if unit == "x" else f"{value:.0f}"
        print(f"| {name:44} | {text} {unit} | {sign} {must:g} | {'' if aim is None else f'{aim:g}'} | {state} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
