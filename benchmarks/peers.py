"""One measurement of one binding, in a process of its own: compare.py runs this.

    python peers.py SIDE MODEL N_PROMPT N_GENERATE N_THREADS

Prints JSON: tokens/s of a prompt, and of greedy generation after it. What was computed once before
does not count. SIDE is the name of a module, which the interpreter that runs this has.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

Speeds = tuple[float, float]
REPEATS = 3  # the best of them: what comes between is the machine's


def prompt_of(n: int) -> list[int]:
    """Ids that every vocabulary has, the same for all sides."""
    chosen = random.Random(0)
    return [chosen.randrange(300, 20000) for _ in range(n)]


def best(n: int, run: Callable[[], Any]) -> float:
    """Tokens/s of the fastest of some runs over n tokens, the first of all left out."""
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return n / min(seconds[1:])


def best_stream(n: int, stream: Callable[[], Iterator[object]]) -> float:
    """Likewise of streams of n tokens, from the first token to the last."""
    seconds = []
    for _ in range(REPEATS + 1):
        tokens = stream()
        next(tokens)
        start = last = time.perf_counter()
        for _ in tokens:
            last = time.perf_counter()
        seconds.append(last - start)
    return (n - 1) / min(seconds[1:])


def kollama(model: str, n_prompt: int, n_generate: int, n_threads: int) -> Speeds:
    module = import_module("kollama")
    ids = prompt_of(n_prompt)
    with module.Model(model) as weights:
        with weights.context(n_ctx=n_prompt, n_threads=n_threads) as context:
            sequence = context.sequence()

            def read() -> None:
                sequence.clear()
                sequence.append(ids)

            reading = best(n_prompt, read)
        with module.LLM(weights, n_ctx=n_generate + 1, n_threads=n_threads) as llm:

            def write() -> Iterator[object]:
                return llm.generate([1], max_tokens=n_generate, temperature=0, ignore_eos=True)

            return reading, best_stream(n_generate, write)


def llama_cpp(model: str, n_prompt: int, n_generate: int, n_threads: int) -> Speeds:
    module = import_module("llama_cpp")
    ids = prompt_of(n_prompt)
    llm = module.Llama(model, n_ctx=max(n_prompt, n_generate + 1), n_threads=n_threads,
                       n_threads_batch=n_threads, verbose=False)

    def read() -> None:
        llm.reset()
        llm.eval(ids)

    def write() -> Iterator[object]:
        llm.reset()
        return itertools.islice(llm.generate([1], temp=0.0), n_generate)

    return best(n_prompt, read), best_stream(n_generate, write)


def ik_llama_cpp(model: str, n_prompt: int, n_generate: int, n_threads: int) -> Speeds:
    _internals = import_module("ik_llama_cpp._internals")
    _ctypes_api = import_module("ik_llama_cpp._ctypes_api")
    weights = _internals.IkModel(model)
    speeds = []
    # Its flash attention is off where the CPU has no AVX-VNNI, as its own wrapper has it.
    for ids, steps in ((prompt_of(n_prompt), 0), ([1], n_generate)):
        context = _internals.IkContext(weights, n_ctx=len(ids) + steps, n_threads=n_threads,
                                       flash_attn=False)
        prompt = _internals.make_batch(ids)
        ones = [_internals.make_batch_single(1, position) for position in range(1, steps + 1)]

        def run(context: Any = context, prompt: Any = prompt, ones: Any = ones) -> None:
            # Decoding alone, as llama-bench does: its sampling is Python's, 20 ms for each token.
            context.kv_cache_clear()
            context.decode(prompt)
            for batch in ones:
                context.decode(batch)
            _ctypes_api.llama_get_logits_ith(context.ctx, -1)

        speeds.append(best(steps or len(ids), run))
        context.close()
    return speeds[0], speeds[1]


def xllamacpp(model: str, n_prompt: int, n_generate: int, n_threads: int) -> Speeds:
    module = import_module("xllamacpp")
    params = module.CommonParams()
    params.model.path = model
    params.n_ctx = n_prompt + n_generate + 8
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
    params.n_parallel = 1
    params.verbosity = -1
    server = module.Server(params)
    found: list[Speeds] = []
    for _ in range(REPEATS + 1):
        answer = server.handle_completions({
            "prompt": prompt_of(n_prompt), "n_predict": n_generate, "temperature": 0,
            "ignore_eos": True, "cache_prompt": False})
        timings = (json.loads(answer) if isinstance(answer, str) else answer)["timings"]
        found.append((timings["prompt_per_second"], timings["predicted_per_second"]))
    return max(reading for reading, _ in found[1:]), max(writing for _, writing in found[1:])


if __name__ == "__main__":
    side, path, *numbers = sys.argv[1:]
    result = {"kollama": kollama, "llama_cpp": llama_cpp, "ik_llama_cpp": ik_llama_cpp,
              "xllamacpp": xllamacpp}[side](path, *map(int, numbers))
    print(json.dumps({"prompt": result[0], "generate": result[1]}))
