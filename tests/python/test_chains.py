"""The sides of a chain: one buffer, a list of one, which go a short way, and everything else that gives buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest

import virtio

Running = tuple[virtio.Device, virtio.Queue]
Side = virtio.Buffer | Iterable[virtio.Buffer]
Shape = Callable[[virtio.Buffer], Side]


class OwnList(list[virtio.Buffer]):
    """A list that is another class."""


SHAPES: dict[str, Shape] = {
    "buffer": lambda buf: buf,
    "list": lambda buf: [buf],
    "tuple": lambda buf: (buf,),
    "generator": lambda buf: (one for one in [buf]),
    "own list": lambda buf: OwnList([buf]),
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def first(request: pytest.FixtureRequest) -> Shape:
    shape: Shape = request.param
    return shape


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def second(request: pytest.FixtureRequest) -> Shape:
    shape: Shape = request.param
    return shape


@pytest.fixture
def blank() -> Iterator[Running]:
    with virtio.open("soft:blank?run=inline") as dev:
        dev.negotiate()
        with dev.queue(0) as q:
            dev.start()
            yield dev, q


def test_every_shape_of_a_side_is_a_chain(blank: Running, first: Shape, second: Shape) -> None:
    dev, q = blank
    from_, to = dev.alloc(24), dev.alloc(100)
    assert q.transfer(first(from_), second(to), timeout=5) == 100
    assert q.transfer(writable=second(to), timeout=5) == 100
    assert q.transfer(first(from_), timeout=5) == 0
    assert q.transfer(first(from_), None, 5.0) == 0
    token = q.add(first(from_), second(to))
    assert from_.in_flight and to.in_flight
    q.notify()
    used = q.get(timeout=5)
    assert (used.token, used.written) == (token, 100) and not from_.in_flight and not to.in_flight


def test_sides_of_several_buffers_are_written_in_their_order(blank: Running) -> None:
    dev, q = blank
    parts = [dev.alloc(size) for size in (8, 16, 32)]
    assert q.transfer(parts[:1], parts[1:], timeout=5) == 48
    assert q.transfer(None, parts, timeout=5) == 56
    assert q.transfer(parts[:2], [parts[2]], timeout=5) == 32


def test_a_side_that_is_refused_leaves_no_buffer_in_flight(silent: Running, first: Shape) -> None:
    dev, q = silent
    free, busy = dev.alloc(8), dev.alloc(8)
    q.add(writable=[busy])
    for call in (q.add, q.transfer):
        with pytest.raises(ValueError, match="in flight"):
            call(first(free), [busy])
        with pytest.raises(ValueError, match="in flight"):
            call([busy], first(free))
        for wrong in (5, [5], (5,), "x"):
            with pytest.raises(TypeError):
                call(wrong, first(free))  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                call(first(free), wrong)  # type: ignore[arg-type]
        assert not free.in_flight
    assert busy.in_flight


def test_the_first_side_is_finished_before_the_second_is_taken(blank: Running) -> None:
    dev, q = blank
    request, answer = dev.alloc(4), dev.alloc(4)

    def parts() -> Iterator[virtio.Buffer]:
        memoryview(answer)[:] = bytes(4)
        yield request

    assert q.transfer(parts(), [answer], timeout=5) == 4


def test_before_the_start_a_transfer_adds_nothing_in_any_shape(first: Shape, second: Shape) -> None:
    with virtio.open("soft:blank?run=inline") as dev:
        dev.negotiate()
        from_, to = dev.alloc(8), dev.alloc(8)
        with dev.queue(0) as q:
            with pytest.raises(ValueError, match="started"):
                q.transfer(first(from_), second(to), timeout=1)
            assert not from_.in_flight and not to.in_flight
            dev.start()
            assert q.transfer([from_], [to], timeout=5) == 8 and q.pop() is None
