"""The command `virtio`: what it prints, where, and with which exit code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import virtio
from virtio import testing
from virtio.cli import _parser, info, main
from virtio.cli.output import size


def run(
    capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0
) -> tuple[str, str]:
    """Runs the command in this process; answers standard output and error."""
    got = main([str(word) for word in arguments])
    out, err = capsys.readouterr()
    assert got == code, f"exit code {got}\n{out}\n{err}"
    return out, err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    return json.loads(run(capsys, *arguments, "--json", code=code)[0])


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Runs the command as a process of its own."""
    words = [sys.executable, "-m", "virtio", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, timeout=60, **options)


def test_the_entry_point_and_python_m_are_the_same() -> None:
    script = Path(sys.executable).with_name("virtio")
    direct = subprocess.run([script, "--version"], capture_output=True, timeout=60)
    assert direct.stdout == command("--version").stdout == f"virtio {virtio.__version__}\n".encode()


@pytest.mark.parametrize(
    "words",
    [[], ["ls"], ["info"], ["diff"], ["doctor"], ["block"], ["block", "read"], ["block", "write"], ["block", "bench"], ["demo"]],
)
def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    out, _ = run(capsys, *words, "--help")
    shown, _, codes = out.partition("examples:\n")[2].partition("\n\nexit codes:\n")
    assert codes and shown
    for line in shown.splitlines():
        assert "virtio " in line
        # What a shell would take for a pattern is quoted.
        assert "?" not in re.sub("'[^']*'", "", line), line
        for part in line.partition("2>")[0].split(" | "):
            program, *rest = shlex.split(part)
            if program != "virtio":
                assert program in ("head", "xxd"), line
            elif not {"COMMAND", "VERB"} & {*rest}:
                _parser().parse_args(rest)


def test_help_needs_nothing_but_argparse() -> None:
    """`virtio --help` opens nothing and reads no module of a command."""
    code = "import sys; from virtio.cli import main; main(['--help']); print(sorted(m for m in sys.modules if m.startswith('virtio.')), 'json' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    last = done.stdout.splitlines()[-1]
    assert not any(f"virtio.cli.{name}" in last for name in ("ls", "info", "doctor", "block", "demo"))
    assert last.endswith("False")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, "usage: virtio"),
        (["fly"], 2, "invalid choice"),
        (["info", "nonsense"], 2, "an address begins with its scheme"),
        (["info", ""], 2, "bad address"),
        (["info", "soft:nothing"], 3, "there is no device"),
        (["info", "pci:0000:ff:1f.7"], 3, "there is no device"),
        (["info", "soft:block?path=/nonexistent"], 4, "No such file"),
        (["ls", "--type", "teapot"], 2, "no device type is teapot; known are net, block"),
        (["demo", "--size", "5"], 2, "multiple of 4096"),
        (["demo", "--size", "many"], 2, "many is no size"),
        (["demo", "--seconds", "-1"], 2, "-1 is no time"),
        (["block", "bench", "soft:block", "--seconds", "nan"], 2, "nan is no time"),
        (["block", "bench", "soft:block", "--seconds", "inf"], 2, "inf is no time"),
        (["block", "bench", "soft:block", "--block-size", "7"], 2, "multiple of 512"),
        (["block", "read", "soft:block?size=1M", "--offset", "2M", "-o", "/dev/null"], 2, "--offset"),
        (["block", "read", "soft:block?size=1M", "--length", "2M", "-o", "/dev/null"], 2, "do not fit"),
        (["block", "write", "soft:block?readonly=on&size=1M", "/dev/null"], 4, "takes no writes"),
    ],
)
def test_what_goes_wrong_has_a_code_and_a_line(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, text: str
) -> None:
    out, err = run(capsys, *words, code=code)
    assert text in err and "Traceback" not in err
    assert not out


def test_errors_are_json_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    error = run_json(capsys, "info", "soft:nothing", code=3)["error"]
    assert error["type"] == "DeviceNotFoundError"
    assert error["errno"] > 0 and "nothing" in error["message"]
    error = run_json(capsys, "block", "read", "soft:block", code=2)["error"]
    assert (error["type"], error["errno"]) == ("ValueError", None) and "give -o FILE" in error["message"]


