"""Damaged GGUF files: some in their bytes, some whole and wrong in what they say."""

from __future__ import annotations

import random
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mutate
import tiny
from mutate import Field

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
ALIGNMENT = 32

SOURCE = Path(__file__).resolve().parent.parent / "third_party" / "llama.cpp" / "src" / "llama-arch.cpp"
ARCHITECTURES = re.findall(r'\{ LLM_ARCH_\w+, +"([^"]+)"', SOURCE.read_text("utf-8"))
# Below the architecture's name: numbers that decide shapes, divisors and loops.
NUMBERS = (
    "context_length", "embedding_length", "embedding_length_out", "block_count", "feed_forward_length", "expert_feed_forward_length",
    "expert_shared_feed_forward_length", "expert_count", "expert_used_count", "expert_shared_count", "expert_group_count",
    "expert_group_used_count", "expert_gating_func", "moe_every_n_layers", "leading_dense_block_count", "nextn_predict_layers",
    "vocab_size", "pooling_type", "interleave_moe_layer_step", "full_attention_interval", "n_deepstack_layers", "features_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.sliding_window",
    "attention.sliding_window_pattern", "attention.q_lora_rank", "attention.kv_lora_rank", "attention.key_length_mla",
    "attention.value_length_mla", "attention.group_norm_groups", "attention.chunk_size", "attention.indexer.top_k",
    "attention.relative_buckets_count", "attention.shared_kv_layers", "rope.dimension_count", "rope.dimension_count_swa", "rope.dimension_sections",
    "rope.scaling.original_context_length", "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank",
    "ssm.group_count", "wkv.head_size", "token_shift_count", "rescale_every_n_layers", "shortconv.l_cache", "decoder_block_count",
    "decoder_start_token_id", "posnet.embedding_length", "posnet.block_count", "convnext.block_count", "classifier.output_labels",
    "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "rope.freq_base", "rope.scaling.factor",
    "rope.scaling.yarn_log_multiplier", "attention.scale", "logit_scale", "residual_scale", "embedding_scale", "attn_logit_softcapping",
)
REALS = ("epsilon", "base", "factor", "scale", "softcapping", "multiplier")
TOKENIZER_NUMBERS = tuple(f"{name}_token_id" for name in (
    "bos", "eos", "unknown", "padding", "seperator", "mask", "eot", "eom", "prefix", "suffix", "middle", "fim_pre", "cls"))
