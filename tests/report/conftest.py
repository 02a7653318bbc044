"""A real Chromium, headless, with what a fleet of recorded hosts looks like in it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import report_page
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import fleet_report
from ansible_collections.selo.gpu_memory.tests.unit import recorded_fleet
from playwright.sync_api import Browser, Page, sync_playwright

UNDO = "ansible-playbook selo.gpu_memory.rollback --limit {host}"
# No sandbox, since tests may run as root; and nothing that would have it call home.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


class Watched:
    """A page in the browser, with every word on its console, every error and every request that it made."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request.url))

    def hosts(self) -> list[str]:
        """The names of the hosts that are shown, from the top."""
        return self.page.locator("#fleet > tbody:not([hidden]) > tr > th").all_inner_texts()

    def open_host(self, host: str) -> Any:
        """One click on a host; what it opens."""
        self.page.get_by_role("button", name=host, exact=True).click()
        return self.page.get_by_role("article", name=host, exact=True)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "no Chromium here: `script/setup test` installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def write(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text(report_page.page(fleet_report.fleet(records, recorded_fleet.AT), UNDO), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def fleet_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 200 hosts."""
    return write(tmp_path_factory.mktemp("fleet") / "report.html", recorded_fleet.records(200))


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """`show(path, **context)` opens a page; at the end it must have said nothing and asked the network for nothing."""
    opened: list[tuple[Watched, str]] = []

    def open_page(path: Path, **context: Any) -> Watched:
        watched = Watched(browser.new_context(**context).new_page())
        opened.append((watched, path.as_uri()))
        watched.page.goto(path.as_uri())
        return watched

    yield open_page
    for watched, address in opened:
        assert watched.complaints == []
        assert watched.requests == [address]
        watched.page.context.close()
