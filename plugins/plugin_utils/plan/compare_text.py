# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's plan (`side_by_side.compare`) as text for a terminal of 120 columns. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.plan import (
    BackendUse,
    Column,
    HostPlan,
    LayerRow,
    PlannedModel,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import side_by_side
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_text, memory_parts

WIDTH = 120
BLOCKS_UP_TO = 4  # hosts; more get a line each
COLUMNS = 3  # profiles beside each other
LABEL_WIDTH, CELL_WIDTH = 27, 30
TERM_NAMES = {
    "weights_mib": "weights",
    "kv_mib": "KV cache",
    "compute_mib": "compute buffer",
    "op_offload_mib": "copies for host layers",
    "runtime_mib": "CUDA runtime",
}


def summary(plans: Sequence[HostPlan]) -> list[str]:
    """All hosts: a block each with an empty line after it, or above `BLOCKS_UP_TO` hosts a line each."""
    return ["\n".join([*block(plan), ""]) if len(plans) <= BLOCKS_UP_TO else one_line(plan) for plan in plans]


def block(plan: HostPlan) -> list[str]:
    """Every line for one host, each at most `WIDTH` wide and printable."""
    lines = [*_head(plan)]
    lines += _paragraphs("problem", plan["problems"])
    for profile in plan["profiles"]:
        lines += _paragraphs("problem", [f"{profile['label']}: {text}" for text in profile["problems"]])
    good = [profile for profile in plan["profiles"] if not profile["problems"]]
    for table in (_budget, _comparison, _largest):
        for start in range(0, len(good), COLUMNS):
            lines += [*table(plan, good[start : start + COLUMNS]), ""]
    for name in plan["models"]:
        for start in range(0, len(good), COLUMNS):
            some = [profile for profile in good[start : start + COLUMNS] if _of(profile, name)]
            lines += [*_layers(plan, name, some), ""] if some else []
    lines += _paragraphs("warning", _warnings(good))
    lines += _paragraphs("note", plan["notes"])
    lines += _paragraphs("written", [str(path) for path in plan.get("files", [])])
    return [host_text.printable(line)[:WIDTH] for line in lines]


def one_line(plan: HostPlan) -> str:
    """The chosen profile of a host in one line, for fleets."""
    problems = [*plan["problems"], *(text for each in plan["profiles"] for text in each["problems"])]
    chosen = next((each for each in plan["profiles"] if each["chosen"] and not each["problems"]), None)
    if chosen is None:
        text = f"cannot be planned: {'; '.join(problems) or 'its profile is not known'}"
    else:
        state = "fits" if chosen["fits_surely"] else "may fit" if chosen["fits"] else "does not fit"
        used = f"{chosen['sum_mib']}{_and_backend(chosen)} of {chosen['limit_mib']} MiB"
        text = f"{chosen['label']}  {state}  {used}, {_headroom(chosen)}"
        text += f", {len(chosen['warnings'])} warnings" if chosen["warnings"] else ""
    return textwrap.shorten(host_text.printable(f"{plan['host']}  {text}"), WIDTH, placeholder=" ...")


def _head(plan: HostPlan) -> Iterator[str]:
    if not plan["gpu"]:
        yield f"{plan['host']}  NOT PLANNED"
        return
    yield from textwrap.wrap(
        f"{plan['host']}  plan for {', '.join(plan['models'])} on Ollama {plan['ollama']}",
        WIDTH,
        subsequent_indent="  ",
    )
    for gpu in plan.get("gpus") or [plan["gpu"]]:
        yield (
            f"  GPU {gpu['index']}: {gpu['name']}, {gpu['total_mib']} MiB, {gpu['used_mib']} used now"
            + (f", {gpu['reserved_mib']} reserved" if gpu["reserved_mib"] else "")
        )
        yield from textwrap.wrap(
            f"  now: {memory_parts.text(gpu['total_mib'], gpu['parts'])}", WIDTH, subsequent_indent="    "
        )
    yield "  All figures are predictions in MiB, by arithmetic; nothing was loaded or changed."
    yield ""


