"""Twenty secrets on a host and in an inventory, and all that a user, a log or another user of the host can see."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.inputs.real_lab import BACKEND, ENV, OLLAMA_D, STATE, Host, playbook, record

# Each is found by its number; they have the looks of what people use: words, keys, with signs in them.
SECRETS = {
    "in .env, in a URL": "plant01-Kw8sWq",
    "in .env, quoted": "plant02 correct horse",
    "in .env, in a comment": "plant03-hunter",
    "in .env, over two lines": "plant04abcDEF",
    "in .env, for a key the profile does not know": "plant05-q9",
    "in the profile's own file": "plant06-own",
    "in Ollama's EnvironmentFile": "hf_plant07ZyXwVuTsRqPo",
    "in the backend's EnvironmentFile": "plant08-environment-file",
    "in a drop-in of others": "plant09-drop-in",
    "in the backend's Environment=": "plant10-unit",
    "in a drop-in, broken, so that systemd quotes it": "plant11-broken",
    "in this collection's drop-in, by somebody's hand": "plant12-ours",
    "in a header of the load": "plant13-header",
    "in a bearer header of the load": "plant14-bearer",
    "in a proxy's URL, which Ollama logs": "plant15-proxy",
    "in Ollama's journal, after a name": "plant16-journal",
    "in Ollama's journal, in a URL": "plant17-journal",
    "in Ollama's journal, bare": "plant18aBcDeFgHiJkLmNoP",
    "on a stranger's command line": "plant19-argument",
    "on a command line that looks like a runner's": "plant20-runner",
}
S = {re.findall(r"plant(\d\d)", text)[0]: text for text in SECRETS.values()}

PLANT = f"""
cat >> {ENV} <<'END'
DATABASE_URL=postgresql://selo:{S["01"]}@db.example.net:5432/selo
PASSPHRASE="{S["02"]}"
# the old one was {S["03"]}
PRIVATE_KEY="-----BEGIN
{S["04"]}
-----END"
UNHEARD_OF={S["05"]}
END
printf 'API_KEY=%s\\nCHAT_NUM_CTX=4000\\n' {S["06"]} > {BACKEND}/.env.stable-16gb
chown selo:selo {BACKEND}/.env.stable-16gb && chmod 0600 {BACKEND}/.env.stable-16gb
printf 'HF_TOKEN=%s\\n' {S["07"]} > /etc/default/ollama
printf 'SESSION=%s\\n' {S["08"]} > /etc/default/backend
chmod 0600 /etc/default/ollama /etc/default/backend
mkdir -p {OLLAMA_D}
cat > {OLLAMA_D}/10-site.conf <<'END'
[Service]
EnvironmentFile=/etc/default/ollama
Environment=SITE_VALUE={S["09"]}
Environment={S["11"]}
Environment=HTTPS_PROXY=http://proxy:{S["15"]}@proxy.example.net:3128
ExecStartPre=+/opt/site/say
ExecStartPost=+/opt/site/say
END
mkdir -p /opt/site /etc/systemd/system/selo-backend.service.d
cat > /opt/site/say <<'END'
#!/bin/bash
echo 'level=WARN msg="invalid setting" password={S["16"]} see https://u:{S["17"]}@wiki.example.net/ {S["18"]}'
END
printf '[Service]\\nEnvironmentFile=/etc/default/backend\\nEnvironment=UNIT_VALUE={S["10"]}\\n' \\
  > /etc/systemd/system/selo-backend.service.d/site.conf
