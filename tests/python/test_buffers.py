"""Memory that a device reaches, as Python objects."""

from __future__ import annotations

import array
import ctypes
import fcntl
import gc
import io
import mmap
import os
import struct
from collections.abc import Iterable

import pytest

import virtio

np = pytest.importorskip("numpy")
Running = tuple[virtio.Device, virtio.Queue]


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def test_views_of_a_buffer_are_one_memory_and_no_copy(entropy: Running) -> None:
    dev, q = entropy
    buf = dev.alloc(64)
    view, numbers = memoryview(buf), np.frombuffer(buf, dtype=np.uint8)
    assert address(view) == numbers.ctypes.data
    written = q.transfer(writable=[buf], timeout=1)
    assert bytes(view[:written]) == numbers[:written].tobytes() != bytes(written)
    struct.pack_into("<Q", buf, 8, 0x0102030405060708)
    assert numbers[8:16].tolist() == [8, 7, 6, 5, 4, 3, 2, 1]
    assert io.BytesIO(b"readinto").readinto(buf) == 8
    assert bytes(view[:8]) == b"readinto" and len(buf) == 64


def test_a_pool_is_one_exporter_of_two_dimensions(entropy: Running) -> None:
    dev, q = entropy
    pool = dev.pool(8, 32)
    view = memoryview(pool)
    assert (view.shape, view.strides, view.format, view.readonly) == ((8, 32), (32, 1), "B", False)
    matrix = np.asarray(pool)
    assert matrix.shape == (8, 32) and matrix.ctypes.data == address(view.cast("B"))
    assert (len(pool), pool.count, pool.stride) == (8, 8, 32)
    q.transfer(writable=[pool[3]], timeout=1)
    assert matrix[3].any() and not matrix[[0, 1, 2, 4, 5, 6, 7]].any()
    assert pool[-1].slot == pool.first + 7
    for outside in (8, -9, 1 << 40):
        with pytest.raises(IndexError):
            pool[outside]


def test_a_device_writable_buffer_in_flight_gives_no_new_view(silent: Running) -> None:
    dev, q = silent
    pool = dev.pool(2, 16)
    before = memoryview(pool[0])
    q.add(writable=[pool[0]])
    with pytest.raises(BufferError, match="in flight"):
        memoryview(pool[0])
    with pytest.raises(BufferError):
        np.frombuffer(pool[0], dtype=np.uint8)
    # What was taken before, and the pool's own view, stay.
    before[0] = memoryview(pool)[1, 0] = 1
    memoryview(pool[1])
    dev.reset()
    assert not memoryview(pool[0]).readonly


def test_a_device_readable_buffer_in_flight_gives_views_to_read(silent: Running) -> None:
    dev, q = silent
    buf = dev.alloc(16)
    q.add(readable=[buf])
    view = memoryview(buf)
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    with pytest.raises((BufferError, TypeError)):
        io.BytesIO(b"x").readinto(buf)


def test_a_region_over_a_callers_memory_file_is_shared_with_the_device_and_others() -> None:
    fd = os.memfd_create("cache", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 1 << 20)
    cache = np.frombuffer(mmap.mmap(fd, 1 << 20), dtype=np.uint8).reshape(256, 4096)
    with virtio.Block("soft:block?size=4M") as disk:
        region = virtio.Region(fd)
        assert len(region) == 1 << 20
        pool = disk.pool(256, 4096, region=region)
        disk.pwrite(bytes(range(256)) * 16, 8192)
        disk.readinto(pool[5], 8192)
        assert cache[5].tobytes() == bytes(range(256)) * 16
        cache[6] = 6
        disk.pwrite(pool[6], 0)
        assert disk.pread(4096, 0) == b"\6" * 4096
        with pytest.raises(ValueError, match="in use"):
            disk.pool(1, 4096, region=region)
        assert os.fstat(pool.fileno()).st_ino == os.fstat(fd).st_ino and pool.fd_offset == 0
        # Sealed: nobody takes the memory away.
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 4096)
    os.close(fd)
    assert memoryview(region)[5 * 4096 + 7] == 7


def test_a_region_refuses_files_that_could_shrink(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "file")
    with open(path, "w+b") as file:
        file.truncate(8192)
        with pytest.raises(ValueError, match="sealed"):
            virtio.Region(file)
    for bad in (-1, 1 << 20):
        with pytest.raises((ValueError, OSError)):
            virtio.Region(bad)
    sealed = os.memfd_create("ro", os.MFD_ALLOW_SEALING)
    os.ftruncate(sealed, 4096)
    fcntl.fcntl(sealed, 1033, 8)  # F_ADD_SEALS, F_SEAL_WRITE
    with pytest.raises(ValueError, match="writing"):
        virtio.Region(sealed)
    with pytest.raises(ValueError):
        virtio.Region(sealed, offset=1 << 20, length=4096)
    os.close(sealed)


def test_a_pools_descriptor_maps_the_same_memory_elsewhere() -> None:
    with virtio.open("soft:entropy") as dev:
        pool = dev.pool(4, 4096)
        memoryview(pool)[2, 1] = 99
        size = os.fstat(pool.fileno()).st_size
        with mmap.mmap(pool.fileno(), size) as elsewhere:
            assert elsewhere[pool.fd_offset + 2 * 4096 + 1] == 99


def test_a_buffer_of_a_disk_is_read_and_written_without_a_copy() -> None:
    with virtio.Block("soft:block?size=1M") as disk:
        pool = disk.pool(2, 4096)
        matrix = np.asarray(pool)
        matrix[0] = 7
        assert disk.pwrite(pool[0], 4096) == 4096
        assert disk.readinto(pool[1], 4096) == 4096
        assert (matrix[1] == 7).all() and pool.in_flight == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\1" * 1024,
        bytearray(b"\1" * 1024),
        memoryview(b"\1" * 1024),
        array.array("I", [0x01010101] * 256),
        np.full((2, 512), 1, dtype=np.uint8),
        np.full(128, 0x0101010101010101, dtype=np.int64),
    ],
)
def test_any_buffer_can_be_written(data: object) -> None:
    with virtio.Block("soft:block?size=1M") as disk:
        assert disk.pwrite(data, 512) == 1024
        into = bytearray(1024)
        assert disk.readinto(into, 512) == 1024
        assert into == b"\1" * 1024
        other = np.zeros((4, 32), dtype=np.int64)
        disk.readinto(other, 512)
        assert (other == 0x0101010101010101).all()


def test_what_is_no_buffer_or_read_only_is_refused() -> None:
    with virtio.Block("soft:block?size=1M") as disk:
        with pytest.raises(TypeError):
            disk.pwrite("text", 0)
        with pytest.raises(ValueError, match="read-only"):
            disk.readinto(bytes(512), 0)
        for length, offset in ((100, 0), (512, 100)):
            with pytest.raises(ValueError, match="512"):
                disk.pread(length, offset)
        for length, offset in ((512, 1 << 20), (1 << 40, 0), (1024, (1 << 20) - 512)):
            with pytest.raises(ValueError, match="outside"):
                disk.pread(length, offset)


def test_a_pool_is_iterated_over_and_says_so(entropy: Running) -> None:
    dev, _ = entropy
    pool = dev.pool(5, 64)
    assert isinstance(pool, Iterable)
    assert [buf.slot for buf in pool] == list(range(pool.first, pool.first + 5))
    buffers = iter(pool)
    del pool
    gc.collect()
    assert len(list(buffers)) == 5 and next(buffers, None) is None
