# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers told by their control groups."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import containers

ID = "3f1c2ab90d5e" + "0" * 52


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"/system.slice/docker-{ID}.scope", "docker 3f1c2ab90d5e"),
        (f"/docker/{ID}/init.scope", "docker 3f1c2ab90d5e"),
        (f"/machine.slice/libpod-{ID}.scope/container", "podman 3f1c2ab90d5e"),
        (f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope", "cri-containerd 3f1c2ab90d5e"),
        (f"/some/engine/{ID}", "container 3f1c2ab90d5e"),
        ("/lxc.payload.ai/ns/system.slice/ollama.service", "lxc ai"),
        ("/lxc/101/ns/init.scope", "lxc 101"),
        ("/machine.slice/systemd-nspawn@ai.service/payload/system.slice/ollama.service", "systemd-nspawn ai"),
        ("/machine.slice/machine-ai\\x2dlab.scope/payload", "machine ai-lab"),
        ("/system.slice/ollama.service/payload", "systemd-nspawn ollama.service"),
        (
            "/user.slice/u.slice/user@7.service/app.slice/app-flatpak-com.jeffser.Alpaca-77.scope",
            "flatpak com.jeffser.Alpaca",
        ),
        (
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
            "podman 3f1c2ab90d5e",
        ),
        ("/system.slice/snap.ollama.listener.service", None),
        ("/machine.slice", None),
        ("/system.slice/ollama.service", None),
        ("/system.slice/docker.service", None),
        (f"/user.slice/{ID}0", None),
    ],
)
def test_a_container_is_told_by_its_path(path: str, container: str | None) -> None:
    assert containers.container_of(path) == container
