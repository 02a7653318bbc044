"""The lab's models: what Ollama knows of them, and what they take. MiB unless a name says otherwise.

Weights and KV cache are exact: they follow from the tensors. The total is what llama.cpp itself projected for the same
tensors (data/lab_models_projection.csv). Where that table has no row, the compute buffer is taken straight on from the
rows it has: linear in the slot's context and in the batch, which is what its rows are to the MiB. Up to Ollama 0.24 the
compute buffer held logits for the whole batch; what it then took is what llama.cpp projected in
tests/data/planner/llama_projection.csv, whose rows are a sum of three products to the MiB. The embedder is in no
projection: its compute buffer is what public logs of a batch of 512 leave of 240 MiB in all. Nothing here comes from
the collection's own planner, which is tested against it.

What a model has on each of several GPUs follows from the tensors as well; their compute buffers are what llama.cpp
reserved on two RPC devices (data/lab_models_on_two_gpus.csv), the first GPU's and that of each further one.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Sequence

import lab
from lab import Json

CUDA_CONTEXT_MIB = 305
EMBEDDER_COMPUTE_MIB = 24 / 512  # for each token of a batch
_MIB = 1024 * 1024
_TENSOR_BYTES = {"F32": 4, "F16": 2, "Q8_0": 34 / 32, "Q6_K": 210 / 256, "Q4_K": 144 / 256}
_CACHE_BYTES = {
    "f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
    "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip
CACHE_TYPES = tuple(_CACHE_BYTES)

# Ollama's name, file and row names in data/, and what Ollama's registry says of the size.
_LAB_MODELS = (
    ("llama3.1:8b-instruct-q8_0", "llama31-8b-q8_0", "llama31-8b", "8.0B"),
    ("llama3.2:3b-instruct-q8_0", "llama32-3b-q8_0", "llama32-3b", "3.2B"),
    ("qwen2.5:3b", "qwen25-3b-q4_k_m", "qwen25-3b", "3.1B"),
    ("nomic-embed-text:latest", "nomic-embed-text-f16", "nomic-embed-text", "137M"),
)


@dataclasses.dataclass(frozen=True)
class OnCard:
    """What a runner takes on one GPU besides its CUDA context."""

    weights: float = 0.0
    kv: float = 0.0
    compute: float = 0.0

    @property
    def projected(self) -> int:
        return round(self.weights + self.kv + self.compute)


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a runner takes on the GPUs besides its CUDA contexts, and on the host."""

    layers: int
    weights: float
    kv: float
    compute: float
    host_weights: float
    host_kv: float
    host_compute: float
    # The part of the host's weights that every token reads: all but an embedding that only the input looks up.
    host_weights_read: float
    cards: tuple[OnCard, ...]

    @property
    def projected(self) -> int:
        return sum(card.projected for card in self.cards)


