"""Many workers for many texts: an LLM as a stage of Ray Data and as a deployment of Ray Serve.

Needs the extra ``ray``. Each worker holds a model of its own; for one model over several machines
see ``rpc`` of Model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import KollamaError
from .llm import LLM
from .types import Completion

__all__ = ["Completer", "complete", "deployment"]


class Completer:
    """What ``Dataset.map_batches`` calls: a batch's prompts, computed together.

    Args:
        model: path of a model file, where the worker runs.
        column: of the batch, with the prompts.
        output: column for the texts; beside it go <output>_finish_reason and <output>_tokens, a
            count.
        generation: keywords of ``LLM.complete``, e.g. {"max_tokens": 64, "temperature": 0}.
        options: keywords of LLM, e.g. n_ctx, n_parallel, n_threads.

    Raises:
        what LLM and ``LLM.complete`` raise, in the worker.
    """

    def __init__(self, model: str, *, column: str = "prompt", output: str = "completion",
                 generation: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.column = column
        self.output = output
        self._generation = dict(generation or {})
        self._llm = LLM(model, **options)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self.column not in batch:
            raise KeyError(f"the batch has no column {self.column!r}; it has {sorted(batch)}")
        prompts = [str(prompt) for prompt in batch[self.column]]
        done = self._llm.complete(prompts, **self._generation) if prompts else []
        reasons = [one.finish_reason for one in done]
        return batch | {
            self.output: np.array([one.text for one in done], dtype=object),
            f"{self.output}_finish_reason": np.array(reasons, dtype=object),
            f"{self.output}_tokens": np.array([len(one.tokens) for one in done], dtype=np.int64),
        }


def complete(dataset: Any, model: str, *, workers: int = 1, batch_size: int = 16,
             num_cpus: float = 1, num_gpus: float = 0, **options: Any) -> Any:
    """A Ray Dataset with a column of completions.

    Args:
        dataset: ray.data.Dataset.
        model: path of a model file, on every machine.
        workers: processes, each with a model of its own.
        batch_size: prompts given to a worker at a time; of these n_parallel are computed together.
        num_cpus, num_gpus: of each worker. n_threads is num_cpus where it is not given.
        options: of Completer.

    Returns:
        ray.data.Dataset: lazy, as Ray's are.
    """
    options.setdefault("n_threads", max(1, int(num_cpus)))
    options.setdefault("n_parallel", min(batch_size, 8))
    return dataset.map_batches(
        Completer, fn_constructor_args=(model,), fn_constructor_kwargs=options,
        concurrency=workers, batch_size=batch_size, num_cpus=num_cpus, num_gpus=num_gpus or None)


def as_json(done: Completion) -> dict[str, Any]:
    return {
        "text": done.text,
        "tokens": done.tokens.tolist(),
        "finish_reason": done.finish_reason,
        "usage": {"prompt_tokens": done.usage.prompt_tokens,
                  "completion_tokens": done.usage.completion_tokens},
        "seed": done.seed,
    }


class _Served:
    def __init__(self, model: str, options: dict[str, Any]) -> None:
        self._llm = LLM(model, **options)

    async def complete(self, prompt: str, **generation: Any) -> dict[str, Any]:
        return as_json(await self._llm.acomplete(prompt, **generation))

    async def __call__(self, request: Any) -> Any:  # starlette's, which comes with ray[serve]
        from starlette.responses import JSONResponse

        try:
            body = await request.json()
            if not isinstance(body, dict) or "prompt" not in body:
                raise ValueError('the body must be a JSON object with "prompt"')
            return JSONResponse(await self.complete(**body))
        except (KollamaError, TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)


def deployment(model: str, *, replicas: int = 1, num_cpus: float = 1, num_gpus: float = 0,
               **options: Any) -> Any:
    """An application for ``ray.serve.run``.

    By HTTP it takes POST with JSON, ``{"prompt": "...", "max_tokens": 64}``: keywords of
    ``LLM.complete``. By a handle, ``handle.complete.remote(prompt, max_tokens=64)``. Both give a
    dict: text, tokens, finish_reason, usage, seed. Requests of a replica are computed together,
    n_parallel (8 by default) at a time.

    Args:
        model: path of a model file, on every machine.
        replicas: processes, each with a model of its own.
        num_cpus, num_gpus: of each replica. n_threads is num_cpus where it is not given.
        options: of LLM.

    Returns:
        ray.serve.Application
    """
    from ray import serve

    options.setdefault("n_threads", max(1, int(num_cpus)))
    options.setdefault("n_parallel", 8)

    actor = {"num_cpus": num_cpus, "num_gpus": num_gpus}
    made = serve.deployment(name="kollama", num_replicas=replicas, ray_actor_options=actor,
                            max_ongoing_requests=4 * options["n_parallel"])(_Served)
    return made.bind(model, options)
