from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import evidence
from ansible_collections.selo.gpu_memory.tests.unit.builders import journal

READ = {"where": "/var/log/ollama.log", "problem": None, "dropped": 0, "cut": False, "lines": 9}
FATAL = [{"severity": "fatal", "at": 1.0, "line": "kernel: NVRM: Xid"}, {"severity": "warning", "at": 1.0, "line": "w"}]


def log(**changes):
    return journal(log={**READ, **changes})


def test_a_log_that_was_read():
    assert evidence.fatal_text(log(), True) == "0 fatal lines in /var/log/ollama.log"
    assert evidence.fatal_text(journal(failures=FATAL), True) == "1 fatal lines in the journal"
    assert evidence.notes(log(), True) == []


@pytest.mark.parametrize("changes", [{"problem": "it goes to /dev/null"}, {"lines": 0}])
def test_a_log_that_says_nothing_has_no_number(changes):
    assert evidence.fatal_text(log(**changes), True) == "Ollama's log not read"
    (note,) = evidence.notes(log(**changes), True)
    assert (changes.get("problem") or "nothing was written to /var/log/ollama.log") in note


def test_where_nobody_asked_a_silent_log_is_fine():
    assert evidence.not_read(log(lines=0)) is None


def test_the_kernel_is_read_even_then():
    text = evidence.fatal_text(journal(failures=FATAL, log={**READ, "problem": "gone"}), True)
    assert text == "Ollama's log not read, 1 fatal lines of the kernel"


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"dropped": 7}, "journald dropped messages"),
        ({"cut": True}, "beginning is gone"),
        ({"filtered": True}, "LogFilterPatterns= of the unit leaves lines out"),
    ],
)
def test_a_log_of_which_something_is_missing(changes, words):
    assert evidence.fatal_text(log(**changes), True).endswith("of which not all was read")
    (note,) = evidence.notes(log(**changes), True)
    assert words in note
