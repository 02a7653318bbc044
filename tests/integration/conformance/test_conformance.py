"""What the collection takes for granted of an Ollama server: API shapes, error texts, log lines, runners' settings."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import endpoints, log_lines, shown_arrays
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client
from ansible_collections.selo.gpu_memory.plugins.modules import ollama_model

from tests.integration.conformance.conftest import Server, Start
from tests.integration.lab.lab_host import GUIDES_MODEL, eventually

DETAILS = {"parent_model", "format", "family", "families", "parameter_size", "quantization_level"}
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def tags(server: Server) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in server.get("/api/tags")["models"]}


def running(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/api/ps")["models"]
    return found


def parameters(server: Server, name: str) -> str:
    return str(server.post("/api/show", model=name)[1].get("parameters", ""))


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_version(server: Server) -> None:
    assert server.get("/") == "Ollama is running"
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", server.get("/api/version")["version"])


def test_tags(server: Server) -> None:
    model = tags(server)[server.subject]
    assert {"name", "model", "modified_at", "size", "digest", "details"} <= set(model)
    assert model["model"] == model["name"]
    assert STAMP.fullmatch(model["modified_at"])
    assert re.fullmatch("[0-9a-f]{64}", model["digest"])
    assert isinstance(model["size"], int)
    assert set(model["details"]) - {"context_length", "embedding_length"} == DETAILS
    assert ("capabilities" in model) == server.runs_llama_server
    assert ("context_length" in model["details"]) == server.runs_llama_server


def test_show(server: Server) -> None:
    status, terse = server.post("/api/show", model=server.subject)
    assert status == 200
    assert {"modelfile", "template", "details", "model_info", "tensors", "capabilities", "modified_at"} <= set(terse)
    assert set(terse["details"]) == DETAILS
    assert re.search(r"^FROM /.*/blobs/sha256-[0-9a-f]{64}$", terse["modelfile"], re.MULTILINE)
    assert not [key for key, value in terse["model_info"].items() if isinstance(value, list)]
    assert all(set(tensor) == {"name", "type", "shape"} for tensor in terse["tensors"])
    verbose = server.post("/api/show", model=server.subject, verbose=True)[1]
    held_back = [key for key, value in terse["model_info"].items() if value is None]
    assert all(isinstance(verbose["model_info"][key], list) for key in held_back)


def test_arrays_are_picked_out_of_the_long_answer(server: Server) -> None:
    verbose = server.post("/api/show", model=server.subject, verbose=True)[1]["model_info"]
    numbers = {
        key: value for key, value in verbose.items() if isinstance(value, list) and isinstance(value[0], (int, float))
    }
    picked = shown_arrays.Picked([*numbers, "absent"])
    body = json.dumps(endpoints.verbose(server.subject)).encode()
    http_client.request(f"{server.url}{endpoints.SHOW}", method="POST", body=body, take=picked.take)
    assert picked.found() == numbers
    assert numbers or server.subject == GUIDES_MODEL  # the stand-ins have none


def test_the_planner_reads_what_is_shown(server: Server) -> None:
    model = planner.Model.from_show(server.post("/api/show", model=server.subject)[1])
    assert model.offloadable == server.layers
    version = server.get("/api/version")["version"]
    planned = planner.plan(model, planner.Scenario(num_ctx=1024, num_batch=512), ollama_version=version)
    assert planned.weights_mib > 0
    assert planned.kv_mib > 0


def test_what_runs(start: Start) -> None:
    server = start(OLLAMA_CONTEXT_LENGTH="1024", OLLAMA_KEEP_ALIVE="10m")
    assert running(server) == []
    assert server.say()[0] == 200
    (model,) = running(server)
    keys = {"name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length"}
    assert keys <= set(model)
    assert (model["name"], model["context_length"]) == (server.subject, 1024)
    assert model["digest"] == tags(server)[server.subject]["digest"]
    assert 0 <= model["size_vram"] <= model["size"]
    assert STAMP.fullmatch(model["expires_at"])
    status, answer = server.post("/api/generate", model=server.subject, keep_alive=0)
    assert (status, answer["done_reason"]) == (200, "unload")
    eventually(lambda: running(server) == [])


def test_an_answer(server: Server) -> None:
    status, answer = server.post(
        "/api/chat", model=server.subject, messages=[{"role": "user", "content": "hi"}], stream=False,
        options={"num_predict": 2},
    )  # fmt: skip
    assert (status, answer["done"], answer["message"]["role"]) == (200, True, "assistant")
    figures = {"total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count"}
    assert figures <= set(answer)
    pieces = server.lines("/api/generate", model=server.subject, prompt="a", options={"num_predict": 2})
    assert [piece["done"] for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert {"done_reason", "eval_count"} <= set(pieces[-1])


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_derived_model(server: Server) -> None:
    wanted = {"num_gpu": 2, "num_ctx": 512, "stop": ["a", "b"]}
    lines = server.lines("/api/create", model="capped", **{"from": server.subject}, parameters=wanted)
    steps = [line["status"] for line in lines]
    assert steps[-2:] == ["writing manifest", "success"]
    assert any(step.startswith("using existing layer sha256:") for step in steps)
    assert any(step.startswith("creating new layer sha256:") for step in steps)
    # Ollama goes through them in the order of a Go map, which is another each time.
    assert sorted(parameters(server, "capped").splitlines()) == [
        f"{'num_ctx':<30} 512", f"{'num_gpu':<30} 2", f"{'stop':<30} \"a\"", f"{'stop':<30} \"b\""
    ]  # fmt: skip
    parent = tags(server)["capped:latest"]["details"]["parent_model"]
    assert parent == (server.subject if server.runs_llama_server else "")
    once = server.post("/api/create", model="capped", **{"from": server.subject}, stream=False)
    assert once == (200, {"status": "success"})
    assert parameters(server, "capped") == ""


def test_text_is_stored_as_it_is_and_refused_when_it_is_loaded(server: Server) -> None:
    server.post("/api/create", model="text", **{"from": server.subject}, parameters={"num_gpu": "2"}, stream=False)
    assert server.say("text") == (500, {"error": 'option "num_gpu" must be of type integer'})
    server.post("/api/create", model="key", **{"from": server.subject}, parameters={"num_gpus": 2}, stream=False)
    assert server.say("key")[0] == 200
    assert 'msg="invalid option provided" option=num_gpus' in server.log


def test_copy_and_delete(server: Server) -> None:
    assert server.post("/api/copy", source=server.subject, destination="kept")[0] == 200
    assert tags(server)["kept:latest"]["digest"] == tags(server)[server.subject]["digest"]
    assert server.call("DELETE", "/api/delete", {"model": "kept"})[0] == 200
    assert "kept:latest" not in tags(server)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        (
            "POST",
            "/api/create",
            {"model": "x", "modelfile": "FROM y\n"},
            400,
            "neither 'from' or 'files' was specified",
        ),
        ("POST", "/api/create", {"model": "", "from": "y"}, 400, "invalid model name"),
        ("POST", "/api/copy", {"source": "nope", "destination": "y"}, 404, 'model "nope" not found'),
        ("DELETE", "/api/delete", {"model": "nope"}, 404, "model 'nope' not found"),
        ("POST", "/api/show", {"model": "nope"}, 404, "model 'nope(:latest)?' not found"),  # since 0.32 with its tag
        ("POST", "/api/show", {}, 400, "model is required"),
        ("POST", "/api/show", None, 400, "missing request body"),
        ("POST", "/api/chat", {"model": "nope"}, 404, "model 'nope' not found"),
        ("POST", "/api/generate", {"model": "nope"}, 404, "model 'nope' not found"),
        ("POST", "/api/embed", {"model": "nope", "input": "x"}, 404, 'model "nope" not found, try pulling it first'),
    ],
)
def test_refusals(server: Server, method: str, path: str, body: Any, status: int, text: str) -> None:
    answered, answer = server.call(method, path, body)
    assert (answered, set(answer)) == (status, {"error"}), answer
    assert re.fullmatch(text, answer["error"])


def test_refusals_of_the_openai_api(server: Server) -> None:
    status, answer = server.post("/v1/chat/completions", model="nope", messages=[{"role": "user", "content": "a"}])
    assert (status, answer["error"]["message"]) == (404, "model 'nope' not found")
    status, answer = server.post("/v1/chat/completions", model=server.subject, messages=[])
    assert (status, answer["error"]["message"]) == (400, "[] is too short - 'messages'")


@pytest.mark.parametrize("form", ["{}", "library/{}", "registry.ollama.ai/library/{}", "REGISTRY.ollama.ai/library/{}"])
def test_a_model_has_many_names(server: Server, form: str) -> None:
    name = form.format(server.subject)
    for each in (name, name.upper(), f"{name}:local"):
        assert server.post("/api/show", model=each)[0] == 200, each


def test_a_tag_of_the_cloud_means_the_cloud_whatever_is_here(server: Server) -> None:
    """Which is switched off, or wants somebody signed in."""
    assert server.post("/api/copy", source=server.subject, destination="own:8b-cloud")[0] == 200
    assert server.post("/api/copy", source=server.subject, destination="own-cloud")[0] == 200
    assert {"own:8b-cloud", "own-cloud:latest"} <= set(tags(server))
    for name in ("own:8b-cloud", "nope:cloud", "Nope:8B-Cloud"):
        assert server.post("/api/chat", model=name, messages=[{"role": "user", "content": "a"}])[0] in (401, 403)
        assert server.post("/api/show", model=name)[0] in (401, 403)
    assert server.post("/api/show", model="own-cloud")[0] == 200
    assert server.post("/api/show", model="nope-cloud")[0] == 404


def test_a_model_of_the_cloud_is_listed_as_remote(server: Server) -> None:
    stub = {"model": "stub", "from": "gpt-oss:120b", "remote_host": "https://ollama.com", "stream": False}
    assert server.call("POST", "/api/create", stub)[0] == 200
    listed = tags(server)
    assert (listed["stub:latest"]["remote_model"], "ollama.com" in listed["stub:latest"]["remote_host"]) == (
        "gpt-oss:120b",
        True,
    )
    assert not {"remote_model", "remote_host"} & set(listed[server.subject])
    assert server.post("/api/chat", model="stub", messages=[{"role": "user", "content": "a"}])[0] in (401, 403)


@pytest.mark.parametrize("in_place", [False, True], ids=["derived", "in place"])
def test_the_module_caps_a_model_and_takes_it_back(
    server: Server, capsys: pytest.CaptureFixture[str], in_place: bool
) -> None:
    def run(**options: Any) -> dict[str, Any]:
        with patch_module_args({**options, "url": server.url}), pytest.raises(SystemExit):
            ollama_model.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert "failed" not in answer, answer
        return answer

    name = server.subject if in_place else "capped"
    before = {each: model["digest"] for each, model in tags(server).items()}
    capped = {"name": name, "from": server.subject, "parameters": {"num_gpu": 2, "num_ctx": 512}}
    assert run(**capped)["changed"]
    assert not run(**capped)["changed"]
    assert server.say(name)[0] == 200
    load = server.loads()[-1]
    assert log_lines.runner_settings(load["command"], load["sent"])["num_gpu"] == 2
    back = {"name": name, "state": "restored" if in_place else "absent"}
    assert run(**back)["changed"]
    assert not run(**back)["changed"]
    assert {each: model["digest"] for each, model in tags(server).items()} == before


# --- environment and runner -------------------------------------------------------------------------------------------


def test_the_environment_shows_in_the_server_config_line(start: Start) -> None:
    server = start(
        OLLAMA_NUM_PARALLEL="2", OLLAMA_CONTEXT_LENGTH="2048", OLLAMA_MAX_LOADED_MODELS="1", OLLAMA_KEEP_ALIVE="90",
        OLLAMA_GPU_OVERHEAD="8G", OLLAMA_GPU_LAYERS="40", OLLAMA_NUM_GPU="40", OLLAMA_FLASH_ATTENTION="1",
        OLLAMA_KV_CACHE_TYPE="q8_0",
    )  # fmt: skip
    config = server.journal()["server_config"]
    shown = {
        "OLLAMA_NUM_PARALLEL": "2", "OLLAMA_CONTEXT_LENGTH": "2048", "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_KEEP_ALIVE": "1m30s", "OLLAMA_GPU_OVERHEAD": "0", "OLLAMA_FLASH_ATTENTION": "true",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
    }  # fmt: skip
    assert {key: config[key] for key in shown} == shown
    assert not {"OLLAMA_GPU_LAYERS", "OLLAMA_NUM_GPU"} & set(config)
    assert 'msg="invalid environment variable, using default" key=OLLAMA_GPU_OVERHEAD value=8G' in server.log
    assert ("LLAMA_ARG_FIT_TARGET:" in server.log) == server.runs_llama_server


def test_what_the_runner_is_started_with(start: Start) -> None:
    server = start(OLLAMA_NUM_PARALLEL="2", OLLAMA_CONTEXT_LENGTH="2048")
    assert server.say()[0] == 200
    load = server.loads()[-1]
    settings = log_lines.runner_settings(load["command"], load["sent"])
    assert (settings["num_ctx_total"], settings["num_parallel"], settings["num_gpu"]) == (4096, 2, None)
    assert settings["num_batch"] == 512
    assert server.say(num_ctx=512, num_batch=128, num_gpu=2)[0] == 200
    load = server.loads()[-1]
    settings = log_lines.runner_settings(load["command"], load["sent"])
    assert settings == {"num_ctx_total": 1024, "num_parallel": 2, "num_gpu": 2, "num_batch": 128}


def test_other_options_load_anew_and_missing_ones_do_not(server: Server) -> None:
    loads = []
    wanted: list[dict[str, int]] = [{"num_gpu": 2}, {"num_gpu": 2}, {}, {"num_gpu": 1}, {"num_gpu": 1, "num_ctx": 512}]
    for options in wanted:
        assert server.say(**options)[0] == 200
        loads.append(len(server.loads()))
    assert loads == [1, 1, 1, 2, 3]


def test_two_names_of_one_file_share_a_runner(server: Server) -> None:
    server.post("/api/create", model="other", **{"from": server.subject}, parameters={"num_ctx": 512}, stream=False)
    for name in (server.subject, "other", server.subject):
        assert server.say(name, **({} if name == "other" else {"num_ctx": 1024}))[0] == 200
    assert len(server.loads()) == 3
    assert len(running(server)) == 1


def test_an_empty_llama_argument_breaks_each_load(start: Start) -> None:
    server = start(LLAMA_ARG_FIT_TARGET="")
    expected = 500 if server.runs_llama_server else 200
    assert server.say()[0] == expected


def test_a_cache_type_that_llama_server_does_not_know(start: Start) -> None:
    server = start(OLLAMA_KV_CACHE_TYPE="q9_9")
    status, answer = server.say()
    if server.runs_llama_server:
        assert status == 500
        assert answer["error"].startswith("llama-server process has terminated: exit status 1")
        assert "Unsupported cache type: q9_9" in server.log
    else:
        assert status == 200
