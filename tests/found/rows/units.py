"""Found hosts: systemd units, their drop-ins, environment and files."""

from __future__ import annotations

from tests.found.condition import Found

UNITS = "/etc/systemd/system"
DROP_INS = f"{UNITS}/ollama.service.d"

ROWS: list[Found] = [
    Found(
        "environment_file_of_a_drop_in_wins",
        f"echo OLLAMA_NUM_PARALLEL=4 > /etc/default/ollama; mkdir -p {DROP_INS}\n"
        f"printf '[Service]\\nEnvironmentFile=/etc/default/ollama\\n' > {DROP_INS}/20-owner.conf\n"
        "systemctl daemon-reload",
        "refused",
        ("/etc/default/ollama", "OLLAMA_NUM_PARALLEL=4", "take the line out"),
        "ollama/ollama#5601",
        short=True,
    ),
]
