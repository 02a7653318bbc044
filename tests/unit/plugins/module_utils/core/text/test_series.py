"""Figures over time, thinned: no peak is lost."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import series
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(0, 20_000), max_size=1200), st.integers(1, 500))
def test_timeline_keeps_peaks_and_order(used: list[int], points: int) -> None:
    times = [float(number) for number in range(len(used))]
    line = series.timeline(times, used, points)
    assert len(line) <= points
    assert max(used, default=None) == max((mib for _unused, mib in line), default=None)
    assert [at for at, _unused in line] == sorted({at for at, _unused in line})
    assert all(used[int(at)] == mib for at, mib in line)
    if len(used) <= points:
        assert line == list(zip(times, used))


@given(st.lists(st.integers(0, 3), max_size=60))
def test_a_level_line_is_its_ends_and_every_other_point_stays(used: list[int]) -> None:
    points = [[float(at), float(value)] for at, value in enumerate(used)]
    thinned = series.without_levels(points)
    assert thinned[:1] == points[:1] and thinned[-1:] == points[-1:]
    # Between the points that are left, each that was dropped is where the line goes.
    left = iter(thinned)
    before = next(left, None)
    for point in points:
        if before is not None and point[0] > before[0]:
            assert point in thinned or point[1] == before[1]
        if point in thinned:
            before = point