def _budget(plan: HostPlan, profiles: Sequence[Column]) -> Iterator[str]:
    yield _row("BUDGET", [each["label"] + (" (chosen)" if each["chosen"] else "") for each in profiles])
    if len(plan["models"]) > 1:
        most = max(len(each["loaded_together"]) for each in profiles)
        for line in range(most):
            names = [each["loaded_together"][line : line + 1] for each in profiles]
            yield _row("" if line else "loaded together", [name[0] if name else "" for name in names])
    for term, name in TERM_NAMES.items():
        if any(each["terms"][term] or each["terms_band"].get(term) for each in profiles):
            yield _row(name, [_banded(each["terms"][term], each["terms_band"].get(term)) for each in profiles])
    yield _row("= Ollama", [_banded(each["ollama_mib"], each["ollama_band_mib"]) for each in profiles])
    for number, gpu in enumerate(plan.get("gpus") or []):
        here = [each["gpus"][number] for each in profiles]
        yield _row(f"on GPU {gpu['index']}", [_banded(each["ollama_mib"], each["ollama_band_mib"]) for each in here])
        for other in here[0]["others"]:
            yield _row(f"  others now: {other['name']}", [f"{other['used_mib']:>6}" for _unused in profiles])
    for other in [] if plan.get("gpus") else plan["others"]:
        yield _row(f"others now: {other['name']}", [f"{other['used_mib']:>6}" for _unused in profiles])
    if plan["backend"]:
        yield _row("backend", [_backend(plan["backend"], each) for each in profiles])
    if plan.get("gpus"):
        yield _row("the tightest", [f" GPU {each['tightest']['index']}" for each in profiles])
    yield _row("= sum", [f"{each['sum_mib']:>6}{_and_backend(each)}" for each in profiles])
    yield _row("threshold", [_threshold(each) for each in profiles])
    yield _row("headroom", [f"{each['headroom_mib']:>6}{_verdict(each)}" for each in profiles])
    yield _row("margin left by Ollama", [_margin(each) for each in profiles])


def _comparison(plan: HostPlan, profiles: Sequence[Column]) -> Iterator[str]:
    """The guide's words before the real figures; a column of them only where the guide has any."""
    yield _row("THE GUIDE'S TABLE", [each["label"] for each in profiles])
    for index, setting in enumerate(side_by_side.GUIDE_ROWS):
        rows = [each["comparison"][index] for each in profiles]
        if any(row["guide"] for row in rows):
            yield _row(setting, [f"guide: {row['guide']}" if row["guide"] else "" for row in rows])
            setting = "  really"
        yield from _by_model(setting, plan["models"], [row["really"] for row in rows])


def _largest(plan: HostPlan, profiles: Sequence[Column]) -> Iterator[str]:
    """Each figure alone. Without the backend's share they are no settings to take, but what those are less than."""
    unmeasured = [each["backend_mib"] is None for each in profiles]
    yield _row(
        "LARGEST THAT FITS",
        [f"under {each['limit_mib']}" + (", backend ?" if it else "") for each, it in zip(profiles, unmeasured)],
    )
    for label, text in (("num_gpu", _largest_gpu), ("num_ctx", _largest_ctx)):
        cells = [{one["name"]: text(one, it) for one in each["models"]} for each, it in zip(profiles, unmeasured)]
        yield from _by_model(label, plan["models"], cells)
    yield "  each figure alone: all else, and the other models that stay loaded, as the profile has them"
    if any(unmeasured):
        yield f"  backend ?: {side_by_side.NOTHING_FOR_BACKEND}, so what really fits is less"


def _largest_gpu(model: PlannedModel, at_most: bool) -> str:
    return ("at most " if at_most else "") + f"{model['largest_num_gpu']} of {model['offloadable_layers']}"


def _largest_ctx(model: PlannedModel, at_most: bool) -> str:
    if model["largest_num_ctx"] is None:
        return "none fits"
    slots = model["num_parallel"]
    found = ("at most " if at_most else "") + str(model["largest_num_ctx"])
    return found + (f" for each of {slots}" if slots > 1 else "")


def _layers(plan: HostPlan, name: str, profiles: Sequence[Column]) -> Iterator[str]:
    """GPU, host and predicted speed by layers on the GPU, with the guide's row of the same share."""
    models = [model for model in (_of(profile, name) for profile in profiles) if model]
    count = models[0]["offloadable_layers"]
    gb = plan["bandwidth_gb_per_s"]
    yield f"  LAYERS ON THE GPU of {name} (! is too much with what others hold)"
    quoted = name.startswith(side_by_side.GUIDE_MODEL)
    yield _layer_row("", [profile["label"] for profile in profiles], "the guide says" if quoted else "")
    yield _layer_row("", [f"{'GPU':>6}{'host':>7}{'speed':>7}"] * len(profiles))
    for layers in shown_layers(count, {model["layers"] for model in models}):
        cells = [_layer_cell(model["layer_table"][layers]) for model in models]
        yield _layer_row(str(layers), cells, _guide(layers, count) if quoted else "")
    yield (
        f"  speed is arithmetic, not a measurement: bytes that a token reads, over {gb['gpu']:g} GB/s of the GPU "
        f"and {gb['host']:g} of the host"
    )