@dataclasses.dataclass(frozen=True)
class Blob:
    """A model file: the part of a model that derived models share."""

    name: str
    digest: str
    case: str
    parameter_size: str
    show: Json

    @functools.cached_property
    def architecture(self) -> str:
        return str(self.show["model_info"]["general.architecture"])

    def info(self, key: str) -> int:
        return int(self.show["model_info"][f"{self.architecture}.{key}"])

    @property
    def blocks(self) -> int:
        return self.info("block_count")

    @property
    def offloadable_layers(self) -> int:
        return self.blocks + 1

    @property
    def context_length(self) -> int:
        return self.info("context_length")

    @property
    def embedder(self) -> bool:
        """It makes vectors and writes nothing: no KV cache, and one slot whatever is asked for."""
        return f"{self.architecture}.pooling_type" in self.show["model_info"]

    @property
    def heads_kv(self) -> int:
        return int(self.show["model_info"].get(f"{self.architecture}.attention.head_count_kv", 1))  # as fs/ggml/ggml.go

    @property
    def kept_tokens(self) -> int:
        """What stays of a prompt's beginning where it is shortened: num_keep, and the token that begins a text."""
        return 4 + (self.architecture == "llama")

    def slots(self, num_parallel: int) -> int:
        return 1 if self.embedder else num_parallel

    @functools.cached_property
    def _parts(self) -> dict[str, float]:
        """MiB of each block ("0", "1", ...), of the output layer, and of the embedding, which stays on the host."""
        sizes: dict[str, float] = {}
        for tensor in self.show["tensors"]:
            words = tensor["name"].split(".")
            part = words[1] if words[0] == "blk" else "embedding" if words[0] == "token_embd" else "output"
            size = math.prod(tensor["shape"]) * _TENSOR_BYTES[tensor["type"]] / _MIB
            sizes[part] = sizes.get(part, 0) + size
        return sizes

    @property
    def _tied(self) -> bool:
        """The embedding is the output matrix too; the GPU gets a copy of it."""
        return not self.embedder and not any(tensor["name"] == "output.weight" for tensor in self.show["tensors"])

    @property
    def file_bytes(self) -> int:
        return round(sum(self._parts.values()) * _MIB)

    def kv_mib(self, blocks: int, num_ctx: int, parallel: int, cache_type: str) -> float:
        """MiB of the KV cache of so many blocks; `num_ctx` is per slot."""
        heads = 0 if self.embedder else self.heads_kv
        width = self.info("embedding_length") // self.info("attention.head_count")
        cells = math.ceil(num_ctx / 256) * 256
        return blocks * heads * width * 2 * _CACHE_BYTES[cache_type] * cells * parallel / _MIB

    def _placed(self, layers: int, since_030: bool) -> tuple[int, bool]:
        """Blocks on the GPU, the last ones first, and whether the output layer is: it counts first since 0.30."""
        layers = max(0, min(layers, self.offloadable_layers))
        return (max(layers - 1, 0), layers > 0) if since_030 else (min(layers, self.blocks), layers > self.blocks)

    def _weights(self, blocks: int, output: bool) -> tuple[float, float]:
        """MiB on the GPU and on the host."""
        parts = self._parts
        sizes = [parts[str(block)] for block in range(self.blocks)]
        on_gpu = sum(sizes[self.blocks - blocks :]) + (self.output_mib if output else 0)
        on_host = sum(sizes[: self.blocks - blocks]) + parts["embedding"] + (0 if output else parts["output"])
        return on_gpu, on_host

    @property
    def output_mib(self) -> float:
        return self._parts["output"] + (self._parts["embedding"] if self._tied else 0)

    def block_mib(self, block: int) -> float:
        return self._parts[str(block)]

    def _compute(self, layers: int, num_ctx: int, parallel: int, batch: int) -> float:
        def row(context: int, slots: int, rows: int) -> float:
            total = _projections()[self.case, layers, context, slots, rows]
            blocks, output = self._placed(layers, since_030=True)
            return total - self._weights(blocks, output)[0] - self.kv_mib(blocks, context, slots, "f16")

        if self.embedder:
            return EMBEDDER_COMPUTE_MIB * batch if layers else 0.0
        if (self.case, layers, num_ctx, parallel, batch) in _projections():
            return row(num_ctx, parallel, batch)
        at = {(context, rows): row(context, 1, rows) for context in (1024, 8192) for rows in (512, 1024)}
        along = (num_ctx - 1024) / (8192 - 1024)
        small, large = (at[1024, rows] + along * (at[8192, rows] - at[1024, rows]) for rows in (512, 1024))
        return max(small + (batch - 512) / 512 * (large - small), 0.0)

    def _compute_until_024(self, blocks: int, output: bool, num_ctx: int, batch: int, flash: bool) -> float:
        """With logits for the whole batch. Where the output layer stays on the host, CUDA multiplies by a copy of it.

        The copy is in no projection; a public log of a 70B model without a layer on the GPU has it to the MiB.
        """
        if not blocks:
            return 0.0
        if self.embedder:
            return EMBEDDER_COMPUTE_MIB * batch
        vocabulary, width, cells = self.vocabulary, self.info("embedding_length"), math.ceil(num_ctx / 256) * 256
        logits = 4 * batch * (vocabulary + width)
        if output:
            logits = batch * (4 * vocabulary + 16 * width + 2 * cells)
        if not flash:  # the attention scores of a batch, within a tenth of the table's rows
            logits = max(logits, 4 * batch * (4 * width + cells * (1 + self.info("attention.head_count"))))
        return logits / _MIB + (0 if output else self.output_mib)

    @functools.cached_property
    def vocabulary(self) -> int:
        return next(int(tensor["shape"][1]) for tensor in self.show["tensors"] if tensor["name"] == "token_embd.weight")

    def _divided(
        self, free: Sequence[float], layers: int, num_ctx: int, parallel: int, batch: int, cache_type: str
    ) -> tuple[OnCard, ...]:
        """Each card's part: a layer is on the one in whose share of the free memory it lies, the output layer last."""
        ends = list(itertools.accumulate(free))
        of_layers = [
            next(card for card, end in enumerate(ends) if layer / layers < end / ends[-1]) for layer in range(layers)
        ]
        first_block, on_cards = self.blocks - layers + 1, []
        pipelined = layers == self.offloadable_layers
        for card in range(len(free)):
            here = [layer for layer, where in enumerate(of_layers) if where == card]
            blocks = [first_block + layer for layer in here if layer < layers - 1]
            weights = sum(map(self.block_mib, blocks)) + (self.output_mib if len(blocks) < len(here) else 0)
            compute = self._compute_of_part(card == of_layers[0], num_ctx, batch) if pipelined else None
            if compute is None:  # roughly; llama.cpp's is a tenth less
                compute = self._compute(self.offloadable_layers, num_ctx, parallel, batch)
            kv = self.kv_mib(len(blocks), num_ctx, parallel, cache_type)
            on_cards.append(OnCard(weights, kv, compute) if here else OnCard())
        return tuple(on_cards)

    def _compute_of_part(self, first: bool, num_ctx: int, batch: int) -> float | None:
        """Linear in the slot's context and in the batch, as every row of the table is to the MiB."""
        if self.embedder:
            return None
        name = "first_gpu_mib" if first else "last_gpu_mib"
        at = {
            (context, rows): float(_on_two_gpus()[self.case, context, rows][name].split("+")[2])
            for context in (1024, 8192)
            for rows in (512, 1024)
        }
        along = (num_ctx - 1024) / (8192 - 1024)
        small, large = (at[1024, rows] + along * (at[8192, rows] - at[1024, rows]) for rows in (512, 1024))
        return max(small + (batch - 512) / 512 * (large - small), 0.0)

    def memory(
        self,
        layers: int,
        num_ctx: int,
        parallel: int,
        batch: int,
        cache_type: str,
        flash: bool,
        since_030: bool = True,
        free: Sequence[float] = (),
    ) -> Memory:
        """What the runner takes with `layers` layers on GPUs with so much `free`; `num_ctx` is per slot."""
        layers = max(0, min(layers, self.offloadable_layers))
        blocks, output = self._placed(layers, since_030)
        weights, host_weights = self._weights(blocks, output)
        if since_030:
            compute = self._compute(layers, num_ctx, parallel, batch)
            if layers and not flash:
                # The attention scores of a batch, roughly; llama.cpp's figures for these models are within a fifth.
                compute += self.info("attention.head_count") * batch * num_ctx * 3 / _MIB
        else:
            compute = self._compute_until_024(blocks, output, num_ctx, batch, flash)
        cards = (OnCard(weights, self.kv_mib(blocks, num_ctx, parallel, cache_type), compute),)
        if layers and len(free) > 1:
            cards = self._divided(free, layers, num_ctx, parallel, batch, cache_type)
        return Memory(
            layers=layers,
            weights=weights,
            kv=sum(card.kv for card in cards),
            compute=sum(card.compute for card in cards),
            cards=cards,
            host_weights=host_weights,
            host_kv=self.kv_mib(self.blocks - blocks, num_ctx, parallel, cache_type),
            host_compute=batch * (self.info("embedding_length") * 16 + num_ctx * 2) / _MIB,
            host_weights_read=host_weights - (0 if self._tied and not output else self._parts["embedding"]),
        )


@functools.cache
def _projections() -> dict[tuple[str, int, int, int, int], int]:
    with (lab.DATA / "lab_models_projection.csv").open() as file:
        keys = ("num_gpu", "num_ctx", "num_parallel", "num_batch")
        rows = list(csv.DictReader(file))
    return {(row["case"], *(int(row[key]) for key in keys)): int(row["projected_gpu_mib"]) for row in rows}  # type: ignore[misc]


@functools.cache
def _on_two_gpus() -> dict[tuple[str, int, int], dict[str, str]]:
    with (lab.DATA / "lab_models_on_two_gpus.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["num_parallel"] == "1"]
    return {(row["case"], int(row["num_ctx"]), int(row["num_batch"])): row for row in rows}


@functools.cache
def blobs() -> dict[str, Blob]:
    """The lab's model files by digest."""
    found = {}
    for name, file, case, size in _LAB_MODELS:
        content = (lab.DATA / f"{file}.show.json").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        found[digest] = Blob(name, digest, case, size, json.loads(content))
    return found
