"""What of a Modelfile is text and must not be."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import modelfile
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import model_state


def test_every_option_of_ours_but_a_list_of_texts_must_be_no_text() -> None:
    assert {*modelfile.NO_TEXT, "stop"} == {*model_state.PARAMETERS}


def test_files_that_are_loaded_besides_are_ollamas_blobs() -> None:
    blob = "sha256-" + "0a" * 32
    shown = f"# ADAPTER {blob}\nFROM /m/{blob}\nADAPTER /m/{blob}\nDRAFT C:\\m\\{blob}\r\nSYSTEM x\nDRAFT a letter\n"
    assert modelfile.files_apart(shown) == f"ADAPTER {blob}\nDRAFT {blob}\n"
