"""What llama-server takes, held against the table of what it was seen to take (tests/integration/real asks it anew)."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import llama_args
from hypothesis import given
from hypothesis import strategies as some

TABLE = Path(__file__).resolve().parents[5] / "data" / "llama_args.csv"
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))


def ours(variable: str, value: str) -> tuple[str, str]:
    try:
        taken = llama_args.taken(variable, value)
    except llama_args.Ends as allowed:
        assert str(allowed)
        return "ends", ""
    return "starts", {True: "on", False: "off"}[taken] if isinstance(taken, bool) else str(taken)


def test_each_value_of_the_table_is_taken_as_llama_server_takes_it() -> None:
    assert len(ROWS) > 600
    wrong = [row for row in ROWS if ours(row["variable"], row["value"]) != (row["outcome"], row["taken"])]
    assert not wrong


def test_the_table_has_every_setting() -> None:
    assert {row["variable"] for row in ROWS} >= set(llama_args.ARGS)


def test_what_may_hold_a_secret_is_not_shown() -> None:
    assert not [
        name for name in llama_args.NAMES if any(word in name for word in ("API_KEY", "MCP_SERVERS", "URL", "TEMPLATE"))
    ]


def test_a_negation_wins_over_its_counterpart_whatever_it_says() -> None:
    both = {"LLAMA_ARG_KV_OFFLOAD": "on", "LLAMA_ARG_NO_KV_OFFLOAD": ""}
    assert llama_args.read(both) == {"LLAMA_ARG_KV_OFFLOAD": False}
    assert llama_args.of("LLAMA_ARG_NO_CTX_SIZE") is None  # no switch
    assert llama_args.of("LLAMA_ARG_NO_HOST") == ("LLAMA_ARG_NO_HOST", llama_args.ARGS["LLAMA_ARG_NO_HOST"])


def test_what_ends_llama_server_is_named() -> None:
    with pytest.raises(llama_args.Ends, match="LLAMA_ARG_CTX_SIZE=abc: llama-server takes a whole number"):
        llama_args.read({"LLAMA_ARG_FIT": "on", "LLAMA_ARG_CTX_SIZE": "abc"})


@given(some.sampled_from(sorted(llama_args.ARGS)), some.text(max_size=60))
def test_any_text_is_taken_or_ends_it(variable: str, value: str) -> None:
    assert ours(variable, value)[0] in ("starts", "ends")
