"""How late an event loop is while the model computes: a heartbeat beside eight streams.

    python benchmarks/heartbeat.py MODEL.gguf [--runs 5] [--streams 8] [--cancel 3] [--threads N]

A coroutine sleeps 10 ms at a time and notes how much later it is back than it asked for. Meanwhile
`streams` requests of 256 tokens each, with prompts of some hundred tokens, are read token by token,
and `cancel` of them are cancelled on the way. Before each run the same heartbeat is measured beside
as many threads that only spin, in processes of their own: what the machine itself adds.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time

import kollama

BEAT_S = 0.010
WORDS = "대한민국의 수도는 서울이다. 옛날 옛적에 호랑이가 담배를 피우던 시절이 있었다. "


class Heartbeat:
    """Delays in seconds of a coroutine that wants to run every 10 ms."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    async def beat(self) -> None:
        while True:
            due = time.perf_counter() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.delays.append(time.perf_counter() - due)

    def line(self, name: str) -> str:
        delays = sorted(1000 * delay for delay in self.delays)
        at = [delays[int(part * (len(delays) - 1))] for part in (0.5, 0.99)]
        return (f"{name:12} beats {len(delays):5}   p50 {at[0]:5.1f}   p99 {at[1]:5.1f}   "
                f"max {delays[-1]:5.1f} ms")


async def under(load: asyncio.Future[object] | asyncio.Task[object]) -> Heartbeat:
    heart = Heartbeat()
    task = asyncio.create_task(heart.beat())
    await load
    task.cancel()
    return heart


async def read(llm: kollama.LLM, i: int, tokens: int) -> int:
    stream = llm.agenerate(WORDS * (3 + i), max_tokens=tokens, ignore_eos=True, seed=i)
    return sum([1 async for _ in stream])


async def requests(llm: kollama.LLM, streams: int, cancel: int, tokens: int) -> int:
    tasks = [asyncio.create_task(read(llm, i, tokens)) for i in range(streams)]
    for i in range(cancel):
        await asyncio.sleep(0.5)
        tasks[2 * i % streams].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    return sum(n for n in done if isinstance(n, int))


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def spinning(threads: int, seconds: float) -> None:
    spawn = multiprocessing.get_context("spawn")
    others = [spawn.Process(target=spin, args=(seconds,)) for _ in range(threads)]
    for other in others:
        other.start()
    while any(other.is_alive() for other in others):
        await asyncio.sleep(0.05)


async def main(options: argparse.Namespace) -> None:
    worst = 0.0
    llm = await asyncio.to_thread(kollama.LLM, options.model, n_ctx=1024,
                                  n_parallel=options.streams, n_threads=options.threads)
    async with llm:
        await llm.acomplete("a", max_tokens=8, ignore_eos=True)
        threads = options.threads or kollama.default_threads()
        for run in range(options.runs):
            idle = await under(asyncio.ensure_future(spinning(threads, 2)))
            began = time.perf_counter()
            load = asyncio.ensure_future(
                requests(llm, options.streams, options.cancel, options.tokens))
            heart = await under(load)
            speed = load.result() / (time.perf_counter() - began)
            worst = max(worst, *heart.delays)
            print(idle.line("spinning"))
            print(heart.line(f"run {run + 1}"), f"  {speed:.0f} tokens/s")
    print(f"largest delay: {1000 * worst:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--cancel", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int)
    asyncio.run(main(parser.parse_args()))
