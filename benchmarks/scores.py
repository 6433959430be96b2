"""How near scores come to merges: what a GGUF says of a tokenizer.json where nobody reads merges.

    python benchmarks/scores.py tokenizer.json TEXT [TEXT ...]

For each rule that gives pieces their scores: lines of the texts whose ids are not those of Hugging
Face's `tokenizers`. docs/convert.md has a table of it. Last, a file of 2023 as convert.py would
have written it of this tokenizer, with Llama-2's own scores: as it is, and with tokenizer=. Needs
the extras `convert` and `test`; for the last two rows the submodule, and a tokenizer that extends
Llama-2's.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import gguf
import tokenizers

import kollama
from kollama.convert.tokenizer_json import TokenizerJson, read_tokenizer_json

ROOT = Path(__file__).resolve().parent.parent
SPM = ROOT / "third_party" / "llama.cpp" / "models" / "ggml-vocab-llama-spm.gguf"
N_LLAMA = 32000  # pieces of Llama's own vocabulary; those beyond were added
FIRST_PIECE = 259

Rule = Callable[[TokenizerJson, int], float]
RULES: dict[str, Rule] = {
    "0 for all": lambda read, i: 0.0,
    "-1000 for added pieces": lambda read, i: -float(i - FIRST_PIECE) if i < N_LLAMA else -1000.0,
    "-(id - 259)": lambda read, i: -float(i - FIRST_PIECE),
    "minus the first merge's rank": lambda read, i: read.scores[i],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    options = parser.parse_args()
    read = read_tokenizer_json(options.tokenizer)
    reference = tokenizers.Tokenizer.from_file(str(options.tokenizer))
    reference.encode_special_tokens = True
    texts = {path.name: list(filter(None, path.read_text("utf-8").split("\n")))
             for path in options.texts}
    expected = {name: [found.ids for found in
                       reference.encode_batch(lines, add_special_tokens=False)]
                for name, lines in texts.items()}
    titles = [f"{name}: {len(lines):,} lines" for name, lines in texts.items()]
    print(f"| score of a piece | {' | '.join(titles)} |")
    print("|---" * (1 + len(texts)) + "|")


    def row(name: str, own: kollama.Tokenizer) -> None:
        differ = [sum(ids.tolist() != other for ids, other in
                      zip(own.encode_batch(lines), expected[text], strict=True))
                  for text, lines in texts.items()]
        print(f"| {name} | {' | '.join(f'{n:,}' for n in differ)} |", flush=True)

    for name, rule in RULES.items():
        row(name, by_scores(read, rule))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "2023.bin"
        try:
            write_legacy(path, read)
        except ValueError as error:
            sys.exit(f"{options.tokenizer}: {error}")
        with kollama.Model(path) as model:
            row("a file of 2023", model.tokenizer)
        with kollama.Model(path, tokenizer=options.tokenizer) as model:
            row("with tokenizer=", model.tokenizer)


def by_scores(read: TokenizerJson, rule: Rule) -> kollama.Tokenizer:
    """What llama.cpp makes of these scores: kollama's tokenizer gives its ids for such a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tokenizer_model("llama")
        writer.add_token_list([piece or f"[PAD{i}]" for i, piece in enumerate(read.pieces)])
        writer.add_token_scores([rule(read, i) for i in range(len(read.pieces))])
        writer.add_token_types(read.types)
        writer.add_add_space_prefix(read.adds_space)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        return kollama.Tokenizer.from_file(path)


def write_legacy(path: Path, read: TokenizerJson) -> None:
    """A ggjt v3 file with the smallest of models, its vocabulary as convert.py of 2023 wrote it."""
    fields = gguf.GGUFReader(SPM).fields
    base = fields["tokenizer.ggml.tokens"].contents()
    scores = fields["tokenizer.ggml.scores"].contents()
    if list(read.pieces[:N_LLAMA]) != base:
        raise ValueError("does not begin with Llama-2's own pieces")
    n_embd, n_vocab = 32, len(read.pieces)
    with path.open("wb") as file:
        file.write(b"tjgg" + struct.pack("<8I", 3, n_vocab, n_embd, 256, 1, 1, n_embd, 2))
        for i, piece in enumerate(read.pieces):
            text = piece if i >= N_LLAMA else piece.replace("▁", " ")
            data = " ⁇ ".encode() if i == 0 else b"" if i < 3 else text.encode()
            data = bytes([i - 3]) if 3 <= i < FIRST_PIECE else data
            file.write(struct.pack("<I", len(data)) + data)
            file.write(struct.pack("<f", scores[i] if i < N_LLAMA else -1000.0))
        square, norm = (n_embd, n_embd), (n_embd,)
        shapes: dict[str, tuple[int, ...]] = {"norm": norm}
        shapes |= dict.fromkeys(("tok_embeddings", "output"), (n_embd, n_vocab))
        shapes |= {f"layers.0.{name}": norm for name in ("attention_norm", "ffn_norm")}
        shapes |= {f"layers.0.attention.w{part}": square for part in "qkvo"}
        shapes |= {f"layers.0.feed_forward.w{part}": square for part in "123"}
        for name, shape in shapes.items():
            is_norm = len(shape) == 1
            file.write(struct.pack(f"<{3 + len(shape)}I", len(shape), len(name) + 7,
                                   0 if is_norm else 2, *shape) + f"{name}.weight".encode())
            file.write(bytes(-file.tell() % 32))
            file.write(bytes(4 * n_embd if is_norm else 18 * n_embd // 32 * shape[1]))


if __name__ == "__main__":
    main()
