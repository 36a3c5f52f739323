"""One client of a block device. Says "ready" or what it lacks; then, for each line `PATH DEPTH SECONDS`, opens the
device, reads 4 KiB at random offsets for that long, closes it and says how many reads a second it made."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import clients
import tasks


def timed(client: clients.Client, path: str, depth: int, seconds: float) -> float:
    client.open(path, depth)
    try:
        run(client, seconds / 4)
        made, taken = run(client, seconds)
        return made / taken
    finally:
        client.close()


def run(client: clients.Client, seconds: float) -> tuple[int, float]:
    start, made = time.perf_counter(), 0
    while True:
        made += client.turn()
        taken = time.perf_counter() - start
        if taken >= seconds:
            return made, taken


KINDS: dict[str, Callable[[], clients.Client | tasks.Nbd | tasks.Ours]] = {
    "one": clients.One,
    "batch": clients.Batch,
    "pure": clients.Pure,
    "prepared": lambda: clients.Pure("Prepared"),
    "nbd": clients.Nbd,
    "pread": clients.Pread,
    "aio": tasks.Ours,
    "nbd-aio": tasks.Nbd,
}


def main(name: str) -> None:
    try:
        client = KINDS[name]()
    except ImportError as error:
        print(f"missing: {error}", flush=True)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        path, depth, seconds = line.split()
        try:
            if isinstance(client, clients.Client):
                figure = timed(client, path, int(depth), float(seconds))
            else:
                figure = asyncio.run(tasks.rate(client, path, int(depth), float(seconds)))
            print(figure, flush=True)
        except Exception as error:
            print(f"{type(error).__name__}: {error}".splitlines()[0], flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
