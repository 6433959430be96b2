"""Several streams in one event loop, one of them cancelled, all of them in time.

    python examples/loop.py model.gguf
"""

from __future__ import annotations

import argparse
import asyncio

import kollama


async def tell(llm: kollama.LLM, prompt: str) -> str:
    text = prompt
    async with llm.agenerate(prompt, max_tokens=24, timeout=60) as stream:
        async for token in stream:
            text += token.text
    return text


async def main(path: str) -> None:
    async with await asyncio.to_thread(kollama.LLM, path, n_ctx=512, n_parallel=3) as llm:
        prompts = ("대한민국의", "오늘 날씨가", "한국어")
        tasks = [asyncio.create_task(tell(llm, prompt)) for prompt in prompts]
        await asyncio.sleep(0)
        tasks[1].cancel()  # its place and memory are free within one graph of the model
        for text in await asyncio.gather(*tasks, return_exceptions=True):
            print("cancelled" if isinstance(text, asyncio.CancelledError) else text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    asyncio.run(main(parser.parse_args().model))
