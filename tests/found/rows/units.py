"""Found hosts: systemd units, their drop-ins, environment and files."""

from __future__ import annotations

from tests.faults.fault_lab import DROP_INS
from tests.found.condition import Found

UNITS = "/etc/systemd/system"

STOCK = "ollama/ollama#2423"  # drop-ins are what an owner adds; the script leaves none, and no directory for one

ROWS: list[Found] = [
    # tests/long/test_suites.py has Debian 11 and 13, and more.
    *(
        Found(f"stock_with_{backend}", f"! test -e {DROP_INS}", "pass", (), STOCK, backend=backend, short=True)
        for backend in ("guide", "none")
    ),
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
