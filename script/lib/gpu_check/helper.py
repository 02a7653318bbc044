"""Processes that do one thing for the check: allocate on the GPU, or read NVML. They answer in lines of JSON.

Each is a new interpreter, since CUDA may not be used on both sides of a fork. A crash or a hang of the driver is a
message here, and no helper outlives the check: the kernel ends it with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Answer = dict[str, Any]
PR_SET_PDEATHSIG = 1


class HelperProblem(Exception):
    """A helper could not do what it was asked: the text says why; `code` is the driver's own, or None."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Helper:
    """One such process, as its parent sees it. `ends`: when all must be over, on the monotonic clock."""

    def __init__(self, program: str, role: str, ends: float) -> None:
        self._role, self._ends, self._unread = role, ends, b""
        command = [sys.executable, program, "--helper", role, str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid

    def ask(self, verb: str, within_s: float = 30, **about: Any) -> Answer:
        self.begin(verb, **about)
        return self.answer(within_s)

    def begin(self, verb: str, **about: Any) -> None:
        """Ask without waiting for the answer."""
        line = json.dumps({"verb": verb, "about": about}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # then there is no answer, which says more
            if self._process.stdin is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()

    def answer(self, within_s: float = 30) -> Answer:
        until = min(time.monotonic() + within_s, self._ends)
        out = self._process.stdout
        while out is not None and b"\n" not in self._unread:
            if not select.select([out], [], [], max(0.0, until - time.monotonic()))[0]:
                self.kill()
                raise HelperProblem(f"the {self._role} hangs: no answer in time; look for Xid lines in journalctl -k")
            block = os.read(out.fileno(), 65536)
            if not block:
                raise HelperProblem(f"the {self._role} ended: {self._ending()}")
            self._unread += block
        line, _newline, self._unread = self._unread.partition(b"\n")
        answer: Answer = json.loads(line)
        if "problem" in answer:
            raise HelperProblem(answer["problem"], answer.get("code"))
        return answer

    def kill(self) -> None:
        """End it as a crash would: it frees nothing by itself. Waits only so long: a hung driver call holds it."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)

    def close(self) -> None:
        """Let it free what it holds, and end it."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _ending(self) -> str:
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "it closed its output and hangs"
        return signal.Signals(-status).name if status < 0 else f"status {status}"


def serve(
    verbs: Mapping[str, Callable[..., Answer]],
    parent: int,
    problems: tuple[type[Exception], ...],
    told: Callable[[Exception], str] = str,
) -> None:
    """The helper's life: answer until the parent closes our input. What the driver prints goes to standard error.

    `problems` are what a verb may end with, `told` words one.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # it was gone before the kernel knew
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it as well, and closes us
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = verbs[request["verb"]](**request["about"])
        except problems as problem:
            answer = {"problem": told(problem), "code": getattr(problem, "code", None)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
