"""The module against a fake Ollama on the loopback, in the words of 0.32.15 and of 0.5.4."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.selo.gpu_memory.plugins.modules import ollama_model
from ansible_collections.selo.gpu_memory.tests.unit.plugins.fake_ollama import FakeOllama, Json, Model, stream

BASE = "llama3.1:8b"
DERIVED = "capped:latest"
KEPT = "llama3.1:8b-gpu-memory-kept"
BASE_PARAMETERS = {"stop": ["<|eot_id|>", "<|eom_id|>"], "temperature": 0.6}
Run = Callable[..., Json]


@pytest.fixture(params=["0.32.15", "0.5.4"])
def ollama(request: pytest.FixtureRequest) -> FakeOllama:
    fake = FakeOllama(request.param)
    fake.registry = {BASE: Model("llama", dict(BASE_PARAMETERS), "{{ .Messages }}")}
    return fake


@pytest.fixture
def run(ollama: FakeOllama, serve: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    url = serve(ollama)

    def run(check_mode: bool = False, **options: Any) -> Json:
        ollama.served.clear()
        arguments = {"name": BASE, "url": url, "timeout": 5, "_ansible_check_mode": check_mode, **options}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            ollama_model.main()
        answer: Json = json.loads(capsys.readouterr().out)
        return answer

    return run


def base(**parameters: Any) -> Model:
    return Model("llama", {**BASE_PARAMETERS, **parameters}, "{{ .Messages }}")


CAP = {"num_gpu": "24", "num_ctx": 4096}
CAPPED = {"num_gpu": 24, "num_ctx": 4096}
DERIVE: Json = {"name": "capped", "from": BASE, "parameters": CAP}
IN_PLACE: Json = {"from": BASE, "parameters": CAP}
# What is there before, the options, what is there after, and the steps.
CASES: dict[str, tuple[dict[str, Model], Json, dict[str, Model], list[str]]] = {
    "pull": ({}, {}, {BASE: base()}, [f"pull {BASE}"]),
    "derive": (
        {BASE: base()},
        DERIVE,
        {BASE: base(), DERIVED: base(**CAPPED)},
        [f"create {DERIVED} from {BASE}"],
    ),
    "modify": (
        {BASE: base(), DERIVED: base(num_gpu=33, num_batch=512)},
        DERIVE,
        {BASE: base(), DERIVED: base(**CAPPED)},
        [f"create {DERIVED} from {BASE}"],
    ),
    "in place": (
        {BASE: base()},
        IN_PLACE,
        {BASE: base(**CAPPED), KEPT: base()},
        [f"copy {BASE} to {KEPT}", f"create {BASE} from {KEPT}"],
    ),
    "modify in place": (
        {BASE: base(num_gpu=33, num_batch=512), KEPT: base()},
        IN_PLACE,
        {BASE: base(**CAPPED), KEPT: base()},
        [f"create {BASE} from {KEPT}"],
    ),
    "restore": (
        {BASE: base(**CAPPED), KEPT: base()},
        {"state": "restored"},
        {BASE: base()},
        [f"copy {KEPT} to {BASE}", f"delete {KEPT}"],
    ),
    "delete": (
        {BASE: base(), DERIVED: base(**CAPPED)},
        {"name": "capped", "state": "absent"},
        {BASE: base()},
        [f"delete {DERIVED}"],
    ),
    "delete with what was kept": (
        {BASE: base(**CAPPED), KEPT: base(), DERIVED: base()},
        {"state": "absent"},
        {DERIVED: base()},
        [f"delete {BASE}", f"delete {KEPT}"],
    ),
}


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
@pytest.mark.parametrize(("before", "options", "after", "steps"), CASES.values(), ids=CASES)
def test_each_case_once_and_again_in_check_mode_and_for_real(
    ollama: FakeOllama,
    run: Run,
    before: dict[str, Model],
    options: Json,
    after: dict[str, Model],
    steps: list[str],
    check_mode: bool,
) -> None:
    ollama.models = dict(before)
    untouched = ollama.snapshot()
    name = DERIVED if "name" in options else BASE
    first = run(check_mode, **options)
    assert (first["changed"], first["steps"], first["model"]) == (True, steps, name)
    assert first["diff"]["before"] != first["diff"]["after"]
    assert first["kept"] == (KEPT if KEPT in after else None)
    if check_mode:
        assert ollama.models == untouched
        assert ollama.changes() == []
        again = run(check_mode, **options)
        assert again == first
        real = run(**options)
        assert (real["changed"], real["steps"], real["kept"]) == (True, steps, first["kept"])
        if not steps[0].startswith("pull"):
            assert (real["diff"], real["parameters"]) == (first["diff"], first["parameters"])
    assert ollama.models == after
    again = run(check_mode, **options)
    assert (again["changed"], again["steps"]) == (False, [])
    assert again["diff"]["before"] == again["diff"]["after"]
    assert again["parameters"] == (after[name].parameters if name in after else None)
    assert again["digest"] == (after[name].digest if name in after else None)
    assert ollama.changes() == []
    assert ollama.models == after


def test_the_diff_shows_parameters_and_files(ollama: FakeOllama, run: Run) -> None:
    ollama.models = {BASE: base()}
    diff = run(**IN_PLACE)["diff"]
    weights = [base().blob[:12]]
    assert diff["before"] == {BASE: {"parameters": BASE_PARAMETERS, "weights": weights}}
    assert diff["after"] == {
        BASE: {"parameters": {**BASE_PARAMETERS, **CAPPED}, "weights": weights},
        KEPT: {"parameters": BASE_PARAMETERS, "weights": weights},
    }


def test_the_release_gets_its_own_shape_with_numbers(ollama: FakeOllama, run: Run) -> None:
    ollama.models = {BASE: base()}
    run(**{**DERIVE, "parameters": {"num_gpu": "24", "stop": ["a b", 'c"']}})
    (body,) = (body for path, body in ollama.served if path == "/api/create")
    assert (body.pop("model"), body.pop("name"), body.pop("stream")) == (DERIVED, DERIVED, True)
    if ollama.version == "0.5.4":
        text = 'FROM llama3.1:8b\nPARAMETER num_gpu 24\nPARAMETER stop """a b"""\nPARAMETER stop """c""""\n'
        assert body == {"modelfile": text}
    else:
        assert body == {"from": BASE, "parameters": {"num_gpu": 24, "stop": ["a b", 'c"']}}
    assert ollama.models[DERIVED].parameters["stop"] == ["a b", 'c"']


def test_a_missing_base_is_pulled_first(ollama: FakeOllama, run: Run) -> None:
    steps = [f"pull {BASE}", f"create {DERIVED} from {BASE}"]
    foretold = run(True, **DERIVE)
    assert (foretold["changed"], foretold["steps"], foretold["parameters"]) == (True, steps, CAPPED)
    done = run(**DERIVE)
    assert (done["steps"], done["parameters"]) == (steps, {**BASE_PARAMETERS, **CAPPED})
    assert not run(**DERIVE)["changed"]


def test_in_place_a_missing_model_is_pulled_and_kept(ollama: FakeOllama, run: Run) -> None:
    steps = [f"pull {BASE}", f"copy {BASE} to {KEPT}", f"create {BASE} from {KEPT}"]
    assert run(True, **IN_PLACE)["steps"] == steps
    assert run(**IN_PLACE)["steps"] == steps
    assert ollama.models == {BASE: base(**CAPPED), KEPT: base()}


def test_what_somebody_replaced_is_kept_anew_and_not_undone(ollama: FakeOllama, run: Run) -> None:
    newer = Model("newer", {"stop": ["x"]})
    ollama.models = {BASE: newer, KEPT: base()}
    assert run(state="restored", check_mode=True)["steps"] == [f"delete {KEPT}"]
    run(**IN_PLACE)
    assert ollama.models == {BASE: Model("newer", {"stop": ["x"], **CAPPED}), KEPT: newer}
    run(state="restored")
    assert ollama.models == {BASE: newer}


def test_upper_and_lower_case_are_one_model(ollama: FakeOllama, run: Run) -> None:
    ollama.models = {BASE: base()}
    shouted = {"name": BASE, "from": BASE.upper(), "parameters": CAP}
    for options in (shouted, {**shouted, "name": BASE.upper()}):
        done = run(**options)
        assert (done["model"], ollama.models) == (BASE, {BASE: base(**CAPPED), KEPT: base()})
    assert not done["changed"]
    run(name=BASE.upper(), state="restored")
    assert ollama.models == {BASE: base()}
    run(**{**DERIVE, "from": BASE.upper()})
    assert ollama.models == {BASE: base(), DERIVED: base(**CAPPED)}


def test_a_run_that_was_cut_off_is_completed(ollama: FakeOllama, run: Run) -> None:
    ollama.models = {BASE: base(), KEPT: base()}
    assert run(**IN_PLACE)["steps"] == [f"create {BASE} from {KEPT}"]
    assert ollama.models == {BASE: base(**CAPPED), KEPT: base()}
    ollama.models = {BASE: base(), KEPT: base()}
    run(state="restored")
    assert ollama.models == {BASE: base()}


def test_pull_always_changes_only_what_the_registry_changed(ollama: FakeOllama, run: Run) -> None:
    ollama.models = {BASE: base()}
    assert run(True, pull="always")["changed"], "check mode cannot know"
    same = run(pull="always")
    assert (same["changed"], same["steps"]) == (False, [f"pull {BASE}"])
    assert (same["pulled"]["downloaded_mib"], same["pulled"]["total_mib"]) == (0, 4000)
    run(**DERIVE)
    ollama.registry[BASE] = Model("newer", {"temperature": 1})
    newer = run(**DERIVE, pull="always")
    assert newer["changed"]
    assert newer["pulled"]["downloaded_mib"] == 4000
    assert ollama.models[DERIVED] == Model("newer", {"temperature": 1, **CAPPED})
    assert not run(**DERIVE)["changed"]


def test_a_stop_that_ollama_adds_is_no_change(ollama: FakeOllama, run: Run) -> None:
    ollama.models = {BASE: Model("gemma")}
    ollama.adds = {"stop": ["<turn|>"]}
    assert run(**DERIVE)["parameters"] == {**CAPPED, "stop": ["<turn|>"]}
    assert not run(**DERIVE)["changed"]


def test_progress_can_be_watched(ollama: FakeOllama, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.json"
    written: list[Json] = []
    write = ollama_model.progress_file.write
    monkeypatch.setattr(ollama_model, "PROGRESS_EVERY_S", 0)
    monkeypatch.setattr(ollama_model.progress_file, "write", lambda path, now: (written.append(now), write(path, now)))
    pulled = run(progress_path=str(path))["pulled"]
    assert [each["completed_mib"] for each in written] == [0, 0, 2000, 4000, 4000, 4000, 4000]
    last = json.loads(path.read_text())
    assert last == {**written[-1]}
    assert (last["model"], last["status"], last["total_mib"]) == (BASE, "success", 4000)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (pulled["model"], pulled["downloaded_mib"], pulled["total_mib"]) == (BASE, 4000, 4000)


REFUSED: dict[str, tuple[Json, str]] = {
    "no name": ({"name": "a b"}, "name: 'a b' is no name of a model; allowed: such as llama3.1:8b"),
    "no base": ({"parameters": {"num_gpu": 1}}, "from and parameters go together"),
    "no parameters": ({"from": "a"}, "from and parameters go together"),
    "not a parameter": ({"from": "a", "parameters": {"gpu_layers": 1}}, "parameters.gpu_layers: there is no such"),
    "a range": ({"from": "a", "parameters": {"num_gpu": -7}}, "allowed: a whole number from -1 to 100000"),
    "always in place": ({**IN_PLACE, "pull": "always"}, "pull=always would undo parameters that are set in place"),
    "too long to keep": (
        {"name": "m:" + "t" * 70, "from": "m:" + "t" * 70, "parameters": CAP},
        "which would keep it as it was, is too long a name; use another name",
    ),
    "no URL": ({"url": "localhost:11434"}, "url is localhost:11434: not a URL: it must start with http://"),
    "no time": ({"timeout": 0}, "timeout is 0.0, it must be more than 0"),
    "no directory": ({"progress_path": "/no/such/file"}, "progress_path is /no/such/file, its directory must exist"),
}


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_ollama_is_asked(
    ollama: FakeOllama, run: Run, options: Json, words: str, check_mode: bool
) -> None:
    answer = run(check_mode, **options)
    assert answer["failed"]
    assert words in answer["msg"]
    assert ollama.served == []


WRONG: dict[str, tuple[dict[str, tuple[int, bytes]], Json, str]] = {
    "not Ollama": ({"/api/version": (200, b"<html>")}, {}, "the answer is not JSON: <html>; correct url"),
    "no version": ({"/api/version": (200, b"[]")}, {}, "names no version, so it is no Ollama; correct url"),
    "before 0.1.14": ({"/api/version": (404, b"404 page not found")}, {}, "before 0.1.14 has no such answer, upgrade"),
    "before 0.1.10": ({"/api/version": (200, b'{"version": "0.1.9"}')}, {}, "Ollama 0.1.9 is too old"),
    "show fails": ({"/api/show": (500, b'{"error": "bad manifest"}')}, {}, "answered 500: bad manifest; Ollama's own"),
    "show is no text": ({"/api/show": (200, b'{"parameters": 1}')}, {}, "its parameters is no text"),
    "tags is no list": ({"/api/tags": (200, b"[]")}, {}, "what answers /api/tags is no list of Ollama's"),
    "copy fails": (
        {"/api/copy": (400, b'{"error": "destination is invalid"}')},
        IN_PLACE,
        f"cannot copy {BASE} to {KEPT}: Ollama answered 400: destination is invalid",
    ),
    "create fails": (
        {"/api/create": (400, b"{\"error\": \"neither 'from' or 'files' was specified\"}")},
        DERIVE,
        "cannot create capped:latest: http://127.0.0.1:",
    ),
    "delete fails": (
        {"/api/delete": (500, b'{"error": "permission denied"}')},
        {"state": "absent"},
        f"cannot delete {BASE}: Ollama answered 500: permission denied",
    ),
}


@pytest.mark.parametrize(("wrong", "options", "words"), WRONG.values(), ids=WRONG)
def test_answers_that_are_wrong(
    ollama: FakeOllama, run: Run, wrong: dict[str, tuple[int, bytes]], options: Json, words: str
) -> None:
    ollama.models = {BASE: base()}
    untouched = ollama.snapshot()
    ollama.wrong = wrong
    answer = run(**options)
    assert answer["failed"]
    assert words in answer["msg"]
    assert not answer["changed"]
    assert ollama.models == untouched


def test_nobody_listens(run: Run) -> None:
    answer = run(url="http://127.0.0.1:9")
    assert answer["msg"] == (
        "http://127.0.0.1:9/api/version: connection refused, so nothing listens there; start Ollama, or correct url"
    )


def test_a_model_that_the_registry_does_not_have(ollama: FakeOllama, run: Run) -> None:
    answer = run(name="nonesuch")
    assert "cannot pull nonesuch:latest: pull model manifest: file does not exist; check the name" in answer["msg"]
    assert (answer["changed"], answer["steps"]) == (False, [])


def test_what_was_done_before_a_failure_is_said(ollama: FakeOllama, run: Run) -> None:
    ollama.models = {BASE: base()}
    ollama.wrong = {"/api/create": (500, b'{"error": "disk full"}')}
    answer = run(**IN_PLACE)
    assert "disk full" in answer["msg"]
    assert (answer["changed"], answer["steps"]) == (True, [f"copy {BASE} to {KEPT}"])
    ollama.wrong = {}
    run(state="restored")
    assert ollama.models == {BASE: base()}


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("/api/pull", {"name": BASE}, f"says that it has pulled {BASE}, but does not show it"),
        ("/api/create", DERIVE, "but of capped:latest it shows no such model"),
    ],
)
def test_success_is_read_back(ollama: FakeOllama, run: Run, path: str, options: Json, words: str) -> None:
    ollama.models = {} if path == "/api/pull" else {BASE: base()}
    ollama.ignores = {path}
    assert words in run(**options)["msg"]


def test_a_stop_that_the_old_shape_cannot_carry_stops_it_before_anything_is_done(ollama: FakeOllama, run: Run) -> None:
    ollama.models = {BASE: base()}
    answer = run(**{**IN_PLACE, "parameters": {"stop": '"""'}})
    if ollama.version == "0.5.4":
        assert "cannot be written for an Ollama before 0.5.5; upgrade Ollama" in answer["msg"]
        assert ollama.models == {BASE: base()}
    else:
        assert ollama.models[BASE].parameters["stop"] == ['"""']


