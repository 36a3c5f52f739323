"""The command `virtio`. Here are its arguments and exit codes; each command is a module of its own, read when used."""

from __future__ import annotations

import argparse
import io
import os
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from errno import EBADF
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

DONE, BAD, USAGE, NOT_FOUND, FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130

CODES = """\
exit codes:
  0    done, and all is well
  1    done, and the answer is no: data that is wrong, devices that differ, something in the way
  2    the command line or an address is wrong
  3    nothing is at the address
  4    the device, or the operating system, refused or failed
  130  interrupted
"""

TRANSPORTS = ("pci-modern", "pci-transitional", "pci-legacy", "mmio", "mmio-legacy")
MODES = ("one", "batch", "asyncio")


def _size(text: str) -> int:
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    digits, shift = (text[:-1], units[text[-1:].upper()]) if text[-1:].upper() in units else (text, 0)
    try:
        return int(digits, 0) << shift
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no size, such as 4096, 64M or 1G") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    # What is measured in no time, or in one without an end, is no figure.
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time in seconds, such as 0.5 or 10")
    return seconds


class _Parser(argparse.ArgumentParser):
    """Each has an epilogue of examples, and the same options at its end."""

    def __init__(self, *, examples: str = "", **kwargs: object) -> None:
        text = f"examples:\n{examples}\n" if examples else ""
        super().__init__(
            epilog=text + CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,  # type: ignore[arg-type]
        )


def _group(commands: argparse._SubParsersAction[_Parser], name: str, help: str, examples: str) -> _Parser:
    indented = "".join(f"  {line}\n" for line in examples.splitlines())
    return commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", examples=indented)


def _command(commands: argparse._SubParsersAction[_Parser], name: str, help: str, examples: str) -> _Parser:
    command = _group(commands, name, help, examples)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    return command


