"""What of a Modelfile is text and must not be."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import modelfile
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import model_state


def test_every_option_of_ours_but_a_list_of_texts_must_be_no_text() -> None:
    assert {*modelfile.NO_TEXT, "stop"} == {*model_state.PARAMETERS}
