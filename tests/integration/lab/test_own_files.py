# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that is seen being created on a host, by an apply, tune and the monitor, is in the list that `remove` goes by."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import translate
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import own_files, state
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor import installation

from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import ANSWERS, BACKEND, DROP_IN, Host, playbook

# The kernel tells of each name that is made or moved in a directory, also of those that come up meanwhile; but not in
# what other programs keep for themselves: the journal, the state of systemd and sudo, the lab, what Python compiles.
LEFT_OUT = (
    r"/(proc|sys|dev|usr/(bin|lib|share|sbin|include)|var/(log|cache)|run/(log|systemd|sudo|user|utmp.*|simulated-gpu)|"
    r"var/lib/(systemd|dpkg|apt)|opt/gpu-memory-lab|opt/fault)(/|$)|__pycache__"
)
WATCH = f"""
import ctypes, os, re, struct
libc = ctypes.CDLL(None, use_errno=True)
IN_MOVED_TO, IN_CREATE, IN_ONLYDIR = 0x80, 0x100, 0x01000000
handle, places, left_out = libc.inotify_init(), {{}}, re.compile({LEFT_OUT!r})
seen = open("/dev/shm/seen", "w")

def told(path):
    seen.write(path + "\\n")
    seen.flush()

def watch(top, is_new):
    if left_out.search(top) or os.path.islink(top):
        return
    number = libc.inotify_add_watch(handle, top.encode(), IN_MOVED_TO | IN_CREATE | IN_ONLYDIR)
    if number < 0:
        if ctypes.get_errno() == 28:
            raise SystemExit("too many directories to watch")
        return
    places[number] = top
    try:
        names = os.listdir(top)
    except OSError:
        return
    for name in names:
        path = os.path.join(top, name)
        if is_new:
            told(path)
        if os.path.isdir(path):
            watch(path, is_new)

watch("/", False)
told("watching")
while True:
    events, at = os.read(handle, 65536), 0
    while at < len(events):
        number, mask, _cookie, length = struct.unpack_from("iIII", events, at)
        name = events[at + 16 : at + 16 + length].rstrip(b"\\0").decode(errors="replace")
        at += 16 + length
        if number < 0:
            told("events were lost")
        path = os.path.join(places.get(number, "?"), name)
        if not left_out.search(path):
            told(path)
            watch(path, True)
"""
FILES = r"find / -xdev \( -path /proc -o -path /sys \) -prune -o -print 2>/dev/null | sort; find /run | sort"

PLACES = state.Paths()
OURS = [*own_files.present(PLACES), PLACES.command, *(os.path.join(PLACES.run, name) for name in state.OF_JOBS)]
OF_THE_MONITOR = installation.everything(installation.Places())
ASKED_FOR = [DROP_IN, os.path.dirname(DROP_IN), f"{BACKEND}/.env*"]
# Of the login, of Ansible, of systemd for any unit that starts, and of Python, which tries where temporary files go.
OF_OTHERS = (
    r"/tmp/[a-z0-9_]{8}|"
    r"/(home/\w+|root)/\.(ansible|cache)(/.*)?|/(dev/shm|tmp)/(ansible|watch|seen).*|/var/tmp/systemd.*|"
    r"/tmp/systemd-(private|analyze|temporary)-.*|/run/sshd.*|/(var/)?run/(nologin|credentials|lock)(/.*)?"
)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    lab = os.environ.get("LAB_NAME", "own-files-test")
    fault_lab.lab("up", "1", name=lab)
    yield Host("gpu01", lab)
    fault_lab.lab("down", name=lab)


def run(host: Host, directory: Path, name: str, *arguments: str, **variables: object) -> str:
    started = playbook(host, directory, name, *arguments, **variables)
    output, _ = started.communicate(timeout=600)
    assert started.returncode == 0, output
    return output


def unknown(paths: set[str], known: list[str]) -> list[str]:
    """Without what lies below something known, or is the new file beside it until that is whole."""
    whole = re.compile("|".join(rf"(?:{translate(one)[:-2]})(?:/.*)?" for one in known) + f"|{OF_OTHERS}")
    new = re.compile(r"(.*/)\.([^/]*)\.[0-9a-f]{16}\.gpu-memory")
    seen = (path for path in paths if not re.search(LEFT_OUT, path))
    return sorted(path for path in seen if not whole.fullmatch(new.sub(r"\1\2", path)))


def test_what_is_created_is_known_and_goes(host: Host, tmp_path: Path) -> None:
    host.wait_until(ANSWERS, 60)
    run(host, tmp_path, "playbooks/remove.yml")  # what the first login of a user and Ansible itself leave is not ours
    before = set(host.read(FILES).splitlines())
    host.read(
        f"cat > /dev/shm/watch.py <<'END'\n{WATCH}\nEND\nsystemd-run --quiet --unit=watch python3 /dev/shm/watch.py"
    )
    host.wait_until("grep -qx watching /dev/shm/seen", 60)
    for name, variables in (
        ("apply-stable.yml", {}),
        ("playbooks/tune.yml", {"gpu_memory_tune_max_probes": 1}),
        ("playbooks/monitor.yml", {}),
    ):
        run(host, tmp_path, name, **variables)
    created = set(host.read("systemctl is-active watch >&2; cat /dev/shm/seen").splitlines()) - {"watching"}
    assert "\n".join(unknown(created, [*OURS, *OF_THE_MONITOR, *ASKED_FOR])) == ""
    for path in (DROP_IN, PLACES.tool, PLACES.lease, f"{PLACES.run}/gpu-memory-verify.", PLACES.jobs):
        assert any(one.startswith(path) for one in created), f"{path} was not seen"

    run(host, tmp_path, "playbooks/remove.yml")
    host.read("systemctl stop watch; rm /dev/shm/seen /dev/shm/watch.py")
    assert "\n".join(unknown(set(host.read(FILES).splitlines()) - before, [])) == ""
