"""Random walks over devices, queues, buffers and views, lies included, beside a model of what must hold."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import pytest
from conftest import INTERFACES, SOAKING
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

import virtio
from virtio import testing

COUNT, STRIDE = 6, 32
SIZES = st.sampled_from([1, 2, 8])

# Told of a device that runs. What each takes, beside the queue and the chain.
RING_LIES: dict[str, dict[str, Any]] = {
    "used_idx_ahead": {"by": 3},
    "used_idx_back": {"by": 2},
    "used_id_range": {"id": 70_000},
    "used_id_not_head": {"id": 5},
    "used_twice": {},
    "used_len_too_large": {"length": 1 << 31},
    "scribble_ring": {"seed": 7},
    "scribble_tables": {"seed": 7},
    "no_notify_stuck": {},
    "no_interrupts": {},
}
DEVICE_LIES: dict[str, dict[str, Any]] = {
    "stalls": {},
    "needs_reset": {"after": 0},
    "used_len": {"length": 0},
    "features_ok_not_sticky": {},
    "offers": {"features": 1 << 28},
    "queue_size": {"queue": 0, "size": 0},
    "generation_changes": {},
    "slow_reset": {"reads": 3},
    "early_interrupt": {},
}


class World(RuleBasedStateMachine):
    """A software device that does a request when it is told to, its driver, and what is known of both."""

    def __init__(self) -> None:
        super().__init__()
        self.q: Any = None
        # Whether all that the device says is true, and has been since the queue was set up.
        self.honest = True
        # Tokens in flight with the buffers of their chains, and which way those go; tokens that are used up.
        self.flying: dict[int, dict[int, str]] = {}
        self.spent: set[int] = set()
        self.views: list[memoryview] = []

    @initialize(transport=st.sampled_from(INTERFACES), size=SIZES)
    def open(self, transport: str, size: int) -> None:
        self.device = testing.entropy(transport=transport, run="stepped")
        self.begin(size)

    def begin(self, size: int) -> None:
        self.dev = virtio.open(self.device.address, control_timeout=0.05)
        self.pool, self.honest = self.dev.pool(COUNT, STRIDE), True
        self.start(size)

    def call(self, work: Callable[[], Any], *refusals: type[Exception]) -> Any:
        """What a call gives; None for an error that is allowed here. After a lie any error of the library's may come."""
        allowed = refusals if self.honest else (*refusals, virtio.VirtioError)
        try:
            return work()
        except allowed as error:
            assert str(error)
            return None

    def ended(self, token: int) -> None:
        """A token came back, or ended with its device: each does once, and none that was not given."""
        assert token not in self.spent, "a token comes back once"
        assert token in self.flying, "only what was added comes back"
        del self.flying[token]
        self.spent.add(token)

    def reap(self, work: Callable[[], virtio.Used | None]) -> None:
        """Takes what a call gives of completions."""
        try:
            used = work()
        except virtio.IndeterminateError as error:
            self.ended(error.token or 0)
        except (virtio.VirtioTimeoutError, virtio.ClosedError):
            pass
        except virtio.VirtioError:
            assert not self.honest
        else:
            if used is not None:
                assert used.written <= STRIDE * COUNT
                self.ended(used.token)

    def start(self, size: int) -> None:
        """From a reset on. A lie may be in the way, and half a start leads nowhere but to another reset."""

        def work() -> virtio.Queue:
            with pytest.raises(ValueError):
                self.dev.queue(0)
            self.dev.negotiate(want=[virtio.Feature.EVENT_IDX, virtio.Feature.INDIRECT_DESC])
            q = self.dev.queue(0, size=size)
            self.dev.start()
            return q

        self.q = self.call(work)
        if self.q is None:
            self.reset_device()
            self.q, self.honest = work(), True

    @rule()
    def out_of_order(self) -> None:
        """Steps that are not due are refused, and change nothing."""
        for step in (self.dev.negotiate, self.dev.start, lambda: self.dev.queue(0)):
            with pytest.raises((ValueError, OSError)):
                step()

    @rule(readable=st.lists(st.integers(0, COUNT - 1), max_size=3), writable=st.lists(st.integers(0, COUNT - 1), max_size=3))
    def add(self, readable: list[int], writable: list[int]) -> None:
        chain = readable + writable
        busy = {index for buffers in self.flying.values() for index in buffers}
        wrong = not chain or len(set(chain)) < len(chain) or busy & set(chain)
        before = self.pool.in_flight
        add = lambda: self.q.add([self.pool[i] for i in readable], [self.pool[i] for i in writable])  # noqa: E731
        token = self.call(add, ValueError, virtio.QueueFullError)
        if token is None:
            assert self.pool.in_flight == before, "what is refused leaves nothing behind"
            return
        assert not wrong and token not in self.spent and token not in self.flying, "each token is a new one"
        self.flying[token] = {**dict.fromkeys(readable, "readable"), **dict.fromkeys(writable, "writable")}

    @rule(slots=st.lists(st.integers(-1, COUNT), min_size=1, max_size=COUNT))
    def add_many(self, slots: list[int]) -> None:
        tokens = array("Q", bytes(8 * len(slots)))
        numbers = array("q", [slot + self.pool.first for slot in slots])
        added = self.call(lambda: self.q.add_many(None, numbers, tokens), ValueError, virtio.QueueFullError) or 0
        assert not any(tokens[added:])
        for token, slot in zip(tokens[:added], slots, strict=False):
            assert token not in self.spent and token not in self.flying
            self.flying[token] = {slot: "writable"}

    @rule(again=st.booleans())
    def notify(self, again: bool) -> None:
        self.call(self.q.notify)
        if again:
            self.call(self.q.kick)

    @rule(times=st.integers(1, 3))
    def serve(self, times: int) -> None:
        """The device does some requests, if it sees them."""
        for _ in range(times):
            self.device.step()

    @rule(slots=st.sets(st.integers(0, COUNT - 1), min_size=1))
    def request(self, slots: set[int]) -> None:
        """One that the device sees, and may do at once."""
        self.add([], sorted(slots))
        self.notify(again=False)
        self.device.step()

    @rule(slots=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=5))
    def round_trips(self, slots: list[int]) -> None:
        for slot in slots:
            self.request({slot})
            self.take("get", 1)

    @rule(how=st.sampled_from(["pop", "get"]), times=st.integers(1, 4))
    def take(self, how: str, times: int) -> None:
        for _ in range(times):
            self.take_one(how)

    def take_one(self, how: str) -> None:
        self.reap(self.q.pop if how == "pop" else lambda: self.q.get(timeout=0))

    @rule(most=st.integers(1, 4))
    def take_many(self, most: int) -> None:
        tokens, written = array("Q", bytes(8 * most)), array("I", bytes(4 * most))
        count = 0

        def work() -> None:
            nonlocal count
            count = self.q.get_many(tokens, written, timeout=0)

        self.reap(work)  # type: ignore[arg-type]
        assert 0 <= count <= most and not any(tokens[count:])
        for token in tokens[:count]:
            self.ended(token)

    @precondition(lambda self: bool(self.flying))
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(self.flying)))
        self.reap(lambda: self.q.wait(token, timeout=0))

    @precondition(lambda self: bool(self.spent))
    @rule(data=st.data())
    def wait_for_what_is_over(self, data: st.DataObject) -> None:
        """Of this queue, or of one before it."""
        token = data.draw(st.sampled_from(sorted(self.spent)))
        with pytest.raises(virtio.VirtioError) as refused:
            self.q.wait(token, timeout=0)
        assert not self.honest or isinstance(refused.value, virtio.StaleTokenError)

    @rule(index=st.integers(0, COUNT - 1))
    def view(self, index: int) -> None:
        """A new view is writable, read-only or refused, as the buffer is idle or goes one way or the other."""
        ways = {way for buffers in self.flying.values() for at, way in buffers.items() if at == index}
        buf = self.pool[index]
        if "writable" in ways and buf.in_flight:
            with pytest.raises(BufferError):
                memoryview(buf)
            return
        view = memoryview(buf)
        assert view.nbytes == STRIDE and view.readonly == (ways == {"readable"} and buf.in_flight)
        self.views.append(view)

    @rule()
    def use_views(self) -> None:
        """Views stay memory, whatever becomes of the device."""
        for view in [*self.views, memoryview(self.pool).cast("B")]:
            if not view.readonly:
                view[-1] = 7
            assert len(bytes(view)) == view.nbytes

    @rule()
    def forget_views(self) -> None:
        self.views.clear()

    @precondition(lambda self: self.honest and len(self.spent) > 3)
    @rule(name=st.sampled_from(sorted(RING_LIES)))
    def lie_about_the_ring(self, name: str) -> None:
        self.honest = False
        self.device.tell(testing.Lie(name, **RING_LIES[name]))

    @precondition(lambda self: self.honest and len(self.spent) > 3)
    @rule(name=st.sampled_from(sorted(DEVICE_LIES)))
    def lie(self, name: str) -> None:
        self.honest = False
        self.device.tell(testing.Lie(name, **DEVICE_LIES[name]))

    def reset_device(self) -> None:
        if self.call(lambda: self.dev.reset() or True) is None:
            # Not confirmed: it must tell the truth to be reset.
            self.device.be_honest()
            self.dev.reset()
        self.device.be_honest()

    @rule(size=SIZES, lies=st.booleans())
    def reset(self, size: int, lies: bool = False) -> None:
        """What was in flight ends once, on the queue that it was on, and its buffers come home."""
        if not lies:
            self.device.be_honest()
        self.reset_device()
        if self.q is not None:
            self.end(self.q)
        assert self.pool.in_flight == 0 and not self.flying
        self.honest = True
        self.start(size)

    @precondition(lambda self: len(self.spent) > 3)
    @rule(name=st.sampled_from(sorted(DEVICE_LIES)), size=SIZES)
    def start_with_a_lie(self, name: str, size: int) -> None:
        self.reset(size)
        self.dev.reset()
        self.end(self.q)
        self.honest = False
        self.device.tell(testing.Lie(name, **DEVICE_LIES[name]))
        self.start(size)

    def end(self, q: virtio.Queue) -> None:
        """A queue whose device was reset gives what it has, once, and then says that it is over."""
        for _ in range(len(self.flying) + 1):
            try:
                used = q.pop()
                assert used is not None, "a queue that is over has something to say"
                self.ended(used.token)
            except virtio.IndeterminateError as error:
                self.ended(error.token or 0)
            except virtio.ClosedError:
                break
        with pytest.raises(virtio.ClosedError):
            q.pop()

    @rule(size=SIZES)
    def close_queue(self, size: int) -> None:
        """Before its device: what is in flight stays the device's until the reset, and is told of no more."""
        self.q.close()
        with pytest.raises(virtio.ClosedError):
            self.q.pop()
        self.spent |= set(self.flying)
        self.flying.clear()
        self.q = None
        self.reset(size)

    @rule(how=st.sampled_from(["device", "queue", "everything"]), size=SIZES)
    def forget(self, how: str, size: int) -> None:
        """Objects may go in any order."""
        if how != "device":
            self.q = None
            self.spent |= set(self.flying)
            self.flying.clear()
        if how == "queue":
            self.reset(size)
            return
        queue, self.q = self.q, None
        self.device.be_honest()
        self.dev.close()
        if queue is not None:
            with pytest.raises(virtio.ClosedError):
                queue.pop()
        self.spent |= set(self.flying)
        self.flying.clear()
        assert self.pool.in_flight == 0
        self.begin(size)

    @invariant()
    def buffers_are_where_the_model_says(self) -> None:
        if not hasattr(self, "pool"):
            return
        busy = {index for buffers in self.flying.values() for index in buffers}
        found = {index for index in range(COUNT) if self.pool[index].in_flight}
        # A lie may cost a buffer, until the reset; no lie gives one back that is in flight.
        assert found == busy if self.honest else found >= busy, (found, busy)

    @invariant()
    def the_driver_keeps_the_rules(self) -> None:
        if hasattr(self, "device"):
            self.device.check()

    def teardown(self) -> None:
        if hasattr(self, "dev"):
            self.device.be_honest()
            self.dev.close()
            assert self.pool.in_flight == 0
            self.device.close()


@pytest.mark.soak(run="Python, random walks over devices", unit="walks", usual=150, full=3000)
def test_random_walks_do_what_the_model_does(amount: int) -> None:
    profile = settings(
        max_examples=amount,
        stateful_step_count=100 if SOAKING else 40,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(World, settings=profile)
