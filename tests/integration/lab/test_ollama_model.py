"""The module `ollama_model` against the lab's Ollama: what it writes is what a chat is served with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.selo.gpu_memory.plugins.modules import ollama_model

from tests.integration.lab.lab_host import GUIDES_MODEL, Lab, argument, runner_command


def run(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    with patch_module_args(options), pytest.raises(SystemExit):
        ollama_model.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert "failed" not in answer, answer
    return answer


@pytest.mark.parametrize("name", ["capped", GUIDES_MODEL], ids=["derived", "in place"])
def test_a_cap_is_served_until_it_is_taken_back(lab: Lab, capsys: pytest.CaptureFixture[str], name: str) -> None:
    ollama = lab.ollama()
    untouched = ollama.get("/api/tags")["models"]
    parameters = {"num_gpu": "20", "num_ctx": 2048, "stop": ["a", "b c"]}
    capped = {"name": name, "from": GUIDES_MODEL, "parameters": parameters, "url": ollama.url}
    assert run(capsys, **capped, _ansible_check_mode=True)["changed"]
    assert ollama.get("/api/tags")["models"] == untouched
    done = run(capsys, **capped)
    assert (done["changed"], done["parameters"]) == (True, {"num_gpu": 20, "num_ctx": 2048, "stop": ["a", "b c"]})
    assert not run(capsys, **capped)["changed"]
    assert ollama.chat(name)[0] == 200
    command = runner_command(ollama)
    assert (argument(command, "-ngl"), argument(command, "-c")) == ("20", "2048")

    back = {"name": name, "state": "restored" if name == GUIDES_MODEL else "absent", "url": ollama.url}
    assert run(capsys, **back)["changed"]
    assert not run(capsys, **back)["changed"]
    assert [(m["name"], m["digest"]) for m in ollama.get("/api/tags")["models"]] == [
        (m["name"], m["digest"]) for m in untouched
    ]
