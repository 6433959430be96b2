"""Sizes of a model of Llama-2-ko-7B's shape in every type, beside those of its model card.

    python benchmarks/sizes.py [TYPE ...]

Nothing is quantized: the source is a header over a sparse file, and each size that of a dry run.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

import kollama

N_VOCAB, N_EMBD, N_LAYER, N_FF, N_HEAD = 46336, 4096, 32, 11008, 32

# What the card says; its f16 is that of a vocabulary of 32,000 pieces.
CARD = {"f32": "27.4", "f16": "13.5", "q8_0": "7.2", "q5_1": "5.2", "q5_0": "4.7", "q4_1": "4.3",
        "q4_0": "3.9"}
OTHERS = ("q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k", "iq4_xs")


def shapes(n_vocab: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (n_vocab, N_EMBD)}
    for i in range(N_LAYER):
        found |= {f"blk.{i}.{name}.weight": shape for name, shape in {
            "attn_norm": (N_EMBD,), "attn_q": (N_EMBD, N_EMBD), "attn_k": (N_EMBD, N_EMBD),
            "attn_v": (N_EMBD, N_EMBD), "attn_output": (N_EMBD, N_EMBD), "ffn_norm": (N_EMBD,),
            "ffn_gate": (N_FF, N_EMBD), "ffn_up": (N_FF, N_EMBD), "ffn_down": (N_EMBD, N_FF),
        }.items()}
    return found | {"output_norm.weight": (N_EMBD,), "output.weight": (n_vocab, N_EMBD)}


def write_source(path: Path, n_vocab: int) -> Path:
    """An f16 model without contents: norms are f32, as in every GGUF."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list([f"{i:06}" for i in range(n_vocab)])
    writer.add_token_scores([0.0] * n_vocab)
    writer.add_token_types([1] * n_vocab)
    end = 0
    for name, shape in shapes(n_vocab).items():
        dtype = np.dtype(np.float16 if len(shape) == 2 else np.float32)
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        writer.add_tensor_info(name, shape, dtype, n_bytes)
        end += gguf.GGUFWriter.ggml_pad(n_bytes, 32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("rb+") as file:
        file.seek(0, 2)
        file.truncate(gguf.GGUFWriter.ggml_pad(file.tell(), 32) + end)
    return path


def row(source: Path, kind: str, **options: str) -> kollama.Quantization:
    return kollama.quantize(source, None, kind, dry_run=True, **options)  # type: ignore[arg-type]


def main() -> None:
    kinds = sys.argv[1:] or [*CARD, *OTHERS]
    with tempfile.TemporaryDirectory() as folder:
        source = write_source(Path(folder) / "f16.gguf", N_VOCAB)
        llama2 = write_source(Path(folder) / "llama2.gguf", 32000)
        n_params = kollama.inspect(source).n_params
        print(f"{n_params / 1e9:.3f} billion weights; sizes in 10^9 bytes\n")
        print("| type | size | output matrix in q6_K | model card | bits per weight |")
        print("|---|---|---|---|---|")
        for kind in kinds:
            size = row(source, kind).size_after
            output = ""
            if kind in CARD and kind.startswith("q"):  # as the card's files have it
                output = f"{row(source, kind, output_type='q6_k').size_after / 1e9:.2f}"
            print(f"| {kind} | {size / 1e9:.2f} | {output} | {CARD.get(kind, '')} "
                  f"| {8 * size / n_params:.2f} |")
        print(f"\nf16 with 32,000 pieces: {row(llama2, 'f16').size_after / 1e9:.2f}")


if __name__ == "__main__":
    main()
