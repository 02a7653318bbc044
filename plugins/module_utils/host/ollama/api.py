# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ollama's HTTP API as far as it is about the models that are there. Names are full names (see `model_name`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import endpoints
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.model_state import Shown, Step
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Answer

ANSWER_S = 30


class OllamaProblem(Exception):
    """Ollama does not answer, or not as asked; the text names the cause and the cure."""


class Ollama:
    """`silence_s`: for how long it may say nothing while it pulls or creates a model."""

    def __init__(self, url: str, silence_s: float) -> None:
        self._url, self._silence_s = url.rstrip("/"), silence_s

    def version(self) -> str:
        url = self._url + endpoints.VERSION
        try:
            answer = http_client.get_json(url, timeout=ANSWER_S)
        except http_client.HttpError as problem:
            cure = "start Ollama, or correct url"
            if problem.status is not None:
                cure = "correct url if this is no Ollama; one before 0.1.14 has no such answer, upgrade it"
            raise OllamaProblem(f"{problem}; {cure}") from None
        version = answer.get("version") if isinstance(answer, dict) else None
        if not isinstance(version, str):
            raise OllamaProblem(f"what answers {endpoints.VERSION} names no version, so it is no Ollama; correct url")
        return version

    def show(self, model: str) -> Shown | None:
        """The model, None if there is none; Invalid for an answer that Ollama would not give."""
        try:
            return Shown.of(http_client.post_json(self._url + endpoints.SHOW, endpoints.named(model), timeout=ANSWER_S))
        except http_client.HttpError as problem:
            if problem.status == 404:
                return None
            raise OllamaProblem(f"{problem}; Ollama's own journal says more about {model}") from None

    def show_all(self, models: Iterable[str]) -> dict[str, Shown | None]:
        return {model: self.show(model) for model in models}

    def digests(self) -> dict[str, str]:
        """The models that Ollama lists, each with the SHA-256 of its manifest."""
        try:
            listed = http_client.get_json(self._url + endpoints.MODELS, timeout=ANSWER_S)["models"] or []
            return {str(each["name"]): str(each["digest"]) for each in listed}
        except http_client.HttpError as problem:
            raise OllamaProblem(f"{problem}; Ollama's own journal says more") from None
        except (KeyError, TypeError):
            raise OllamaProblem(f"what answers {endpoints.MODELS} is no list of Ollama's; correct url") from None

    def do(self, step: Step, body: Mapping[str, object]) -> None:
        """`body` is what /api/create gets besides the name."""
        if step.verb == "create":
            self._create(step.model, body)
        elif step.verb == "copy":
            self._ask("POST", endpoints.COPY, {"source": step.source, "destination": step.model}, step)
        else:
            self._ask("DELETE", endpoints.DELETE, endpoints.named(step.model), step)

    def pull(self, model: str, on_line: Callable[[Answer], None]) -> None:
        """Pulls, with each line of progress (see `model_state.Meter`) to `on_line`."""
        try:
            self._stream(endpoints.PULL, endpoints.named(model), on_line)
        except http_client.HttpError as problem:
            raise OllamaProblem(
                f"cannot pull {model}: {problem}; check the name, the host's way to the registry and its free disk."
                " What has come is kept, and the next pull goes on from there"
            ) from None

    def _create(self, model: str, body: Mapping[str, object]) -> None:
        try:
            self._stream(endpoints.CREATE, {**endpoints.named(model), **body}, lambda _unused: None)
        except http_client.HttpError as problem:
            raise OllamaProblem(f"cannot create {model}: {problem}; Ollama's own journal says more") from None

    def _ask(self, method: str, path: str, body: Mapping[str, object], step: Step) -> None:
        """A request whose good answer is empty."""
        content, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        try:
            answer = http_client.request(
                self._url + path, method=method, body=content, headers=headers, timeout=ANSWER_S
            )
        except http_client.HttpError as problem:
            raise OllamaProblem(f"cannot {step}: {problem}; Ollama's own journal says more") from None
        if not 200 <= answer.status < 300:
            said = f"{answer.status}: {http_client.error_text(answer.body)}"
            raise OllamaProblem(f"cannot {step}: Ollama answered {said}; Ollama's own journal says more")

    def _stream(self, path: str, body: Mapping[str, object], on_line: Callable[[Answer], None]) -> None:
        """HttpError unless the last line says success. An error can come in a line of a good answer."""
        url, status = self._url + path, None
        for line in http_client.post_for_lines(url, {**body, "stream": True}, silence_s=self._silence_s):
            if not isinstance(line, dict) or line.get("error"):
                raise http_client.HttpError(http_client.error_text(json.dumps(line).encode()))
            status = line.get("status")
            on_line(line)
        if status != "success":
            raise http_client.HttpError(f"Ollama stopped at {status!r} instead of saying success")
