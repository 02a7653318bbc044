"""The report of recorded hosts: how long it takes to write, how large it is, and to open in headless Chromium.

Opening ends with the load event: by then the table stands and is sorted. Beside it the page without hosts, which is
what the browser itself takes. Best of several, each in a browser profile of its own.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import report_page
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import fleet_report
from ansible_collections.selo.gpu_memory.tests.report.conftest import chromium
from ansible_collections.selo.gpu_memory.tests.unit import recorded_fleet
from playwright.sync_api import Browser

TRIES = 5


def opening_s(browser: Browser, path: Path) -> float:
    """From asking for the page to the end of its load event. Seconds."""
    context = browser.new_context()
    page = context.new_page()
    started = time.perf_counter()
    page.goto(path.as_uri(), wait_until="load")
    taken = time.perf_counter() - started
    context.close()
    return taken


def main() -> None:
    print(f"{'hosts':>6} {'written in':>11} {'size':>9} {'opens in':>9} {'against an empty page':>22}")
    with tempfile.TemporaryDirectory() as directory, chromium() as browser:
        path = Path(directory) / "report.html"
        empty = None
        for hosts in (0, 1, 200, 1000):
            records = recorded_fleet.records(hosts)
            started = time.process_time()
            path.write_text(report_page.page(fleet_report.fleet(records, recorded_fleet.AT)), encoding="utf-8")
            written = time.process_time() - started
            opened = min(opening_s(browser, path) for _ in range(TRIES))
            empty = empty or opened
            size = path.stat().st_size / 1e6
            print(f"{hosts:>6} {written:>5.2f} CPU s {size:>6.2f} MB {opened:>7.2f} s {opened / empty:>20.1f} x")


if __name__ == "__main__":
    main()