def _layer_cell(row: LayerRow) -> str:
    speed = "-" if row["speed_percent"] is None else f"{row['speed_percent']} %"
    return f"{row['gpu_mib']:>6}{' ' if row['fits'] else '!'}{row['host_mib']:>6}{speed:>7}"


def _layer_row(layers: str, cells: Sequence[str], guide: str = "") -> str:
    return f"  {layers:>3}  {''.join(f'{cell[:26]:<28}' for cell in cells)}{guide}".rstrip()


def shown_layers(count: int, in_use: set[int] | None = None) -> list[int]:
    """Which rows of a layer table are worth a line: the ends, the quarters, the guide's shares, what is used."""
    shares = {int(count * share) for share in (0.25, 0.5, 0.75, *side_by_side.GUIDE_LAYERS)}
    return sorted({0, min(1, count), max(count - 1, 0), count} | shares | (in_use or set()))


def _guide(layers: int, count: int) -> str:
    return next((words for share, words in side_by_side.GUIDE_LAYERS.items() if layers == int(count * share)), "")


def _warnings(profiles: Sequence[Column]) -> list[str]:
    """Each warning once, with the profiles that it is about."""
    about: dict[str, list[str]] = {}
    for profile in profiles:
        for text in profile["warnings"]:
            about.setdefault(text, []).append(profile["label"])
    return [f"{', '.join(labels)}: {text}" for text, labels in about.items()]


# Cells ----------------------------------------------------------------------------------------------------------------


def _of(profile: Column, name: str) -> PlannedModel | None:
    return next((model for model in profile["models"] if model["name"] == name), None)


def _banded(mib: int, band: Sequence[int] | None) -> str:
    return f"{mib:>6}" + (f"  ({band[0]} to {band[1]})" if band and band[0] != band[1] else "")


def _backend(backend: BackendUse, profile: Column) -> str:
    if profile["backend_mib"] is not None:
        return f"{profile['backend_mib']:>6}  measured {backend['day']}"
    if backend["measured_mib"] is not None:
        return f"{'?':>6}  ({backend['measured_mib']} with {backend['profile']})"
    return f"{'?':>6}  known after a load"


def _threshold(profile: Column) -> str:
    if profile["max_used_mib"] is None:
        return f"{profile['limit_mib']:>6}  (none: the card)"
    more = profile["max_used_mib"] > profile["limit_mib"]
    return f"{profile['limit_mib']:>6}" + (f"  (the card, not {profile['max_used_mib']})" if more else "")


def _and_backend(profile: Column) -> str:
    return " + backend" if profile["backend_mib"] is None else ""


def _headroom(profile: Column) -> str:
    left = profile["headroom_mib"]
    return f"headroom {left}" if left >= 0 else f"{-left} too much"


def _verdict(profile: Column) -> str:
    if not profile["fits"]:
        return "  does not fit"
    if profile["backend_mib"] is None:
        return "  left for the backend"
    return "  fits" if profile["fits_surely"] else "  fits perhaps"


def _margin(profile: Column) -> str:
    if profile["margin"] == "none":
        return "     -"
    return f"{profile['margin_mib']:>6}" + ("  void" if profile["margin"] == "void" else "")


def _row(label: str, cells: Sequence[str]) -> str:
    row = "".join(f"{cell[: CELL_WIDTH - 1]:<{CELL_WIDTH}}" for cell in cells)
    return f"  {label[: LABEL_WIDTH - 1]:<{LABEL_WIDTH}}{row}".rstrip()


def _by_model(label: str, names: Sequence[str], cells: Sequence[Mapping[str, str] | str]) -> Iterator[str]:
    """A row of texts, or of texts by model: then a line for each model, unless all say the same."""
    texts = [list(cell.values()) if isinstance(cell, Mapping) else [cell] for cell in cells]
    if all(len(set(each)) <= 1 for each in texts):
        yield _row(label, [each[0] if each else "" for each in texts])
        return
    yield _row(label, [])
    for name in names:
        yield _row(f"  {name}", [cell.get(name, "") if isinstance(cell, Mapping) else cell for cell in cells])


def _paragraphs(label: str, texts: Sequence[str]) -> list[str]:
    lines = []
    for text in texts:
        lines += textwrap.wrap(
            text, WIDTH, initial_indent=f"  {label:<8} ", subsequent_indent=" " * 11, break_on_hyphens=False
        )
    return lines
