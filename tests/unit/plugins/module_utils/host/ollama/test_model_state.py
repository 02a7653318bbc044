"""The pure side: names, parameters, what Ollama prints, and what is to be done about it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import model_state
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.model_state import Shown, Step, Wanted, wanted
from ansible_collections.selo.gpu_memory.tests.unit.plugins import fake_ollama


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("llama3.1", "llama3.1:latest"),
        ("llama3.1:8b", "llama3.1:8b"),
        ("library/llama3.1:8b", "llama3.1:8b"),
        ("registry.ollama.ai/library/llama3.1", "llama3.1:latest"),
        ("me/mine:x", "me/mine:x"),
        ("hf.co/bartowski/Llama-3.2-1B-GGUF:Q4_K_M", "hf.co/bartowski/Llama-3.2-1B-GGUF:Q4_K_M"),
        ("registry.local:5000/me/mine", "registry.local:5000/me/mine:latest"),
    ],
)
def test_full_names(name: str, full: str) -> None:
    assert model_state.full_name(name) == full


@pytest.mark.parametrize(
    "name", ["", "a b", "a:b:c", "a\nPARAMETER num_gpu 1", "../x", "a/b/c/d", "http://x/y", "a:" + "t" * 81]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(model_state.Invalid, match="is no name of a model; allowed: such as llama3.1:8b"):
        model_state.full_name(name)


# What Go 1.26 prints for these values after they have been through JSON.
PRINTED = r"""
num_gpu                        20
num_ctx                        1.048576e+06
num_batch                      131072
temperature                    0.7
min_p                          1e-05
seed                           -1
use_mmap                       true
stop                           "<|eot|>\n\x01é\u00a0\"\\"
stop                           "a  b "
later_option                   "x"
"""


def test_what_show_prints_is_read() -> None:
    assert model_state.parse(PRINTED) == {
        "num_gpu": 20,
        "num_ctx": 1048576,
        "num_batch": 131072,
        "temperature": 0.7,
        "min_p": 1e-05,
        "seed": -1,
        "use_mmap": True,
        "stop": ['<|eot|>\n\x01é\xa0"\\', "a  b "],
        "later_option": "x",
    }


def test_what_no_release_prints_is_read_as_text() -> None:
    assert model_state.parse('stop <|eot|>\nodd "x\nodder map[]') == {
        "stop": ["<|eot|>"],
        "odd": '"x',
        "odder": "map[]",
    }
    assert model_state.parse("") == {}


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("num_gpu", "20", 20),
        ("num_gpu", " -1 ", -1),
        ("num_gpu", 0, 0),
        ("num_ctx", 4096.0, 4096),
        ("num_ctx", "1e4", 10000),
        ("temperature", "0.5", 0.5),
        ("temperature", 1, 1.0),
        ("use_mmap", "false", False),
        ("use_mmap", True, True),
        ("stop", "###", ["###"]),
        ("stop", ["a", "true"], ["a", "true"]),
    ],
)
def test_values_get_their_type(key: str, given: Any, value: Any) -> None:
    typed = model_state.typed({key: given})
    assert typed == {key: value}
    assert type(typed[key]) is type(value)


@pytest.mark.parametrize(
    ("key", "given", "words"),
    [
        ("num_gpu", "all", "parameters.num_gpu: 'all' cannot be; allowed: a whole number from -1 to 100000"),
        ("num_gpu", -2, "parameters.num_gpu: -2 cannot be"),
        ("num_gpu", True, "parameters.num_gpu: True cannot be"),
        ("num_gpu", "true", "parameters.num_gpu: True cannot be"),
        ("num_gpu", None, "parameters.num_gpu: None cannot be"),
        ("num_gpu", 1.5, "parameters.num_gpu: 1.5 cannot be"),
        ("num_ctx", 0, "allowed: a whole number from 1 to 16777216"),
        ("num_ctx", "8K", "parameters.num_ctx: '8K' cannot be"),
        ("top_p", 1.1, "parameters.top_p: 1.1 cannot be; allowed: a number from 0 to 1"),
        ("temperature", float("nan"), "parameters.temperature: nan cannot be"),
        ("use_mmap", 1, "parameters.use_mmap: 1 is neither true nor false"),
        ("stop", [], "parameters.stop: [] cannot be; allowed: a text, or a list of texts"),
        ("stop", ["a", 1], "parameters.stop: ['a', 1] cannot be"),
        ("gpu_layers", 20, "parameters.gpu_layers: there is no such parameter; allowed: num_gpu, num_ctx, num_batch,"),
    ],
)
def test_values_that_cannot_be(key: str, given: Any, words: str) -> None:
    with pytest.raises(model_state.Invalid) as problem:
        model_state.typed({key: given, "num_batch": "x"})
    assert words in str(problem.value)
    assert "parameters.num_batch" in str(problem.value), "all problems at once"


def shown(weights: str = "w", template: str = "t", **parameters: Any) -> Shown:
    return Shown(parameters, (weights,) if weights else (), template)


BASE, KEPT = "m:1", "m:1-gpu-memory-kept"
DERIVED = wanted("d", base="m:1", parameters={"num_gpu": 20})
IN_PLACE = wanted("m:1", base="M:1", parameters={"num_gpu": 20})
KEEP = [Step("copy", KEPT, BASE), Step("create", BASE, KEPT)]
BACK = [Step("copy", BASE, KEPT), Step("delete", KEPT)]


@pytest.mark.parametrize(
    ("task", "models", "todo"),
    [
        (DERIVED, {BASE: shown()}, [Step("create", "d:latest", BASE)]),
        (DERIVED, {BASE: shown(stop=["x"]), "d:latest": shown(stop=["x"], num_gpu=20)}, []),
        (DERIVED, {BASE: shown(), "d:latest": shown(num_gpu=20, num_ctx=9)}, [Step("create", "d:latest", BASE)]),
        (DERIVED, {BASE: shown(), "d:latest": shown(num_gpu="20")}, [Step("create", "d:latest", BASE)]),
        (DERIVED, {BASE: shown(), "d:latest": shown("v", num_gpu=20)}, [Step("create", "d:latest", BASE)]),
        (DERIVED, {BASE: shown(), "d:latest": shown("", num_gpu=20)}, []),
        (DERIVED, {BASE: shown(), "d:latest": shown(template="u", num_gpu=20)}, [Step("create", "d:latest", BASE)]),
        (DERIVED, {BASE: shown(), "d:latest": shown(num_gpu=20, stop=["<turn|>"])}, []),
        (IN_PLACE, {BASE: shown()}, KEEP),
        (IN_PLACE, {BASE: shown(num_gpu=20)}, []),
        (IN_PLACE, {BASE: shown(num_gpu=20), KEPT: shown()}, []),
        (IN_PLACE, {BASE: shown(num_gpu=21, num_ctx=9), KEPT: shown()}, KEEP[1:]),
        (IN_PLACE, {KEPT: shown()}, KEEP[1:]),
        (IN_PLACE, {BASE: shown("newer"), KEPT: shown()}, KEEP),
        (wanted(BASE, "restored"), {BASE: shown(num_gpu=20)}, []),
        (wanted(BASE, "restored"), {BASE: shown(num_gpu=20), KEPT: shown()}, BACK),
        (wanted(BASE, "restored"), {KEPT: shown()}, BACK),
        (wanted(BASE, "restored"), {BASE: shown("newer"), KEPT: shown()}, [Step("delete", KEPT)]),
        (wanted(BASE, "absent"), {}, []),
        (wanted(BASE, "absent"), {BASE: shown(), KEPT: shown()}, [Step("delete", BASE), Step("delete", KEPT)]),
        (wanted(BASE), {BASE: shown(num_gpu=20)}, []),
    ],
)  # fmt: skip
def test_what_is_to_be_done(task: Wanted, models: dict[str, Shown], todo: list[Step]) -> None:
    all_models = {**dict.fromkeys(task.names), **models}
    assert model_state.steps(task, all_models) == todo
    done = model_state.after(task, all_models, todo)
    assert model_state.steps(task, done) == [], "a second time there is nothing to do"


def test_a_stop_counts_only_if_it_is_given() -> None:
    given = wanted("d", base="m:1", parameters={"stop": "x"})
    models = {**dict.fromkeys(given.names), BASE: shown(stop=["a"]), "d:latest": shown(stop=["y"])}
    assert model_state.steps(given, models) == [Step("create", "d:latest", BASE)]


def test_fractions_are_compared_as_float32() -> None:
    given = wanted("d", base="m:1", parameters={"temperature": 0.123456789})
    models = {**dict.fromkeys(given.names), BASE: shown(), "d:latest": shown(temperature=0.12345679)}
    assert model_state.steps(given, models) == []


@pytest.mark.parametrize(
    ("task", "there", "model"),
    [
        (wanted("m:1"), [], "m:1"),
        (wanted("m:1"), ["m:1"], None),
        (wanted("m:1", pull="always"), ["m:1"], "m:1"),
        (DERIVED, ["d:latest"], "m:1"),
        (DERIVED, ["m:1"], None),
        (IN_PLACE, [], "m:1"),
        (IN_PLACE, [KEPT], None),
        (wanted("m:1", "absent"), [], None),
        (wanted("m:1", "restored"), [], None),
    ],
)
def test_what_is_to_be_pulled(task: Wanted, there: list[str], model: str | None) -> None:
    models = {name: shown() if name in there else None for name in task.names}
    assert model_state.model_to_pull(task, models) == model


GIVEN = {"num_gpu": 20, "temperature": 0.5, "use_mmap": False, "stop": ["a b ", 'say "x"\n']}


@pytest.mark.parametrize(
    ("version", "body"),
    [
        ("0.5.5", {"from": BASE, "parameters": GIVEN}),
        ("0.32.15", {"from": BASE, "parameters": GIVEN}),
        ("0.0.0", {"from": BASE, "parameters": GIVEN}),
        (
            "0.5.4",
            {
                "modelfile": 'FROM m:1\nPARAMETER num_gpu 20\nPARAMETER temperature 0.5\nPARAMETER use_mmap false\n'
                'PARAMETER stop """a b """\nPARAMETER stop """say "x"\n"""\n'
            },
        ),
    ],
)  # fmt: skip
def test_the_body_has_the_shape_of_the_release(version: str, body: dict[str, Any]) -> None:
    task = wanted("d", base=BASE, parameters=GIVEN)
    assert model_state.create_body(task, BASE, model_state.check_version(version)) == body


@pytest.mark.parametrize("stop", ['"""', "a\rb", "a\x00b", "a\u00a0b"])
def test_what_a_modelfile_cannot_carry_is_refused(stop: str) -> None:
    task = wanted("d", base=BASE, parameters={"stop": stop})
    with pytest.raises(model_state.Invalid, match="cannot be written for an Ollama before 0.5.5; upgrade Ollama"):
        model_state.create_body(task, BASE, (0, 5, 4))


