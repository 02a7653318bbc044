# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OLLAMA_HOST as Ollama reads it (envconfig/config.go). Pure."""

from __future__ import annotations

import ipaddress
import re

PORT = 11434
_PORTS = {"http": 80, "https": 443}
_WITH_PORT = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]*)):([^\[\]:]*)")  # net.SplitHostPort


def parse(value: str) -> tuple[str, int]:
    """Host and port; the host is empty where only a port is given, and has no brackets."""
    scheme, separator, rest = value.strip().strip("\"'").strip().partition("://")
    if not separator:
        scheme, rest = "", scheme
    default = _PORTS.get(scheme, PORT)
    address = rest.partition("/")[0].rpartition("@")[2]  # a user and a password are nobody's business
    found = _WITH_PORT.fullmatch(address)
    if found is None:
        return _canonical(address.strip("[]")) or "127.0.0.1", default
    host, port = found[1] or found[2] or "", found[3]
    valid = re.fullmatch(r"\+?\d{1,10}", port, re.ASCII) and int(port) <= 65535
    return host, int(port) if valid else default


def url_of_server(value: str) -> str:
    """Where a server with this OLLAMA_HOST answers on its own host: without TLS, whatever the scheme is."""
    host, port = parse(value)
    if not host or _unspecified(host):
        host = "127.0.0.1"  # of `::` too: Go then listens on both
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
