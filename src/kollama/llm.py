"""The easy front: a model that writes, for callers that wait and for event loops."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from .blocking import BlockingLLM, is_list
from .deadline import Deadline, deadline_of
from .errors import ClosedError
from .signature import same_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ._core.sampler import Sampler
    from .aio import AsyncGeneration
    from .blocking import _Prompt, _Stop
    from .generate import Generation
    from .sampling import Sampling
    from .types import Completion
    from .watcher import Watcher

__all__ = ["LLM"]

_watcher_lock = threading.Lock()  # held shortly, to set an LLM's _watcher


class LLM(BlockingLLM):
    """A model that is ready to write.

    Args:
        model: path of a model file, a list of the parts of a split one, or a Model.
        n_ctx: tokens of prompt and answer together, for each request.
        n_parallel: requests that can run at a time; they are computed together.
        context_shift: go on where n_ctx is full: of the tokens behind the first n_keep the older
            half is dropped. A prompt that is too long loses its older part likewise.
        n_keep: tokens of the prompt that a shift keeps, beside a bos.
        lora: LoRA adapters: see set_lora.
        chat_format: what `chat` takes for its format where none is given.
        busy: what becomes of a request that finds all n_parallel places taken: "wait" for one,
            first come first served, or "error": BusyError.
        draft: guess tokens and compute them along with the one before: the text is the same, and
            comes faster where the guesses are right. "prompt-lookup" takes them from the text
            itself, for text that repeats its input; a path of a model file or a Model, smaller and
            with the same vocabulary, makes them. As many as pay are tried, down to none.
        n_gpu_layers, mmap, mlock, rms_norm_eps, tokenizer, progress, rpc: see Model.
        n_batch, n_threads, type_k, type_v, flash_attn, swa_full: see Context.

    Usable from any thread. Raises what Model and Context raise.
    """

    _watcher: Watcher | None = None  # once something asynchronous is asked for

    @same_arguments(BlockingLLM.generate)
    def agenerate(self, *args: Any, **options: Any) -> AsyncGeneration:
        """`generate` for asyncio: ``async for token in llm.agenerate(prompt)``.

        The event loop is never kept waiting. Errors come with the first token.
        """
        return self._stream(self.generate, args, options)

    @same_arguments(BlockingLLM.chat)
    def achat(self, *args: Any, **options: Any) -> AsyncGeneration:
        """`chat` for asyncio: see agenerate."""
        return self._stream(self.chat, args, options)

    @overload
    async def acomplete(
        self, prompt: str | bytes | list[int] | NDArray[np.integer], *,
        max_tokens: int | None = 256, stop: _Stop = None, ignore_eos: bool = False,
        sampler: Sampler | None = None, logprobs: int | None = None,
        timeout: float | None = None, **sampling: Unpack[Sampling],
    ) -> Completion: ...
    @overload
    async def acomplete(
        self, prompt: list[str] | list[bytes] | list[list[int]] | list[NDArray[np.integer]], *,
        max_tokens: int | None = 256, stop: _Stop = None, ignore_eos: bool = False,
        sampler: Sampler | None = None, logprobs: int | None = None,
        timeout: float | None = None, **sampling: Unpack[Sampling],
    ) -> list[Completion]: ...
    async def acomplete(self, prompt: _Prompt | list[Any], *, timeout: float | None = None,
                        **options: Any) -> Completion | list[Completion]:
        """`complete` for asyncio, with its arguments and errors.

        A cancelled task ends it within one graph of the model, and its place is free then.
        """
        from . import aio

        deadline = deadline_of(timeout)
        if is_list(prompt):
            return await aio.complete_all(self._watch(), lambda: self._requests(prompt, **options),
                                          deadline, self.n_parallel)
        return await aio.complete(self._watch(), lambda: self.generate(prompt, **options), deadline)

    async def aembed(self, texts: _Prompt | Sequence[_Prompt], *, normalize: bool = True,
                     timeout: float | None = None) -> NDArray[np.float32]:
        """`embed` for asyncio. Calls are served one after another."""
        from . import aio

        deadline = deadline_of(timeout) or Deadline(math.inf)
        try:
            return await aio.run(self._watch().embedder,
                                 lambda: self._embedder.embed(texts, normalize, deadline))
        except BaseException:
            deadline.cancel()  # of a cancelled task the thread goes on
            raise

    async def aclose(self) -> None:
        """`close` for asyncio."""
        import asyncio

        await asyncio.to_thread(self.close)

    def _stream(self, make: Callable[..., Generation], args: tuple[Any, ...],
                options: dict[str, Any]) -> AsyncGeneration:
        from .aio import AsyncGeneration

        timeout = options.pop("timeout", None)
        return AsyncGeneration(self._watch, lambda: make(*args, **options), timeout)

    def _watch(self) -> Watcher:
        from .watcher import Watcher

        with _watcher_lock:
            if self.closed:
                raise ClosedError("the LLM is closed")
            if self._watcher is None:
                self._watcher = Watcher(self._context)
            return self._watcher

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _end_streams(self) -> None:
        with _watcher_lock:
            watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()
