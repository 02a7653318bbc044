"""A module that needs root says so before it does anything."""

from __future__ import annotations

import os

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import root


class Failed(Exception):
    pass


class FakeModule:
    def fail_json(self, *, msg: str) -> None:
        raise Failed(msg)


@pytest.mark.parametrize(("uid", "name"), [(1, "daemon"), (4_000_000_000, "the user 4000000000")])
def test_any_other_user_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch, uid: int, name: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    with pytest.raises(Failed, match=f"runs there as {name}; set become: true"):
        root.required(FakeModule())


def test_root_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    root.required(FakeModule())
