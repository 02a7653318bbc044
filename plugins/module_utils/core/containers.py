# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which container a control group belongs to. Pure."""

from __future__ import annotations

import re

_ENGINES = ("docker", "libpod", "cri-containerd", "crio", "kubepods", "nerdctl", "containerd", "buildkit")
_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
# Those that carry a name: LXC, LXD and Incus; machines of systemd-machined, which nspawn makes; sandboxes of Flatpak.
_NAMED = (
    ("lxc", re.compile(r"/lxc\.payload\.([^/]+)")),
    ("lxc", re.compile(r"/lxc/([^/]+)")),
    ("systemd-nspawn", re.compile(r"/systemd-nspawn@([^/]+)\.service(?=/|$)")),
    ("machine", re.compile(r"/machine-([^/]+)\.scope(?=/|$)")),
    ("systemd-nspawn", re.compile(r"/([^/]+\.(?:service|scope))/payload(?=/|$)")),  # --keep-unit
    ("flatpak", re.compile(r"/app-flatpak-([^/]+)-\d+\.scope(?=/|$)")),
)
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


def container_of(path: str) -> str | None:
    """The container of a control group's path, from this host's root of control groups on, as `docker 3f1c2ab90d5e`."""
    path = path[:4096]
    found = _ID.search(path)
    if found:
        engine = next((name for name in _ENGINES if name in path), "container")
        return f"{'podman' if engine == 'libpod' else engine} {found[0][:12]}"
    for engine, pattern in _NAMED:
        named = pattern.search(path)
        if named:
            return f"{engine} {_ESCAPE.sub(lambda escaped: chr(int(escaped[1], 16)), named[1])}"
    return None
