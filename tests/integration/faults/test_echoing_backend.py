# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backend that says the headers of its requests wherever it can: no module of a run, and no tool, repeats them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.integration.faults.fault_lab import ANSWERS, KEPT, SECOND, SETTLED, Host
from tests.integration.faults.outcome import attempt
from tests.integration.faults.table import ON_NEW, POSTED, TRIED_AGAIN, Fault, armed, patched_backend

SECRET = 'plant14 "echo" Xq7'
ONCE = json.dumps(SECRET)[1:-1]
TWICE = json.dumps(ONCE)[1:-1]
FORMS = [
    SECRET,
    ONCE,
    TWICE,
    json.dumps(TWICE)[1:-1],
    quote(SECRET),
    quote(quote(SECRET)),
    SECRET.encode().hex(),
    base64.b64encode(SECRET.encode()).decode(),
]
COMMANDS = ("gpu-memory status", "gpu-memory list", "journalctl --no-pager --all -u 'gpu-memory*'")
# In its journal, in what it asks of Ollama, in the answer of a request, and at its next start, which fails.
ECHO = f"""if {ON_NEW}:
            import base64, json, pathlib, urllib.parse
            said = self.headers["X-Key"]
            once = json.dumps(said)[1:-1]
            twice = json.dumps(once)[1:-1]
            url = urllib.parse.quote(said)
            forms = [said, once, twice, json.dumps(twice)[1:-1], url, urllib.parse.quote(url), said.encode().hex(),
                     base64.b64encode(said.encode()).decode()]
            for form in forms:
                print("ERROR: CUDA error: out of memory for", form, flush=True)
                pathlib.Path("/opt/fault/said").open("a").write("ERROR: failed for " + form + chr(10))
                for path in ("/" + urllib.parse.quote(form) + "/oom", "/api/chat"):
                    try:
                        backend.ask_ollama(path, {{"model": form, "messages": []}})
                    except Exception as problem:
                        print("ERROR:", problem, flush=True)
            pathlib.Path("/opt/fault/armed").touch()
            return 500, {{"detail": {{"error": "denied for " + " and ".join(forms)}}}}
        {POSTED}"""
ECHOES = Fault(
    "backend_says_its_headers",
    "before",
    patched_backend(POSTED, ECHO) + armed("ExecStartPre", "cat /opt/fault/said; exit 1"),
    "fail",
    ("500", *TRIED_AGAIN[1:]),
    variables={
        "gpu_memory_backend": {
            "extends": "guide",
            "timeout_s": 15,
            "load": {
                "url": "http://127.0.0.1:8000/api/chat",
                "bodies": [{"message": "Tell me a story", "conversation_id": "gpu-memory-test1"}],
                "headers": {"X-Key": SECRET},
            },
        }
    },
    settles=False,
)


def told(text: str) -> list[str]:
    return [form for form in FORMS if form in text]


def test_what_a_backend_says_of_its_headers_is_shown_by_nobody(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "ANSIBLE_VERBOSITY", "3")
    outcome = attempt(ECHOES, host, tmp_path)
    record = outcome.record
    print(f"{record.get('verdict')}: {record.get('reason')}")
    assert record["verdict"] == ECHOES.verdict and all(words in record["reason"] for words in ECHOES.says)
    assert told(host.read("journalctl --no-pager --all -u selo-backend; cat /opt/fault/said")) == FORMS
    assert told(outcome.output) == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and [path for path in files if told(path.read_text(errors="replace"))] == []
    for command in (*COMMANDS, f"cat $(find {KEPT} {SECOND} /run/gpu-memory* -type f) | tr -cd '[:print:]'"):
        assert told(host.read(command)) == [], command
    host.read("rm /opt/fault/armed; gpu-memory restore")
    host.wait_until(f"{SETTLED} && {ANSWERS}", 120)