def test_ls_shows_what_find_finds(capsys: pytest.CaptureFixture[str]) -> None:
    found = list(virtio.find())
    devices = run_json(capsys, "ls")["devices"]
    assert [device["address"] for device in devices] == [device.address for device in found]
    out, _ = run(capsys, "ls")
    assert all(device.address in out for device in found)
    assert run_json(capsys, "ls", "--type", "4242")["devices"] == []
    assert "no virtio device was found" in run(capsys, "ls", "--driver", "nobody's")[0]
    blocks = [device.address for device in found if device.type == virtio.DeviceType.BLOCK]
    assert [device["address"] for device in run_json(capsys, "ls", "--type", "block")["devices"]] == blocks


@pytest.mark.parametrize("transport", testing.TRANSPORTS)
@pytest.mark.parametrize("kind", ["block", "entropy", "net", "console"])
def test_info_names_features_configuration_queues_and_status(
    capsys: pytest.CaptureFixture[str], kind: str, transport: str
) -> None:
    device = testing.device(kind, transport=transport)  # type: ignore[arg-type]
    with device as address:
        shown = run_json(capsys, "info", address)
        out, _ = run(capsys, "info", address)
    assert shown["type"] == kind and shown["opened"]
    legacy = transport in ("pci-legacy", "mmio-legacy")
    assert shown["legacy"] == legacy
    features = {feature["name"]: feature for feature in shown["features"]}
    assert features["EVENT_IDX"]["accepted"]
    assert ("VERSION_1" in features) == (not legacy)
    assert {"ACKNOWLEDGE", "DRIVER"} <= set(shown["status"])
    assert shown["queues"][0]["index"] == 0 and shown["queues"][0]["max_size"] > 0
    if kind == "block":
        assert shown["config"]["capacity"] == (64 << 20) // 512
        assert [queue["index"] for queue in shown["queues"]] == [0]
        assert "capacity" in out
    for feature in shown["features"]:
        assert feature["name"] in out
        assert feature["accepted"] or feature["why_not"]


def test_info_says_why_a_feature_is_not_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    packed = virtio.Feature.RING_PACKED | virtio.Feature.VERSION_1 | 1 << 100
    with testing.block(lies=[testing.Lie("offers", features=packed)], checked=False) as address:
        features = {f["name"]: f for f in run_json(capsys, "info", address)["features"]}
        out, _ = run(capsys, "info", address)
    for name in ("RING_PACKED", "bit 100"):
        assert features[name]["offered"] and not features[name]["accepted"]
        assert features[name]["why_not"] and features[name]["why_not"] in out


def test_info_of_a_device_that_the_kernel_has_is_sysfs_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Found:
        address, type, transport, driver = "pci:0000:00:09.0", virtio.DeviceType.BLOCK, "pci", "virtio-pci"

    child = tmp_path / "0000:00:09.0" / "virtio7"
    child.mkdir(parents=True)
    (child / "features").write_text("".join("1" if bit in (6, 9, 32) else "0" for bit in range(64)) + "\n")
    (child / "status").write_text("0x0000000f\n")
    monkeypatch.setattr(virtio, "find", lambda: iter([Found]))
    view = info.kernels_view("pci:0000:00:09.0", "because", tmp_path)
    assert view is not None
    assert [feature["name"] for feature in view["features"]] == ["BLK_SIZE", "FLUSH", "VERSION_1"]
    assert view["status"] == ["ACKNOWLEDGE", "DRIVER", "DRIVER_OK", "FEATURES_OK"]
    assert (view["opened"], view["why_not"]) == (False, "because")
    assert info.kernels_view("pci:0000:00:0a.0", "", tmp_path) is None


