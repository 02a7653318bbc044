"""The models of tests/data/planner, as /api/show would answer of them and as the planner has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.planner import Model

DATA = Path(__file__).parents[5] / "data" / "planner"
ARCHITECTURES = json.loads((DATA / "architectures.json").read_text())


def answer_of(name: str) -> dict[str, Any]:
    """A new answer. architectures.json has metadata, tensors outside the blocks, and each kind of block once."""
    if name not in ARCHITECTURES:
        recorded: dict[str, Any] = json.loads((DATA / f"{name}.show.json").read_text())
        return recorded
    packed = ARCHITECTURES[name]
    tensors = [*packed["tensors"]]
    for kind in packed["blocks"]:
        tensors += [[f"blk.{index}.{suffix}", *rest] for index in kind["of"] for suffix, *rest in kind["tensors"]]
    listed = [{"name": tensor, "type": type_name, "shape": [*shape]} for tensor, type_name, shape in tensors]
    return {"model_info": {**packed["model_info"]}, "tensors": listed}


def model(name: str) -> Model:
    return Model.from_show(answer_of(name))
