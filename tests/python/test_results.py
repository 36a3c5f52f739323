"""Results: the objects that a queue gives, and gives again once they were let go of."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import virtio

Running = tuple[virtio.Device, virtio.Queue]
Way = Callable[[virtio.Queue, int], virtio.Used | None]

WAYS: dict[str, Way] = {
    "get": lambda q, token: q.get(timeout=5),
    "pop": lambda q, token: q.pop(),
    "wait": lambda q, token: q.wait(token, timeout=5),
}


def request(running: Running, size: int, way: Way) -> tuple[int, virtio.Used]:
    dev, q = running
    token = q.add(writable=[dev.alloc(size)])
    q.notify()
    used = way(q, token)
    assert used is not None
    return token, used


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_result_that_is_kept_never_changes(entropy: Running, way: Way) -> None:
    kept = [request(entropy, size, way) for size in range(1, 9)]
    # Those in between were let go of, and their objects may be given again: these not.
    for size in range(20, 40):
        request(entropy, size, way)
    assert [(used.token, used.written) for _, used in kept] == [(token, size) for size, (token, _) in enumerate(kept, 1)]
    assert len({id(used) for _, used in kept}) == len(kept)


def test_a_result_in_a_set_or_behind_an_attribute_is_kept_as_well(entropy: Running) -> None:
    _, first = request(entropy, 3, WAYS["get"])
    words, known = repr(first), {first}
    ask = first.__repr__
    del first
    for _ in range(5):
        _, other = request(entropy, 7, WAYS["get"])
        assert other not in known
    assert ask() == words and repr(known.pop()) == words


def test_equal_results_are_equal_and_hash_alike(entropy: Running) -> None:
    (_, one), (_, two) = (request(entropy, 4, WAYS["get"]) for _ in range(2))
    assert one == one and hash(one) == hash(one)
    assert one != two, "another token"


def test_results_that_were_let_go_of_are_given_again(entropy: Running) -> None:
    seen = set()
    for _ in range(50):
        _, used = request(entropy, 4, WAYS["get"])
        seen.add(id(used))
    assert len(seen) <= 2


def test_results_of_one_queue_are_not_those_of_another() -> None:
    with (
        virtio.open("soft:entropy?run=inline") as one,
        virtio.open("soft:entropy?run=inline") as other,
    ):
        runs = []
        for dev in (one, other):
            dev.negotiate()
            runs.append((dev, dev.queue(0)))
            dev.start()
        _, first = request(runs[0], 3, WAYS["get"])
        for _ in range(4):
            request(runs[1], 9, WAYS["get"])
        assert first.written == 3
        with runs[0][1], runs[1][1]:
            pass


def test_threads_that_share_a_queue_keep_their_results(entropy: Running) -> None:
    dev, q = entropy
    pool = dev.pool(4, 64)
    wrong: list[virtio.Used] = []

    def work(mine: int) -> None:
        last: virtio.Used | None = None
        for _ in range(2_000):
            token = q.add(writable=[pool[mine]])
            q.notify()
            before = None if last is None else (last.token, hash(last))
            used = q.wait(token, timeout=5)
            if used.token != token or before is not None and last is not None and before != (last.token, hash(last)):
                wrong.append(used)
            last = used

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
