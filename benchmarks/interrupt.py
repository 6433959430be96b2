"""How soon Ctrl-C ends a long prompt.

    python benchmarks/interrupt.py MODEL.gguf [--runs 10] [--tokens 2000] [--after 0.5]

A thread sends SIGINT to the process while `seq.append` reads a prompt; the time to the
KeyboardInterrupt is printed, with that of a graph of 512 tokens, and the sequence is checked to be
as it was before.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time

import numpy as np

import kollama


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--after", type=float, default=0.5)
    options = parser.parse_args()
    model = kollama.Model(options.model)
    seq = model.context(n_ctx=options.tokens + 64).sequence()
    story = "옛날 옛적에 호랑이가 담배를 피우던 시절이 있었다. "
    text = model.tokenizer.encode(story * options.tokens)
    began = time.perf_counter()
    seq.append(text[:512])
    graph = time.perf_counter() - began
    seq.rewind(16)
    seq.append(text[16:17])
    tokens, logits = seq.tokens, seq.logits.copy()
    sent, delays = [0.0], []

    def interrupt() -> None:
        sent[0] = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    for _ in range(options.runs):
        timer = threading.Timer(options.after, interrupt)
        timer.start()
        try:
            seq.append(text[: options.tokens])
        except KeyboardInterrupt:
            delays.append(time.perf_counter() - sent[0])
        timer.cancel()
        if len(seq) == len(tokens):
            assert (seq.tokens == tokens).all()
            assert (seq.logits == logits).all()
        seq.rewind(len(tokens) - 1)
        seq.append(tokens[-1:])
        assert np.abs(seq.logits - logits).max() < 1e-3
    print(f"a graph of 512 tokens: {graph:.2f} s")
    if delays:
        print(f"{len(delays)} of {options.runs} interrupted: median {np.median(delays):.3f} s, "
              f"largest {max(delays):.3f} s")
    else:
        print("every prompt was done before")


if __name__ == "__main__":
    main()
