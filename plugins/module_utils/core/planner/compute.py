# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compute buffer: a model's graph, as llama.cpp reserves it, put through the emulated allocator.

Only what takes memory is built: an operation that always works in place, such as adding a bias, is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import TYPES, row_bytes
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.graph import Graph
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.model_shape import Block, Model

_MOST_KEPT = 10_000  # results, since a plan asks for the same settings again and again
_ROTATED = 64  # elements of a head that are rotated together; heads of other sizes are not
_STREAMS_MADE_ONE = 14  # activations of all streams where they arrive to be made one (gemma3n)
_KEPT = 3  # equal blocks that are enough for the allocator to settle


@dataclass(frozen=True)
class Batch:
    """The batch that llama.cpp reserves for; `cells` of the cache are those of one slot, or of all that share one."""

    tokens: int
    slots: int
    cells: int
    cells_sliding: int
    outputs: int  # tokens whose logits are kept
    flash_attention: bool
    cache_type: str = "f16"  # of the keys
    v_cache_type: str = "f16"
    cache_on_gpu: bool = True  # else each block's is copied in when it is needed
    unified: bool = False  # all slots share one cache

    @property
    def cache_types(self) -> tuple[str, str]:
        return self.cache_type, self.v_cache_type

    @property
    def caches(self) -> int:
        return 1 if self.unified else self.slots

    def rotates_keys(self, block: Block) -> bool:
        """Whether queries and keys are rotated before they are quantised, which takes a copy of each."""
        return _is_rotated(self.cache_type, block.k_head)

    def rotates_values(self, block: Block) -> bool:
        """The same of values, and of what attention makes of them."""
        return _is_rotated(self.v_cache_type, block.v_head)

    def cells_of(self, block: Block) -> int:
        return self.cells_sliding if block.sliding else self.cells

    def mask_bytes(self, cells: int) -> int:
        return self.tokens * cells * (2 if self.flash_attention else 4)

    def keys_bytes(self, width: int, cells: int) -> int:
        return row_bytes(self.cache_type, width) * cells * self.caches

    def values_bytes(self, width: int, cells: int) -> int:
        return row_bytes(self.v_cache_type, width) * cells * self.caches


def _is_rotated(cache_type: str, head: int) -> bool:
    return TYPES[cache_type.upper()][0] > 1 and head % _ROTATED == 0


@dataclass(frozen=True)
class Part:
    """The blocks that one of several GPUs has, [first, end)."""

    first: int
    end: int
    handed: bool  # the stream comes from another GPU, not from the host
    ends: bool  # the output layer is here
    pipelined: bool  # with all layers on several GPUs llama.cpp keeps four copies of what each is given


def compute_bytes(model: Model, batch: Batch, first: int) -> int:
    """Bytes of the GPU's compute buffer with blocks[first:] and the output layer there, nothing else."""
    own = _Builder(model, batch).build(_settled(model, model.blocks[first:]), arrives=first == 0)
    return max(own, _attended_for_host(model, batch, first))


@functools.lru_cache(maxsize=_MOST_KEPT)
def part_bytes(model: Model, batch: Batch, part: Part) -> int:
    """Bytes of the compute buffer of one of several GPUs."""
    blocks = _settled(model, model.blocks[part.first : part.end])
    builder = _Builder(model, batch, copies=4 if part.pipelined else 1)
    own = builder.build(blocks, arrives=part.first == 0, handed=part.handed, ends=part.ends)
    if part.pipelined:
        own += 2 * _passed_on(model, batch, part.end)
    return own if part.handed else max(own, _attended_for_host(model, batch, part.first))


def _passed_on(model: Model, batch: Batch, first: int) -> int:
    """Bytes that one GPU has twice, and hands to the next whose blocks begin here: a state's projection.

    So it does where a state stands on both sides, neither attention nor experts between them. Measured at each kind of
    bound in mamba, mamba2, jamba, nemotron_h and granitehybrid.
    """
    before = next((block for block in reversed(model.blocks[:first]) if block.mixes), None)
    after = next((block for block in model.blocks[first:] if block.mixes), None)
    if before is None or after is None:
        return 0
    states = all(block.has("ssm_in") and not block.k_width for block in (before, after))
    experts = any(block.has("ffn_gate_inp") for block in model.blocks[before.index : first])
    return 4 * batch.tokens * after.width("ssm_in") if states and not experts else 0


