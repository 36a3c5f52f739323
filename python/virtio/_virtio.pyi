# Made by tools/stubs from the compiled module: change that, or the types in tools/stubs, and run it.
from asyncio import AbstractEventLoop, Future
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, final

from typing_extensions import Buffer as AnyBuffer
from typing_extensions import Self, disjoint_base

from virtio.enums import DeviceType, Status
from virtio.io import BlockIO

class _HasFileno(Protocol):
    def fileno(self) -> int: ...

_Bits: TypeAlias = Features | int | Iterable[Features | int]
_Buffers: TypeAlias = Buffer | Iterable[Buffer]
_Arrays: TypeAlias = AnyBuffer | tuple[AnyBuffer, ...] | list[AnyBuffer]

__all__ = ["Block", "Buffer", "Device", "DeviceInfo", "Entropy", "Events", "Features", "Found", "Lie", "Pool", "Queue", "Region", "Report", "RingEnd", "Used", "_AsyncBlock", "_PoolIterator", "_Qemu", "_SoftDevice", "_VhostUserDevice", "__version__", "_answers", "_lies", "_names", "_queues", "_rules", "_tables", "_transport", "find", "open"]

@final
class Block:
    """A block device. Offsets and lengths are in bytes, and multiples of 512. Any thread may call; as many at a time as
    there are queues.
    """
    def __new__(
        cls,
        address: str,
        *,
        queues: int = 1,
        queue_size: int | None = None,
        timeout: float | None = 30.0,
        control_timeout: float = 2.0,
        reconnect: Literal["fail", "retry"] = "fail",
    ) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    @property
    def address(self) -> str:
        """Where it is."""
        ...
    @property
    def block_size(self) -> int:
        """Logical block size in bytes."""
        ...
    def close(self) -> None:
        """Resets and closes the device: calls of other threads fail from then on. A second call does nothing."""
        ...
    @property
    def counters(self) -> list[dict[str, int]]:
        """What each of them has counted since it was set up, by name. Waits for a call that uses it."""
        ...
    def discard(self, offset: int, length: int) -> None:
        """Tells the device that a range is not needed any more."""
        ...
    def events(self) -> Events:
        """What has happened to the device since the last look."""
        ...
    @property
    def features(self) -> Features:
        """The features in use, and what became of all others."""
        ...
    def flush(self) -> None:
        """Makes all writes that were done before permanent. IndeterminateError, once, after a reconnection with writes
        that were done and not flushed: the back-end that went away may have lost them.
        """
        ...
    def get_id(self) -> str:
        """The device's id string."""
        ...
    @property
    def offered(self) -> Features:
        """The features that the device offers."""
        ...
    def pool(self, count: int, stride: int, *, region: Region | None = None) -> Pool:
        """Buffers that this device can reach, for reads and writes without a copy."""
        ...
    def pread(self, length: int, offset: int) -> bytes:
        """Reads `length` bytes from `offset` on."""
        ...
    def pwrite(self, data: Buffer | AnyBuffer, offset: int, *, retry: bool = False) -> int:
        """Writes any buffer's bytes at `offset`; a Buffer of this device without a copy. Answers the number of bytes. The
        data may be in the device's cache then: flush(). With `retry` the write may be made more than once: a device
        that was opened with reconnect="retry" sends it again where its back-end went away with it.
        """
        ...
    @property
    def queues(self) -> int:
        """Number of request queues in use."""
        ...
    def raw(self) -> BlockIO:
        """The device as an io.RawIOBase, for what wants a file: any offset and length."""
        ...
    def read_many(self, offsets: AnyBuffer, out: Pool | AnyBuffer) -> None:
        """Reads many pieces, in flight together: the one at offsets[n] into buffer n of `out`, a pool of this device
        (without a copy), or into row n of any other buffer with as many equal rows. `offsets` is an array of integers.
        """
        ...
    @property
    def read_only(self) -> bool:
        """Whether the device takes no writes."""
        ...
    def readinto(self, buffer: Buffer | AnyBuffer, offset: int) -> int:
        """Reads from `offset` on into a buffer, as many bytes as it has. A Buffer of this device is filled without a
        copy. Answers the number of bytes.
        """
        ...
    @property
    def size(self) -> int:
        """Size in bytes, as last read."""
        ...
    def write_many(self, offsets: AnyBuffer, data: Pool | AnyBuffer) -> None:
        """The opposite of read_many(): what overlaps is written in no particular order."""
        ...
    def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Sets a range to zeroes; with `unmap` the device may deallocate it."""
        ...

@final
class Buffer:
    """One buffer that the device can reach. memoryview(), numpy, struct and readinto() see its bytes, without a copy.

    While it is in flight, a new view of it is refused (BufferError) if the device may write it, and read-only if the
    device reads it. Views taken before stay valid memory; what they hold then is up to the device.
    """
    def __len__(self) -> int: ...
    @property
    def in_flight(self) -> bool:
        """Whether a queue has it."""
        ...
    @property
    def slot(self) -> int:
        """Its number at the device."""
        ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Device:
    """One virtio device. Leaving its `with` resets it and takes its memory away; buffers and views stay valid."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    @property
    def address(self) -> str:
        """Where it is."""
        ...
    def alloc(self, length: int) -> Buffer:
        """One buffer of `length` bytes, all zero. Its memory is the device's again when nobody refers to it any more: no
        object, no view, no request in flight.
        """
        ...
    def close(self) -> None:
        """Resets the device, takes its memory away and ends its use: whoever waits on a queue gets ClosedError. A second
        call does nothing, nor does one in the child of a fork. Where the reset is not confirmed, what the device was
        given is kept for the life of the process: a ResourceWarning says so, and the error is raised.
        """
        ...
    @property
    def config(self) -> dict[str, Any]:
        """The fields of configuration space by name, read at once: those that the features in use make valid."""
        ...
    def events(self) -> Events:
        """What has happened since the last look: a changed configuration, a wish for a reset, the device's removal."""
        ...
    @property
    def features(self) -> Features:
        """The features in use, and what became of all others: none before negotiate()."""
        ...
    def fileno(self) -> int:
        """A descriptor that becomes readable when events() may have something to tell, from the set-up of the queues to
        the next reset.
        """
        ...
    def isr(self) -> int:
        """Reads the cause of a line interrupt, which clears it: 1 a queue, 2 the configuration. For devices without
        interrupts of the library's own.
        """
        ...
    def negotiate(self, want: _Bits = 0, require: _Bits = 0) -> Features:
        """Agrees on features with the device: all of `require`, and what it offers of `want`. FeatureError where that
        cannot be.
        """
        ...
    @property
    def offered(self) -> Features:
        """The features that the device offers."""
        ...
    @property
    def phase(self) -> Literal["reset", "negotiated", "running", "failed", "closed"]:
        """Where it stands: "reset", "negotiated", "running", "failed" or "closed"."""
        ...
    def pool(self, count: int, stride: int, *, region: Region | None = None) -> Pool:
        """`count` buffers of `stride` bytes in one piece of memory: new and all zero, or the beginning of a region. It
        goes when nobody refers to any of it any more, as alloc()'s does; their numbers alone keep nothing.
        """
        ...
    def queue(
        self,
        index: int,
        size: int | None = None,
        *,
        indirect: bool = True,
        interrupts: bool = True,
    ) -> Queue:
        """Sets a queue up, between negotiate() and start(). `size` is a wish: Queue.size tells what it became."""
        ...
    def read_config(self, offset: int, width: int) -> int:
        """The number in `width` bytes (1, 2, 4 or 8) of configuration space."""
        ...
    def reset(self) -> None:
        """Resets the device, for another negotiate(). What was in flight ends once as IndeterminateError."""
        ...
    def start(self) -> None:
        """Sets the device going: from now on its queues may be notified."""
        ...
    @property
    def status(self) -> Status:
        """Its status register, a Status."""
        ...
    @property
    def type(self) -> DeviceType:
        """Its type, a DeviceType."""
        ...
    def write_config(self, offset: int, width: int, value: int) -> None:
        """Writes `width` bytes of configuration space."""
        ...

