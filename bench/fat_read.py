"""What the read of a host costs before it reads: the bytes that Ansible sends, and the processor time of its imports.

    PYTHONPATH=.collections python3 bench/fat_read.py [COMMIT]

This tree, and where a commit is given that one beside it in the same run, as ratios. Imports are without bytecode, as
on a host, and with ansible-core's own.
"""

from __future__ import annotations

import base64
import io
import os
import re
import resource
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULE = "selo.gpu_memory.gpu_memory_info"
IMPORT = "import ansible_collections.selo.gpu_memory.plugins.modules.gpu_memory_info"
RUNS = 15


def payload(tree: Path) -> tuple[int, int]:
    """Bytes of the module as sent, and how many files of the collection are in it."""
    code = f"from bench.fat_read import measure; measure({str(tree)!r})"
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tree / ".collections"), "PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=environment, check=True, capture_output=True, text=True
    )
    size, files = said.stdout.split()
    return int(size), int(files)


def measure(tree: str) -> None:
    from ansible.executor.module_common import modify_module
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader, module_loader
    from ansible.template import Templar

    init_plugin_loader()
    path = module_loader.find_plugin_with_context(MODULE).plugin_resolved_path
    assert path.startswith(tree)
    built = modify_module(
        module_name=MODULE,
        module_path=path,
        module_args={},
        templar=Templar(DataLoader(), {}),
        task_vars={"ansible_python_interpreter": "/usr/bin/python3"},
        module_compression="ZIP_DEFLATED",
    )
    (packed,) = re.findall(rb"[A-Za-z0-9+/=]{2000,}", built.b_module_data)
    names = zipfile.ZipFile(io.BytesIO(base64.b64decode(packed))).namelist()
    print(len(built.b_module_data), sum("/selo/" in name for name in names))


def import_s(tree: Path) -> float:
    """Processor time of a Python that imports the module."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {"PYTHONPATH": str(tree / ".collections"), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", IMPORT], cwd=tree, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def copy_of(tree: str, commit: str | None, into: str) -> Path:
    """The files of a commit, or without one those of this tree that git knows; no bytecode is among them."""

    def git(*words: str) -> bytes:
        return subprocess.run(["git", *words], cwd=tree, check=True, capture_output=True).stdout

    content = git("archive", commit or git("stash", "create").decode().strip() or "HEAD")
    subprocess.run(["tar", "--extract", "--directory", into], input=content, check=True)
    return Path(into)


def main() -> None:
    commits = [None, *sys.argv[1:2]]
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        trees = [copy_of(str(ROOT), commit, into) for commit, into in zip(commits, (here, there))]
        sizes = [payload(tree) for tree in trees]
        times = [[] for _tree in trees]
        for _run in range(RUNS):
            for tree, of in zip(trees, times):
                of.append(import_s(tree))
        for commit, (size, files), of in zip(commits, sizes, times):
            print(f"{commit or 'this tree'}: {size} bytes with {files} files of ours, imports {min(of) * 1000:.0f} ms")
        if len(trees) > 1:
            print(
                f"ratio: {sizes[0][0] / sizes[1][0]:.3f} of the bytes, {min(times[0]) / min(times[1]):.3f} of the time"
            )


if __name__ == "__main__":
    main()