def _block(commands: argparse._SubParsersAction[_Parser]) -> None:
    block = _group(
        commands, "block", "read, write or measure a block device",
        "virtio block read 'soft:block?path=disk.img' -o copy.img\nvirtio block bench soft:block\n"
        "virtio block VERB --help",
    )
    verbs = block.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)

    read = _command(
        verbs, "read", "copy a block device, or a part of it, to a file or standard output",
        "virtio block read 'soft:block?path=disk.img' -o copy.img\nvirtio block read soft:block --length 512 | xxd",
    )
    write = _command(
        verbs, "write", "copy a file, or standard input, to a block device, and flush it",
        "virtio block write 'soft:block?path=disk.img' image\nhead -c 1M /dev/urandom | virtio block write soft:block -",
    )
    bench = _command(
        verbs, "bench", "measure reads of a block device, at random places",
        "virtio block bench 'soft:block?size=64M'\n"
        "virtio block bench soft:block --mode batch --depth 128 --seconds 5 --json\n"
        "virtio block bench vhost-user:/run/a.sock vhost-user:/run/b.sock",
    )
    for verb in (read, write, bench):
        several = {"nargs": "+", "metavar": "address"} if verb is bench else {}
        more = "; several are measured in turns and shown side by side" if verb is bench else ""
        verb.add_argument("address", help=f"the device, such as soft:block?path=disk.img{more}", **several)  # type: ignore[arg-type]
        verb.add_argument("--timeout", type=float, default=30.0, metavar="S", help="for each answer (30)")
    for verb in (read, write):
        verb.add_argument("--offset", type=_size, default=0, metavar="N", help="where to begin in the device, in bytes")
        verb.add_argument("--length", type=_size, metavar="N", help="how many bytes; all there is, unless told")
        verb.add_argument("--progress", action="store_true", help="show the progress when it is no terminal, too")
        verb.set_defaults(module="block")
    read.add_argument("-o", "--output", default="-", metavar="FILE", help="where to; standard output unless told")
    write.add_argument("input", help="the file, or - for standard input")
    bench.add_argument("--mode", action="append", choices=MODES, help="one at a time, batches, asyncio; all unless told")
    bench.add_argument("--seconds", type=_seconds, default=2.0, metavar="S", help="for each mode (2)")
    bench.add_argument("--block-size", type=_size, default=4096, metavar="N", help="bytes of each read (4096)")
    bench.add_argument("--depth", type=int, default=32, metavar="N", help="reads in flight at a time (32)")
    bench.set_defaults(module="block")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="virtio",
        description="Find, inspect and use VirtIO devices from user space.",
        examples="  virtio ls\n  virtio info soft:block\n  virtio demo\n  virtio doctor\n  virtio COMMAND --help\n",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    ls = _command(
        commands, "ls", "list the devices of this machine, without privileges, or those of a QEMU machine",
        "virtio ls\nvirtio ls --type block --json\nvirtio ls 'qtest:/tmp/q.sock?ram=/dev/shm/ram'",
    )
    ls.add_argument("address", nargs="?", help="a QEMU machine, qtest:SOCKET?ram=FILE; this machine unless told")
    ls.add_argument("--type", help="devices of this type only, by name or number: block, net, 4")
    ls.add_argument("--driver", help="those only that this kernel driver has; none for those without")
    ls.set_defaults(module="ls")

    info = _command(
        commands, "info", "show a device: features, configuration, queues, status",
        "virtio info soft:block\nvirtio info 'soft:entropy?transport=mmio-legacy' --json",
    )
    info.add_argument("address", help="the device; it is reset, and must not be in use")
    info.set_defaults(module="info")

    diff = _command(
        commands, "diff", "show what two devices have not in common; exit code 1 where they differ",
        "virtio diff soft:block 'soft:block?transport=pci-legacy'",
    )
    diff.add_argument("a", help="a device")
    diff.add_argument("b", help="another")
    diff.set_defaults(module="info")

    doctor = _command(
        commands, "doctor", "look for what stands in the way of user-space drivers here, and say what mends it",
        "virtio doctor\nvirtio doctor --json",
    )
    doctor.set_defaults(module="doctor")

    _block(commands)

    demo = _command(
        commands, "demo", "read and write a block device through the whole stack, check the data, measure",
        "virtio demo\nvirtio demo --transport mmio-legacy\nvirtio demo --vhost-user\nvirtio demo --json 2>/dev/null",
    )
    which = demo.add_mutually_exclusive_group()
    which.add_argument("--transport", choices=TRANSPORTS, default=TRANSPORTS[0], help="register interface (pci-modern)")
    which.add_argument(
        "--vhost-user", action="store_true",
        help="the device is a qemu-storage-daemon's, started for it, behind a Unix socket",
    )
    demo.add_argument("--size", type=_size, default=64 << 20, metavar="N", help="size of the image (64M)")
    demo.add_argument("--seconds", type=_seconds, default=0.5, metavar="S", help="for each row of the table (0.5)")
    demo.add_argument("--progress", action="store_true", help="show the progress when it is no terminal, too")
    demo.set_defaults(module="demo")
    return parser


class _Closed(io.StringIO):
    """The standard output of who has none: it takes nothing."""

    def write(self, _text: object) -> int:
        raise OSError(EBADF, os.strerror(EBADF))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; answers its exit code."""
    with ExitStack() as stack:
        # One that was closed before the start is None, for which print() says nothing, or says it on the other.
        if sys.stdout is None:
            stack.enter_context(redirect_stdout(_Closed()))
        if sys.stderr is None:
            stack.enter_context(redirect_stderr(io.StringIO()))
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else USAGE
    if args.command is None and not args.version:
        parser.print_help(sys.stderr)
        return USAGE
    return _run(args)


def _version() -> int:
    from virtio import __version__

    print(f"virtio {__version__}")
    return DONE


def _run(args: argparse.Namespace) -> int:
    from virtio import DeviceNotFoundError

    try:
        code: int = _version() if args.version else import_module(f"virtio.cli.{args.module}").run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough.
        _drop_output()
        return FAILED
    except DeviceNotFoundError as error:
        return _fail(args, error, NOT_FOUND)
    except ValueError as error:
        return _fail(args, error, USAGE)
    except OSError as error:
        return _fail(args, error, FAILED)


def _drop_output() -> None:
    """Nothing can be written any more. What is buffered must not fail again at the exit."""
    if not isinstance(sys.stdout, _Closed):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(args: argparse.Namespace, error: Exception, code: int) -> int:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    print(f"virtio: {text}", file=sys.stderr)
    if getattr(args, "json", False):
        import json

        told = {"type": type(error).__name__, "errno": getattr(error, "errno", None), "message": text}
        try:
            print(json.dumps({"error": told}), flush=True)
        except OSError:
            _drop_output()
    return code
