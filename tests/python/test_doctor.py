"""`virtio doctor`, on copies of a machine's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from virtio.cli import doctor, main


def machine(tmp_path: Path, **changes: Any) -> doctor.Machine:
    """A machine where nothing is in the way: one device, which vfio-pci has, in group 3."""
    place = "0000:00:04.0"
    for directory in (
        "sys/class/iommu/dmar0",
        "sys/kernel/iommu_groups/3/devices",
        f"sys/bus/pci/devices/{place}",
        "sys/bus/pci/drivers/vfio-pci",
        "sys/bus/pci/drivers/e1000",
        "proc/self",
        "proc/sys/vm",
        "dev/vfio",
    ):
        (tmp_path / directory).mkdir(parents=True, exist_ok=True)
    (tmp_path / "sys/kernel/iommu_groups/3/devices" / place).mkdir(exist_ok=True)
    for name in ("dev/vfio/vfio", "dev/vfio/3"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o666)
    link = tmp_path / f"sys/bus/pci/devices/{place}"
    if not (link / "driver").exists():
        (link / "driver").symlink_to(tmp_path / "sys/bus/pci/drivers/vfio-pci")
        (link / "iommu_group").symlink_to(tmp_path / "sys/kernel/iommu_groups/3")
    (tmp_path / "proc/self/status").write_text("CapEff:\t0000000000000000\n")
    (tmp_path / "proc/sys/vm/nr_hugepages").write_text("0\n")
    usual: dict[str, Any] = {
        "root": tmp_path,
        "uid": 54321,
        "groups": (54321,),
        "memlock": 1 << 30,
        "devices": ((place, "block", "vfio-pci"),),
    }
    return doctor.Machine(**{**usual, **changes})


def problems(machine: doctor.Machine) -> dict[str, doctor.Finding]:
    return {found.what: found for found in doctor.examine(machine) if found.state == "problem"}


def test_doctor_is_content_where_nothing_is_in_the_way(tmp_path: Path) -> None:
    assert problems(machine(tmp_path)) == {}


def test_doctor_finds_each_obstacle_and_names_the_command(tmp_path: Path) -> None:
    healthy = machine(tmp_path)
    (tmp_path / "dev/vfio/3").chmod(0o600)
    found = problems(healthy)["0000:00:04.0 (block)"]
    assert found.mend == [f"sudo chown {healthy.user()} /dev/vfio/3"] and "600" in found.found
    (tmp_path / "dev/vfio/3").chmod(0o666)

    (tmp_path / "dev/vfio/vfio").chmod(0o600)
    assert "chmod 666" in problems(healthy)["/dev/vfio/vfio"].mend[0]
    (tmp_path / "dev/vfio/vfio").unlink()
    assert problems(healthy)["/dev/vfio/vfio"].found == "it is missing"
    machine(tmp_path)

    short = problems(machine(tmp_path, memlock=8 << 20))["locked memory"]
    assert "8 MiB" in short.found and any("limits.d" in line for line in short.mend)
    (tmp_path / "proc/self/status").write_text(f"CapEff:\t{1 << doctor.CAP_IPC_LOCK:016x}\n")
    assert "locked memory" not in {found.what for found in doctor.examine(healthy) if found.state == "problem"}

    neighbour = tmp_path / "sys/kernel/iommu_groups/3/devices/0000:00:05.0"
    neighbour.mkdir()
    (tmp_path / "sys/bus/pci/devices/0000:00:05.0").mkdir()
    (tmp_path / "sys/bus/pci/devices/0000:00:05.0/driver").symlink_to(tmp_path / "sys/bus/pci/drivers/e1000")
    shared = problems(machine(tmp_path))["0000:00:04.0 (block)"]
    assert "shared with 0000:00:05.0" in shared.found and "unbind" in shared.mend[0]

    (tmp_path / "sys/class/iommu/dmar0").rmdir()
    assert any("modprobe vfio enable_unsafe_noiommu_mode=1" in line for line in problems(healthy)["IOMMU"].mend)
    (tmp_path / "sys/bus/pci/drivers/vfio-pci").rmdir()
    assert problems(healthy)["driver vfio-pci"].mend == ["sudo modprobe vfio-pci"]


def test_doctor_tells_who_has_a_device_and_how_it_changes_hands(tmp_path: Path) -> None:
    held = machine(tmp_path, devices=(("0000:00:02.0", "net", "virtio-pci"), ("0000:00:03.0", "rng", None)))
    found = {finding.what: finding for finding in doctor.examine(held)}
    has = found["0000:00:02.0 (net)"]
    assert "virtio-pci has it" in has.found
    assert [line.split("/")[-1] for line in has.mend if not line.startswith("#")] == [
        "driver_override",
        "unbind",
        "drivers_probe",
    ]
    assert not any("unbind" in line for line in found["0000:00:03.0 (rng)"].mend)


def test_doctor_says_by_its_code_whether_anything_is_in_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    told = json.loads(capsys.readouterr()[0])
    assert (code == 0) == told["ok"]
    assert {finding["state"] for finding in told["findings"]} <= {"ok", "note", "problem"}
    assert main(["doctor"]) == code
    assert "in the way" in capsys.readouterr()[0]
