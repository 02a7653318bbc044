# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A URL that HTTP can ask, taken apart. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Url:
    """What to connect to, what to ask for, and what may be shown of it: never a user, a password or a query."""

    scheme: str
    host: str
    port: int | None
    path: str
    shown: str


def parse(text: str) -> Url:
    """ValueError, without the text itself, if it is none that can be asked."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as problem:
        raise ValueError(f"not a URL: {problem}") from None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("not a URL: it must start with http:// or https:// and name a host")
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(parts.scheme, host, port, path, f"{parts.scheme}://{place}{parts.path}")
