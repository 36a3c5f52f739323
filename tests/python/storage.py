"""A qemu-storage-daemon, started and ended by the tests themselves."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType


class StorageDaemon:
    """One daemon that exports one block device over vhost-user: an image file, or nothing but zeroes."""

    def __init__(self, place: Path, *, image: Path | None, queues: int = 1, throttle: int | None = None) -> None:
        self.socket = place / "vub.sock"
        self._command = ["qemu-storage-daemon"]
        if image is None:
            self._command += ["--blockdev", "driver=null-co,node-name=d,size=1073741824,read-zeroes=on"]
        else:
            self._command += ["--blockdev", f"driver=file,node-name=d,filename={image},discard=unmap"]
        node = "d"
        if throttle is not None:
            self._command[1:1] = ["--object", f"throttle-group,id=g,x-iops-total={throttle}"]
            self._command += ["--blockdev", "driver=throttle,node-name=t,throttle-group=g,file=d"]
            node = "t"
        self._command += [
            "--export",
            f"type=vhost-user-blk,id=e,node-name={node},addr.type=unix,addr.path={self.socket},"
            f"writable=on,num-queues={queues}",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"vhost-user:{self.socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        # A daemon that was killed leaves its socket, and nobody behind it.
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        """SIGSTOP: it does nothing until resume()."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> StorageDaemon:
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.kill()
