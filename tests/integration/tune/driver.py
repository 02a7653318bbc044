"""Runs on a lab host: one tuning run as the module gpu_memory_tune makes it, with a planner made wrong by a factor.

Standard input: {"factor", "wanted", "gpu"}; standard output: the result.
"""

from __future__ import annotations

import dataclasses
import json
import sys

sys.path[:0] = ["/opt/tune-test", "/opt/tune-test/bindings"]
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import tune_search  # noqa: E402
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.probe import tune_run  # noqa: E402

given = json.load(sys.stdin)
right = tune_search.candidates


def wrong(*arguments: object, **options: object) -> list[tune_search.Candidate]:
    found = right(*arguments, **options)  # type: ignore[arg-type]
    return [dataclasses.replace(each, terms=tuple(term * given["factor"] for term in each.terms)) for each in found]


tune_search.candidates = wrong  # type: ignore[assignment]
try:
    result = tune_run.tune(tune_run.Wanted(**given["wanted"]), given["gpu"], str, lambda _: None)
except tune_run.CannotTune as problem:
    result = {"problem": str(problem)}
print(json.dumps(result))
