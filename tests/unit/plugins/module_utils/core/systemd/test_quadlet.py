# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a unit that Podman makes of a `.container` file says of the container."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import quadlet, unit_text

FILE = "/etc/containers/systemd/ollama.container"
# As Podman 5.4 writes it.
GENERATED = (
    "[Service]\nEnvironment=PODMAN_SYSTEMD_UNIT=%n\nExecStop=/usr/bin/podman rm -v -f -i --cidfile=%t/%N.cid\n"
    "ExecStart=/usr/bin/podman run --name systemd-%N --cidfile=%t/%N.cid --replace --rm --cgroups=split "
    '--sdnotify=conmon -d -v ollama:/root/.ollama --publish 11434:11434 --env "A=a b" --env B=x%%y --env F= '
    "--env-file /etc/containers/systemd/rel.env --env=OLLAMA_NUM_PARALLEL=3 localhost/ollama:lab\n"
)


@pytest.mark.parametrize(
    ("fragment", "source", "is_one"),
    [
        ("/run/systemd/generator/ollama.service", FILE, True),
        ("/run/systemd/generator/ollama.service", "/usr/share/containers/systemd/x.container", True),
        ("/run/systemd/generator.late/ollama.service", "/etc/init.d/ollama", False),
        ("/run/systemd/generator/pod.service", "/etc/containers/systemd/x.pod", False),
        ("/run/systemd/generator/o@1.service", "/etc/containers/systemd/o@.container", False),
        ("/etc/systemd/system/ollama.service", FILE, False),  # SourcePath= is for anybody to write
        ("/run/user/1000/systemd/generator/ollama.service", FILE, False),
        (None, None, False),
    ],
)
def test_a_quadlet_is_known_by_its_generator(fragment: str | None, source: str | None, is_one: bool) -> None:
    found = quadlet.file_of({"FragmentPath": fragment, "SourcePath": source})
    assert found == (source if is_one else None)


def test_where_drop_ins_are() -> None:
    assert quadlet.drop_in("/usr/share/containers/systemd/a/llm.container") == (
        "/etc/containers/systemd/llm.container.d/zz-gpu-memory.conf"
    )
    assert quadlet.drop_in_directories("/x/my-big-llm.container") == [
        "my-big-llm.container.d", "my-big-.container.d", "my-.container.d", "container.d",
    ]  # fmt: skip


def test_the_command_is_read_as_systemd_reads_it() -> None:
    found = quadlet.command([GENERATED], "ollama.service")
    assert found.environment == {"A": "a b", "B": "x%y", "F": "", "OLLAMA_NUM_PARALLEL": "3"}
    assert (found.env_files, found.name) == (["/etc/containers/systemd/rel.env"], "systemd-ollama")


def test_a_drop_in_of_the_unit_may_have_another_command() -> None:
    other = "[Service]\nExecStart=\nExecStart=/usr/bin/podman run --name=o-%i --env C=1 x\n"
    assert quadlet.command([GENERATED, other], "ollama.service") == ("/usr/bin/podman", {"C": "1"}, [], None)
    assert quadlet.command([GENERATED, "[Container]\nExecStart=x\n"], "ollama.service").name == "systemd-ollama"
    assert quadlet.command([], "ollama.service") == ("", {}, [], None)


def test_what_arguments_set_stands_behind_all_else() -> None:
    texts = ["[Container]\nPodmanArgs=--pid=host --env A=1\n", "[Container]\nPodmanArgs=--env=B=2 --env C\n"]
    assert quadlet.environment_by_args([*texts, "[Service]\nPodmanArgs=--env D=1\n"]) == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("words", "driver"),
    [
        ("-l journald", "journald"),
        ("-l k8s-file:/x -l journald", "journald"),
        ("-l k8s-file:/x", "k8s-file:/x"),
        ("", "none"),
    ],
)
def test_where_a_container_logs_to(words: str, driver: str) -> None:
    assert quadlet.log_driver(["/usr/bin/conmon", "-n", "ollama", *words.split()]) == driver


def test_what_we_write_is_what_podman_gives_the_container() -> None:
    written = unit_text.render_dropin({"A": 'a "b"', "B": "50% of $HOME"}, section="Container")
    assert written.splitlines()[1] == "[Container]"
    assert unit_text.parse_environment_directives(written) == {}
    assert unit_text.parse_environment_directives(written, "Container") == {"A": 'a "b"', "B": "50% of $HOME"}
    assert '"B=50%% of $$HOME"' in written
    in_command = written.replace("Environment=", "ExecStart=podman run --env ").replace("[Container]", "[Service]")
    assert quadlet.command([in_command], "ollama.service").environment == {"B": "50% of $HOME"}
    assert unit_text.as_we_write(written, {"A", "B"}, "Container") == ["A", "B"]