printf '[Service]\\nEnvironment="HAND_MADE={S["12"]}"\\n' > {OLLAMA_D}/zz-gpu-memory.conf
chmod 0700 /opt/site/say
chmod 0600 {OLLAMA_D}/*.conf /etc/systemd/system/selo-backend.service.d/site.conf
printf '#!/bin/bash\\nread -r\\n' > /opt/site/llama-server
cp /opt/site/llama-server /opt/site/stranger
systemctl daemon-reload && systemctl restart ollama selo-backend
until curl -fsm 1 http://127.0.0.1:8000/health >/dev/null; do sleep 0.2; done
"""
PLANTED = (
    r"\.env$|\.env\.stable-16gb$|^/etc/default/(ollama|backend)$|/10-site\.conf$|/opt/site/say$|/site\.conf$"
    r"|/zz-gpu-memory\.conf$"
)
HEADERS = {"X-Api-Key": S["13"], "Authorization": f"Bearer {S['14']}"}
LOAD = {
    "url": "http://127.0.0.1:8000/api/chat",
    "bodies": [{"message": "Tell me a story", "conversation_id": "gpu-memory-test1"}],
    "headers": HEADERS,
}
# A server that answers with all that a backend knows: its environment, its .env and the headers it was sent.
TALKATIVE = f"""
import http.server, json, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        text = "cannot connect: " + open("{ENV}").read() + str(dict(self.headers)) + "{S["10"]} {S["08"]}"
        body = json.dumps({{"error": text[-250:]}}).encode()
        self.send_response(500); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", 8123), Answer).serve_forever()
"""


def found_in(text: str) -> set[str]:
    """The numbers of the secrets in a text, whole or cut short: nobody else writes `plantNN`."""
    return set(re.findall(r"plant(\d\d)", text))


@pytest.fixture
def planted(host: Host) -> Iterator[Host]:
    host.read(PLANT)
    host.read(f"cat > /opt/site/talkative.py <<'END'\n{TALKATIVE}END\nchmod 0600 /opt/site/talkative.py")
    running = [
        host.start(f"bash /opt/site/llama-server --api-key {S['20']} -c 4096"),
        host.start(f"bash /opt/site/stranger --password={S['19']}"),
        host.start("exec timeout 1500 python3 /opt/site/talkative.py"),
        # What every user of the host can see of its processes, but for those of the strangers.
        host.start(
            "while :; do ps -eo args | grep -v '/opt/site/' ; sleep 0.1; done > /run/seen-by-ps 2>/dev/null & "
            "read -r; kill %1"
        ),
    ]
    yield host
    shutil.rmtree(STATE / "inventory" / "host_vars", ignore_errors=True)
    for child in running:
        child.stdin.close()  # type: ignore[union-attr]
        child.kill()
        child.wait()


def look_on_the_host(host: Host, since: float) -> None:
    """The process list, the journal (modules write there what they were called with), and all files."""
    assert found_in(host.read("cat /run/seen-by-ps")) == set()
    assert len(host.read("sort -u /run/seen-by-ps").splitlines()) > 20
    journal = host.read(f"journalctl --no-pager --since=@{since:.0f} -o short")
    # Ollama says what it was planted to say, and systemd quotes a broken line of a unit by itself, whoever reloads it.
    lines = [line for line in journal.splitlines() if found_in(line)]
    assert [line for line in lines if not re.search(r" (?:ollama|say|systemd)\[\d+\]: ", line)] == []
    holders = host.read("grep -rlsI plant[0-2][0-9] / --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev || true")
    unplanned = [path for path in holders.splitlines() if not re.search(PLANTED, path)]
    kept = [path for path in unplanned if path.startswith("/var/lib/gpu-memory/")]
    logged = [path for path in unplanned if path.startswith(("/var/log/journal/", "/run/log/journal/"))]
    assert set(unplanned) - set(kept) - set(logged) - {"/opt/site/talkative.py"} == set()
    modes = host.read(f"stat -c '%a %U' /var/lib/gpu-memory {' '.join(kept)}").splitlines()
    assert kept and set(modes) <= {"700 root", "600 root"}
    assert host.run("runuser -u operator -- ls /var/lib/gpu-memory").returncode != 0


def test_no_secret_is_ever_shown(planted: Host, tmp_path: Path) -> None:
    host, report = planted, tmp_path / "report"
    backend = {"extends": "guide", "load": LOAD}
    failing = {"extends": "guide", "load": {**LOAD, "url": "http://127.0.0.1:8123/"}}
    before = time.time()
    logs: dict[str, str] = {}

    def run(verb: str, *options: str, expect: int = 0, **variables: Any) -> None:
        given = {"gpu_memory_backend": backend, "gpu_memory_ollama": {"take_over": True}, **variables}
        done = playbook(verb, *options, "-vvv", "--diff", report=report, **given)
        logs[" ".join((verb, *options, str(len(logs))))] = done.stdout
        assert done.returncode == expect, done.stdout[-5000:]

    assert found_in(host.read(f"cat {ENV} {OLLAMA_D}/* /etc/default/* {BACKEND}/.env.*")) >= {
        "01", "02", "03", "04", "05", "06", "07", "08", "09", "11", "12", "15",
    }  # fmt: skip
    assert found_in(host.read("journalctl -u ollama --no-pager")) >= {"15", "16", "17", "18"}
    assert found_in(host.read("ps -eo args")) >= {"19", "20"}

    run("playbooks/plan.yml")
    run("apply-stable.yml", "--check")
    run("apply-stable.yml")
    verdict = record(report)
    assert verdict["verdict"] == "pass", verdict
    words = logs["apply-stable.yml 2"].split()  # YAML breaks lines
    assert "invalid setting" in " ".join(words), "the planted line of the journal was never read"
    run("playbooks/verify.yml", expect=2, gpu_memory_verify="always", gpu_memory_backend=failing)
    assert "500" in str(record(report)["load"]["errors"])
    run("apply-conservative.yml", expect=2, gpu_memory_backend=failing)
    assert record(report)["verdict"] == "rolled_back"
    run("playbooks/rollback.yml")
    run("playbooks/discover.yml")

    for name, log in logs.items():
        assert found_in(log) == set(), f"{name}: {[line for line in log.splitlines() if 'plant' in line][:5]}"
    artefacts = [path for place in (tmp_path, STATE / "inventory") for path in place.rglob("*") if path.is_file()]
    assert any(path.name == "gpu01.json" for path in artefacts)
    for path in artefacts:
        if not path.name.endswith("-variables.json"):
            assert found_in(path.read_text(errors="replace")) == set(), path

    look_on_the_host(host, before)
    print(f"\nfigure: {len(SECRETS)} secrets planted, 0 found in {len(logs)} logs, {len(artefacts)} files and the host")