@final
class DeviceInfo:
    """A device that was found and not opened."""
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    @property
    def address(self) -> str:
        """Where it is, as open() takes it."""
        ...
    @property
    def driver(self) -> str | None:
        """The kernel driver that has it, or None."""
        ...
    @property
    def transport(self) -> str:
        """What it is reached by."""
        ...
    @property
    def type(self) -> DeviceType:
        """Its type, a DeviceType."""
        ...

@final
class Entropy:
    """Random bytes from an entropy device."""
    def __new__(cls, address: str, *, timeout: float | None = 30.0) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    @property
    def address(self) -> str:
        """Where it is."""
        ...
    def close(self) -> None:
        """Resets and closes the device. A second call does nothing."""
        ...
    def read(self, length: int) -> bytes:
        """`length` random bytes. One thread at a time: RuntimeError where another one reads."""
        ...

@final
class Events:
    """What has happened to a device since the last look."""
    def __bool__(self) -> bool: ...
    def __eq__(self, value: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    @property
    def config_changed(self) -> bool:
        """The configuration may have changed: read it again."""
        ...
    @property
    def gone(self) -> bool:
        """The device is gone."""
        ...
    @property
    def needs_reset(self) -> bool:
        """The device asks for a reset."""
        ...

@final
class Features:
    """A set of up to 128 feature bits of one device type. Prints names; `in` takes a bit's flag
    (`virtio.Feature.EVENT_IDX`) or its name.
    """
    def __bool__(self) -> bool: ...
    def __contains__(self, key: str | Features | int, /) -> bool: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __index__(self) -> int: ...
    def __int__(self) -> int: ...
    def __len__(self) -> int: ...
    def bit_numbers(self) -> list[int]:
        """The numbers of the bits that are set, lowest first."""
        ...
    def explain(self) -> list[str]:
        """A line for each bit that was offered or asked for: what became of it, who asked, and why not. Empty before
        the negotiation.
        """
        ...
    @property
    def names(self) -> list[str]:
        """The names of the bits that are set; `bit 77` for one without a name."""
        ...

@final
class Found:
    """Devices that were found, one after the other. It can be left and taken up again."""
    def __iter__(self) -> Iterator[DeviceInfo]: ...
    def __next__(self) -> DeviceInfo: ...

@final
class Lie:
    """Something that a software device does against the specification, or that is rare enough to go wrong. Which lies
    there are, and what each takes: `virtio.testing.LIES`. A lie about a ring goes with used chain number `chain` of
    `queue`, both 0 unless told.
    """
    def __new__(cls, name: str, /, **fields: Any) -> Self: ...
    def __eq__(self, value: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    @property
    def name(self) -> str:
        """Its name."""
        ...

@final
class Pool:
    """Equal buffers that the device can reach, in one piece of memory: `pool[i]` is one of them, and a view of the whole
    has two dimensions, buffers and bytes. That view is always writable, whatever is in flight.
    """
    def __getitem__(self, key: int, /) -> Buffer: ...
    def __iter__(self) -> Iterator[Buffer]: ...
    def __len__(self) -> int: ...
    @property
    def count(self) -> int:
        """Number of buffers."""
        ...
    @property
    def fd_offset(self) -> int:
        """Where the pool begins in the file that fileno() gives, in bytes."""
        ...
    def fileno(self) -> int:
        """Descriptor of the memory file behind the pool, for another process; the pool begins at fd_offset in it."""
        ...
    @property
    def first(self) -> int:
        """Number of the first buffer at the device: buffer i of the pool has the number first + i."""
        ...
    @property
    def in_flight(self) -> int:
        """Number of buffers that are in flight."""
        ...
    @property
    def stride(self) -> int:
        """Bytes of each buffer, and from one to the next."""
        ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Queue:
    """One virtqueue of a device. Any thread may call; several may wait, each for its own token.

    Leaving its `with` waits up to a second for what is in flight, and ends the use of the queue.
    """
    def __enter__(self) -> Self: ...
    def __exit__(self, exc_type: object, _exc: object, _traceback: object) -> None: ...
    def add(self, readable: _Buffers = (), writable: _Buffers = ()) -> int:
        """Adds a chain of buffers: those that the device reads, then those that it writes. The device sees it with the
        next notify(). Answers the chain's token, a number.
        """
        ...
    def add_many(
        self,
        readable_slots: _Arrays | None = None,
        writable_slots: _Arrays | None = None,
        tokens: AnyBuffer | None = None,
    ) -> int:
        """Adds many chains at once. `readable_slots` and `writable_slots` are arrays of buffers' numbers (Buffer.slot,
        Pool.first): one number for each chain, or as many as the array has columns; several arrays side by side are
        given as a tuple. `tokens`, an array of 8-byte integers, takes the chains' tokens. Answers how many were added:
        fewer than asked for where the queue is full, or where a chain further on is refused; the error is raised where
        it is the first one that is. The device sees them with the next notify().
        """
        ...
    def close(self) -> None:
        """Ends the use of the queue: whoever waits gets ClosedError. What is in flight stays the device's until its
        reset.
        """
        ...
    @property
    def counters(self) -> dict[str, int]:
        """What was counted since the queue was set up, by name."""
        ...
    def disable_interrupts(self) -> None:
        """Tells the device that no events are needed: the queue is polled."""
        ...
    def enable_interrupts(self) -> bool:
        """Asks for an event with the next request that is done; answers whether one is done already, which must be taken
        before fileno() is waited for.
        """
        ...
    def fileno(self) -> int:
        """A descriptor that becomes readable when a request is done, after enable_interrupts() answered False."""
        ...
    def get(self, timeout: float | None = None) -> Used:
        """Waits for a request that is done and that nobody else waits for: seconds, or None for ever."""
        ...
    def get_many(
        self,
        tokens: AnyBuffer,
        written: AnyBuffer | None = None,
        timeout: float | None = None,
    ) -> int:
        """Waits for requests that are done and that nobody else waits for, and takes all there are, at most as many as
        the arrays have room for: their tokens, and how many bytes the device says it wrote to each. Answers how many
        they are, one at least.
        """
        ...
    @property
    def index(self) -> int:
        """Index of the queue."""
        ...
    def kick(self) -> None:
        """Notifies the device, whether it wants that or not."""
        ...
    def notify(self) -> None:
        """Shows what was added to the device, and notifies it if it wants that."""
        ...
    @property
    def outstanding(self) -> int:
        """Requests that the device has."""
        ...
    def pop(self) -> Used | None:
        """A request that is done and that nobody waits for, or None."""
        ...
    def publish(self) -> bool:
        """Shows what was added to the device without notifying it; answers whether the device wants a notification,
        which is the caller's to send with kick().
        """
        ...
    def set_spin(self, seconds: float) -> None:
        """How long waits spin before they sleep, in seconds, at most 0.05 at a time; 0 for not at all."""
        ...
    @property
    def size(self) -> int:
        """Number of descriptors."""
        ...
    def transfer(
        self,
        readable: _Buffers = (),
        writable: _Buffers = (),
        timeout: float | None = None,
    ) -> int:
        """Adds a chain, notifies the device and waits for the answer: add(), notify() and wait() in one. Answers how
        many bytes the device says it wrote.
        """
        ...
    def wait(self, token: int, timeout: float | None = None) -> Used:
        """Waits for the request of this token: seconds, or None for ever."""
        ...

@final
class Region:
    """Memory for devices over a memory file of the caller's (os.memfd_create with MFD_ALLOW_SEALING): it is sealed
    against shrinking, its content stays, and whoever has the descriptor shares it. Without a length it is the whole
    file. `Region.create(length)` makes a file of its own.
    """
    def __new__(cls, fd: int | _HasFileno, *, offset: int = 0, length: int | None = None) -> Self: ...
    def __len__(self) -> int: ...
    @staticmethod
    def create(length: int) -> Region:
        """A region over a new memory file, all zero, of that many bytes or the rest of a page more."""
        ...
    def fileno(self) -> int:
        """Descriptor of the memory file."""
        ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Report:
    """What a software device did and saw."""
    @property
    def accepted(self) -> Features:
        """The features that the driver accepted."""
        ...
    @property
    def chains(self) -> int:
        """Chains used since the device was made."""
        ...
    @property
    def clause(self) -> str:
        """The clause of VIRTIO 1.4 where that rule stands, or ""."""
        ...
    @property
    def interrupts(self) -> int:
        """Interrupts sent for used chains since then."""
        ...
    @property
    def notifications(self) -> int:
        """Notifications received since then."""
        ...
    @property
    def rule(self) -> str | None:
        """Name of the first rule that the driver broke, or None."""
        ...
    @property
    def status(self) -> int:
        """The device status, a number."""
        ...
    @property
    def what(self) -> str:
        """What the driver did to break it, or ""."""
        ...

@final
class RingEnd:
    """The device's end of a split ring that lies in a region, without registers: for rings of one's own, and for what
    they are measured beside. The ring has `size` descriptors and begins where the region does, with its table; `areas`
    says where its available ring and its used ring begin, `ring_bytes` how long it is.
    """
    def __new__(cls, region: Region, size: int) -> Self: ...
    @property
    def areas(self) -> tuple[int, int]:
        """Where the available ring and the used ring begin, in bytes from the region's start."""
        ...
    @property
    def ring_bytes(self) -> int:
        """Length of the ring in bytes."""
        ...
    def run(self) -> int:
        """Uses every chain that waits, as if all its device-writable bytes had been written: what a device does when it
        is notified. Answers how many chains they were; ProtocolError where one breaks a rule.
        """
        ...

@final
class Used:
    """A request that the device has done: its token, and how many bytes the device says it wrote."""
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    @property
    def token(self) -> int:
        """The number that add() gave."""
        ...
    @property
    def written(self) -> int:
        """Bytes written into the chain's device-writable buffers, from the first on."""
        ...

@disjoint_base
class _AsyncBlock:
    """The part of virtio.aio.Block that is compiled."""
    def __new__(
        cls,
        address: str,
        *,
        queue_size: int | None = None,
        timeout: float | None = 30.0,
        control_timeout: float = 2.0,
        reconnect: Literal["fail", "retry"] = "fail",
    ) -> Self: ...
    def _close(self) -> None:
        """Resets and closes the device; for another thread. The loop's next turn ends what is under way."""
        ...
    def _leave(self) -> None:
        """After the close: tells those who wait, and lets go of the loop."""
        ...
    def _look(self) -> None:
        """The timer: looks after a device that is silent."""
        ...
    def _open(self, event_loop: AbstractEventLoop) -> None:
        """Opens the device, for the tasks of a loop. May wait; for another thread."""
        ...
    def _recover(self) -> None:
        """Waits for a back-end to come back; for another thread."""
        ...
    def _turn(self) -> None:
        """One turn: shows what was submitted, tells of what was done."""
        ...
    def _watch(self) -> None:
        """Watches the queue's event, that of a new connection after a recovery."""
        ...
    def _woken(self) -> None:
        """The queue's event was signalled."""
        ...
    @property
    def address(self) -> str:
        """Where it is."""
        ...
    @property
    def block_size(self) -> int:
        """Logical block size in bytes."""
        ...
    @property
    def counters(self) -> dict[str, int]:
        """What the queue has counted since it was set up, by name."""
        ...
    def discard(self, offset: int, length: int) -> Future[None]:
        """Tells the device that a range is not needed any more."""
        ...
    def events(self) -> Events:
        """What has happened to the device since the last look; a changed configuration was read again."""
        ...
    @property
    def features(self) -> Features:
        """The features in use, and what became of all others."""
        ...
    def flush(self) -> Future[None]:
        """Makes all writes permanent whose futures were done before. IndeterminateError, once, after a reconnection with
        writes that were done and not flushed: the back-end that went away may have lost them.
        """
        ...
    def get_id(self) -> Future[str]:
        """The device's id string."""
        ...
    def pool(self, count: int, stride: int, *, region: Region | None = None) -> Pool:
        """Buffers that this device can reach, for reads and writes without a copy."""
        ...
    def pread(self, length: int, offset: int) -> Future[bytes]:
        """Reads `length` bytes from `offset` on."""
        ...
    def pread_into(self, buffer: Buffer | AnyBuffer, offset: int) -> Future[int]:
        """Reads from `offset` on into a buffer, as many bytes as it has; a Buffer of this device's pool() is filled without
        a copy. Gives the number of bytes. Another buffer is filled when the future is done, and not resized before.
        """
        ...
    def pwrite(self, data: Buffer | AnyBuffer, offset: int, *, retry: bool = False) -> Future[int]:
        """Writes any buffer's bytes at `offset`; a Buffer of this device's pool() without a copy, any other is copied by the
        call. Gives the number of bytes. The data may be in the device's cache then: flush(). With `retry` the write may
        be made more than once: a device that was opened with reconnect="retry" sends it again where its back-end went
        away with it.
        """
        ...
    @property
    def read_only(self) -> bool:
        """Whether the device takes no writes."""
        ...
    @property
    def size(self) -> int:
        """Size in bytes, as last read."""
        ...
    def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> Future[None]:
        """Sets a range to zeroes; with `unmap` the device may deallocate it."""
        ...

@final
class _PoolIterator:
    """What goes through a pool's buffers."""
    def __iter__(self) -> Iterator[Buffer]: ...
    def __next__(self) -> Buffer: ...

@final
class _Qemu:
    """A QEMU machine whose processor is halted."""
    def __new__(
        cls,
        machine: str,
        *,
        devices: list[str],
        disks: list[tuple[str, int]],
        args: list[str],
        memory: int,
        program: str | None = None,
    ) -> Self: ...
    @property
    def address(self) -> str:
        """The address of the machine, as find() takes it."""
        ...
    @property
    def addresses(self) -> list[str]:
        """The addresses of its devices."""
        ...
    def check(self) -> None:
        """Raises with its exit status and its last words where it has ended."""
        ...
    def close(self) -> None:
        """Kills it, and removes its directory. A second call does nothing."""
        ...
    @property
    def dir(self) -> Path:
        """A directory of its own."""
        ...
    def event(self, name: str, timeout: float | None) -> str:
        """Waits for an event of this name, and gives its data as JSON."""
        ...
    def execute(self, command: str, arguments: str) -> str:
        """Has a command of its control socket executed; arguments and answer are JSON."""
        ...
    def kill(self) -> None:
        """Kills it, by SIGKILL, and waits for its end."""
        ...
    def monitor(self, line: str) -> str:
        """Has a line of the human monitor executed, and gives what it printed."""
        ...
    @property
    def pid(self) -> int:
        """Its process number."""
        ...
    def resume(self) -> None:
        """Lets it go on, by SIGCONT."""
        ...
    def stderr(self) -> str:
        """What it wrote to its standard error; "" after close()."""
        ...
    def stop(self) -> None:
        """Stops it, by SIGSTOP."""
        ...

@final
class _SoftDevice:
    """A software device that an address of this process leads to."""
    def __new__(
        cls,
        address: str,
        *,
        checked: bool = True,
        stepped: bool = False,
        lies: list[Lie] = ...,
    ) -> Self: ...
    @property
    def address(self) -> str:
        """The address that opens it."""
        ...
    def be_honest(self) -> None:
        """Tells no lie any more. What was written to memory stays."""
        ...
    def change_config(self, offset: int, bytes: bytes) -> None:
        """Changes the configuration space from `offset` on, with a notification."""
        ...
    def report(self) -> Report:
        """What it did and saw."""
        ...
    def settle(self) -> int:
        """Steps until nothing is left to do; answers how many chains were used."""
        ...
    def step(self) -> bool:
        """Serves one chain of a stepped device; answers whether there was one."""
        ...
    def tell(self, lie: Lie) -> None:
        """Tells a lie from now on."""
        ...
    @property
    def transport(self) -> str:
        """Name of its registers' interface."""
        ...
    def unpublish(self) -> None:
        """The address leads nowhere from now on. Drivers that have the device keep it."""
        ...

@final
class _VhostUserDevice:
    """A software device behind a Unix socket, in a thread of this process."""
    def __new__(
        cls,
        address: str,
        path: str,
        *,
        null: bool = False,
        checked: bool = True,
        lies: list[Lie] = ...,
    ) -> Self: ...
    @property
    def address(self) -> str:
        """The address that opens it."""
        ...
    def be_honest(self) -> None:
        """Tells no lie any more."""
        ...
    def change_config(self, offset: int, bytes: bytes) -> None:
        """Changes the configuration space from `offset` on, with a message."""
        ...
    def close(self) -> None:
        """Hangs up, and stops serving."""
        ...
    def connections(self) -> tuple[bool, int]:
        """Whether a front-end is connected, and how many have been."""
        ...
    def error(self) -> BaseException | None:
        """What ended the last connection that did not end in peace: an exception, or None."""
        ...
    def hang_up(self) -> None:
        """Ends the connection that there is."""
        ...
    def report(self) -> Report:
        """What the device did and saw."""
        ...
    def tell(self, lie: Lie) -> None:
        """Tells a lie from now on."""
        ...

__version__: str

def _answers(device: Device) -> list[tuple[int, str | None, bool, bool, str]]:
    """What became of each feature bit that was offered or asked for. Empty before the negotiation."""
    ...

def _lies() -> list[tuple[str, str, list[str]]]:
    """Every lie: name, row of the fault model, names of its fields."""
    ...

def _names(bits: int, device_type: int) -> list[str]:
    """The names of the bits of a number, as features of a device type; lowest bit first."""
    ...

def _queues(device: Device) -> list[tuple[int, int]]:
    """Index and largest size of each queue of a device."""
    ...

def _rules() -> list[tuple[str, str, str]]:
    """Every rule that a checked device holds its driver to: name, clause, what a driver does that breaks it."""
    ...

def _tables() -> dict[str, list[tuple[str, int]]]:
    """What the crate knows by number: tests compare the package's enumerations with it."""
    ...

def _transport(device: Device) -> tuple[str, bool, int]:
    """How a device is reached: name of the register interface, whether it is a legacy one, bytes of configuration."""
    ...

def find(
    address: str | None = None,
    /,
    *,
    type: int | None = None,
    transport: str | None = None,
    driver: str | None = None,
) -> Found:
    """The devices that fit: by type, by transport ("pci" or "mmio"), by kernel driver. Without an address those of this
    machine, which needs no privileges and opens nothing; with `qtest:SOCKET?ram=FILE` those of a
    QEMU machine, on its PCI buses and in its MMIO slots; none is written to.
    """
    ...

def open(
    address: str,
    *,
    control_timeout: float = 2.0,
    strict: bool = False,
    interrupts: bool = True,
) -> Device:
    """Opens the device at an address: it is reset, and knows that there is a driver.

    ValueError for an address that cannot be parsed, DeviceNotFoundError where nothing is behind it.
    """
    ...
