"""What llama-server says besides what Ollama reads, in the words and the order of build 11669: most lines of a log."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence

import lab
import lab_models
import simulated_gpu

TOKENIZER = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "llama-bpe",
    "tokenizer.ggml.tokens": ["!", '"', "#", "$"],
    "tokenizer.ggml.token_type": [1, 1, 1, 1],
    "tokenizer.ggml.merges": ["Ġ Ġ", "Ġ t"],
    "tokenizer.ggml.bos_token_id": 128000,
    "tokenizer.ggml.eos_token_id": 128009,
    "tokenizer.chat_template": "{% set loop_messages = messages %}{% ...",
    "general.quantization_version": 2,
}
END_TOKENS = ((128001, "<|end_of_text|>"), (128008, "<|eom_id|>"), (128009, "<|eot_id|>"))


def beginning(cards: Sequence[simulated_gpu.Gpu]) -> Iterator[str]:
    """From its start to the model."""
    yield "srv  llama_server: initializing ..."
    if cards:
        total = sum(card.total for card in cards)
        yield f"ggml_cuda_init: found {len(cards)} CUDA devices (Total VRAM: {total} MiB):"
    for device, card in enumerate(cards):
        yield f"  Device {device}: {card.name}, compute capability 8.9, VMM: yes, VRAM: {card.total} MiB"
    yield "load_backend: loaded CUDA backend from /usr/local/lib/ollama/cuda_v12/libggml-cuda.so"
    yield "load_backend: loaded CPU backend from /usr/local/lib/ollama/libggml-cpu-zen4.so"
    yield "cmn  common_param: common_params_print_info: build 11669 (lab) with GNU 13.3.0 for Linux x86_64"
    yield "cmn  common_param: common_params_print_info: verbosity = 4 (adjust with the `-lv N` CLI arg)"
    yield "cmn  common_param: device_info:"
    for device, card in enumerate(cards):
        yield f"cmn  common_param:   - CUDA{device}   : {card.name} ({card.total} MiB, {card.total} MiB free)"
    yield "cmn  common_param:   - CPU     : AMD EPYC (64105 MiB, 64105 MiB free)"
    yield "cmn  common_param: system_info: n_threads = 8 (n_threads_batch = 8) / 8 | CPU : SSE3 = 1 | AVX2 = 1 |"
    yield "srv  init_listene: running without SSL"
    yield "srv  init_listene: The UI is disabled"
    yield "srv  init_listene: Use --ui/--no-ui (or deprecated --webui/--no-webui) to enable/disable"
    yield "srv          init: using 7 threads for HTTP server"
    yield "srv  llama_server: security: no API key is set and CORS allows all origins"


def before_the_fit() -> Iterator[str]:
    yield "cmn  common_init_: fitting params to device memory ..."
    yield (
        "cmn  common_init_: (for bugs during this step try to reproduce them with -fit off, or provide --verbose logs "
        "if the bug only occurs with -fit on)"
    )
    yield "common_params_fit_impl: getting device memory data for initial parameters:"


def breakdown(memory: lab_models.Memory, cards: Sequence[simulated_gpu.Gpu], free_mib: Sequence[int]) -> Iterator[str]:
    """What a load would take, as the engine adds it up before."""
    say = "common_memory_breakdown_print: |"
    yield f"{say} memory breakdown [MiB] | total    free    self   model   context   compute    unaccounted |"
    for device, (card, free, on_card) in enumerate(zip(cards, free_mib, memory.cards)):
        own = on_card.projected
        yield (
            f"{say}   - CUDA{device} ({card.name}) | {card.total} = {free} + ({own:4d} = {on_card.weights:5.0f} + "
            f"{on_card.kv:7.0f} + {on_card.compute:7.0f}) + {card.total - free - own:11d} |"
        )
    yield f"{say}   - Host   | {memory.host_weights + memory.host_compute:6.0f} = {memory.host_weights:5.0f} +  0 + 6 |"


def model_file(blob: lab_models.Blob, path: str) -> Iterator[str]:
    """What the file says of itself."""
    info = {**blob.show["model_info"], **TOKENIZER}
    tensors = blob.show["tensors"]
    say = "llama_model_loader:"
    pairs = f"{len(info)} key-value pairs and {len(tensors)} tensors"
    yield f"{say} loaded meta data with {pairs} from {path} (version GGUF V3 (latest))"
    yield f"{say} Dumping metadata keys/values. Note: KV overrides do not apply in this output."
    for number, (key, value) in enumerate(info.items()):
        kind = {bool: "bool", int: "u32", float: "f32", str: "str"}.get(type(value), "arr[str,128256]")
        yield f"{say} - kv {number:3d}: {key:>40} {kind:<16} = {str(value).replace(chr(10), chr(92) + 'n')[:40]}"
    for kind, count in collections.Counter(tensor["type"] for tensor in tensors).items():
        yield f"{say} - type {kind.lower():>4}: {count:4d} tensors"
    size = blob.file_bytes / lab.MIB
    yield "print_info: file format = GGUF V3 (latest)"
    yield f"print_info: file size   = {size:.2f} MiB"
    yield "load: printing all EOG tokens:"
    yield from (f"load:   - {number} ('{text}')" for number, text in END_TOKENS)
    yield "load: special tokens cache size = 256"
    yield "load: token to piece cache size = 0.7999 MB"
    known = {
        "arch": blob.architecture, "vocab_only": 0, "no_alloc": 0, "n_ctx_train": blob.context_length,
        "n_embd_inp": blob.info("embedding_length"), "n_embd": blob.info("embedding_length"),
        "n_embd_out": blob.info("embedding_length"), "n_layer": blob.blocks, "n_layer_all": blob.blocks,
        "n_head": blob.info("attention.head_count"), "n_head_kv": blob.heads_kv, "n_rot": 128, "n_swa": 0,
        "is_swa_any": 0, "non_causal_type": 0, "n_embd_head_k": 128, "n_embd_head_v": 128, "n_gqa": 4,
        "n_embd_k_gqa": 1024, "n_embd_v_gqa": 1024, "f_norm_eps": "0.0e+00", "f_norm_rms_eps": "1.0e-05",
        "f_clamp_kqv": "0.0e+00", "f_max_alibi_bias": "0.0e+00", "f_logit_scale": "0.0e+00",
        "f_attn_scale": "0.0e+00", "f_attn_value_scale": "0.0000", "n_ff": blob.info("feed_forward_length"),
        "n_expert": 0, "n_expert_used": 0, "n_expert_groups": 0, "n_group_used": 0, "causal attn": 1,
        "pooling type": -1, "rope type": 0, "rope scaling": "linear", "freq_base_train": 500000.0,
        "freq_scale_train": 1, "n_ctx_orig_yarn": blob.context_length, "rope_yarn_log_mul": "0.0000",
        "rope_finetuned": "unknown", "model type": blob.parameter_size,
        "model params": f"{blob.show['model_info']['general.parameter_count'] / 1e9:.2f} B",
        "general.name": blob.name, "vocab type": "BPE", "n_vocab": blob.vocabulary, "n_merges": 280147,
        "BOS token": "128000 '<|begin_of_text|>'", "EOS token": "128009 '<|eot_id|>'",
        "EOT token": "128009 '<|eot_id|>'", "EOM token": "128008 '<|eom_id|>'", "LF token": "198 'Ċ'",
    }  # fmt: skip
    yield from (f"print_info: {name:<21} = {value}" for name, value in known.items())
    yield from (f"print_info: EOG token             = {number} '{text}'" for number, text in END_TOKENS)
    yield "print_info: max token length      = 256"
    yield "load_tensors: loading model tensors, this can take a while... (load_mode = mmap)"


def context(context: int, slots: int, batch: int, trained: int, flash: bool) -> Iterator[str]:
    yield from (f"cmn  common_init_: added {text} logit bias = -inf" for _, text in END_TOKENS)
    yield "llama_context: constructing llama_context"
    known = {
        "n_seq_max": slots, "n_ctx": context, "n_ctx_seq": context // slots, "n_batch": batch, "n_ubatch": batch,
        "causal_attn": 1, "flash_attn": "auto" if flash else "disabled", "kv_unified": "false",
        "freq_base": 500000.0, "freq_scale": 1, "n_rs_seq": 0, "n_outputs_max": slots, "n_outputs_max_per_seq": 1,
    }  # fmt: skip
    yield from (f"llama_context: {name:<21} = {value}" for name, value in known.items())
    if context // slots < trained:
        few = f"n_ctx_seq ({context // slots}) < n_ctx_train ({trained})"
        yield f"llama_context: {few} -- the full capacity of the model will not be utilized"


def ready(context: int, slots: int) -> Iterator[str]:
    """From the last buffer to the first request."""
    yield "sched_reserve: graph: nodes = 1030, splits = 2, input objects = 4, input tensors = 13"
    yield "sched_reserve: reserve took 22.01 ms, sched copies = 1"
    yield "cmn          init: llama threadpool init, n_threads = 8"
    yield "cmn  common_init_: warming up the model with an empty run - please wait ... (--no-warmup to disable)"
    yield f"srv    load_model: initializing slots, n_slots = {slots}"
    yield from (
        f"slot   load_model: id {slot:2d} | task -1 | new slot, n_ctx = {context // slots}" for slot in range(slots)
    )
    yield "srv    load_model: prompt cache is enabled, size limit: 8192 MiB"
    yield "srv    load_model: use `--cache-ram 0` to disable the prompt cache"


def begun(task: int) -> Iterator[str]:
    yield "slot get_availabl: id  0 | task -1 | selected slot by LRU, t_last = -1"
    yield f"slot launch_slot_: id  0 | task {task} | processing task, is_child = 0"


def ended(task: int, tokens: int) -> Iterator[str]:
    yield f"slot      release: id  0 | task {task} | stop processing: n_tokens = {tokens}, truncated = 0"
    yield "srv  update_slots: all slots are idle"
