"""Every block of code in the documents runs, and every example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import FEW_PLUGINS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is no code stands as text, and settings are not run.
OTHER = {"text", "toml", ""}
# Commands for a tree with the tools to build it: tools/doc-commands runs the README's; the others call what CI is made
# of, or measure.
NOT_HERE = {"README.md": {"sh"}, "docs/performance.md": {"sh"}, "docs/testing.md": {"sh"}, "docs/qemu.md": {"sh"}}


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    code: str


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [Block(text.count("\n", 0, m.start()) + 1, m[1], m[2]) for m in FENCE.finditer(text)]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


WITH_PYTHON = [doc for doc in DOCUMENTS if any(block.language == "python" for block in blocks(doc))]
WITH_CONSOLE = [doc for doc in DOCUMENTS if any(block.language == "console" for block in blocks(doc))]


# Their Rust is run by doc tests.
DOC_TESTS = re.findall(r'include_str!\("\.\./(\S+)"\)', (ROOT / "src" / "lib.rs").read_text())


def test_each_block_is_of_a_kind_that_something_runs() -> None:
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language.split(",")[0] == "rust":
                assert name(document) in DOC_TESTS, f"{name(document)}:{block.line}: src/lib.rs does not include it"
                continue
            allowed = OTHER | {"python", "console"} | NOT_HERE.get(name(document), set())
            assert block.language in allowed, f"{name(document)}:{block.line}: nothing runs {block.language}"


def test_settings_are_well_formed() -> None:
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language == "toml":
                assert tomllib.loads(block.code), f"{name(document)}:{block.line}"


@pytest.mark.parametrize("document", WITH_PYTHON, ids=name)
def test_python_in_documents_runs(document: Path, tmp_path: Path) -> None:
    """The blocks of a document are one program, in their order; test functions in it are run by pytest."""
    # Lines keep their numbers, so that a traceback leads to the document.
    lines: list[str] = []
    for block in blocks(document):
        if block.language == "python":
            lines += [""] * (block.line - len(lines)) + block.code.splitlines()
    program = tmp_path / "test_document.py"
    program.write_text("\n".join(lines) + "\n")
    compile(program.read_text(), name(document), "exec")
    done = subprocess.run(
        [sys.executable, "-W", "error", program], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, f"{name(document)}\n{done.stdout}\n{done.stderr}"
    if re.search(r"^def test_", program.read_text(), re.MULTILINE):
        words = [sys.executable, "-m", "pytest", "-q", *FEW_PLUGINS, program]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, f"{name(document)}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("document", WITH_CONSOLE, ids=name)
def test_commands_in_documents_run(document: Path, tmp_path: Path) -> None:
    """Lines that begin with a dollar are commands that succeed."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    commands = [
        line.removeprefix("$ ")
        for block in blocks(document)
        if block.language == "console"
        for line in block.code.splitlines()
        if line.startswith("$ ")
    ]
    assert commands
    for command in commands:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100,
        )
        assert done.returncode == 0, f"{name(document)}: {command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    ("example", "arguments", "text"),
    [
        ("find.py", [], ""),
        ("find.py", ["block"], ""),
        ("entropy_by_hand.py", ["soft:entropy?transport=mmio-legacy"], "EVENT_IDX"),
        ("asyncio_entropy.py", ["soft:entropy", "8"], "51200 bytes to 8 tasks"),
        ("numpy_cache.py", ["8M"], "8M written and read"),
    ],
)
def test_examples_run(example: str, arguments: list[str], text: str) -> None:
    program = ROOT / "examples" / "python" / example
    done = subprocess.run(
        [sys.executable, "-W", "error", program, *arguments], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert text in done.stdout


def test_every_example_is_run() -> None:
    source = Path(__file__).read_text()
    for program in sorted((ROOT / "examples" / "python").glob("*.py")):
        assert f'"{program.name}"' in source


def test_the_docstring_of_the_package_runs() -> None:
    code = textwrap.dedent("""
        import doctest, sys
        import virtio
        from virtio import testing
        results = [doctest.testmod(module) for module in (virtio, testing)]
        assert all(result.attempted for result in results)
        sys.exit(sum(result.failed for result in results))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
