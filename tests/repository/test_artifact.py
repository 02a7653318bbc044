"""What is shipped is what a control node runs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {
    "CHANGELOG.rst", "CONTRIBUTING.md", "COPYING", "FILES.json", "MANIFEST.json", "README.md", "SECURITY.md",
    "changelogs", "docs", "meta", "playbooks", "plugins", "roles",
}  # fmt: skip


def test_the_artifact_holds_the_collection_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ansible", "galaxy", "collection", "build", "--output-path", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (artifact,) = tmp_path.iterdir()
    with tarfile.open(artifact) as archive:
        top = {name.partition("/")[0] for name in archive.getnames()}
    assert top == SHIPPED


def test_a_playbook_imports_another_by_its_file() -> None:
    """Galaxy's importer unpacks the collection under another name, where it does not find itself."""
    playbooks = list((ROOT / "playbooks").glob("*.yml"))
    assert playbooks
    assert [one.name for one in playbooks if "import_playbook: selo.gpu_memory" in one.read_text()] == []