def test_an_ollama_that_is_too_old_is_refused() -> None:
    with pytest.raises(model_state.Invalid, match=r"Ollama 0\.1\.9 is too old .* upgrade it to 0\.1\.14 or later"):
        model_state.check_version("0.1.9")
    assert model_state.check_version("0.1.14") == (0, 1, 14)


def test_the_weights_are_the_files_of_the_modelfile() -> None:
    digests = ["a" * 64, "b" * 64, "c" * 64]
    modelfile = (
        f"# FROM x\n\nFROM /m/blobs/sha256-{digests[0]}\nADAPTER /m/blobs/sha256:{digests[1]}\n"
        f"FROM /m/sha256-{digests[2]}\nPARAMETER stop sha256-{'d' * 64}\n"
    )
    answer = {"modelfile": modelfile, "parameters": "num_gpu 1", "template": "t"}
    assert Shown.of(answer) == Shown({"num_gpu": 1}, tuple(digests), "t", "")
    assert Shown.of({"modelfile": "FROM llama2:latest"}).weights == ()


@pytest.mark.parametrize("answer", [None, [], "x", {"parameters": {"num_gpu": 1}}, {"modelfile": 1}])
def test_answers_that_are_not_ollamas(answer: Any) -> None:
    with pytest.raises(model_state.Invalid, match="the answer of /api/show is not Ollama's"):
        Shown.of(answer)


def test_the_meter_counts_what_came() -> None:
    mib = 1024 * 1024
    meter = model_state.Meter("m:1")
    for line in (
        {"status": "pulling manifest"},
        {"status": "pulling a", "digest": "a", "total": 100 * mib},
        {"status": "pulling a", "digest": "a", "total": 100 * mib, "completed": 100 * mib},
        {"status": "pulling b", "digest": "b", "total": 40 * mib, "completed": 30 * mib},
        {"status": "pulling b", "digest": "b", "total": 40 * mib, "completed": 35 * mib},
    ):
        meter.add(line)
    figures = meter.figures()
    assert (figures["model"], figures["status"]) == ("m:1", "pulling b")
    assert (figures["completed_mib"], figures["total_mib"]) == (135, 140)
    result = meter.result()
    assert (result["downloaded_mib"], result["total_mib"]) == (105, 140)


def test_the_fake_prints_as_go_does() -> None:
    values = [20, 131072, 999999, 1048576, 16777216, 0.7, 1e-05, -1, True]
    printed = ["20", "131072", "999999", "1.048576e+06", "1.6777216e+07", "0.7", "1e-05", "-1", "true"]
    assert [fake_ollama.go_syntax(value) for value in values] == printed
