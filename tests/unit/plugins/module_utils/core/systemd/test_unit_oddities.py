# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd does not read, told without a value."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_oddities


@pytest.mark.parametrize(
    ("text", "problem", "cure"),
    [
        ("Environment=A=1", "stands above every section", "write [Service] above it"),
        ("[Unit]\nEnvironment=A=1", "stands in [Unit]", "move it below [Service]"),
        ("[service]\nEnvironment=A=1", "stands in [service]", "move it below [Service]"),
        ("[Service]\nenvironment=A=1", "environment= is no directive", "write Environment="),
        ("[Service]\nEnvironment=OLLAMA_DEBUG = hunter2", "Environment= for OLLAMA_DEBUG", 'write Environment="OLLAMA'),
        ("[Service]\nEnvironment=OLLAMA_DEBUG= hunter2", "Environment= for OLLAMA_DEBUG", "without blanks"),
        ("[Service]\nEnvironment=export OLLAMA_DEBUG=hunter2", "Environment= for OLLAMA_DEBUG", "without blanks"),
        ("[Service]\nEnvironment=hunter2", "Environment= for a variable", 'write Environment="NAME=value"'),
        ("[Service]\nEnvironment=hunter2-x A=1", "Environment= for a variable", 'write Environment="NAME=value"'),
        ("[Service]\nEnvironment=A=1 hunter2", "Environment= for A", 'write Environment="A=value"'),
        ('[Service]\nEnvironmentFile="/etc/hunter2"', "a path in quotes", "EnvironmentFile=/the/path"),
        ("[Service]\nEnvironmentFile=hunter2", "that is not absolute", "EnvironmentFile=/the/path"),
    ],
)
def test_a_line_that_sets_nothing_is_told(text: str, problem: str, cure: str) -> None:
    ((told, how),) = unit_oddities.in_unit_file(text)
    assert problem in told and cure in how and "hunter2" not in told + how


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[Service]\nEnvironment=A=1 B=2\nEnvironment=\nEnvironment=\"A=with blanks\" 'B=x'\nEnvironmentFile=\n",
        "[Service]\nEnvironmentFile=-/etc/default/ollama\nEnvironmentFile=%h/env\nEnvironment=A=\n",
        "[Unit]\nDescription=environment=1\n# Environment=A = 1\n[Service]\nExecStart=/bin/env A=1\n",
    ],
)
def test_what_systemd_reads_is_left_alone(text: str) -> None:
    assert list(unit_oddities.in_unit_file(text)) == []


def test_files_for_shells() -> None:
    text = "export OLLAMA_DEBUG=1\n OLLAMA_HOST = x\nTOKEN=hunter2\nCUDA_VISIBLE_DEVICES=0\n#OLLAMA_NOPRUNE=1\n"
    assert unit_oddities.names_set_in(text)[:2] == ["OLLAMA_DEBUG", "OLLAMA_HOST"]
    assert "TOKEN" not in unit_oddities.names_set_in(text)
    ((problem, _cure),) = unit_oddities.in_environment_file(text)
    assert "(OLLAMA_DEBUG)" in problem
    assert list(unit_oddities.in_environment_file("A=1\n")) == []


def test_names_of_drop_ins() -> None:
    assert unit_oddities.of_name("local")
    assert not any(unit_oddities.of_name(name) for name in ("a.conf", "a.conf.bak", ".a.swp"))


@pytest.mark.parametrize(
    ("text", "problem", "cure"),
    [
        ("[Service]\nEnvironment=OLLAMA_DEBUG=1", "does not reach the container", "move it below [Container]"),
        ("Environment=OLLAMA_DEBUG=1", "stands above every section", "write [Container] above it"),
    ],
)
def test_a_line_of_a_quadlet_that_sets_nothing_is_told(text: str, problem: str, cure: str) -> None:
    ((told, how),) = unit_oddities.in_unit_file(text, "Container")
    assert problem in told and cure in how
    assert list(unit_oddities.in_unit_file("[Container]\nEnvironment=A=1\nEnvironmentFile=a.env", "Container")) == []


def test_what_is_set_for_podman_is_told() -> None:
    text = "[Service]\nEnvironment=OLLAMA_DEBUG=1 HTTPS_PROXY=x\n[Container]\nEnvironment=OLLAMA_HOST=x\n"
    ((told, how),) = unit_oddities.for_podman(text, "/x/ollama.container")
    assert told.startswith("OLLAMA_DEBUG is set here for Podman") and "[Container] of /x/ollama.container" in how
