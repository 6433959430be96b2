"""A pool of processes, each with a model of its own.

    python examples/pool.py model.gguf 한국어 "대한민국의 수도는" ...

The processes are spawned, not forked: a child of fork() has the memory of an open model but none of
its threads, and kollama refuses to work in one. Where the file is mapped, they share its memory.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing

import kollama

llm: kollama.LLM  # of this process


def open_model(path: str, threads: int) -> None:
    global llm
    llm = kollama.LLM(path, n_ctx=512, n_threads=threads, mmap=True)


def complete(prompt: str) -> str:
    return llm.complete(prompt, max_tokens=32, temperature=0).text


def complete_all(path: str, prompts: list[str], processes: int = 2) -> list[str]:
    threads = max(1, kollama.default_threads() // processes)
    with concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), open_model, (path, threads)
    ) as pool:
        return list(pool.map(complete, prompts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompt", nargs="+")
    options = parser.parse_args()
    texts = complete_all(options.model, options.prompt)
    for prompt, text in zip(options.prompt, texts, strict=True):
        print(f"{prompt}{text}")