def _attended_for_host(model: Model, batch: Batch, first: int) -> int:
    """Bytes that the host's last attention takes on the GPU, which works for it where it is a block of its own.

    So it does while no block with a state stands between the two (nemotron_h, measured).
    """
    last = next((block for block in reversed(model.blocks[:first]) if block.mixes), None)
    if last is None or last.feeds or not last.k_width or not batch.cache_on_gpu:
        return 0
    cells, row = batch.cells_of(last), 4 * batch.tokens * last.heads
    held = row * (cells if not batch.flash_attention else last.v_head) + row * last.k_head + batch.mask_bytes(cells)
    read = batch.keys_bytes(last.k_width, cells), batch.values_bytes(last.v_width, cells)
    as_f16 = [size // 2 for kind, size in zip(batch.cache_types, read) if kind == "f32" and batch.flash_attention]
    return held + sum(read) + sum(as_f16)


def offload_bytes(model: Model, batch: Batch, first: int) -> int:
    """The same where the GPU also works for blocks[:first], as CUDA does for batches of 32 tokens and more.

    Their matrices and their part of the cache are copied in when needed (ggml-backend.cpp, op_offload).
    """
    kept = [*_settled(model, model.blocks[:first]), *_settled(model, model.blocks[first:])]
    return _Builder(model, batch).build(kept, arrives=True, borrowed=first)


def draft_bytes(model: Model, batch: Batch) -> int:
    """Bytes of the buffer of a second context, which predicts further tokens with one block."""
    return _Builder(model, batch).draft(model.predicting[0])


def host_bytes(model: Model, batch: Batch) -> int:
    """Bytes of the host's compute buffer next to a CUDA device: the inputs, and the logits handed back."""
    masks = {block.sliding: batch.mask_bytes(batch.cells_of(block)) for block in model.blocks if block.k_width}
    return 4 * 4 * batch.tokens * model.embedding + sum(masks.values()) + 4 * batch.outputs * model.vocabulary


def _settled(model: Model, blocks: Sequence[Block]) -> list[Block]:
    """The first few of each kind and the last: the allocator repeats itself from there."""
    seen: dict[tuple[object, ...], int] = {}
    kept = []
    for block in blocks:
        seen[block.shape] = seen.get(block.shape, 0) + 1
        if block.tensors and (seen[block.shape] <= _KEPT or block is model.last_block):
            kept.append(block)
    return kept


class _Blocks:
    """The graph of blocks, one after the other."""

    def __init__(self, model: Model, batch: Batch, copies: int = 1) -> None:
        self.model, self.batch, self.graph = model, batch, Graph()
        self.row = 4 * batch.tokens  # bytes of one f32 element for every token
        self.copies, self.normed = copies, -1
        self.masks: dict[bool, int] = {}
        self.borrowing = False
        self.reused: dict[int, tuple[int, ...]] = {}  # block -> copies of the keys and values that a host block keeps
        self.deep: dict[int, int] = {}  # block -> what an image adds to the stream after it (deepstack)
        self.arrived = self.looked_up = (
            self.layer_inputs
        ) = -1  # the stream at first; what blocks get beside it (gemma4)
        self.layer_input: dict[int, int] = {}  # the same of one block, where the host has computed it

    @property
    def fetches(self) -> bool:
        """Whether keys and values are copied in, since the host keeps them."""
        return self.borrowing or not self.batch.cache_on_gpu

    @property
    def wide(self) -> int:
        return self.row * self.model.embedding

    def given(self, size: int) -> int:
        """Something that comes in; with copies each of them is held to the end."""
        found = self.graph.add(size)
        for _unused in range(self.copies - 1):
            self.graph.view(found)
            self.graph.add(size)
        return found

    def mask(self, block: Block) -> int:
        """The attention mask of this kind of block; comes in when it is first read."""
        if block.sliding not in self.masks:
            encoder = self.model.traits.encoder
            self.masks[block.sliding] = self.given(
                self.batch.mask_bytes(self.batch.tokens if encoder else self.batch.cells_of(block))
            )
        return self.masks[block.sliding]

    def block(self, block: Block, stream: int) -> int:
        g = self.graph
        if not (block.mixes or block.feeds):
            return stream
        normed = self.norm(stream if self.normed < 0 else self.normed) if block.has("attn_norm") else stream
        self.normed = -1
        if self.model.traits.parallel_residual:
            # with a norm of its own attention does not hold the feed-forward's: that one is computed when needed
            attended = self.attention(block, normed)
            normed = self.norm(stream) if block.has("attn_norm_2") else normed
            if block.index == self.model.last_block.index:
                attended = self.multiply(block, "attn_output", self.turned_back(block, attended))
                attended, stream, normed = self.narrowed(block, attended, stream, normed)
                return g.add(self.wide, g.add(self.wide, self.feed_forward(block, normed), stream), attended)
            result = g.add(self.wide, self.feed_forward(block, normed), stream, in_place=True)
            attended = self.turned_back(block, attended)  # not before the attention's product is needed
            return g.add(self.wide, result, self.multiply(block, "attn_output", attended))
        if not block.mixes:
            fed, stream = self.narrowed(block, self.feed_forward(block, normed), stream)
            return g.add(self.wide, fed, stream, in_place=True)
        attended = self.mixed(block, normed)
        attended, stream = self.narrowed(block, attended, stream)
        stream = g.add(self.wide, attended, stream, in_place=True)
        if not block.feeds:
            return stream
        normed = self.norm(stream) if block.has("attn_norm", "ffn_norm") else stream
        return self.with_layer_input(block, g.add(self.wide, self.feed_forward(block, normed), stream, in_place=True))

    def with_layer_input(self, block: Block, stream: int) -> int:
        """The stream with what this block gets of the tokens themselves."""
        if not self.model.layer_inputs_width:
            return stream
        g, all_blocks = self.graph, self.row * self.model.layer_inputs_width
        gate = self.multiply(block, "inp_gate", stream)
        if block.index in self.layer_input:
            given = self.layer_input[block.index]
        elif self.looked_up < 0:
            given = g.add(g.nodes[gate].size)
        else:
            if self.layer_inputs < 0:  # computed where it is first needed
                projected = g.add(all_blocks, self.arrived)
                summed = g.add(all_blocks, projected, g.view(self.looked_up), in_place=True)
                self.layer_inputs = g.add(all_blocks, g.view(summed))
            given = g.view(self.layer_inputs)
        gated = g.add(g.nodes[gate].size, gate, given, in_place=True)
        return g.add(self.wide, self.multiply(block, "proj", gated), stream, in_place=True)

    def mixed(self, block: Block, normed: int) -> int:
        """What attention or the block's state, or both, make of the other tokens."""
        if not block.k_width:
            return self.multiply(block, "ssm_out", self.recurrence(block, normed))
        attended = self.turned_back(block, self.attention(block, normed))
        attended = self.multiply(block, "attn_output", attended)
        if not block.state_elements:
            return attended
        scanned = self.multiply(block, "ssm_out", self.recurrence(block, normed))
        return self.graph.add(self.wide, attended, scanned, in_place=True)

    def narrowed(self, block: Block, *streams: int) -> Sequence[int]:
        """After the last block's attention only the tokens whose logits are kept go on: all, where there are none.

        Of several streams all go on until they are one again, after the blocks.
        """
        if block.index != self.model.last_block.index or self.model.traits.headless or self.model.traits.held_streams:
            return streams
        self.row = 4 * self.batch.outputs
        return [self.graph.add(self.wide, stream) for stream in streams]

    def norm(self, source: int) -> int:
        """Normed and scaled, in place unless the source is needed again."""
        return self.graph.add(self.wide, source, in_place=True)

    def multiply(self, block: Block, name: str, *sources: int, rows: int = 0) -> int:
        """The product with one matrix, for every token or (experts) for `rows` bytes an element."""
        matrix = block.tensors.get(name + ".weight")
        if matrix is None:  # an architecture that calls it otherwise
            return self.graph.add(self.wide, *sources)
        copy = (self.graph.add(matrix.bytes),) if self.borrowing else ()
        return self.graph.add((rows or self.row) * matrix.shape[1], *copy, *sources)

    def attention(self, block: Block, normed: int) -> int:
        """The heads' mixed values, before the output matrix."""
        g, row = self.graph, self.row
        q_size, k_size = row * block.heads * block.k_head, row * block.k_width
        model, again, values_again = self.model, self.batch.rotates_keys(block), self.batch.rotates_values(block)
        if block.has("attn_k_b"):
            return self.latent_attention(block, normed)

        def turned(source: int, size: int, times: int) -> int:
            for _unused in range(times):
                source = g.add(size, g.view(source))
            return source

        if block.has("attn_qkv"):
            fused = self.multiply(block, "attn_qkv", normed)
            v = turned(g.view(fused), row * block.v_width, values_again)
            q = turned(g.view(fused), q_size, block.rotated + again)
            k = turned(g.view(fused), k_size, block.rotated + again)
        else:
            q = turned(self.multiply(block, "attn_q", normed), q_size, block.rotated + again)
            values_last = bool(model.window)
            if values_last:
                k = turned(self.multiply(block, "attn_k", normed), k_size, block.rotated + again)
            v = self.multiply(block, "attn_v", normed)
            v = turned(v, row * block.v_width, model.traits.normed_values + values_again)
            if not values_last:
                k = turned(self.multiply(block, "attn_k", normed), k_size, block.rotated + again)
        if self.model.traits.encoder:
            return self.attend_here(block, q, k, v)
        gate = self.multiply(block, "attn_gate", normed) if block.has("attn_gate") else -1
        g.store(k)
        g.store(v)
        attended = self.attend(block, q)
        return g.add(g.nodes[attended].size, attended, gate, in_place=True) if gate >= 0 else attended

    def latent_attention(self, block: Block, normed: int) -> int:
        """Latent attention that works on the compressed keys (deepseek2 with attn_k_b and attn_v_b)."""
        g, row = self.graph, self.row
        all_heads = row * block.heads
        rank = block.width("attn_k_b")
        turned = block.k_head - rank  # the part that knows positions
        if block.has("attn_q_a"):
            q = self.multiply(block, "attn_q_b", self.multiply(block, "attn_q_a", normed))
        else:
            q = self.multiply(block, "attn_q", normed)
        absorbed = self.multiply(block, "attn_k_b", g.view(q), rows=all_heads)
        q = g.add(all_heads * block.k_head, g.view(absorbed), g.add(all_heads * turned, g.view(q)))
        pair = self.multiply(block, "attn_kv_a_mqa", normed)
        compressed = g.add(row * rank, g.view(pair))
        g.store(g.add(row * block.k_head, g.view(compressed), g.add(row * turned, g.view(pair))))

        cells, mask = self.batch.cells_of(block), self.mask(block)
        copies = self.fetches + (not self.batch.cache_on_gpu)  # as its values, too
        keys = tuple(g.add(self.batch.keys_bytes(block.k_width, cells)) for _unused in range(copies))
        if self.batch.flash_attention:
            read = self.as_f16(self.batch.cache_type, self.batch.keys_bytes(block.k_width, cells), keys)
            values = self.as_f16(self.batch.cache_type, self.batch.keys_bytes(rank, cells), ())
            mixed = g.add(all_heads * rank, q, *read, *values, mask)
        else:
            scores = g.add(all_heads * cells, *keys, q)
            weights = g.add(all_heads * cells, scores, mask, in_place=True)
            mixed = g.add(all_heads * rank, g.add(self.batch.keys_bytes(rank, cells)), weights)  # the keys, transposed
        expanded = self.multiply(block, "attn_v_b", g.view(mixed), rows=all_heads)
        return g.add(all_heads * block.width("attn_v_b"), g.view(expanded))

    def recurrence(self, block: Block, normed: int) -> int:
        """A block that keeps a state instead of keys and values."""
        g, row = self.graph, self.row
        state = 4 * block.state_elements * self.batch.slots
        if block.has("ssm_in") and block.has("ssm_out"):
            inner, channels = row * block.tensors["ssm_out.weight"].shape[0], row * block.width("ssm_conv1d")
            projected = self.multiply(block, "ssm_in", normed)
            convolved = g.add(channels, g.add(channels, g.view(projected)))
            # the state before this batch, which the host may have handed over
            before = [g.add(state) for _unused in range(1 if self.batch.cache_on_gpu else 2)]
            scanned = g.add(inner + state, g.view(convolved), *before)
            gate = g.add(inner, g.view(projected))
            skipped = g.add(inner, g.view(convolved))
            return g.add(inner, gate, g.add(inner, g.view(scanned), skipped, in_place=True))
        # others: everything that is computed from the input, at one time
        parts = [
            self.multiply(block, name[: -len(".weight")], normed)
            for name, tensor in block.tensors.items()
            if name.endswith(".weight")
            and len(tensor.shape) == 2
            and tensor.shape[0] == self.model.embedding
            and not name.startswith("ffn_")
        ]
        widest = max((g.nodes[part].size for part in parts), default=self.wide)
        return g.add(widest, *parts, g.add(state))

    def attend_here(self, block: Block, q: int, k: int, v: int) -> int:
        """Attention of an encoder: to this batch only, without a cache."""
        g, row, mask, out = self.graph, self.row, self.mask(block), self.row * block.heads * block.v_head
        if self.batch.flash_attention:
            k = g.add(row * block.k_width // 2, g.add(row * block.k_width, g.view(k)))  # padded, then f16
            v = g.add(row * block.v_width // 2, g.add(row * block.v_width, g.view(v)))
            return g.add(out, q, k, v, mask)
        scores = row * block.heads * self.batch.tokens
        weights = g.add(scores, g.add(scores, k, q), mask, in_place=True)
        return g.add(out, g.view(g.add(out, g.add(row * block.v_width, v), weights)))

    def attend(self, block: Block, q: int) -> int:
        g, row, batch = self.graph, self.row, self.batch
        cells, mask, out = batch.cells_of(block), self.mask(block), row * block.heads * block.v_head
        keys, values = self.reused.get(block.index, ())[:1], self.reused.get(block.index, ())[1:]
        if self.fetches:
            keys = (g.add(batch.keys_bytes(block.k_width, cells)),)
            values = (g.add(batch.values_bytes(block.v_width, cells)),)
        if batch.flash_attention:
            keys = self.as_f16(batch.cache_type, batch.keys_bytes(block.k_width, cells), keys)
            values = self.as_f16(batch.v_cache_type, batch.values_bytes(block.v_width, cells), values)
            return g.add(out, q, *keys, *values, mask)
        scores = row * block.heads * cells
        weights = g.add(scores, g.add(scores, *keys, q), mask, in_place=True)
        return g.add(out, g.view(g.add(out, *values, weights)))

    def as_f16(self, cache_type: str, size: int, read: tuple[int, ...]) -> tuple[int, ...]:
        """Keys or values as flash attention takes them: a whole cache of f32 is copied."""
        return (self.graph.add(size // 2, *read),) if cache_type == "f32" else read

    def turned_back(self, block: Block, attended: int) -> int:
        """A quantised cache holds rotated values; what attention makes of them is rotated back, which takes a copy."""
        if not self.batch.rotates_values(block) or self.model.traits.encoder or block.has("attn_k_b"):
            return attended
        return self.graph.add(self.row * block.heads * block.v_head, self.graph.view(attended))

    def feed_forward(self, block: Block, normed: int) -> int:
        if block.has("ffn_gate_inp"):
            return self.experts(block, normed)
        return self.dense(block, normed)

    def dense(self, block: Block, normed: int, suffix: str = "") -> int:
        g, row = self.graph, self.row
        inner = block.tensors[f"ffn_down{suffix}.weight"].shape[0]
        up = self.multiply(block, "ffn_up" + suffix, normed)
        if block.has("ffn_gate" + suffix):
            hidden = g.add(row * inner, self.multiply(block, "ffn_gate" + suffix, normed), up)
        elif block.width("ffn_up" + suffix) == 2 * inner:
            hidden = g.add(row * inner, up)
        else:
            hidden = up  # the activation works in place
        return self.multiply(block, "ffn_down" + suffix, hidden)

    def experts(self, block: Block, normed: int) -> int:
        g, model = self.graph, self.model
        rows = self.row * model.experts_used
        scores = self.multiply(block, "ffn_gate_inp", normed)
        top = g.view(g.add(self.row * block.width("ffn_gate_inp"), scores))
        weights = g.add(rows, g.view(scores), top)
        weights = g.view(g.add(rows, g.view(weights), g.add(self.row, g.view(weights))))  # made to add up to 1
        fed = g.add(self.wide * model.experts_used, normed, weights) if model.traits.weighs_input else normed
        if block.has("ffn_gate_up_exps"):
            fused = self.multiply(block, "ffn_gate_up_exps", fed, top, rows=rows)
            hidden = g.add(g.nodes[fused].size // 2, g.view(fused), g.view(fused))
        else:
            gate = self.multiply(block, "ffn_gate_exps", fed, top, rows=rows)
            up = self.multiply(block, "ffn_up_exps", fed, top, rows=rows)
            hidden = g.add(g.nodes[gate].size, gate, up)
        down = self.multiply(block, "ffn_down_exps", hidden, top, rows=rows)
        result = g.add(self.wide, g.view(g.add(self.wide * model.experts_used, down, weights, in_place=True)))
        if block.has("ffn_up_shexp"):
            result = g.add(self.wide, result, self.dense(block, normed, "_shexp"), in_place=True)
        return result


class _Builder(_Blocks):
    """Builds the part of the graph that runs on the GPU: some blocks, then the head."""

    def build(
        self, kept: Sequence[Block], arrives: bool, borrowed: int = 0, handed: bool = False, ends: bool = True
    ) -> int:
        """`arrives`: the tokens' embeddings come in here; blocks before `borrowed` have their weights on the host.

        `handed`: the stream comes from another GPU; `ends`: the output layer is on this one.
        """
        traits = self.model.traits
        # some of them are needed by the first blocks only, or handed over by the host
        sparse = any(block.index < traits.sparse_blocks for block in kept)
        handed_over = 0 if arrives else 3 if sparse else 6 if len(kept) > 1 else 9
        for _unused in range(traits.held_streams - handed_over if kept else 0):
            self.graph.add(self.wide)
        if not kept:
            self.narrow_what_arrives(handed)
        stream = self.take_over(kept) if handed else self.receive(kept, arrives, borrowed)
        for block in kept:
            self.borrowing = block.index < borrowed
            stream = self.block(block, stream)
            if block.index in self.deep:
                stream = self.graph.add(self.wide, stream, self.graph.view(self.deep[block.index]), in_place=True)
        self.borrowing = False
        if self.model.has_head and ends:
            self.row = 4 * self.batch.outputs
            self.graph.add(self.row * self.model.vocabulary, self.norm(stream))
        return self.graph.peak_bytes()

    def narrow_what_arrives(self, handed: bool) -> None:
        """With the output layer alone the host hands over all tokens of what its last block has not narrowed."""
        last, traits = self.model.last_block, self.model.traits
        if handed:
            whole = 0
        elif traits.held_streams:
            whole = _STREAMS_MADE_ONE
        elif traits.unused_head or not (last.mixes and last.feeds):
            whole = 2
        else:
            whole = int(traits.parallel_residual)
        for _unused in range(whole):
            self.graph.add(self.wide)
        self.row = 4 * self.batch.outputs

    def inputs(self, blocks: Sequence[Block], arrives: bool = False) -> None:
        """One split: everything that it reads comes in before it starts."""
        g, batch, model = self.graph, self.batch, self.model
        here = [b for b in model.blocks[blocks[0].index : blocks[-1].index + 1] if b.tensors] if blocks else []
        if model.layer_inputs_width and not arrives:
            self.layer_input = {block.index: self.given(self.row * block.width("inp_gate")) for block in here}
        if model.layer_inputs_width and arrives:
            self.mask(blocks[0])
            self.looked_up = self.given(self.row * model.layer_inputs_width)
            g.add(self.row * model.layer_inputs_width)  # so much more is held in every measured load
        attending = {block.sliding: block for block in blocks if block.k_width}
        for _sliding, block in sorted(attending.items()):
            if not batch.flash_attention and not model.traits.encoder:
                self.given(8 * batch.tokens * block.v_width)  # where each element of V goes: V is kept transposed
            self.mask(block)
        for block in here:
            if block.reads >= 0 and block.reads < blocks[0].index:
                cells = batch.cells_of(block)
                self.reused[block.index] = (
                    self.given(batch.keys_bytes(block.k_width, cells)),
                    self.given(batch.values_bytes(block.v_width, cells)),
                )

    def take_over(self, blocks: Sequence[Block]) -> int:
        """What another GPU hands over: the stream, and what it has normed of it for the first block."""
        stream = self.given(self.wide)
        if blocks and blocks[0].has("attn_norm"):
            self.normed = self.given(self.wide)
        if blocks and self.copies > 1:
            self.given(_passed_on(self.model, self.batch, blocks[0].index))
        self.inputs(blocks)
        return stream

    def draft(self, block: Block) -> int:
        """A token's embedding and what the model made of the tokens before it, as one, through the block."""
        g = self.graph
        both = g.add(2 * self.wide, g.add(self.wide), g.add(self.wide))
        self.mask(block)
        stream = self.block(block, self.multiply(block, "nextn.eh_proj", both))
        self.row = 4 * self.batch.outputs
        g.add(self.row * self.model.vocabulary, g.add(self.wide, stream))
        return g.peak_bytes()

    def receive(self, blocks: Sequence[Block], arrives: bool, borrowed: int) -> int:
        """Inputs in the order in which the device receives them; returns the residual stream."""
        g, batch, wide, model = self.graph, self.batch, self.wide, self.model
        mixed: tuple[int, ...] = ()
        experts = weights = tall = 0
        if arrives:
            # llama-server reserves for prompts that mix tokens and embeddings: two more streams, a copy never freed
            tall = wide * model.input_streams
            mixed = (self.given(tall), self.given(wide), self.given(8 * batch.tokens))
            apart = [self.given(wide)] + ([self.given(wide)] if model.position_embedding else [])
        else:
            # the host's last product and the streams that are still to be added to it
            before = model.blocks[blocks[0].index - 1] if blocks else model.blocks[-1]
            if before.has("ffn_gate_inp") and not before.has("ffn_up_shexp"):
                experts = model.experts_used
            apart = [g.add(wide * max(experts, 1))]
            weights = g.add(self.row * experts)
            if not before.has("layer_output_scale"):
                apart.append(g.add(wide))
            if before.has("ffn_up_shexp"):
                apart.append(g.add(wide))
            # an image's part for each of the first blocks comes as a copy of the whole
            tall = wide * model.input_streams
            self.deep = {index: g.add(tall) for index in range(before.index, model.input_streams - 1)}
            if before.index in self.deep:
                apart.append(self.deep.pop(before.index))
        if not borrowed:
            self.inputs(blocks, arrives)
        if mixed:
            if model.input_streams > 1:
                # each token's embedding is padded to what an image's brings for the first blocks
                embedded, padded = g.add(tall, apart[0]), g.add(tall, mixed[1])
                apart[0] = g.view(embedded)
                self.deep = dict.fromkeys(range(model.input_streams - 1), embedded)
                mixed = (mixed[0], padded, mixed[2])
            g.view(g.add(tall, mixed[0]), mixed[1], mixed[2])
        if experts:
            apart[0] = g.add(wide, g.view(g.add(wide * experts, apart[0], weights, in_place=True)))
        self.arrived = g.add(wide, *apart, in_place=True) if len(apart) > 1 else apart[0]
        return self.arrived
