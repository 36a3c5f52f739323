"""What an import does, and does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path


def program(text: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_import_opens_nothing_and_starts_no_thread() -> None:
    said = program("""
        import os, sys
        def held():
            numbers = os.listdir("/proc/self/fd")
            return {n: os.readlink(f"/proc/self/fd/{n}") for n in numbers if os.path.exists(f"/proc/self/fd/{n}")}
        opened = []
        before, children = held(), os.listdir("/proc/self/task")
        sys.addaudithook(lambda event, args: opened.append((event, args)) if event in WATCHED else None)
        WATCHED = {"socket.__new__", "socket.connect", "subprocess.Popen", "os.system", "_thread.start_new_thread"}
        import virtio, virtio.testing
        assert held() == before, (held(), before)
        assert os.listdir("/proc/self/task") == children
        assert not opened, opened
        # What only some programs need is imported by those.
        heavy = {"asyncio", "numpy", "rich", "argparse", "json", "subprocess", "socket", "threading"} & set(sys.modules)
        assert not heavy, heavy
        print("nothing")
    """)
    assert said == "nothing\n"


def test_an_import_takes_nothing_along_that_is_slow_to_import() -> None:
    """Python's enum alone takes longer than all of the package: who asks for a name gets it then."""
    said = program("""
        import sys
        before = set(sys.modules)
        import virtio
        new = {name.partition(".")[0] for name in set(sys.modules) - before} - {"__future__", "virtio"}
        assert not new, new
        assert set(virtio.__all__) <= set(dir(virtio))
        names = [getattr(virtio, name) for name in virtio.__all__]
        assert virtio.Feature is virtio.Feature and virtio.block.Feature.MQ and "enum" in sys.modules
        try:
            virtio.nothing
        except AttributeError as error:
            print(error)
    """)
    assert said == "module 'virtio' has no attribute 'nothing'\n"


def test_the_module_is_declared_to_need_no_lock_of_the_interpreter() -> None:
    """Ordinary builds ignore it, and an abi3 wheel is none for others yet: the source is what can be looked at."""
    source = (Path(__file__).parents[2] / "src" / "python" / "mod.rs").read_text()
    assert "#[pymodule(gil_used = false)]" in source
