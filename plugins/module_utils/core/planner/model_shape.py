# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model as the planner sees it, read from one answer of Ollama's /api/show."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import modelfile as modelfile_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import library_names
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.architectures import (
    ARCHITECTURES,
    SINGLE_SLOT_FAMILIES,
    UNPLANNED,
    Architecture,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import (
    MIB,
    ModelUnreadable,
    Tensor,
    parse_tensor,
)

_PROJECTOR = ("v.", "mm.", "a.", "s.", "resampler.", "model.vision_tower.")
_OUTPUT = ("output", "cls", "dense_", "altup_")
_FIRST_BLOCK = ("per_layer_model_proj", "per_layer_proj_norm")  # without a block's number, but kept with the first
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_MATRICES = frozenset(
    f"{name}.weight"
    for name in (
        *("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "attn_gate", "ssm_in", "ssm_out", "ssm_conv1d"),
        *("ffn_gate_inp", "ffn_gate", "ffn_up", "ffn_down", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"),
        *("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "ffn_gate_up_exps"),
    )
)
# a tensor, and what a block must have with it
_NEEDED = {
    whole: frozenset(parts)
    for whole, parts in {
        "ffn_up.weight": ["ffn_down.weight"],
        "ffn_gate.weight": ["ffn_up.weight", "ffn_down.weight"],
        "ffn_down.weight": ["ffn_up.weight"],
        "ffn_up_shexp.weight": ["ffn_down_shexp.weight"],
        "ffn_gate_shexp.weight": ["ffn_up_shexp.weight", "ffn_down_shexp.weight"],
        "ffn_gate_inp.weight": ["ffn_down_exps.weight"],
        "ffn_up_exps.weight": ["ffn_gate_inp.weight", "ffn_down_exps.weight"],
        "ffn_gate_exps.weight": ["ffn_up_exps.weight"],
        "ffn_gate_up_exps.weight": ["ffn_down_exps.weight"],
        "ffn_down_exps.weight": ["ffn_gate_inp.weight"],
        "attn_q.weight": ["attn_output.weight"],
        "ssm_conv1d.weight": ["ssm_out.weight"],
        "ssm_d": ["ssm_in.weight", "ssm_out.weight"],
    }.items()
}
_MAX_BLOCKS = 1024
_FEW = 3  # of so many blocks one may be of its own kind
_MAX_METADATA = 1 << 40
_RECURRENT = ("ssm_", "time_mix_", "shortconv.")
# read, not multiplied: never a candidate for the copy of a matrix to the GPU
_NOT_MULTIPLIED = ("norm", "bias", "rope_freqs", "sinks", "conv1d", "token_shift", "_a", "_d", "scale")


# parts of blocks whose memory is understood; another one in an architecture that was never compared is refused
_UNDERSTOOD = re.compile(
    r"(attn_(norm(_2)?|q|k|v|qkv|output|out|gate|sinks|q_norm|k_norm|output_norm|sub_norm|rot_embd"
    r"|q_a|q_b|kv_a_mqa|kv_b|k_b|v_b|q_a_norm|kv_a_norm|post_norm)"
    r"|ffn_(norm(_exps)?|gate|up|down|(gate|up|down)_(exps|shexp|chexps)|gate_up_exps|gate_inp(_shexp)?|sub_norm|post_norm)"
    r"|post_(attention|ffw)_norm|layer_output_(norm|scale)|exp_probs_b|rope_f\w+|ffn\.act|ssm_\w+|shortconv\.\w+"
    r"|time_mix_\w+|channel_mix_\w+|nextn\.\w+|per_layer_\w+)(\.(weight|bias|scales?|input_scale))?"
)


class Metadata:
    """`model_info`, with the architecture's prefix filled in and every number checked."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values
        named = values.get("general.architecture")
        if not isinstance(named, str) or not named:
            raise ModelUnreadable("model_info has no general.architecture")
        self.named = self.architecture = named
        self.lacks_count = not isinstance(values.get("general.parameter_count"), int)

    def loaded(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors by llama.cpp's names; from here on the metadata are those that it gets."""
        self.architecture = library_names.architecture(self.named, self._values, tensors)
        changed, renamed = library_names.as_loaded(self.named, self._values, tensors)
        merged = {**self._values, **{self.key(name): value for name, value in changed.items()}}
        removed = {self.key(name) for name, value in changed.items() if value is None}
        self._values = {key: value for key, value in merged.items() if key not in removed}
        return renamed

    def key(self, name: str) -> str:
        return f"{self.named}.{name}"

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number, or `default`; an array without its values counts as absent. Raises ModelUnreadable."""
        value = self._values.get(self.key(name))
        if value is None or isinstance(value, (list, tuple)):
            if default is None:
                raise ModelUnreadable(f"model_info has no {self.key(name)}")
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MAX_METADATA:
            raise ModelUnreadable(f"model_info {self.key(name)} is {value!r}; a whole number is needed")
        return value

    def has(self, name: str) -> bool:
        return self.key(name) in self._values

    def withheld(self, name: str) -> bool:
        """Whether the key is there without its values, as Ollama shows arrays unless asked for verbose."""
        return self.key(name) in self._values and isinstance(self._values[self.key(name)], (list, tuple, type(None)))

    def per_block(self, name: str, count: int) -> list[int] | None:
        """An array with a number for each of `count` blocks, None where it is absent. Raises ModelUnreadable."""
        value = self._values.get(self.key(name))
        if not isinstance(value, (list, tuple)) or not value:
            return None
        if len(value) < count or not all(isinstance(n, int) and 0 <= n < _MAX_METADATA for n in value):
            raise ModelUnreadable(
                f"model_info {self.key(name)} has {len(value)} values for {count} blocks, or one that is no number"
            )
        return [int(n) for n in value]


@dataclass(frozen=True)
class Block:
    """One repeating layer: its tensors (names without `blk.N.`) and what follows from them."""

    index: int
    tensors: Mapping[str, Tensor]
    heads: int
    k_width: int  # elements of keys for one token; 0: no attention
    v_width: int
    k_head: int  # elements of one head's key
    v_head: int  # and of its value
    sliding: bool
    rotated: bool  # positions are turned into its queries and keys, which takes a copy of both
    cached: bool  # its keys and values are kept
    reads: int  # the block whose keys and values it uses instead of its own; -1: its own
    state_elements: int  # f32 elements of recurrent state for one slot
    device_bytes: int = 0
    host_bytes: int = 0
    largest_matrix_bytes: int = 0

    @functools.cached_property
    def shape(self) -> tuple[object, ...]:
        """Equal for blocks whose graphs are equal."""
        return self.sliding, self.rotated, tuple((name, tensor.shape) for name, tensor in self.tensors.items())

    @property
    def mixes(self) -> bool:
        """Whether the block looks at other tokens: by attention or by its state."""
        return bool(self.k_width or self.state_elements)

    @property
    def feeds(self) -> bool:
        return self.has("ffn_down", "ffn_down_exps")

    def width(self, *names: str) -> int:
        """The output width of the first tensor present among `names` (without `.weight`), else 0."""
        for name in names:
            tensor = self.tensors.get(name + ".weight")
            if tensor:
                return tensor.shape[1] if len(tensor.shape) > 1 else tensor.shape[0]
        return 0

    def has(self, *names: str) -> bool:
        return any(name + ".weight" in self.tensors or name in self.tensors for name in names)


@dataclass(frozen=True)
class Model:
    """What the planner needs of a model; sizes in bytes."""

    architecture: str
    traits: Architecture
    embedding: int
    vocabulary: int
    context_length: int
    window: int
    experts_used: int
    blocks: tuple[Block, ...]
    output_bytes: int
    host_output_bytes: int  # the output layer where it stays on the host; a tied one is there already
    input_bytes: int
    projector_bytes: int
    has_head: bool
    position_embedding: bool
    input_streams: int  # embeddings that one token of the input brings: more than 1 with deepstack
    embedder: bool
    single_slot: bool
    predicting: tuple[
        Block, ...
    ] = ()  # blocks that are loaded only where further tokens are predicted (draft_num_predict)
    adapters: int = 0  # LoRA files, whose size is not known
    projector_at_most: int = 0  # bytes of a projector in a file of its own
    apart_at_most: int | None = None  # bytes of all files beside the model's, where their sum is known
    drafted: bool = False  # a model in a file of its own predicts further tokens
    windows_guessed: bool = False  # which blocks have windows is withheld: as in most models of this architecture
    layer_inputs_width: int = 0  # of what one token brings for all blocks beside its embedding
    notes: tuple[str, ...] = field(default=())

    def __hash__(self) -> int:  # of what tells models apart: results are kept for each
        return hash((self.architecture, self.embedding, len(self.blocks), self.output_bytes))

    @functools.cached_property
    def last_block(self) -> Block:
        return max((block for block in self.blocks if block.tensors), key=lambda block: block.index)

    @property
    def has_experts(self) -> bool:
        return any(block.has("ffn_gate_inp") for block in self.blocks)

    @property
    def offloadable(self) -> int:
        """Layers that num_gpu counts: the blocks and the output layer."""
        return len(self.blocks) + 1

    @classmethod
    def from_show(cls, show: object) -> Model:
        """Reads an /api/show answer (dict). Raises ModelUnreadable that names what is missing or impossible.

        A plan asks for the same model again and again: what was read is kept.
        """
        words = repr(show)
        if words not in _READ:
            if len(_READ) >= _MOST_READ:
                _READ.clear()
            _READ[words] = cls._read(show)
        return _READ[words]

    @classmethod
    def _read(cls, show: object) -> Model:
        if not isinstance(show, Mapping):
            raise ModelUnreadable("the model is not an /api/show answer (a dictionary with model_info and tensors)")
        info, listed = show.get("model_info"), show.get("tensors")
        if not isinstance(info, Mapping) or not info:
            raise ModelUnreadable("the /api/show answer has no model_info")
        if not isinstance(listed, (list, tuple)) or not listed:
            raise ModelUnreadable(
                "the /api/show answer has no tensors; Ollama lists them since 0.6.2, for GGUF models without verbose"
            )
        metadata = Metadata(info)
        tensors: dict[str, Tensor] = {}
        for position, entry in enumerate(listed):
            tensor = parse_tensor(entry, position)
            if tensor.name in tensors:
                raise ModelUnreadable(f"tensors lists {tensor.name} twice")
            tensors[tensor.name] = tensor
        _whole(info, tensors)
        details = show.get("details")
        families: set[str] = {metadata.named}
        if isinstance(details, Mapping):
            families |= {f for f in [details.get("family"), *(details.get("families") or ())] if isinstance(f, str)}
        model = _build(metadata, metadata.loaded(tensors), families)
        return _with_files_apart(model, show)


_ADAPTER = re.compile(r"^ADAPTER\s", re.MULTILINE)
MAX_RANK = 256


def _with_files_apart(model: Model, show: Mapping[str, object]) -> Model:
    """The model with what is loaded of other files, which the answer names and does not list."""
    modelfile, info, size = show.get("modelfile"), show.get("projector_info"), show.get("size")
    written = modelfile if isinstance(modelfile, str) else ""
    adapters, drafted = len(_ADAPTER.findall(written)), "DRAFT " in modelfile_text.files_apart(written)
    projector = _projector_at_most(info) if isinstance(info, Mapping) and info and not model.projector_bytes else 0
    held = None
    if isinstance(size, int) and size > 0 and (adapters or projector):
        held = max(0, size - sum(parse_tensor(each, 0).bytes for each in cast("list[object]", show["tensors"])))
    notes = [*model.notes]
    if adapters:
        holds = f"ranks up to {MAX_RANK} in f32, none of experts" if held is None else "all that its files take"
        notes.append(f"{adapters} adapter (ADAPTER), its size is not in the answer: the band holds {holds}")
    if projector:
        notes.append("a projector in a file of its own, whose tensors are not in the answer: it is in the band only")
    return replace(
        model,
        adapters=adapters,
        projector_at_most=projector,
        apart_at_most=held,
        drafted=drafted,
        notes=tuple(notes),
    )


def _projector_at_most(info: Mapping[str, object]) -> int:
    """Bytes that a projector has at most by its metadata: blocks of attention and gated feed-forward, all in f32."""

    def largest(suffix: str, default: int) -> int:
        return max([v for key, v in info.items() if key.endswith(suffix) and isinstance(v, int)], default=default)

    width, inner, blocks = largest("embedding_length", 1536), largest("feed_forward_length", 6144), 0
    for key, value in info.items():
        blocks += value if key.endswith("block_count") and isinstance(value, int) else 0
    joining = 4 * max(width, largest("projection_dim", 8192)) ** 2  # what leads from its width to the model's
    return min(4 * ((blocks or 48) * width * (4 * width + 3 * inner) + joining), _MAX_METADATA)


_READ: dict[str, Model] = {}
_MOST_READ = 100


def _whole(info: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    counted = info.get("general.parameter_count")
    elements = sum(tensor.elements for tensor in tensors.values())
    for key, value in info.items():
        if key.endswith("split.tensors.count") and isinstance(value, int) and len(tensors) < value:
            raise ModelUnreadable(
                f"the answer lists {len(tensors)} tensors, {key} says {value}: only one of the model's files"
            )
    if isinstance(counted, int) and not isinstance(counted, bool) and elements < 0.99 * counted:
        raise ModelUnreadable(
            f"the tensors hold {elements} parameters, general.parameter_count says {counted}: the answer is cut off"
        )


@dataclass
class _Parts:
    """The tensors by what they belong to; of those in no block only their bytes."""

    of_block: list[dict[str, Tensor]]
    input_bytes: int = 0
    output_bytes: int = 0
    projector_bytes: int = 0


def _parts(metadata: Metadata, tensors: Mapping[str, Tensor], count: int) -> _Parts:
    parts = _Parts([{} for _unused in range(count)])
    for tensor in tensors.values():
        match = _BLOCK.fullmatch(tensor.name)
        if match:
            if int(match[1]) >= count:
                raise ModelUnreadable(f"tensors lists {tensor.name}, but {metadata.key('block_count')} is {count}")
            parts.of_block[int(match[1])][match[2]] = tensor
        elif tensor.name.startswith(_FIRST_BLOCK):
            parts.of_block[0][tensor.name] = tensor
        elif tensor.name.startswith(_PROJECTOR):
            parts.projector_bytes += tensor.device_bytes
        elif tensor.name.startswith(_OUTPUT):
            parts.output_bytes += tensor.device_bytes
        else:
            parts.input_bytes += tensor.bytes
    return parts


def _as_wide_as_embedding(tensor: Tensor, metadata: Metadata, embedding: int) -> None:
    if len(tensor.shape) != 2 or tensor.shape[0] != embedding:
        raise ModelUnreadable(
            f"{tensor.name} has shape {list(tensor.shape)}, but {metadata.key('embedding_length')} is {embedding}"
        )


def _build(metadata: Metadata, tensors: Mapping[str, Tensor], families: set[str]) -> Model:
    traits = ARCHITECTURES.get(metadata.architecture, Architecture())
    count = metadata.number("block_count")
    if not 0 < count <= _MAX_BLOCKS:
        raise ModelUnreadable(f"model_info {metadata.key('block_count')} is {count}; 1 to {_MAX_BLOCKS} is possible")
    embedding = metadata.number("embedding_length")
    context_length = metadata.number("context_length", 0)
    token_embedding = tensors.get("token_embd.weight")
    if token_embedding is None:
        raise ModelUnreadable("tensors lists no token_embd.weight")
    _as_wide_as_embedding(token_embedding, metadata, embedding)
    parts = _parts(metadata, tensors, count)
    output_matrix, output_bytes = tensors.get("output.weight"), parts.output_bytes
    if not traits.headless and output_matrix is None:
        output_matrix = token_embedding  # tied: llama.cpp puts a second copy on the GPU
        output_bytes += token_embedding.device_bytes

    _understood(metadata.architecture, parts.of_block)
    prediction = min(metadata.number("nextn_predict_layers", 0), count - 1)
    _complete(traits, parts.of_block)
    if output_matrix:
        _as_wide_as_embedding(output_matrix, metadata, embedding)
    normed = any(name.endswith("_norm.weight") for name in tensors if name[:4] != "blk.")
    if traits.measured and not traits.headless and not normed:
        raise ModelUnreadable("tensors lists no output_norm.weight: the answer is cut off")
    position_embedding = "position_embd.weight" in tensors
    blocks = _blocks(metadata, traits, embedding, parts.of_block, not position_embedding)
    predicting = tuple(blocks[count - prediction :])
    blocks[count - prediction :] = [_unloaded(block) for block in predicting]
    window = metadata.number("attention.sliding_window", None if traits.swa_needed else traits.swa_default_window)
    window = traits.swa_fixed_window if window and traits.swa_fixed_window else window
    slides = any(block.sliding for block in blocks)
    if traits.measured and not slides:
        window = 0  # named in the metadata and not used, as phi3's
    known = metadata.per_block(_PATTERN, count) or _sliding_by_heads(metadata, parts.of_block)
    guessed = bool(window and slides and metadata.withheld(_PATTERN) and not known)
    embedder = metadata.has("pooling_type")  # Ollama asks for the key, whatever its value
    return Model(
        architecture=metadata.architecture,
        traits=traits,
        embedding=embedding,
        vocabulary=output_matrix.shape[1] if output_matrix else 0,
        context_length=context_length,
        window=window,
        experts_used=max(metadata.number("expert_used_count", 0), 1),
        blocks=tuple(blocks),
        output_bytes=output_bytes,
        host_output_bytes=parts.output_bytes,
        input_bytes=parts.input_bytes,
        projector_bytes=parts.projector_bytes,
        has_head=not (traits.headless or traits.unused_head),
        input_streams=1 + metadata.number("n_deepstack_layers", 0),
        position_embedding=position_embedding,
        embedder=embedder,
        single_slot=embedder or traits.single_slot or bool(families & SINGLE_SLOT_FAMILIES),
        predicting=predicting,
        windows_guessed=guessed,
        layer_inputs_width=0 if traits.held_streams else blocks[0].width("per_layer_model_proj"),
        notes=tuple(_notes(metadata, 0 if slides else window, guessed)),
    )


def _notes(metadata: Metadata, unplaced_window: int, guessed: bool) -> list[str]:
    """What is not known of the model. `unplaced_window`: of which no block is known to have it."""
    notes = []
    if metadata.architecture not in ARCHITECTURES:
        notes.append(
            f"architecture {metadata.architecture!r} was never compared with llama.cpp: weights are exact, "
            "the cache follows the tensors' widths, the compute buffer is an estimate with a wide band"
        )
    if unplaced_window:
        notes.append(
            f"sliding window of {unplaced_window} without a known pattern: the cache is charged for the full context"
        )
    if guessed:
        notes.append(
            f"{metadata.key(_PATTERN)} is shown without its values: which layers have windows is taken from "
            "the architecture, the cache's band holds any; ask for it with verbose"
        )
    if metadata.lacks_count:
        notes.append("general.parameter_count is missing: that the answer has all tensors cannot be checked")
    return notes


def _understood(architecture: str, of_block: list[dict[str, Tensor]]) -> None:
    """Refuses an architecture that was never compared where its parts show that the rules do not hold for it."""
    strange = [part for block in of_block for part in block if not _UNDERSTOOD.fullmatch(part)]
    if architecture in UNPLANNED or (architecture not in ARCHITECTURES and strange):
        known_by = f"a block has {strange[0]}" if strange else "its layers are not run as others' are"
        raise ModelUnreadable(f"architecture {architecture!r} cannot be planned: {known_by}, whose memory is not known")


def _unloaded(block: Block) -> Block:
    return replace(
        block, tensors={}, k_width=0, v_width=0, state_elements=0, device_bytes=0, host_bytes=0, largest_matrix_bytes=0
    )


_PATTERN = "attention.sliding_window_pattern"


def _sliding(metadata: Metadata, traits: Architecture, of_block: list[dict[str, Tensor]]) -> list[bool]:
    count = len(of_block)
    listed = metadata.per_block(_PATTERN, count) or _sliding_by_heads(metadata, of_block)
    if not metadata.number("attention.sliding_window", traits.swa_default_window):
        return [False] * count
    if traits.swa_everywhere:
        return [True] * count
    if traits.swa_blocks not in (0, count):
        return [False] * count
    if listed and traits.swa_period:
        return [bool(value) for value in listed[:count]]
    period = metadata.number(_PATTERN, traits.swa_period) if traits.swa_period else 0
    if not period:
        return [False] * count
    seeing_all = 0 if traits.swa_first else period - 1
    return [index % period != seeing_all for index in range(count)]


def _sliding_by_heads(metadata: Metadata, of_block: list[dict[str, Tensor]]) -> list[int] | None:
    """Which blocks have windows by their heads' width, where those with windows have another than the others."""
    windowed = metadata.number("attention.key_length_swa", 0)
    norms = [tensors.get("attn_q_norm.weight") for tensors in of_block]
    if windowed in (0, metadata.number("attention.key_length", 0)) or not all(norms):
        return None
    return [int(norm.shape == (windowed,)) for norm in norms if norm]


def _blocks(
    metadata: Metadata, traits: Architecture, embedding: int, of_block: list[dict[str, Tensor]], positions: bool
) -> list[Block]:
    count = len(of_block)
    sliding = _sliding(metadata, traits, of_block)
    cached = count - metadata.number("attention.shared_kv_layers", count - (traits.cached_blocks or count))
    heads_listed = metadata.per_block("attention.head_count", count)
    heads_kv_listed = metadata.per_block("attention.head_count_kv", count)
    blocks = []
    for index, tensors in enumerate(of_block):
        if not tensors:
            raise ModelUnreadable(
                f"tensors lists nothing of blk.{index}, but {metadata.key('block_count')} is {count}: "
                "the answer is cut off"
            )
        _consistent(index, tensors, embedding)
        heads = heads_listed[index] if heads_listed else metadata.number("attention.head_count", 0)
        heads_kv = heads_kv_listed[index] if heads_kv_listed else _heads_kv(metadata, heads)
        widths = _widths(metadata, index, tensors, embedding, heads, heads_kv)
        if traits.measured:
            _agreeing(index, tensors, embedding, heads, widths)
        recurrent = any(name.startswith(_RECURRENT) for name in tensors)
        if not widths[1] and not recurrent and traits.measured and not traits.recurrent:
            raise ModelUnreadable(f"blk.{index} has no attn_k.weight or attn_qkv.weight: the answer is cut off")
        if traits.measured and not traits.recurrent and not any(name.startswith("ffn_down") for name in tensors):
            raise ModelUnreadable(f"blk.{index} has no ffn_down.weight or ffn_down_exps.weight: the answer is cut off")
        matrices = [
            tensor.bytes
            for name, tensor in tensors.items()
            if len(tensor.shape) > 1 and not any(part in name for part in _NOT_MULTIPLIED)
        ]
        blocks.append(
            Block(
                index=index,
                tensors=tensors,
                heads=widths[0],
                k_width=widths[1],
                v_width=widths[2],
                k_head=widths[3],
                v_head=widths[4],
                sliding=sliding[index],
                rotated=positions and not _without_positions(traits, index, any(sliding)),
                cached=(not traits.encoder or traits.caches) and index < cached,
                reads=-1 if traits.encoder or index < cached else cached - (2 if sliding[index] else 1),
                state_elements=_state(metadata, embedding) if recurrent else 0,
                device_bytes=sum(tensor.device_bytes for tensor in tensors.values()),
                host_bytes=sum(tensor.bytes for tensor in tensors.values()),
                largest_matrix_bytes=max(matrices, default=0),
            )
        )
    return blocks


def _without_positions(traits: Architecture, index: int, windows: bool) -> bool:
    """Whether this block's attention does not know positions, as every so many-th of some architectures."""
    period = traits.unrotated_period
    seeing_all = 0 if traits.swa_first else period - 1
    return bool(period and index % period == seeing_all and (windows or not traits.swa_period))


def _complete(traits: Architecture, of_block: list[dict[str, Tensor]]) -> None:
    """Refuses a block that alone lacks what others of its kind have: sizes would be too small without a word."""
    kinds: dict[frozenset[str], list[int]] = {}
    for index, tensors in enumerate(of_block):
        kinds.setdefault(frozenset(name for name in tensors if not name.startswith(_FIRST_BLOCK)), []).append(index)
    for names, members in kinds.items():
        for others, more in kinds.items():
            lacking_all = others - names - ({"attn_norm.weight"} if traits.unnormed_start and 0 in members else set())
            if traits.measured and len(members) == 1 and len(more) > 1 and names < others and lacking_all:
                lacking = sorted(lacking_all)[0]
                raise ModelUnreadable(f"blk.{members[0]} has no {lacking}, other blocks have: the answer is cut off")
        _uniform(traits, members, of_block)
        for whole, parts in _NEEDED.items():
            if whole in names and not names >= parts:
                lacking = sorted(parts - names)[0]
                raise ModelUnreadable(f"blk.{members[0]} has {whole} but no {lacking}: the answer is cut off")


def _uniform(traits: Architecture, members: list[int], of_block: list[dict[str, Tensor]]) -> None:
    """Refuses the one block of its kind whose tensor has another shape than all the others'."""
    for name in of_block[members[0]] if traits.measured and len(members) > _FEW else ():
        shapes = [of_block[member][name].shape for member in members if name in of_block[member]]
        usual = max(set(shapes), key=shapes.count)
        odd = [member for member, shape in zip(members, shapes) if shapes.count(shape) == 1]
        if len(odd) == 1 and len(set(shapes)) == 2:
            raise ModelUnreadable(
                f"blk.{odd[0]}.{name} has shape {list(of_block[odd[0]][name].shape)}, the other blocks' have "
                f"{list(usual)}"
            )


def _consistent(index: int, tensors: Mapping[str, Tensor], embedding: int) -> None:
    for name, tensor in tensors.items():
        if name in _MATRICES and len(tensor.shape) < 2:
            raise ModelUnreadable(f"blk.{index}.{name} has shape {list(tensor.shape)}; a matrix is needed")
    for name in ("attn_q", "attn_k", "attn_v", "attn_qkv", "ffn_gate", "ffn_up"):
        named = tensors.get(name + ".weight")
        if named and (len(named.shape) != 2 or named.shape[0] != embedding):
            raise ModelUnreadable(
                f"blk.{index}.{name}.weight has shape {list(named.shape)}, "
                f"whose rows should be the embedding's {embedding} wide"
            )
    for name in ("attn_output", "ffn_down"):
        named = tensors.get(name + ".weight")
        if named and (len(named.shape) != 2 or named.shape[1] != embedding):
            raise ModelUnreadable(
                f"blk.{index}.{name}.weight has shape {list(named.shape)}, "
                f"which should give the embedding's {embedding} back"
            )


def _agreeing(
    index: int, tensors: Mapping[str, Tensor], embedding: int, heads: int, widths: tuple[int, int, int, int, int]
) -> None:
    """Refuses a block whose matrices do not fit each other: one of the shapes is not the model's."""

    def shape(name: str) -> tuple[int, ...]:
        return tensors[name + ".weight"].shape if name + ".weight" in tensors else ()

    def must(name: str, dimension: int, *allowed: int) -> None:
        found = shape(name)
        if len(found) > dimension and found[dimension] not in allowed:
            raise ModelUnreadable(
                f"blk.{index}.{name}.weight has shape {list(found)}; its {'row' if not dimension else 'other side'} "
                f"should be {' or '.join(str(each) for each in dict.fromkeys(allowed))} by the block's other tensors"
            )

    for name in ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm"):
        must(name, 0, embedding)
    for suffix in ("", "_shexp", "_exps"):
        inner = shape("ffn_down" + suffix)[:1] or (0,)
        must("ffn_up" + suffix, 1, inner[0], 2 * inner[0])  # twice: the gate is in there
        must("ffn_gate" + suffix, 1, inner[0])
        must(f"ffn_gate_up{suffix}", 1, 2 * inner[0])
        must("ffn_down" + suffix, 1, embedding)
    experts = shape("ffn_gate_inp")[1:]
    for name in ("ffn_up_exps", "ffn_gate_exps", "ffn_gate_up_exps", "ffn_down_exps") if experts else ():
        must(name, 2, experts[0])
        if name != "ffn_down_exps":
            must(name, 0, embedding)
    must("ffn_gate_inp", 0, embedding)
    for name, tensor in tensors.items():
        matrix = tensors.get(name[: -len(".bias")] + ".weight") if name.endswith(".bias") else None
        given = (matrix.shape[1:] or matrix.shape) if matrix else tensor.shape
        if tensor.shape != given:
            raise ModelUnreadable(
                f"blk.{index}.{name} has shape {list(tensor.shape)}, but what it is added to is {list(given)} wide"
            )
    counted, k_width, v_width, k_head, v_head = widths
    latent = "attn_kv_a_mqa.weight" in tensors
    if "attn_q.weight" in tensors and not (k_width or latent):
        raise ModelUnreadable(f"blk.{index} has attn_q.weight but no attn_k.weight: the answer is cut off")
    if not k_width or latent:
        return
    for lacking in ("attn_q", "attn_output"):
        if not shape(lacking) and not (lacking == "attn_q" and shape("attn_qkv")):
            raise ModelUnreadable(f"blk.{index} attends but has no {lacking}.weight: the answer is cut off")
    queries = counted * k_head
    must("attn_q", 1, queries, 2 * queries)  # twice: the gate is in there
    must("attn_qkv", 1, queries + k_width + v_width)
    must("attn_output", 0, counted * v_head)
    if k_head != v_head and heads and "attn_v.weight" in tensors:
        must("attn_v", 1, v_head * (k_width // k_head))


def _heads_kv(metadata: Metadata, heads: int) -> int:
    """llama.cpp takes as many key heads as heads where nothing is said; an array whose values are held back says 0."""
    return 0 if metadata.withheld("attention.head_count_kv") else metadata.number("attention.head_count_kv", heads)


def _widths(
    metadata: Metadata, index: int, tensors: Mapping[str, Tensor], embedding: int, heads: int, heads_kv: int
) -> tuple[int, int, int, int, int]:
    """(heads, width of K, width of V, one head's key, its value); all 0 for a block without attention.

    `heads` and `heads_kv` are 0 where the metadata do not say (an array without verbose): the tensors do then.
    """

    def rows(name: str) -> int:
        tensor = tensors.get(name + ".weight")
        return tensor.shape[1] if tensor and len(tensor.shape) > 1 else 0

    fused, q, k, v = rows("attn_qkv"), rows("attn_q"), rows("attn_k"), rows("attn_v")
    latent = "attn_kv_a_mqa.weight" in tensors
    stateful = any(name.startswith(_RECURRENT) for name in tensors)
    if not (k or latent or (fused and not stateful)):  # a stateful block's qkv does not feed a cache
        return 0, 0, 0, 0, 0
    normed = tensors.get("attn_k_norm.weight")
    if k and heads_kv:
        if k % heads_kv:
            raise ModelUnreadable(f"blk.{index}.attn_k.weight is {k} wide, which {heads_kv} key heads do not divide")
        k_head = k // heads_kv
    elif k and normed and len(normed.shape) == 1 and k % normed.shape[0] == 0:
        k_head = normed.shape[0]
    else:
        k_head = metadata.number("attention.key_length", None if latent else embedding // heads if heads else 0)
    if not k_head or not (heads or q):
        raise ModelUnreadable(f"model_info has neither {metadata.key('attention.head_count')} nor key_length")
    heads = heads or max(q // k_head, 1)
    if latent:
        v_head = metadata.number("attention.value_length")
        if "attn_k_b.weight" in tensors:
            return heads, k_head, 0, k_head, v_head
        return heads, heads * k_head, heads * v_head, k_head, v_head
    if fused:
        if not heads_kv:
            raise ModelUnreadable(
                f"model_info {metadata.key('attention.head_count_kv')} is shown without its values, and "
                f"blk.{index}.attn_qkv.weight does not tell them; ask for them with verbose"
            )
        v_head = metadata.number("attention.value_length", k_head)
        k, v = heads_kv * k_head, heads_kv * v_head
        if fused < k + v:
            raise ModelUnreadable(
                f"blk.{index}.attn_qkv.weight is {fused} wide, too narrow for {heads_kv} key heads of {k_head}"
            )
        return heads, k, v, k_head, v_head
    heads_kv = heads_kv or max(k // k_head, 1)
    v = v or k  # the keys serve as values
    return heads, k, v, k_head, v // heads_kv


def _state(metadata: Metadata, embedding: int) -> int:
    """f32 elements that a recurrent block keeps for one slot: convolution and state (llama.cpp n_embd_r, n_embd_s)."""
    wkv = metadata.number("wkv.head_size", 0)
    if wkv:
        return metadata.number("token_shift_count", 2) * embedding + wkv * embedding
    shortconv = metadata.number("shortconv.l_cache", 0)
    if shortconv:
        return (shortconv - 1) * embedding
    inner, state = metadata.number("ssm.inner_size"), metadata.number("ssm.state_size")
    groups = metadata.number("ssm.group_count", 0)
    return (metadata.number("ssm.conv_kernel") - 1) * (inner + 2 * groups * state) + state * inner


def mib(size: float) -> float:
    return size / MIB
