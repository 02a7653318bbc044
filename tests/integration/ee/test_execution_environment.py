"""ansible-builder makes an execution environment of the collection's own metadata; ansible-runner rolls out in it.

The base is made here, of packages and wheels: no image registry and no Galaxy is asked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.integration import lab_script, records

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent
LAB = "ee-test"
IMAGE = "localhost/gpu-memory-ee:test"
PYTHON_OF_THE_BASE = "3.11"
# Besides what the environment itself needs, what ansible-builder installs on the way.
WHEELS = ("ansible-core", "ansible-runner", "nvidia-ml-py", "pygal", "bindep", "pyyaml", "packaging")


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, "LAB_NAME": LAB, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def pins() -> dict[str, str]:
    """The versions in requirements*.txt; of ansible-core the one for the base's older Python."""
    texts = [(ROOT / name).read_text() for name in ("requirements.txt", "requirements-dev.txt")]
    return dict(reversed(re.findall(r"^([\w.-]+)==([^\s;]+)", "\n".join(texts), re.MULTILINE)))


@pytest.fixture(scope="module")
def lab() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_NAME", LAB)
        return lab_script.load()


@pytest.fixture(scope="module")
def host() -> Iterator[dict[str, str]]:
    """A lab host, as its inventory has it."""
    run("script/lab", "up", "1")
    run("script/lab", "reset", "gpu01")
    inventory = yaml.safe_load((ROOT / ".lab" / LAB / "inventory" / "hosts.yml").read_text())
    yield inventory["all"]["hosts"]["gpu01"]
    run("script/lab", "down")


@pytest.fixture(scope="module")
def containers_conf(lab: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What ansible-builder and ansible-runner cannot be told, since they call podman by themselves."""
    limits = [word for word in lab.limit_options() if word != "--ulimit"]
    runtime = '[engine]\nruntime = "runc"\n' if "runc" in lab.engine_command() else ""
    path = tmp_path_factory.mktemp("engine") / "containers.conf"
    path.write_text(f"{runtime}[containers]\ndefault_ulimits = {json.dumps(limits)}\n")
    return str(path)


@pytest.fixture(scope="module")
def image(lab: ModuleType, host: object, containers_conf: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    context = tmp_path_factory.mktemp("base")
    wanted = [f"{name}=={pins()[name]}" for name in WHEELS]
    run(
        sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:",
        "--python-version", PYTHON_OF_THE_BASE, "--dest", context / "wheels", *wanted,
    )  # fmt: skip
    options = ["--network=host", *(f"--ulimit={limit}" for limit in lab.limit_options() if limit != "--ulimit")]
    lab.engine(
        "build", "--quiet", *options, "--build-arg", f"BASE={lab.base_image()}", "--file", str(HERE / "Containerfile"),
        "--tag", "localhost/gpu-memory-ee-base:latest", str(context),
    )  # fmt: skip
    definition = tmp_path_factory.mktemp("definition")
    shutil.copy(HERE / "execution-environment.yml", definition)
    run(sys.executable, "-m", "ansible", "galaxy", "collection", "build", "--output-path", definition)
    next(definition.glob("*.tar.gz")).rename(definition / "selo-gpu_memory.tar.gz")
    run("ansible-builder", "build", "--container-runtime", lab.engine_name(), "--tag", IMAGE,
        "--extra-build-cli-args", " ".join(options), cwd=definition, CONTAINERS_CONF=containers_conf)  # fmt: skip
    return IMAGE


def test_a_rollout_in_the_execution_environment(
    lab: ModuleType, host: dict[str, str], image: str, containers_conf: str, tmp_path: Path
) -> None:
    shown = run(
        *lab.engine_command(), "run", "--rm", "--network=none", *lab.limit_options(), image,
        "bash", "-c", "ssh -V 2>&1; python3 -m pip list; ansible-galaxy collection list",
    )  # fmt: skip
    # All of it came along with the collection, by its own metadata.
    for came in ("OpenSSH", "nvidia-ml-py", "pygal", "selo.gpu_memory"):
        assert came in shown, came
    private = tmp_path / "private"
    state = ROOT / ".lab" / LAB
    for directory in ("inventory", "env", "project"):
        (private / directory).mkdir(parents=True)
    shutil.copy(state / "id_ed25519", private / "env" / "ssh_key")
    shutil.copy(state / "known_hosts", private / "inventory" / "known_hosts")
    variables = yaml.safe_load((ROOT / "inventories" / "lab" / "group_vars" / "all.yml").read_text()) | {
        "ansible_ssh_common_args": "-o UserKnownHostsFile=/runner/inventory/known_hosts -o StrictHostKeyChecking=yes",
        "gpu_memory_report_dir": "/runner/artifacts/report",
    }
    inventory = {"all": {"hosts": {"gpu01": host}, "vars": variables}}
    (private / "inventory" / "hosts.yml").write_text(yaml.safe_dump(inventory))
    # Podman as root maps no user, so that the directory is root's inside, too.
    options = [f"--network={lab.ENGINE_NAME}", "--user=root"]
    run(
        "ansible-runner", "run", private, "--playbook", "selo.gpu_memory.apply_stable", "--process-isolation",
        "--process-isolation-executable", lab.engine_name(), "--container-image", image,
        *(f"--container-option={option}" for option in options),
        CONTAINERS_CONF=containers_conf,
    )  # fmt: skip
    record = records.read(private / "artifacts" / "report" / "gpu01.json")
    assert (record["verdict"], record["peak_used_mib"]) == ("pass", 11690)
    page = (private / "artifacts" / "report" / "report.html").read_text()
    assert '"charts":true' in page
    print(
        f"figure: a rollout through ansible-runner in {image}: {record['verdict']}, peak {record['peak_used_mib']} MiB"
    )
