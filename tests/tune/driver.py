"""Runs on a lab host: one tuning run as the module gpu_memory_tune makes it, with a planner made wrong by a factor.

Standard input: {"factor", "wanted", "gpu"}; standard output: the result.
"""

from __future__ import annotations

import dataclasses
import json
import sys

sys.path[:0] = ["/opt/tune-test", "/opt/tune-test/bindings"]
from ansible_collections.selo.gpu_memory.plugins.module_utils import _tune, _tune_run  # noqa: E402

given = json.load(sys.stdin)
right = _tune.candidates


def wrong(*arguments: object, **options: object) -> list[_tune.Candidate]:
    found = right(*arguments, **options)  # type: ignore[arg-type]
    return [dataclasses.replace(each, terms=tuple(term * given["factor"] for term in each.terms)) for each in found]


_tune.candidates = wrong  # type: ignore[assignment]
try:
    result = _tune_run.tune(_tune_run.Wanted(**given["wanted"]), given["gpu"], lambda _: None)
except _tune_run.CannotTune as problem:
    result = {"problem": str(problem)}
print(json.dumps(result))
