"""script/lab as a module, for how containers are made on this machine."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType


def load() -> ModuleType:
    """It reads its environment variables (LAB_NAME) now, once."""
    path = Path(__file__).resolve().parents[2] / "script" / "lab"
    loader = importlib.machinery.SourceFileLoader("lab", str(path))
    spec = importlib.util.spec_from_loader("lab", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
