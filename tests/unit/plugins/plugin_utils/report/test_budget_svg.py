"""The picture of a plan: lengths to scale, one file without references, everything from a host escaped."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import side_by_side
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import budget_svg
from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_side_by_side import host, plan, proof

SVG = "{http://www.w3.org/2000/svg}"


def drawn(planned: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(budget_svg.budget_svg(planned))


def segments(picture: ElementTree.Element) -> dict[str, float]:
    """Width by the segment's title, of the last bar that has one."""
    return {
        str(rect.findtext(f"{SVG}title")): float(rect.attrib["width"])
        for rect in picture.iter(f"{SVG}rect")
        if rect.find(f"{SVG}title") is not None
    }


def test_a_bar_is_to_scale() -> None:
    widths = segments(drawn(plan()))
    scale = 940 / 16380  # the bar's whole width is the card
    assert widths["weights: 7605 MiB"] == pytest.approx(7605 * scale, abs=0.05)
    assert widths["KV cache: 1024 MiB"] == pytest.approx(1024 * scale, abs=0.05)
    assert widths["now held by Xorg: 800 MiB"] == pytest.approx(800 * scale, abs=0.05)


def test_each_threshold_has_its_line() -> None:
    at = [float(line.attrib["x1"]) for line in drawn(plan()).iter(f"{SVG}line")]
    assert at == [pytest.approx(20 + mib * 940 / 16380, abs=0.05) for mib in (12288, 10240)]  # baseline has none


def test_a_bar_longer_than_the_card_stays_in_the_picture() -> None:
    gpu = builders.gpu(total_mib=8192)
    picture = drawn(plan(host(nvml__gpus=[gpu])))
    right = max(
        float(rect.attrib["x"]) + float(rect.attrib["width"])
        for rect in picture.iter(f"{SVG}rect")
        if "x" in rect.attrib
    )
    assert right <= 20 + 940 + 0.5
    assert "2690 too much" in budget_svg.budget_svg(plan(host(nvml__gpus=[gpu])))


def test_the_backend_is_drawn_once_it_was_measured() -> None:
    assert "backend, as measured before: 1836 MiB" in segments(drawn(plan(host(state__proof=proof(1836)))))
    assert not any("backend" in title for title in segments(drawn(plan())))


@pytest.mark.parametrize(
    "hostile", ["</text><script>alert(1)</script>", '"><x y="', "a\x00\x1b[31m\ud800b", "&amp;]]>"]
)
def test_hostile_names_stay_text(hostile: str) -> None:
    gpu = builders.gpu(name=hostile, processes=[builders.holder(7, hostile, 800)])
    planned = {**plan(host(nvml__gpus=[gpu])), "host": hostile}
    text = budget_svg.budget_svg(planned)
    picture = ElementTree.fromstring(text.encode("utf-8"))
    assert {element.tag.removeprefix(SVG) for element in picture.iter()} == {
        "svg", "style", "rect", "text", "title", "line",
    }  # fmt: skip
    assert "script>" not in text.replace("&lt;", "").replace("script&gt;", "")


def test_it_needs_nothing_else_and_follows_the_readers_theme() -> None:
    text = budget_svg.budget_svg(plan())
    assert text.count("http") == 1  # the namespace
    assert "href" not in text
    assert "prefers-color-scheme: dark" in text


def test_without_figures_the_problems_stand_there() -> None:
    text = budget_svg.budget_svg({"host": "gpu01", **side_by_side.unread("NVML: <no> library")})
    assert "NVML: &lt;no&gt; library" in text


def test_a_bar_is_that_of_the_tightest_of_several_gpus() -> None:
    gpus = [builders.gpu(), builders.gpu(1, processes=[], used_mib=0)]
    text = budget_svg.budget_svg(plan(host(nvml__gpus=gpus)))
    assert "GPU 1: 9054 MiB, threshold 12288" in text
    assert "now held by Xorg" not in text, "it is on the other"