TEXTS = {"tokenizer.ggml.model": ("llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "none", "no_vocab", "gemma4", "", "x"),
         "tokenizer.ggml.pre": ("default", "llama-bpe", "gpt-2", "qwen2", "", "no-such"),
         "rope.scaling.type": ("none", "linear", "yarn", "longrope", "x")}
GENERAL = ("general.alignment", "general.file_type", "general.quantization_version", "split.count", "split.no", "split.tensors.count",
           "general.architecture", "general.type", "adapter.type")


@dataclass
class Gguf:
    version: int = 3
    entries: list[tuple[bytes, int, Any]] = field(default_factory=list)  # an array's value: (type, list)
    tensors: list[tuple[bytes, list[int], int, bytes]] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)

    def pack(self) -> bytes:
        out = b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(self.entries))
        for key, kind, value in self.entries:
            out += _text(key) + struct.pack("<I", kind) + _value(kind, value)
        offset = 0
        for name, shape, kind, data in self.tensors:
            out += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", kind, offset)
            offset += -(-len(data) // ALIGNMENT) * ALIGNMENT
        out += bytes(-len(out) % ALIGNMENT)
        return out + b"".join(data + bytes(-len(data) % ALIGNMENT) for _, _, _, data in self.tensors)


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _text(value)
    if kind == ARRAY:
        return struct.pack("<IQ", value[0], len(value[1])) + b"".join(_value(value[0], item) for item in value[1])
    return struct.pack(SCALARS[kind], value)


class _Reader:
    def __init__(self, data: bytes, out: Gguf) -> None:
        self.data, self.at, self.out = data, 0, out

    def number(self, code: str) -> Any:
        size = struct.calcsize(code)
        self.out.fields.append(Field(self.at, size))
        self.at += size
        return struct.unpack_from(code, self.data, self.at - size)[0]

    def text(self) -> bytes:
        length = self.number("<Q")
        self.out.fields.append(Field(self.at, length, is_text=True))
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            of, count = self.number("<I"), self.number("<Q")
            kept = len(self.out.fields)
            items = [self.value(of) for _ in range(count)]
            del self.out.fields[kept + 40 :]  # or a vocabulary would be all that is damaged
            return of, items
        return self.number(SCALARS[kind])


def parse(data: bytes) -> Gguf:
    """A sound GGUF, with the fields of its header."""
    out = Gguf()
    reader = _Reader(data, out)
    out.fields.append(Field(0, 4, is_text=True))
    reader.at = 4
    out.version, n_tensors, n_entries = reader.number("<I"), reader.number("<Q"), reader.number("<Q")
    for _ in range(n_entries):
        key, kind = reader.text(), reader.number("<I")
        out.entries.append((key, kind, reader.value(kind)))
    found = []
    for _ in range(n_tensors):
        name, rank = reader.text(), reader.number("<I")
        shape = [reader.number("<Q") for _ in range(rank)]
        found.append((name, shape, reader.number("<I"), reader.number("<Q")))
    start = -(-reader.at // ALIGNMENT) * ALIGNMENT
    ends = [offset for _, _, _, offset in found[1:]] + [len(data) - start]
    out.tensors = [(name, shape, kind, data[start + offset : start + end])
                   for (name, shape, kind, offset), end in zip(found, ends, strict=True)]
    return out


def seeds(folder: Path) -> list[bytes]:
    """Small sound models."""
    paths = [tiny.write_llama(folder / "llama.gguf", n_layer=1, n_embd=32), tiny.write_mamba(folder / "mamba.gguf", n_layer=1)]
    return [path.read_bytes() for path in paths]


def damaged(data: bytes, seed: int) -> bytes:
    """One of the files of this seed: half of them damaged in their bytes, half in their meaning."""
    choose = random.Random(seed)
    model = parse(data)
    if seed % 2:
        return mutate.damaged(data, model.fields, seed)
    for _ in range(choose.choice((1, 1, 2, 3))):
        choose.choice((_entry, _entry, _entry, _number, _number, _number, _number, _vocabulary, _tensor, _tensor, _architecture))(model, choose)
    out = model.pack()
    return mutate.damaged(out, parse(out).fields, seed) if choose.random() < 0.1 else out


def _random_value(choose: random.Random) -> tuple[int, Any]:
    kind = choose.choice((*SCALARS, 4, 4, 4, 5, STRING, ARRAY))
    if kind == STRING:
        return kind, choose.choice((b"", b"llama", b"\xff\xfe", b"a\0b", b"x" * 300))
    if kind == ARRAY:
        of = choose.choice((4, 5, 6, 7, STRING))
        n = choose.choice((0, 1, 2, 3, 100, 512, 513))
        return kind, (of, [b"a" if of == STRING else _scalar(of, choose) for _ in range(n)])
    return kind, _scalar(kind, choose)


def _scalar(kind: int, choose: random.Random) -> Any:
    if kind == 7:
        return choose.random() < 0.5
    if kind in (6, 12):
        return choose.choice((0.0, -1.0, 1.0, 1e-30, 3e38, float("nan"), float("inf"), 1e-5, 10000.0))
    size = struct.calcsize(SCALARS[kind])
    value = mutate.interesting(8 * size, choose.randrange(100), 4096, choose)
    return struct.unpack(SCALARS[kind], struct.pack(mutate.WIDTHS[size], value))[0]


def _set(model: Gguf, key: bytes, kind: int, value: Any) -> None:
    model.entries = [entry for entry in model.entries if entry[0] != key] + [(key, kind, value)]


def _prefix(model: Gguf) -> bytes:
    return next((value for key, kind, value in model.entries if key == b"general.architecture" and kind == STRING), b"llama")


def _entry(model: Gguf, choose: random.Random) -> None:
    """An entry gone, twice, of another type, or under another's name."""
    if not model.entries:
        return
    i = choose.randrange(len(model.entries))
    key, kind, value = model.entries[i]
    what = choose.randrange(5)
    if what == 0:
        del model.entries[i]
    elif what == 1:
        model.entries.append((key, kind, value))
    elif what == 2:
        model.entries[i] = (choose.choice(model.entries)[0], kind, value)
    else:
        model.entries[i] = (key, *_random_value(choose))


def _number(model: Gguf, choose: random.Random) -> None:
    """A number of the architecture, or a token id, with a value that nobody expects."""
    name = choose.choice((*NUMBERS, *NUMBERS, *TOKENIZER_NUMBERS, *GENERAL, *TEXTS))
    if name in TEXTS:
        key = name.encode() if name.startswith("tokenizer") else _prefix(model) + b"." + name.encode()
        _set(model, key, STRING, choose.choice(TEXTS[name]).encode())
        return
    if name in TOKENIZER_NUMBERS:
        key = b"tokenizer.ggml." + name.encode()
    else:
        key = name.encode() if name in GENERAL else _prefix(model) + b"." + name.encode()
    old = next((kind for found, kind, _ in model.entries if found == key), 4)
    kind = old if old in SCALARS and choose.random() < 0.8 else 4
    if name.endswith(REALS):
        kind = 6
    if choose.random() < 0.15:
        _set(model, key, ARRAY, (kind, [_scalar(kind, choose) for _ in range(choose.choice((0, 1, 2, 4, 512)))]))
    else:
        _set(model, key, kind, _scalar(kind, choose))


def _vocabulary(model: Gguf, choose: random.Random) -> None:
    """Arrays of the tokenizer: longer, shorter, empty, strange."""
    arrays = [i for i, (_, kind, _) in enumerate(model.entries) if kind == ARRAY]
    if not arrays:
        return
    key, _, (of, items) = model.entries[choose.choice(arrays)]
    items = list(items)
    what = choose.randrange(6)
    if what == 0:
        items = items[: choose.randrange(len(items) + 1)]
    elif what == 1:
        items += items[: choose.randrange(len(items) + 1)]
    elif what == 2 and items:
        for _ in range(choose.choice((1, 10, 1000))):
            items[choose.randrange(len(items))] = choose.choice(items)
    elif items and of == STRING:
        strange = (b"", b"\xff", b"<0x00>", b"<0xZZ>", b"<0x", b" ", "▁".encode() * 40, b"a" * 70000, b"\xed\xa0\x80", b"\0")
        items[choose.randrange(len(items))] = choose.choice(strange)
    elif items:
        items[choose.randrange(len(items))] = _scalar(of, choose)
    _set(model, key, ARRAY, (of, items))
    if choose.random() < 0.2:
        _set(model, b"tokenizer.ggml.merges", ARRAY, (STRING, choose.choice(([], [b"a b"], [b"a"], [b""], [b" "], [b"a b c"] * 9))))


def _tensor(model: Gguf, choose: random.Random) -> None:
    """A tensor gone, twice, renamed, reshaped or retyped, with data of the right length or not."""
    if not model.tensors:
        return
    i = choose.randrange(len(model.tensors))
    name, shape, kind, data = model.tensors[i]
    what = choose.randrange(7)
    if what == 0:
        del model.tensors[i]
    elif what == 1:
        model.tensors.append(model.tensors[i])
    elif what == 2:
        model.tensors[i] = (choose.choice(model.tensors)[0], shape, kind, data)
    elif what == 3:
        names = (b"", b"x" * 63, b"x" * 64, b"x" * 65, b"a\0b", b"blk.99999999999.attn_q.weight", b"blk.-1.attn_q.weight", b"rope_freqs.weight")
        model.tensors[i] = (choose.choice(names), shape, kind, data)
    elif what == 4:
        model.tensors[i] = (name, shape, choose.choice((*range(44), 2**31, 2**32 - 1)), data)
    elif what == 5:
        shape = list(shape) + [1] * choose.randrange(3)
        shape[choose.randrange(len(shape))] = mutate.interesting(64, shape[0], 4096, choose) if choose.random() < 0.5 else choose.randrange(70)
        model.tensors[i] = (name, shape, kind, data)
    else:
        model.tensors[i] = (name, shape[::-1] if choose.random() < 0.5 else [len(data) // 4], kind, data)


def _architecture(model: Gguf, choose: random.Random) -> None:
    """Another architecture, with the numbers of this one, and sometimes all that any asks for."""
    old, new = _prefix(model), choose.choice(ARCHITECTURES).encode()
    model.entries = [(new + key[len(old) :] if key.startswith(old + b".") else key, kind, value) for key, kind, value in model.entries]
    _set(model, b"general.architecture", STRING, new)
    if choose.random() < 0.6:
        known = {key for key, _, _ in model.entries}
        for name in NUMBERS:
            key = new + b"." + name.encode()
            if key not in known and choose.random() < 0.9:
                is_real = name.endswith(REALS)
                model.entries.append((key, 6 if is_real else 4, 1.0 if is_real else choose.choice((0, 1, 1, 1, 2, 4, 16, 32, 64))))
