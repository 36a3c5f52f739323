"""`virtio doctor`: what stands in the way of user-space drivers on this machine, and what mends it.

It looks, and changes nothing. Commands that it prints are for whoever has read them.
"""

from __future__ import annotations

import grp
import os
import platform
import pwd
import resource
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import virtio
from virtio.cli.output import print_json, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

NEEDED = 64 << 20
"""Locked memory that a driver with a few queues and buffers is content with, in bytes."""
CAP_IPC_LOCK = 14


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: Literal["ok", "note", "problem"]
    found: str
    mend: list[str] = field(default_factory=list)
    """Shell commands."""


@dataclass(frozen=True)
class Machine:
    """What is looked at: this machine, or a copy of its files."""

    root: Path = Path("/")
    uid: int = field(default_factory=os.getuid)
    groups: tuple[int, ...] = field(default_factory=lambda: tuple({os.getgid(), *os.getgroups()}))
    memlock: int = field(default_factory=lambda: resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
    devices: tuple[tuple[str, str, str | None], ...] = ()
    """PCI place, type and driver of each device."""

    def path(self, name: str) -> Path:
        return self.root / name

    def user(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def may_use(self, path: Path) -> bool:
        """Whether the user may read and write a file, by its mode."""
        found = path.stat()
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.groups else 0
        return self.uid == 0 or found.st_mode >> shift & 6 == 6

    def has_capability(self, number: int) -> bool:
        try:
            lines = self.path("proc/self/status").read_text().splitlines()
        except OSError:
            return False
        effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
        return bool(int(effective, 16) >> number & 1)


def this_machine() -> Machine:
    found = tuple(
        (info.address.removeprefix("pci:"), info.type.name.lower(), info.driver)
        for info in virtio.find(transport="pci")
    )
    return Machine(devices=found)


def _library() -> Iterator[Finding]:
    try:
        with virtio.Entropy("soft:entropy", timeout=5) as source:
            source.read(16)
        yield Finding("software devices", "ok", "soft: addresses open, and answer")
    except OSError as error:
        yield Finding("software devices", "problem", f"they do not work: {error}")
    opened = "it opens soft:, vhost-user: and qtest: addresses; what follows is for devices of this machine"
    yield Finding("this version", "note", opened)


def _iommu(machine: Machine) -> Iterator[Finding]:
    units = _names(machine.path("sys/class/iommu"))
    if units:
        yield Finding("IOMMU", "ok", f"{len(units)} in use: {', '.join(units[:4])}")
        return
    unsafe = machine.path("sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
    if _text(unsafe) in ("Y", "1"):
        yield Finding("IOMMU", "note", "none, but VFIO's mode without one is on: a device can write to all memory")
        return
    option = "amd_iommu=on" if "AuthenticAMD" in _text(machine.path("proc/cpuinfo")) else "intel_iommu=on"
    if platform.machine() not in ("x86_64", "i686"):
        option = "iommu.passthrough=0"
    mend = [
        f"""sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&{option} /' /etc/default/grub && sudo update-grub && sudo reboot""",
        "# or, on a machine where every device is trusted with all memory:",
        "sudo modprobe vfio enable_unsafe_noiommu_mode=1",
    ]
    yield Finding("IOMMU", "problem", "none is in use: VFIO gives no device away without one", mend)


def _vfio(machine: Machine) -> Iterator[Finding]:
    if machine.path("sys/bus/pci/drivers/vfio-pci").is_dir():
        yield Finding("driver vfio-pci", "ok", "it is loaded")
    else:
        yield Finding("driver vfio-pci", "problem", "it is not loaded", ["sudo modprobe vfio-pci"])
    node = machine.path("dev/vfio/vfio")
    if not node.exists():
        yield Finding("/dev/vfio/vfio", "problem", "it is missing", ["sudo modprobe vfio"])
    elif machine.may_use(node):
        yield Finding("/dev/vfio/vfio", "ok", "it can be opened")
    else:
        yield Finding("/dev/vfio/vfio", "problem", _refused(machine, node), ["sudo chmod 666 /dev/vfio/vfio"])


def _refused(machine: Machine, node: Path) -> str:
    found = node.stat()
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return f"{machine.user()} may not open it: mode {found.st_mode & 0o777:o}, group {group}"


def _device(machine: Machine, place: str, kind: str, driver: str | None) -> Iterator[Finding]:
    what, here = f"{place} ({kind})", f"/sys/bus/pci/devices/{place}"
    group = machine.path(f"{here[1:]}/iommu_group")
    if driver != "vfio-pci":
        holder = f"the kernel's driver {driver} has it" if driver else "no driver has it"
        mend = [f"echo vfio-pci | sudo tee {here}/driver_override"]
        if driver:
            mend = ["# what uses it on this machine stops working:", *mend]
            mend.append(f"echo {place} | sudo tee {here}/driver/unbind")
        mend.append(f"echo {place} | sudo tee /sys/bus/pci/drivers_probe")
        # Most are the machine's own, and in use: whether one is to be given away is not for us to say.
        yield Finding(what, "note", f"{holder}; a user-space driver needs vfio-pci", mend)
        return
    if not group.exists():
        yield Finding(what, "problem", "vfio-pci has it, but it is in no IOMMU group; see IOMMU")
        return
    number = group.resolve().name
    node = machine.path(f"dev/vfio/{number}")
    others = [
        member
        for member in _names(group / "devices")
        if member != place and _driver(machine, member) not in (None, "vfio-pci", "pci-stub", "pcieport")
    ]
    if others:
        found = f"its IOMMU group {number} is shared with {', '.join(others)}, which the kernel uses"
        mend = [f"echo {other} | sudo tee /sys/bus/pci/devices/{other}/driver/unbind" for other in others]
        yield Finding(what, "problem", found, mend)
    elif not node.exists():
        yield Finding(what, "problem", f"/dev/vfio/{number} is missing", ["sudo modprobe vfio-pci"])
    elif machine.may_use(node):
        yield Finding(what, "ok", f"vfio-pci has it, and /dev/vfio/{number} can be opened")
    else:
        mend = [f"sudo chown {machine.user()} /dev/vfio/{number}"]
        yield Finding(what, "problem", f"/dev/vfio/{number}: {_refused(machine, node)}", mend)


def _memory(machine: Machine) -> Iterator[Finding]:
    unlimited = machine.memlock in (resource.RLIM_INFINITY, -1)
    if unlimited or machine.has_capability(CAP_IPC_LOCK):
        yield Finding("locked memory", "ok", "no limit")
    elif machine.memlock >= NEEDED:
        yield Finding("locked memory", "ok", f"the limit is {size(machine.memlock)}")
    else:
        mend = [
            f"echo '{machine.user()} - memlock unlimited' | sudo tee /etc/security/limits.d/virtio.conf  # then log in anew",
            f"sudo prlimit --pid $$ --memlock={NEEDED}:{NEEDED}  # for this shell alone",
        ]
        found = f"the limit is {size(machine.memlock)}; memory for VFIO is locked, {size(NEEDED)} are a start"
        yield Finding("locked memory", "problem", found, mend)
    pages = _text(machine.path("proc/sys/vm/nr_hugepages")) or "0"
    yield Finding("huge pages", "ok" if pages != "0" else "note", f"{pages} are reserved; nothing here needs them")


def _groups(machine: Machine) -> Iterator[Finding]:
    if machine.uid == 0:
        yield Finding("user", "note", "root: files and limits stand in nobody's way, nor do they protect from mistakes")
        return
    wanted = [name for name in ("vfio", "kvm") if _group(name) is not None]
    lacking = [name for name in wanted if _group(name) not in machine.groups]
    mend = [f"sudo usermod -aG {','.join(lacking)} {machine.user()}  # then log in anew"] if lacking else []
    found = f"{machine.user()} is not in {', '.join(lacking)}" if lacking else f"{machine.user()}"
    yield Finding("user", "note" if lacking else "ok", found, mend)


def _group(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _driver(machine: Machine, place: str) -> str | None:
    link = machine.path(f"sys/bus/pci/devices/{place}/driver")
    return link.resolve().name if link.exists() else None


def examine(machine: Machine) -> Iterable[Finding]:
    """Everything that was looked at."""
    yield from _iommu(machine)
    yield from _vfio(machine)
    yield from _memory(machine)
    yield from _groups(machine)
    if not machine.devices:
        yield Finding("devices", "note", "no VirtIO device is on the PCI bus of this machine")
    for place, kind, driver in machine.devices:
        yield from _device(machine, place, kind, driver)


def run(args: argparse.Namespace) -> int:
    findings = [*_library(), *examine(this_machine())]
    problems = sum(finding.state == "problem" for finding in findings)
    if args.json:
        print_json({"ok": problems == 0, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            print(f"{finding.state:<8} {finding.what}: {finding.found}")
            for line in finding.mend:
                print(f"           {line if line.startswith('#') else '$ ' + line}")
        print(f"\n{problems} in the way" if problems else "\nnothing in the way")
    return 1 if problems else 0
