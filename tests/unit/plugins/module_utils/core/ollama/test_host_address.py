# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OLLAMA_HOST, in every form for which Ollama's own tests say what it means (envconfig/config_test.go)."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import host_address


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("", ("127.0.0.1", 11434)),
        ("1.2.3.4", ("1.2.3.4", 11434)),
        (":1234", ("", 1234)),
        ("1.2.3.4:1234", ("1.2.3.4", 1234)),
        ("example.com", ("example.com", 11434)),
        ("example.com:1234", ("example.com", 1234)),
        (":0", ("", 0)),
        (":66000", ("", 11434)),
        (":-1", ("", 11434)),
        ("[::1]", ("::1", 11434)),
        ("[::]", ("::", 11434)),
        ("::1", ("::1", 11434)),
        ("[::1]:1337", ("::1", 1337)),
        (" 1.2.3.4 ", ("1.2.3.4", 11434)),
        ('"1.2.3.4"', ("1.2.3.4", 11434)),
        (' " 1.2.3.4 " ', ("1.2.3.4", 11434)),
        ("'1.2.3.4'", ("1.2.3.4", 11434)),
        ("http://1.2.3.4", ("1.2.3.4", 80)),
        ("http://1.2.3.4:4321", ("1.2.3.4", 4321)),
        ("https://1.2.3.4", ("1.2.3.4", 443)),
        ("https://1.2.3.4:4321", ("1.2.3.4", 4321)),
        ("https://example.com/ollama", ("example.com", 443)),
        # Not in its table: no port, no scheme, a zone, and a password, which is nobody's business.
        ("1.2.3.4:", ("1.2.3.4", 11434)),
        ("1.2.3.4:x", ("1.2.3.4", 11434)),
        ("tcp://1.2.3.4", ("1.2.3.4", 11434)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ("http://me:secret@1.2.3.4:1", ("1.2.3.4", 1)),
        ("0:0:0:0:0:0:0:1", ("::1", 11434)),
    ],
)
def test_what_ollama_makes_of_it(value, place):
    assert host_address.parse(value) == place


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        (":1234", "http://127.0.0.1:1234"),
        ("[::]", "http://127.0.0.1:11434"),
        ("::", "http://127.0.0.1:11434"),
        ("[::]:1234", "http://127.0.0.1:1234"),
        ("::1", "http://[::1]:11434"),
        ("192.168.1.5:8080", "http://192.168.1.5:8080"),
        ("gpu01.lan", "http://gpu01.lan:11434"),
        ("http://0.0.0.0:11434/", "http://127.0.0.1:11434"),
        # A server has no TLS of its own.
        ("https://0.0.0.0:4321", "http://127.0.0.1:4321"),
        ("https://gpu01.lan", "http://gpu01.lan:443"),
    ],
)
def test_where_a_server_answers_on_its_own_host(value, url):
    assert host_address.url_of_server(value) == url
