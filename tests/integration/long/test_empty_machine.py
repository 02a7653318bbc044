# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From `git clone` to the first pass on a machine that has nothing but Debian, git, sudo and a user.

The machine is a container, in which the demo starts another one. EMPTY_MACHINE names the release (bookworm).
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import lab_script

ROOT = Path(__file__).resolve().parents[3]
SUITE = os.environ.get("EMPTY_MACHINE", "bookworm")
MACHINE = os.environ.get("LAB_PREFIX", "") + "empty-machine"
IMAGE = f"localhost/{MACHINE}:{SUITE}"
# What this machine's surroundings ask of any other machine in its place: where packages are, and who vouches for it.
SURROUNDINGS = ("PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "http_proxy", "https_proxy", "no_proxy")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
STEP = re.compile(r"(?:===|==|lab:) (.*)")


@pytest.fixture(scope="module")
def machine() -> Iterator[list[str]]:
    """The command that runs another on the machine, as its user."""
    lab = lab_script.load()
    # Beside the engine's own storage, which overlays cannot lie in.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as work:
        system = f"{work}/{SUITE}.tar"
        packages = "--include=git,ca-certificates,sudo"
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", packages, SUITE, system], check=True)
        lab.engine("import", system, IMAGE)
        os.unlink(system)
        subprocess.run(["git", "clone", "--quiet", "--bare", "--no-hardlinks", ROOT, f"{work}/repository"], check=True)
        os.mkdir(f"{work}/containers")
        options = [
            "--privileged", *lab.limit_options(), *(f"--env={name}" for name in SURROUNDINGS if name in os.environ),
            f"--volume={work}/containers:/var/lib/containers", f"--volume={work}/repository:/srv/repository:ro",
        ]  # fmt: skip
        if CERTIFICATES.exists():
            options.append(f"--volume={CERTIFICATES}:{CERTIFICATES}:ro")
        lab.engine("rm", "--force", "--time", "0", MACHINE, check=False)
        lab.engine("run", "--detach", "--name", MACHINE, *options, IMAGE, "sleep", "infinity")
        try:
            lab.engine(
                "exec", MACHINE, "bash", "-c",
                "useradd --create-home --shell /bin/bash someone; git config --system --add safe.directory '*';"
                "echo 'someone ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/someone",
            )  # fmt: skip
            yield [*lab.engine_command(), "exec", "--user=someone", "--env=HOME=/home/someone", MACHINE, "bash", "-c"]
        finally:
            lab.engine("rm", "--force", "--time", "0", MACHINE)
            lab.engine("rmi", "--force", IMAGE)


def received_mib(machine: list[str]) -> int:
    counter = [*machine, "cat /sys/class/net/eth0/statistics/rx_bytes"]
    return int(subprocess.run(counter, check=True, capture_output=True, text=True).stdout) >> 20


def test_the_demo_on_a_machine_that_has_nothing(machine: list[str]) -> None:
    start, load, said, steps, first_pass = time.monotonic(), os.getloadavg()[0], [], [], 0.0
    command = [*machine, "cd && git clone --quiet file:///srv/repository it && cd it && exec ./script/demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout
        for line in demo.stdout:
            said.append(line)
            passed = time.monotonic() - start
            if step := STEP.match(line):
                steps.append(f"{passed:4.0f} s  {step[1]}")
            if not first_pass and re.match(r"gpu01 .* PASS ", line):
                first_pass = passed
    assert demo.returncode == 0, "".join(said[-60:])
    assert first_pass
    print("", *steps, sep="\n")
    print(
        f"figure: Debian {SUITE} with nothing but git and sudo: first pass {first_pass:.0f} s after git clone, "
        f"end of the demo {time.monotonic() - start:.0f} s, {received_mib(machine)} MiB received, "
        f"load of this machine {load:.1f} before and {os.getloadavg()[0]:.1f} after on {os.cpu_count()} cores"
    )


def test_the_quick_stages_there(machine: list[str]) -> None:
    done = subprocess.run([*machine, "cd ~/it && ./script/test yamllint ruff unit"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "stages: 3 passed, 0 failed" in done.stdout
