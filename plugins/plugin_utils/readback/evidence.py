# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ollama's log is worth as evidence: an empty one proves nothing. Pure."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Journal
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import RecordedJournal


def where(journal: Journal | RecordedJournal) -> str:
    """Where the log goes, in words. `journal`: as gpu_memory_info gives it."""
    return str((journal.get("log") or {}).get("where") or "the journal")


def not_read(journal: Journal | RecordedJournal, asked: bool = False) -> str | None:
    """Why the log says nothing; None where it was read. `asked`: requests were sent, so that it must have lines."""
    log = journal.get("log") or {}
    if log.get("problem"):
        return str(log["problem"])
    if asked and log.get("lines") == 0:
        return f"nothing was written to {where(journal)} while requests were answered"
    return None


def incomplete(journal: Journal | RecordedJournal) -> str | None:
    """What is missing of a log that was read; None where nothing is."""
    log = journal.get("log") or {}
    if log.get("dropped"):
        return "journald dropped messages of it, by a rate limit (LogRateLimitIntervalSec=0 keeps all)"
    if log.get("filtered"):
        return "LogFilterPatterns= of the unit leaves lines out"
    return "its beginning is gone" if log.get("cut") else None


def fatal_text(journal: Journal | RecordedJournal, asked: bool) -> str:
    """How many failures the log tells of, and never 0 for what was not read."""
    fatal = sum(failure["severity"] == "fatal" for failure in journal["failures"])
    if not_read(journal, asked):
        return "Ollama's log not read" + (f", {fatal} fatal lines of the kernel" if fatal else "")
    text = f"{fatal} fatal lines in {where(journal)}"
    return f"{text}, of which not all was read" if incomplete(journal) else text


def notes(journal: Journal | RecordedJournal, asked: bool) -> list[str]:
    """What a reader must know who takes a silent log for a good one."""
    why, missing = not_read(journal, asked), incomplete(journal)
    if why:
        return [f"Ollama's log was not read, so a failure that only it tells of is not seen: {why}"]
    return [f"Ollama's log was not read as a whole: {missing}"] if missing else []