@pytest.mark.parametrize(
    ("lines", "ending", "words"),
    [
        ([{"status": "pulling manifest"}], b"0\r\n\r\n", "stopped at 'pulling manifest' instead of saying success"),
        ([{"status": "pulling manifest"}], b"", "stopped at 'pulling manifest' instead of saying success"),
        ([{"status": "success"}], b"5\r\nab", "the connection was closed before the answer was complete"),
        (["pulling"], b"0\r\n\r\n", "cannot pull llama3.1:8b: pulling;"),
    ],
)
def test_a_pull_that_ends_early_is_a_failure(
    ollama: FakeOllama, run: Run, monkeypatch: pytest.MonkeyPatch, lines: list[Any], ending: bytes, words: str
) -> None:
    answer = FakeOllama.__call__

    def cut_off(self: FakeOllama, handler: Any, content: bytes) -> Any:
        return stream(handler, lines, ending) if handler.path == "/api/pull" else answer(self, handler, content)

    monkeypatch.setattr(FakeOllama, "__call__", cut_off)
    assert words in run()["msg"]


def test_a_pull_that_falls_silent_is_a_failure(ollama: FakeOllama, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    over, answer = threading.Event(), FakeOllama.__call__

    def silent(self: FakeOllama, handler: Any, content: bytes) -> Any:
        if handler.path != "/api/pull":
            return answer(self, handler, content)
        stream(handler, [{"status": "pulling manifest"}], b"")
        over.wait(20)
        return None

    monkeypatch.setattr(FakeOllama, "__call__", silent)
    assert "cannot pull llama3.1:8b: " in (said := run(timeout=0.2)["msg"])
    over.set()
    assert "0.2 s" in said
