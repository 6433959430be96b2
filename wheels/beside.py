"""Uses a wheel in one process with the packages that carry a llama.cpp, too.

    python wheels/beside.py kollama-*.whl llama-cpp-python xllamacpp

Each order of import has a process of its own; each package reads the same tiny model in it, and
kollama writes the same tokens before and after. llama-cpp-python comes as source: a compiler and
minutes; a path of a built wheel may stand for a name.

The interpreter that runs this needs the `test` extra, for the tiny model.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

from check import environment, run, tiny

USE = '''
import sys
model, packages = sys.argv[1], sys.argv[2:]
TEXT = "대한민국의 수도는"

def kollama():
    import kollama
    assert any(device.type == "cpu" for device in kollama.devices())
    with kollama.LLM(model, n_ctx=64, n_threads=2) as llm:
        done = llm.complete(TEXT, max_tokens=8, ignore_eos=True, temperature=0)
        return list(map(int, done.tokens))

def llama_cpp():
    import llama_cpp
    llm = llama_cpp.Llama(model, n_ctx=64, n_threads=2, verbose=False)
    ids = llm.tokenize(TEXT.encode())
    return [token for token, _ in zip(llm.generate(ids, temp=0.0), range(8))]

def xllamacpp():
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = 64
    params.n_parallel = 1
    params.verbosity = -1
    server = xllamacpp.Server(params)
    answer = server.handle_completions({"prompt": TEXT, "n_predict": 8, "temperature": 0})
    assert "choices" in answer or "content" in answer, answer
    return None

use = {"kollama": kollama, "llama-cpp-python": llama_cpp, "xllamacpp": xllamacpp}
first = {}
for package in packages * 2:
    tokens = use[package]()
    before = first.setdefault(package, tokens)
    assert before == tokens, f"{package}: {before}, then {tokens}"
print(*first["kollama"])
'''


def name_of(package: str) -> str:
    if not package.endswith(".whl"):
        return package
    return Path(package).name.split("-")[0].replace("_", "-")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("packages", nargs="+", metavar="PACKAGE")
    options = parser.parse_args()
    names = ["kollama", *map(name_of, options.packages)]
    with tempfile.TemporaryDirectory() as scratch:
        python = environment(sys.executable, Path(scratch) / "venv", options.wheel.resolve(),
                             *options.packages)
        model = tiny.write_llama(Path(scratch) / "tiny.gguf")
        seen = {run(python, "-c", USE, model, "kollama")[0]}
        for order in itertools.permutations(names):
            seen.add(run(python, "-c", USE, model, *order)[0].splitlines()[-1])
            print(f"  {', '.join(order)}: together")
    assert len(seen) == 1, f"kollama's tokens differ: {seen}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
