# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A forked child that runs risky work. Whatever it does (crash, hang, print), the parent only hears messages.

Forking rather than starting a script: a module's code lives in a zip that is gone for a new interpreter.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

Message = dict[str, Any]
Send = Callable[[Mapping[str, object]], None]
Told = TypeVar("Told", bound=Mapping[str, object])


class ChildCrashed(Exception):
    """The child ended without an answer; the text says how."""


class ChildTimedOut(Exception):
    """The child did not answer in time and was killed."""


class Child:
    """A child process that runs `work(send, lifeline)`.

    `send` gives a JSON-able dict to the parent. `lifeline` is a file descriptor that becomes readable when the parent
    lets go or has died; work that lasts must wait on it. The parent must not have threads yet.
    """

    def __init__(self, work: Callable[[Send, int], None]) -> None:
        messages_in, messages_out = os.pipe()
        lifeline_in, lifeline_out = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _run(work, messages_out, lifeline_in)
        os.close(messages_out)
        os.close(lifeline_in)
        self._messages, self._lifeline, self._unread = messages_in, lifeline_out, b""
        self._reaped = False

    def fileno(self) -> int:
        """What is readable once a message may have come."""
        return self._messages

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, or None after `timeout_s`. ChildCrashed when none can come any more."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            readable = select.select([self._messages], [], [], max(0.0, deadline - time.monotonic()))[0]
            if not readable:
                return None
            block = os.read(self._messages, 65536)
            if not block:
                raise ChildCrashed(self._ending())
            self._unread += block
        line, _unused, self._unread = self._unread.partition(b"\n")
        message: Message = json.loads(line)
        if "exception" in message:
            raise ChildCrashed(message["exception"])
        return message

    def let_go(self) -> None:
        """Tell the child to finish."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def close(self) -> None:
        """End the child, if it still runs, and free everything."""
        self.let_go()
        os.close(self._messages)
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._reap(1)

    def _ending(self) -> str:
        status = self._reap(5)
        if status is None:
            return "it closed its pipe and hangs"
        if os.WIFSIGNALED(status):
            return f"it was ended by {signal.Signals(os.WTERMSIG(status)).name}"
        return f"it ended with status {os.WEXITSTATUS(status)}"

    def _reap(self, timeout_s: float) -> int | None:
        """Exit status. Waits only so long: a process inside a hung driver call does not even die of SIGKILL."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._reaped = True
                return status
            time.sleep(0.005)
        return None


def call(work: Callable[[], Told], timeout_s: float) -> Told:
    """`work()` run in a child: what it returns, or ChildCrashed, or ChildTimedOut."""
    child = Child(lambda send, lifeline: send(work()))
    with contextlib.closing(child):
        message = child.receive(timeout_s)
    if message is None:
        raise ChildTimedOut(f"no answer within {timeout_s:g} s")
    return cast(Told, message)


def _run(work: Callable[[Send, int], None], messages: int, lifeline: int) -> None:
    """The child's whole life. It keeps nothing of the parent's open, so that nobody waits for it."""

    def send(message: Mapping[str, object]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(messages, data) :]

    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _keep_open({messages, lifeline})
        work(send, lifeline)
        status = 0
    except BaseException as problem:
        with contextlib.suppress(BaseException):
            send({"exception": f"{type(problem).__name__}: {problem}"})
    finally:
        os._exit(status)


def _keep_open(keep: set[int]) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    sys.stdout = sys.stderr = os.fdopen(1, "w")
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))
