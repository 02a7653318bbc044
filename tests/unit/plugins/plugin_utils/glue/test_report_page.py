from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from xml.etree import ElementTree

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import chart, report_page
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import fleet_report
from ansible_collections.selo.gpu_memory.tests.unit import recorded_fleet

needs_pygal = pytest.mark.skipif(not chart.HAS_PYGAL, reason="pygal is for those who want curves")
HOSTILE = "</script><img src=x onerror=alert(1)><!--<script>]]>&amp;\u2028$data ${style}"


class Parsed(html.parser.HTMLParser):
    """The page as a browser's parser takes it: the elements, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] in ("script", "style") and data.strip():
            self.texts.append((*self.elements[-1], data))


def page_of(*records):
    return Parsed(report_page.page(fleet_report.fleet(records, 1.0), "undo {host}"))


def data_of(parsed):
    (text,) = (text for _unused, attributes, text in parsed.texts if attributes.get("type") == "application/json")
    return json.loads(text)


def test_what_a_host_says_stays_text():
    plain, record = recorded_fleet.recorded("rolled_back"), recorded_fleet.recorded("rolled_back")
    record |= {"host": HOSTILE, "profile": HOSTILE, "reasons": [HOSTILE], "notes": [HOSTILE]}
    record["memory"]["others"][0]["name"] = HOSTILE
    record["journal"]["failures"][0]["line"] = HOSTILE
    parsed = page_of(record)
    assert [tag for tag, _unused in parsed.elements] == [tag for tag, _unused in page_of(plain).elements]
    (host,) = data_of(parsed)["hosts"]
    shown = HOSTILE.replace("\u2028", " ")
    assert host["host"] == host["profile"] == host["reasons"][0] == host["notes"][0] == shown
    assert shown in [part["name"] for each in host["bars"] for part in each["parts"]]
    assert shown in [fault["text"] for fault in host["faults"]]


def test_the_pages_policy_allows_its_own_script_and_style_and_nothing_else():
    parsed = page_of(recorded_fleet.recorded("pass"))
    (policy,) = (
        each["content"] for _unused, each in parsed.elements if each.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    own = {tag: text for tag, attributes, text in parsed.texts if "type" not in attributes}
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(own[tag].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_the_page_needs_no_other_file():
    parsed = page_of(recorded_fleet.recorded("pass"))
    addresses = [value for _unused, each in parsed.elements for name, value in each.items() if name in ("src", "href")]
    assert addresses == ["data:,"]


def test_the_script_makes_no_markup_from_text():
    script = (report_page.SOURCE / "report.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)


def test_a_number_that_json_does_not_know_is_an_error_and_no_broken_page():
    with pytest.raises(ValueError):
        report_page.as_json_in_html({"peak": float("nan")})


def chart_of(record):
    (record,) = fleet_report.fleet([record], 1.0)["hosts"]
    expected = fleet_report.expected_mib(record)
    return chart.timeline_svg(record, expected), chart.series(record, expected)


@needs_pygal
def test_the_curve_is_geometry_alone():
    svg, series = chart_of(recorded_fleet.recorded("pass"))
    names = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
    assert names == {"svg", "g", "path", "text"}
    assert not re.search("style|script|href|on[a-z]+=", svg)
    assert [(each["kind"], each["mib"]) for each in series] == [
        ("gpu", 11690),
        ("threshold", 12288),
        ("expected", 11690),
    ]
    assert svg.count("series serie-") == len(series)


@needs_pygal
def test_every_gpu_has_a_curve():
    record = recorded_fleet.recorded("pass")
    record["gpus"].append({**record["gpus"][0], "index": 1})
    svg, series = chart_of(record)
    assert [each["name"] for each in series] == ["GPU 0, peak", "GPU 1, peak", "threshold"]
    assert svg.count("series serie-") == 3


def test_without_a_load_or_without_pygal_there_is_no_curve(monkeypatch):
    record = recorded_fleet.recorded("pass")
    assert chart_of({**record, "gpus": []})[0] is None
    monkeypatch.setattr(chart, "HAS_PYGAL", False)
    assert chart_of(record)[0] is None
    data = data_of(page_of(record))
    assert (data["charts"], data["hosts"][0]["chart"]) == (False, None)
    assert data["hosts"][0]["moments"]


@pytest.mark.parametrize("top, ticks", [(1, [0, 1]), (11, [0, 5, 10, 15]), (61, [0, 20, 40, 60, 80]), (0.4, [0, 1])])
def test_ticks(top, ticks):
    assert chart._ticks(top, chart.STEPS_S) == ticks
