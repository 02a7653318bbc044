from __future__ import annotations

import re

import pytest
from ansible_collections.selo.gpu_memory.tests.report.conftest import PHONE, write
from ansible_collections.selo.gpu_memory.tests.unit import recorded_fleet
from playwright.sync_api import expect

FIRST_RED = "gpu041"
# Each would do something if it reached the page as markup, script or style.
HOSTILE = [
    "</script><script>document.title='hit'</script>",
    "<img src=x onerror=\"document.title='hit'\">",
    "<svg onload=\"document.title='hit'\">",
    "'\"><style>body{display:none}</style>",
    "<!--<script>",
    "javascript:document.title='hit'",
    "{{7*7}}${7*7}$data",
    "\u202egnp.exe",
]


def test_the_fleet_is_shown_the_worst_first(show, fleet_page):
    watched = show(fleet_page)
    hosts = watched.hosts()
    assert len(hosts) == 200
    assert hosts[0] == FIRST_RED
    expect(watched.page.locator("#sum")).to_have_text(
        "200 hosts, 170 proven under load, 12 did not end well, 8 without a clear verdict."
    )


def test_one_click_from_a_red_host_to_its_cause(show, fleet_page):
    watched = show(fleet_page)
    detail = watched.open_host(FIRST_RED)
    expect(detail.locator(".cause")).to_contain_text("cudaMalloc failed: out of memory")
    expect(detail.locator(".cause")).to_be_in_viewport()
    expect(detail.get_by_role("img", name=re.compile("^GPU 0, peak"))).to_be_visible()
    expect(detail.get_by_role("img", name=re.compile("^predicted"))).to_be_visible()
    expect(detail.get_by_role("img", name=re.compile("^measured"))).to_be_visible()
    whole = detail.get_by_role("img", name="GPU 0 at 1.1 s: Ollama 7910, backend 6444, Xorg 800, free 1226")
    expect(whole).to_be_visible()
    watched.open_host(FIRST_RED)
    expect(detail).to_be_hidden()


def test_a_host_that_passed_has_everything_that_is_known_about_it(show, fleet_page):
    detail = show(fleet_page).open_host("gpu009")
    for words in (
        "headroom", "3 chats at once", "tok/s", "p95", "In figures", "Changed since", "no effect", "void",
        "requests carry num_gpu=40", "0.32.15", "generation 0001", "rollback --limit gpu009",
    ):  # fmt: skip
        expect(detail).to_contain_text(words)
    assert detail.locator("svg .series path").count() == 3
    assert detail.locator("svg .threshold path").count() == 1


@pytest.mark.parametrize(
    "column, first, last",
    [
        ("Host", "gpu001", "gpu200"),
        ("Peak", "gpu164", None),
        ("Changed", "gpu009", None),
    ],
)
def test_a_column_sorts_and_sorts_back(show, fleet_page, column, first, last):
    watched = show(fleet_page)
    heading = watched.page.get_by_role("columnheader", name=column)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == ("ascending" if column == "Host" else "descending")
    once = watched.hosts()
    assert once[0] == first
    if last:
        assert once[-1] == last
    heading.get_by_role("button").click()
    assert watched.hosts() != once
    assert sorted(watched.hosts()) == sorted(once)


def test_hosts_without_a_figure_sort_to_the_end_both_ways(show, fleet_page):
    watched = show(fleet_page)
    heading = watched.page.get_by_role("columnheader", name="Headroom").get_by_role("button")
    for _ in range(2):
        heading.click()
        cells = watched.page.locator("#fleet > tbody > tr:first-child > td:nth-child(4)").all_inner_texts()
        assert cells.index("") == len([cell for cell in cells if cell])


def test_a_verdict_filters_and_what_is_open_stays_with_its_host(show, fleet_page):
    watched = show(fleet_page)
    detail = watched.open_host(FIRST_RED)
    verdict = watched.page.get_by_role("button", name=re.compile("^.? ?rolled back 6$"))
    verdict.click()
    expect(verdict).to_have_attribute("aria-pressed", "true")
    assert len(watched.hosts()) == 6
    expect(watched.page.get_by_role("status")).to_have_text("6 of 200 hosts shown")
    expect(detail).to_be_hidden()
    verdict.click()
    assert len(watched.hosts()) == 200
    expect(detail).to_be_visible()


def test_words_in_name_profile_verdict_or_reason_are_found(show, fleet_page):
    watched = show(fleet_page)
    for words, found in (("GPU02", 10), ("greedy", 6), ("too old driver", 2), ("rolled back gpu116", 1), ("zzz", 0)):
        watched.page.get_by_role("searchbox").fill(words)
        assert len(watched.hosts()) == found, words


