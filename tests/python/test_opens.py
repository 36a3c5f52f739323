"""Opens and closes without number, and opens that fail at each step: descriptors and memory stay flat."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from conftest import INTERFACES, Memory, descriptors

import virtio
from virtio import testing

REFUSED = (OSError, ValueError, MemoryError)


def use(address: str, patience: float = 10) -> None:
    """A device's whole life, with one request done, and another in flight at the end."""
    # A busy machine may run nobody for a while, and a reset that is late costs memory.
    with virtio.open(address, control_timeout=max(patience, 0.2)) as dev:
        dev.negotiate(want=[virtio.Feature.EVENT_IDX, virtio.Feature.INDIRECT_DESC])
        q = dev.queue(0, size=8)
        dev.start()
        pool = dev.pool(2, 64)
        q.add(writable=[pool[0]])
        q.notify()
        q.get(timeout=patience)
        assert isinstance(dev.config, dict)
        q.add(writable=[pool[1]])
        q.notify()


def stays_flat(once: Callable[[int], object], amount: int, kept: int = 0) -> None:
    """Holds that repetitions take no descriptor, no mapping and no memory, but for `kept` bytes each."""
    warm = min(amount // 4, 100)
    for number in range(warm):
        once(number)
    held, before = descriptors(), Memory.now()
    for number in range(warm, amount):
        once(number)
    now = Memory.now()
    assert descriptors() == held
    # Threads' stacks and the allocator's pieces come and go.
    assert now.mappings <= before.mappings + 8, (before, now)
    grown = now.resident - before.resident
    assert grown <= (8 << 20) + amount * kept, f"{grown >> 10} KiB in {amount - warm} rounds"


@pytest.mark.soak(run="Python, opens and closes", unit="devices", usual=1000, full=10_000)
def test_opens_and_closes_keep_nothing(amount: int) -> None:
    addresses = [f"soft:entropy?transport={name}&run={how}" for name in INTERFACES for how in ("thread", "inline")]

    def once(number: int) -> None:
        use(addresses[number % len(addresses)])
        if number % 4 == 0:
            with virtio.Block("soft:block?size=64K") as disk:
                disk.pread(512, 0)

    stays_flat(once, amount)


# What lies take, of what a device may say of itself.
FIELDS = {
    "after": 0,
    "bits": 0xFF,
    "by": 3,
    "bytes": b"\xff" * 8,
    "cfg_type": 1,
    "chain": 0,
    "count": 3,
    "event": 7,
    "features": 1 << 28,
    "field": 12,
    "from": 0,
    "id": 200,
    "index": 0xFFFF,
    "length": 4,
    "offset": 0,
    "queue": 0,
    "reads": 2,
    "seed": 5,
    "size": 0,
    "value": 0x7FFF_FFFF,
}

def lie(name: str) -> testing.Lie:
    return testing.Lie(name, **{field: FIELDS[field] for field in testing.LIES[name]})


def fails_somewhere(name: str, transport: str) -> bool:
    """A device that lies from the beginning, used as far as that goes; answers whether that was not to the end."""
    device = testing.entropy(transport=transport, lies=[lie(name)])
    with device as address:
        try:
            use(address, patience=0.005)
        except REFUSED:
            return True
    return False


@pytest.mark.soak(run="Python, opens of devices that lie", unit="devices", usual=600, full=10_000)
def test_opens_that_fail_at_each_step_keep_nothing(amount: int) -> None:
    ways = [(name, transport) for name in testing.LIES for transport in INTERFACES]
    random.Random(1).shuffle(ways)
    failed: set[tuple[str, str]] = set()

    def once(number: int) -> None:
        way = ways[number % len(ways)]
        if fails_somewhere(*way):
            failed.add(way)

    stays_flat(once, amount)
    assert len(failed) > min(amount, len(ways)) // 4, f"{len(failed)} of {len(ways)}: most lies change nothing that is used"


STEPS: dict[str, Callable[[virtio.Device], object]] = {
    "a feature that is not offered": lambda dev: dev.negotiate(require=1 << 90),
    "no negotiation": lambda dev: dev.queue(0),
    "a queue that is not there": lambda dev: (dev.negotiate(), dev.queue(99)),
    "a queue of nothing": lambda dev: (dev.negotiate(), dev.queue(0, size=0)),
    "a queue twice": lambda dev: (dev.negotiate(), dev.queue(0), dev.queue(0)),
    "two starts": lambda dev: (dev.negotiate(), dev.queue(0), dev.start(), dev.start()),
    "more memory than there is": lambda dev: (dev.negotiate(), dev.queue(0), dev.start(), dev.pool(1 << 20, 1 << 30)),
    "a buffer of nothing": lambda dev: dev.alloc(0),
    "configuration beyond the end": lambda dev: dev.read_config(1 << 16, 8),
    "a read of the ring before the start": lambda dev: (dev.negotiate(), dev.queue(0).notify()),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_refused_keeps_nothing(step: str) -> None:
    # PCI legacy has its own mind about the size of a queue.
    interfaces = [name for name in INTERFACES if name != "pci-legacy" or "of nothing" not in step]

    def once(number: int) -> None:
        with virtio.open(f"soft:entropy?transport={interfaces[number % len(interfaces)]}") as dev:
            with pytest.raises(REFUSED):
                STEPS[step](dev)

    stays_flat(once, 100)


@pytest.mark.parametrize("address", ["soft:block?size=x", "soft:nothing", "soft:block?path=/nowhere", "pci:9999:00:00.0"])
def test_an_address_that_leads_nowhere_keeps_nothing(address: str) -> None:
    def once(_: int) -> None:
        for opens in (virtio.open, virtio.Block, virtio.Entropy):
            with pytest.raises(REFUSED):
                opens(address)

    stays_flat(once, 100)


@contextmanager
def only_so_many_descriptors(more: int) -> Iterator[None]:
    """The process gets no more than `more` descriptors besides those it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The numbers that are free, lowest first, are the next ones.
    held = set(open_numbers())
    free = (number for number in range(hard) if number not in held)
    last = 0
    for _ in range(more + 1):
        last = next(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (last, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_numbers() -> list[int]:
    names = os.listdir("/proc/self/fd")
    return [int(name) for name in names if os.path.exists(f"/proc/self/fd/{name}")]


@pytest.mark.parametrize("transport", INTERFACES)
def test_e6_opens_without_a_descriptor_at_each_step_keep_nothing(transport: str) -> None:
    address = f"soft:entropy?transport={transport}"
    use(address)
    held, refused = descriptors(), 0
    for more in range(100):
        before = refused
        with only_so_many_descriptors(more):
            try:
                use(address)
            except OSError as error:
                assert error.errno == errno.EMFILE, error
                refused += 1
        assert descriptors() == held, f"{more} descriptors"
        if refused == before:
            break
    assert refused > 1, "each step that needs one was refused it"


def test_e4_opens_without_memory_at_each_step_keep_nothing() -> None:
    """In a process of its own, which may have ever more memory beside what it has."""
    program = """
        import errno, resource, sys
        import virtio
        from conftest import Memory, descriptors
        def use(address):
            with virtio.open(address) as dev:
                dev.negotiate()
                q = dev.queue(0, size=256)
                dev.start()
                pool = dev.pool(64, 65536)
                q.transfer(writable=[pool[0]], timeout=10)
        address, unlimited = sys.argv[1], (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        for _ in range(3):
            use(address)
        held, before, refused = descriptors(), Memory.now(), 0
        for step in range(200):
            with open("/proc/self/statm") as statm:
                size = (int(statm.read().split()[0]) + 16 * step) * 4096
            try:
                resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
                use(address)
            except (OSError, MemoryError) as error:
                assert error.errno in (errno.ENOMEM, errno.EAGAIN) if isinstance(error, OSError) else True, error
                refused += 1
            finally:
                resource.setrlimit(resource.RLIMIT_AS, unlimited)
        now = Memory.now()
        assert descriptors() == held and now.mappings <= before.mappings + 8, (before, now)
        assert now.resident - before.resident < 8 << 20, (before, now)
        print("refused" if refused > 1 else "never")
    """
    for how in ("inline", "thread"):
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program), f"soft:entropy?run={how}"],
            env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", ""), done.stderr[-2000:]