def test_diff_shows_each_difference_once_and_says_so_by_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = "soft:block?size=1M&queues=2", "soft:block?size=2M&event_idx=off"
    rows = {row["what"]: (row["a"], row["b"]) for row in run_json(capsys, "diff", a, b, code=1)["differences"]}
    assert rows["config capacity"] == (2048, 4096)
    assert rows["feature EVENT_IDX"] == ("accepted", None)
    assert rows["queue 1"][0] and rows["queue 1"][1] is None
    assert "feature VERSION_1" not in rows and "type" not in rows
    out, _ = run(capsys, "diff", a, b, code=1)
    assert "config capacity" in out
    assert run(capsys, "diff", a, a)[0] == "no difference\n"
    assert run_json(capsys, "diff", a, a)["differences"] == []


def test_block_write_and_read_give_back_the_bytes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = os.urandom(3_000_001)  # whole sectors, and a piece of one
    (tmp_path / "in").write_bytes(data)
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xee" * (4 << 20))
    address = f"soft:block?path={disk}"
    wrote = run_json(capsys, "block", "write", address, tmp_path / "in", "--offset", "513")
    assert (wrote["bytes"], wrote["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert disk.read_bytes() == b"\xee" * 513 + data + b"\xee" * ((4 << 20) - 513 - len(data))
    read = run_json(
        capsys, "block", "read", address, "--offset", 513, "--length", len(data), "-o", tmp_path / "out"
    )
    assert read["sha256"] == wrote["sha256"]
    assert (tmp_path / "out").read_bytes() == data


def test_block_read_and_write_are_filters_and_show_progress_on_standard_error(tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    done = command("block", "write", f"soft:block?path={disk}", "-", "--progress", input=data)
    assert done.returncode == 0 and b"100%" not in done.stdout and b"write" in done.stderr
    assert disk.read_bytes() == data
    done = command("block", "read", f"soft:block?path={disk}", "--progress")
    assert (done.returncode, done.stdout) == (0, data)
    assert b"100%" in done.stderr


def test_block_write_of_more_than_there_is_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(2 << 20))
    _, err = run(capsys, "block", "write", "soft:block?size=1M", tmp_path / "in", code=2)
    assert "the device is full" in err
    _, err = run(capsys, "block", "write", "soft:block?size=4M", tmp_path / "in", "--length", "3M", code=2)
    assert "ended after 2097152 bytes" in err


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    words = [sys.executable, "-m", "virtio", "block", "read", "soft:block"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(512) == bytes(512)
    process.stdout.close()
    assert process.wait(60) == 4
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize(
    "words", [["ls"], ["ls", "--json"], ["info", "soft:block"], ["info", "soft:block", "--json"], ["--version"]]
)
def test_an_output_that_cannot_be_written_is_a_failure_and_no_answer(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "virtio", *words], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (4, b"virtio: No space left on device\n")


def without(streams: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Runs the command with some of its standard streams closed, such as ">&- 2>&-"."""
    shell = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "virtio", *words]
    return subprocess.run(shell, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    "words", [["ls"], ["ls", "--json"], ["info", "soft:block", "--json"], ["block", "read", "soft:block"], ["--version"]]
)
def test_an_output_that_is_closed_is_one_that_cannot_be_written(words: list[str]) -> None:
    done = without(">&-", *words)
    assert (done.returncode, done.stderr) == (4, b"virtio: Bad file descriptor\n")
    assert without(">&- 2>&-", *words).returncode == 4


def test_who_writes_nothing_needs_no_output(tmp_path: Path) -> None:
    done = without(">&-", "block", "read", "soft:block?size=1M", "-o", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out").read_bytes() == bytes(1 << 20)


def test_nothing_but_results_is_on_standard_output_where_the_other_is_closed() -> None:
    words = ("block", "bench", "soft:block?size=1M", "--mode", "one", "--seconds", "0.01", "--json")
    done = without("2>&-", *words)
    assert done.returncode == 0 and json.loads(done.stdout)["results"]
    done = without("2>&-", "block", "read", "soft:block?size=1M", "--length", "512")
    assert (done.returncode, done.stdout) == (0, bytes(512))
    done = without("2>&-", "info", "soft:nothing")
    assert (done.returncode, done.stdout) == (3, b"")


def test_an_input_that_is_closed_is_told_of() -> None:
    done = without("<&-", "block", "write", "soft:block", "-")
    assert (done.returncode, done.stderr) == (4, b"virtio: standard input is closed\n")


def test_ctrl_c_ends_the_command_with_130() -> None:
    words = [sys.executable, "-m", "virtio", "block", "bench", "soft:block", "--mode", "one", "--seconds", "60"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None and process.stdout is not None
    assert b"measuring" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stderr.close()
    process.stdout.close()


def test_bench_measures_each_mode(capsys: pytest.CaptureFixture[str]) -> None:
    results = run_json(capsys, "block", "bench", "soft:block?size=1M", "--seconds", 0.05, "--depth", 4)["results"]
    assert [row["mode"] for row in results] == ["one", "batch", "asyncio"]
    for row in results:
        assert row["requests"] > 0 and row["iops"] > 0
        assert 0 < row["latency_us"]["median"] <= row["latency_us"]["p99"]
    out, err = run(capsys, "block", "bench", "soft:block?size=1M", "--seconds", 0.05, "--mode", "batch")
    assert "batches" in out and "asyncio" not in out and "measuring" in err


def test_bench_shows_no_figure_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """However short the time, and however long it takes to begin."""
    words = ("block", "bench", "soft:block?size=1M", "--seconds", 1e-9, "--depth", 64)
    for row in run_json(capsys, *words)["results"]:
        assert row["requests"] >= row["depth"] and row["latency_us"]["median"] > 0


def test_bench_shows_several_devices_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    addresses = ["soft:block?size=1M", "soft:block?size=2M"]
    with testing.vhost_user(null=True, size="1M") as socket:
        addresses.append(socket)
        words = ("block", "bench", *addresses, "--seconds", 0.05, "--mode", "one", "--mode", "batch")
        result = run_json(capsys, *words)
        assert result["addresses"] == addresses
        found = [(row["mode"], row["address"]) for row in result["results"]]
        assert found == [(mode, address) for mode in ("one", "batch") for address in addresses]
        assert all(row["iops"] > 0 for row in result["results"])
        out, err = run(capsys, *words)
    assert "TO THE FIRST" in out and all(out.count(address) == 2 for address in addresses)
    # In turns: each round has all of them.
    told = [line.rpartition(", ")[2] for line in err.splitlines() if line.startswith("measuring: one")]
    assert told == addresses * 3


def test_bench_of_several_devices_of_which_one_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    words, how = ("block", "bench", "soft:block?size=1M"), ("--seconds", 0.05, "--mode", "one")
    _, err = run(capsys, *words, "soft:nothing", *how, code=3)
    assert "soft:nothing: there is no device" in err
    _, err = run(capsys, *words, "soft:block?size=1M", *how, code=2)
    assert "not all different" in err


def test_bench_of_a_device_that_stalls_times_out(capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("one", "batch", "asyncio"):
        with testing.block(lies=["stalls"], checked=False) as address:
            words = ("block", "bench", address, "--mode", mode, "--seconds", 0.05, "--timeout", 0.1)
            _, err = run(capsys, *words, code=4)
            assert address in err


@pytest.mark.parametrize("transport", testing.TRANSPORTS)
def test_demo_is_right_over_each_interface_and_prints_one_object(transport: str) -> None:
    done = command("demo", "--transport", transport, "--size", "8M", "--seconds", "0.05", "--json", "--progress")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] and result["read_ok"] and result["write_ok"] and result["rule_broken"] is None
    assert result["sha256"]["image"] == result["sha256"]["read"]
    assert result["transport"] == transport and result["size"] == 8 << 20
    assert [row["mode"] for row in result["table"]] == ["one", "batch", "asyncio"]
    batch = result["table"][1]
    assert batch["kicks_saved"] > 0.9
    assert "EVENT_IDX" in [feature["name"] for feature in result["features"]]
    assert b"reading" in done.stderr and b"100%" in done.stderr and b"image" in done.stderr


def test_demo_drives_a_storage_daemon_and_leaves_none_behind(tmp_path: Path) -> None:
    arguments = ("demo", "--vhost-user", "--size", "8M", "--seconds", "0.05", "--json")
    done = command(*arguments, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] and result["read_ok"] and result["write_ok"] and result["transport"] == "vhost-user"
    assert result["sha256"]["image"] == result["sha256"]["read"]
    assert [row["mode"] for row in result["table"]] == ["one", "batch", "asyncio"]
    assert result["table"][1]["kicks_saved"] > 0.9
    assert "EVENT_IDX" in [feature["name"] for feature in result["features"]]
    # Its socket and its image went with it.
    assert not list(tmp_path.iterdir()) and str(tmp_path).encode() in done.stderr
    for commands in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(tmp_path).encode() not in commands.read_bytes()
        except OSError:
            continue


def test_demo_names_the_package_of_a_storage_daemon_that_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    _, err = run(capsys, "demo", "--vhost-user", "--size", "1M", code=4)
    assert "apt install qemu-system-common" in err


def test_demo_shows_the_words_of_a_storage_daemon_that_ends_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    daemon = tmp_path / "qemu-storage-daemon"
    daemon.write_text("#!/bin/sh\necho no such driver >&2\nexit 1\n")
    daemon.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    _, err = run(capsys, "demo", "--vhost-user", "--size", "1M", code=4)
    assert "no such driver" in err


def test_demo_has_either_registers_or_a_socket(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = run(capsys, "demo", "--vhost-user", "--transport", "mmio", code=2)
    assert "not allowed with" in err


def test_demo_prints_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "demo", "--size", "1M", "--seconds", 0.05)
    for text in ("equal", "the file has it", "KICKS SAVED", "one at a time", "batches", "asyncio", "all data is right"):
        assert text in out
    assert "measuring" in err


def test_demo_fails_where_the_data_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from virtio.cli import demo

    real = demo._image

    def spoiled(path: Path, length: int) -> str:
        digest = real(path, length)
        with open(path, "r+b") as image:
            image.seek(length - 1)
            last = image.read(1)
            image.seek(length - 1)
            image.write(bytes([last[0] ^ 1]))
        return digest

    monkeypatch.setattr(demo, "_image", spoiled)
    result = run_json(capsys, "demo", "--size", "1M", "--seconds", 0.02, code=1)
    assert not result["ok"] and not result["read_ok"] and result["write_ok"]
    out, _ = run(capsys, "demo", "--size", "1M", "--seconds", 0.02, code=1)
    assert "WRONG" in out


def test_demo_leaves_no_file_behind(tmp_path: Path) -> None:
    done = command("demo", "--size", "1M", "--seconds", "0.02", env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_tables_on_a_terminal_hold_the_same_with_and_without_rich() -> None:
    """rich is used where it is; what is told does not depend on it."""
    assert importlib.util.find_spec("rich"), "the tests' requirements have it"
    texts = []
    for hide in ("", "sys.modules['rich.console'] = None; "):
        code = f"import sys; {hide}from virtio.cli import main; sys.exit(main(['info', 'soft:block?size=1M']))"
        parent, child = pty.openpty()
        env = {**os.environ, "TERM": "dumb", "COLUMNS": "120"}
        process = subprocess.Popen([sys.executable, "-c", code], stdout=child, env=env)
        os.close(child)
        text = b""
        try:
            while piece := os.read(parent, 65536):
                text += piece
        except OSError:
            pass  # so a terminal ends
        os.close(parent)
        assert process.wait(30) == 0
        texts.append([line.split() for line in text.decode().splitlines()])
    assert texts[0] == texts[1]
    assert ["capacity", "2048"] in texts[0]


def test_sizes_for_people() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1536, 64 << 20, 3 << 40)] == [
        "0 B", "1023 B", "1 KiB", "1.5 KiB", "64 MiB", "3.0 TiB"
    ]
