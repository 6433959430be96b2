"""How near scores come to merges: what a GGUF says of a tokenizer.json where nobody reads merges.

    python benchmarks/scores.py tokenizer.json TEXT [TEXT ...]

For each rule that gives pieces their scores: lines of the texts whose ids are not those of Hugging
Face's `tokenizers`. docs/convert.md has a table of it. Needs the extras `convert` and `test`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import gguf
import tokenizers

import kollama
from kollama.convert.tokenizer_json import TokenizerJson, read_tokenizer_json

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
    for name, rule in RULES.items():
        own = by_scores(read, rule)
        differ = [sum(ids.tolist() != other for ids, other in
                      zip(own.encode_batch(lines), expected[text], strict=True))
                  for text, lines in texts.items()]
        print(f"| {name} | {' | '.join(f'{n:,}' for n in differ)} |")


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


if __name__ == "__main__":
    main()
