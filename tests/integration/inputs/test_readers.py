"""What a service on a real host is started with: systemd's own reading of many odd values, and bash's and Python's."""

from __future__ import annotations

import base64
import os
import random
import subprocess

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.text import fuzz

from tests.integration.inputs.real_lab import Host

VALUES = int(os.environ.get("FUZZ_VALUES", "2000"))
A_FILE = 200
HERE = "/opt/values"
UNIT = f"""[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /proc/self/environ > {HERE}/started-with'
"""


def sent(host: Host, files: dict[str, str]) -> None:
    """Put files on the host, byte for byte."""
    for path, text in files.items():
        command = [*host.command, "-c", f"mkdir -p {os.path.dirname(path)} && cat > {path}"]
        subprocess.run(command, input=dotenv.content_of(text), check=True)


def started_with(host: Host) -> dict[str, str]:
    host.read("systemctl daemon-reload && systemctl start values.service")
    raw = subprocess.run([*host.command, "-c", f"cat {HERE}/started-with"], capture_output=True, check=True).stdout
    pairs = (item.decode("utf-8", "surrogateescape").partition("=") for item in raw.split(b"\0") if item)
    return {name: value for name, _, value in pairs}


def test_every_value_arrives_exactly_in_a_service_and_nothing_else_does(host: Host) -> None:
    chance = random.Random(7)
    values = {f"K{number}": fuzz.value_of(chance) for number in range(VALUES)}
    sent(host, {"/etc/systemd/system/values.service": UNIT})
    host.read(f"mkdir -p {HERE}")
    plain = set(started_with(host))

    # In a drop-in, each on a line of its own.
    drop_in: dict[str, str] = {}
    for name, value in values.items():
        try:
            unit_text.render_dropin({name: value})
            drop_in[name] = value
        except unit_text.InvalidEnvironment as problem:
            assert str(problem).startswith(f"{name}: ")
    sent(host, {"/etc/systemd/system/values.service.d/values.conf": unit_text.render_dropin(drop_in)})
    found = started_with(host)
    assert {name: found.get(name) for name in drop_in} == drop_in
    assert set(found) - plain == set(drop_in)
    shown = unit_text.parse_show(host.read("systemctl show values.service --property Environment,ExecStart"))
    assert {name: shown["Environment"].get(name) for name in drop_in} == drop_in
    assert len(drop_in) > VALUES / 2

    # In env files that bash and python-dotenv read as well.
    readers = ["systemd", "bash", "python-dotenv"]
    in_files: dict[str, str] = {}
    for name, value in values.items():
        edit = dotenv.set_keys("", {name: value}, readers=readers)
        if edit.problems:
            assert [problem.startswith(f"{name}: ") for problem in edit.problems] == [True]
        else:
            in_files[name] = value
    names = list(in_files)
    parts = [names[at : at + A_FILE] for at in range(0, len(names), A_FILE)]
    files = {}
    for number, part in enumerate(parts):
        edit = dotenv.set_keys("", {name: in_files[name] for name in part}, readers=readers)
        assert edit.problems == []
        files[f"{HERE}/{number}.env"] = edit.text
    lines = "".join(f"EnvironmentFile={path}\n" for path in files)
    sent(host, {**files, "/etc/systemd/system/values.service.d/values.conf": f"[Service]\n{lines}"})
    found = started_with(host)
    assert {name: found.get(name) for name in in_files} == in_files
    assert set(found) - plain == set(in_files)
    sourced = host.read(
        f"cd {HERE}; printf 'set -a; for f in *.env; do . ./$f; done\\ncat /proc/self/environ | base64\\n' > all.bash\n"
        "env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8 bash all.bash"
    )
    assert host.run(f"ls {HERE}/ran /ran").returncode != 0, "a value was run"
    raw = base64.b64decode(sourced)
    pairs = (item.decode("utf-8", "surrogateescape").partition("=") for item in raw.split(b"\0") if item)
    environment = {name: value for name, _, value in pairs}
    assert {name: environment.get(name) for name in in_files} == in_files
    assert set(environment) - {"PATH", "LC_ALL", "PWD", "SHLVL", "_", "OLDPWD", "f"} == set(in_files)
    print(f"\nfigure: {VALUES} values: {len(drop_in)} exact in a drop-in, {len(in_files)} for three readers")