def test_everything_works_from_the_keyboard(show, fleet_page):
    watched = show(fleet_page)
    keyboard = watched.page.keyboard
    keyboard.press("/")
    keyboard.type(FIRST_RED)
    assert watched.hosts() == [FIRST_RED]
    for _ in range(30):
        keyboard.press("Tab")
        if watched.page.evaluate("document.activeElement.textContent") == FIRST_RED:
            break
    keyboard.press("Enter")
    opener = watched.page.get_by_role("button", name=FIRST_RED, exact=True)
    expect(opener).to_have_attribute("aria-expanded", "true")
    expect(watched.page.get_by_role("article", name=FIRST_RED)).to_be_visible()
    keyboard.press("Space")
    expect(opener).to_have_attribute("aria-expanded", "false")


def test_names_and_messages_of_a_hostile_host_do_nothing(show, tmp_path):
    record = recorded_fleet.recorded("fail")
    every = " ".join(HOSTILE)
    record |= {"host": every, "profile": every, "reasons": HOSTILE, "notes": HOSTILE, "reason": every}
    record["memory"]["others"] = [{"name": text, "peak_mib": 100} for text in HOSTILE]
    record["journal"]["failures"] = [{"severity": text, "at": 1.0, "line": text} for text in HOSTILE]
    record["load"]["errors"] = HOSTILE
    record["changes"] = [{"what": text, "before": text, "now": None} for text in HOSTILE]
    record["settings"] = [{**record["settings"][0], "name": text, "wanted": text, "effect": text} for text in HOSTILE]
    record["gpus"][0] |= {"name": every, "uuid": every}
    record["versions"] = {"ollama": every, "driver": every}
    watched = show(write(tmp_path / "report.html", [record, recorded_fleet.recorded("pass")]))
    watched.page.locator("tbody th > button").first.click()
    detail = watched.page.get_by_role("article")
    for text in HOSTILE[:-1]:
        expect(detail).to_contain_text(text)
    assert watched.page.title() == "GPU memory"
    assert watched.page.locator("article img, article script, article style, article a").count() == 0
    assert "\u202e" not in watched.page.content()


def test_a_single_host_is_open_at_once(show, tmp_path):
    watched = show(write(tmp_path / "report.html", [recorded_fleet.recorded("pass")]))
    expect(watched.page.get_by_role("article")).to_contain_text("headroom 598")


def test_no_hosts(show, tmp_path):
    watched = show(write(tmp_path / "report.html", []))
    expect(watched.page.locator("#sum")).to_have_text("0 hosts, 0 proven under load.")


def test_without_pygal_the_figures_stand_open(show, tmp_path, monkeypatch):
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import chart

    monkeypatch.setattr(chart, "HAS_PYGAL", False)
    watched = show(write(tmp_path / "report.html", [recorded_fleet.recorded("pass")]))
    expect(watched.page.get_by_text("The curve is drawn where pygal is installed")).to_be_visible()
    expect(watched.page.get_by_role("cell", name="11690").first).to_be_visible()


def test_a_link_opens_its_host(show, fleet_page, browser):
    page = browser.new_context().new_page()
    page.goto(f"{fleet_page.as_uri()}#gpu116")
    expect(page.get_by_role("article", name="gpu116")).to_be_in_viewport()
    page.context.close()


def test_on_a_phone_nothing_is_wider_than_the_screen(show, fleet_page):
    watched = show(fleet_page, **PHONE)
    for host in (FIRST_RED, "gpu116"):
        watched.open_host(host)
    assert watched.page.evaluate("document.documentElement.scrollWidth") == PHONE["viewport"]["width"]


def test_in_the_dark_and_on_paper(show, fleet_page):
    watched = show(fleet_page, color_scheme="dark")
    detail = watched.open_host(FIRST_RED)
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((sum, part) => sum + +part, 0)"
    assert watched.page.evaluate(brightness) < 150
    watched.page.emulate_media(media="print", color_scheme="dark")
    assert watched.page.evaluate(brightness) == 3 * 255  # paper is white
    expect(detail).to_be_visible()
    expect(watched.page.locator("#filters")).to_be_hidden()
    assert watched.page.pdf().startswith(b"%PDF")


# WCAG's contrast ratio of each piece of text against the first background behind it that is not transparent.
CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = channels(colour).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if ((channels(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, script")) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) poor.add(`${element.tagName}.${element.className} ${element.textContent}`);
  }
  return [...poor];
}"""


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(show, fleet_page, colours):
    watched = show(fleet_page, color_scheme=colours)
    for host in (FIRST_RED, "gpu009", "gpu067", "gpu023"):
        watched.open_host(host)
    assert watched.page.evaluate(CONTRAST) == []
