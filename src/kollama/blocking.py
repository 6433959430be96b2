"""A model, a context and the sequences to serve requests with, for callers that wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeGuard, Unpack, overload

from . import chat as chat_templates
from ._core.context import Context
from ._core.lora import Lora
from ._core.memory import token_ids
from ._core.model import Model
from ._core.sampler import Sampler
from ._core.tokenizer import Tokenizer
from .adapters import Adapters
from .context_shift import fit
from .deadline import deadline_of
from .embed import Embedder
from .errors import ArgumentError, ContextFullError, ModelNotFoundError
from .generate import Generation, stop_strings
from .params import INT32_MAX, boolean, integer, number
from .rerank import rerank
from .slots import Slots
from .together import Together
from .turn import waits_when_busy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from .chat_format import ChatFormat
    from .chat_registry import FormatLike
    from .sampling import Sampling
    from .types import Completion

    _Path = str | bytes | PathLike[str] | PathLike[bytes]
    _Prompt = str | bytes | Sequence[int] | NDArray[np.integer]
    _Stop = str | bytes | Iterable[str | bytes] | None
    _Adapter = Lora | _Path
    _Lora = _Adapter | Iterable[_Adapter | tuple[_Adapter, float]] | None

__all__ = ["BlockingLLM", "is_list"]


class BlockingLLM:
    """What an LLM does for callers that wait: see LLM."""

    def __init__(
        self,
        model: _Path | Sequence[_Path] | Model,
        *,
        n_ctx: int = 4096,
        n_parallel: int = 1,
        context_shift: bool = False,
        n_keep: int = 0,
        lora: _Lora = None,
        chat_format: FormatLike | None = None,
        busy: Literal["wait", "error"] = "wait",
        draft: Literal["prompt-lookup"] | _Path | Model | None = None,
        n_batch: int | None = None,
        n_threads: int | None = None,
        type_k: str = "f16",
        type_v: str = "f16",
        flash_attn: bool | Literal["auto"] = "auto",
        swa_full: bool = True,
        n_gpu_layers: int | Literal["auto"] = 0,
        mmap: bool | Literal["auto"] = "auto",
        mlock: bool = False,
        rms_norm_eps: float | None = None,
        tokenizer: _Path | None = None,
        progress: Callable[[float], bool | None] | Literal[True] | None = None,
        rpc: str | Sequence[str] | None = None,
    ) -> None:
        n_ctx = integer("n_ctx", n_ctx, 1)
        n_parallel = integer("n_parallel", n_parallel, 1)
        if n_ctx * n_parallel > INT32_MAX:
            raise ArgumentError(f"n_ctx={n_ctx} times n_parallel={n_parallel} is too large")
        self.n_ctx = n_ctx
        self.n_parallel = n_parallel
        waits = waits_when_busy(busy)
        self.busy = busy
        self._shifts = boolean("context_shift", context_shift)
        self._n_keep = integer("n_keep", n_keep, 0)
        if self._shifts and self._n_keep > n_ctx - 4:
            raise ArgumentError(f"n_keep is {n_keep}: a context_shift needs 4 tokens more, and "
                                f"n_ctx is {n_ctx}")
        self.chat_format: ChatFormat | None = None
        if chat_format is not None:
            from .chat_registry import find_format  # not every model chats

            self.chat_format = find_format(chat_format)
        self._owns_model = not isinstance(model, Model)
        self.model = (
            model
            if isinstance(model, Model)
            else Model(model, n_gpu_layers=n_gpu_layers, mmap=mmap, mlock=mlock,
                       rms_norm_eps=rms_norm_eps, tokenizer=tokenizer, progress=progress, rpc=rpc)
        )
        self._draft: Model | None = None  # where it is ours to close
        try:
            guesser: Literal["prompt-lookup"] | Model | None
            if draft == "prompt-lookup":
                guesser = "prompt-lookup"
            elif draft is None or isinstance(draft, Model):
                guesser = draft
            else:
                guesser = self._draft = _draft_model(draft, n_gpu_layers)
            self._context = Context(
                self.model,
                n_ctx=n_ctx * n_parallel,
                n_seq_max=n_parallel,
                n_batch=n_batch,
                n_threads=n_threads,
                type_k=type_k,
                type_v=type_v,
                flash_attn=flash_attn,
                swa_full=swa_full,
                draft=guesser,
            )
            if self._shifts:
                self._context.check_shift()
            self._adapters = Adapters(self.model)
            self._adapters.set_lora(lora, [self._context])
        except BaseException:
            if hasattr(self, "_context"):
                self._context.close()
            self._close_models()
            raise
        self._slots = Slots(self._context, waits)
        self._embedder = Embedder(self.model, n_ctx, n_threads=n_threads, type_k=type_k,
                                  type_v=type_v, flash_attn=flash_attn)
        self._ranker = Embedder(self.model, n_ctx, n_threads=n_threads, type_k=type_k,
                                type_v=type_v, flash_attn=flash_attn, pooling="rank")
        self._embedder.prepare = self._ranker.prepare = self._adapters.apply

    @property
    def tokenizer(self) -> Tokenizer:
        """The Tokenizer of the model's vocabulary."""
        return self.model.tokenizer

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._context.closed

    def generate(
        self,
        prompt: _Prompt,
        *,
        max_tokens: int | None = 256,
        stop: _Stop = None,
        ignore_eos: bool = False,
        sampler: Sampler | None = None,
        logprobs: int | None = None,
        timeout: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generation:
        """A stream of the tokens that follow a prompt.

        Args:
            prompt: text, to which the model's bos is added where it asks for one and in which
                special tokens are not parsed; or token ids, taken as they are.
            max_tokens: at least 1; None: until an end token, or the context is full.
            stop: text or texts that end the generation; none of it is given out.
            ignore_eos: never choose a token that ends the generation.
            sampler: a Sampler; else one is made of the keywords, which are Sampler's.
            logprobs: give the k most likely tokens with each, as Token.top_logprobs.
            timeout: seconds from the first token that is asked for, the wait for a place included.
                Then the stream ends within one graph of the model, with a DeadlineError.

        Raises:
            ContextFullError: the prompt does not fit into n_ctx.
            TokenError: a token id is outside the vocabulary, or the text is not valid Unicode.
            ArgumentError: a value out of range.
            BusyError: all places are taken, and the LLM's busy is "error", or nobody is left to end
                one; with the first token, as all that follow.
            DeadlineError: it took longer than timeout.
            ClosedError: the LLM was closed.
        """
        return self._generation(self._prompt_ids(prompt), max_tokens, stop, ignore_eos, sampler,
                                logprobs, timeout, sampling)

    @overload
    def complete(
        self, prompt: str | bytes | list[int] | NDArray[np.integer], *,
        max_tokens: int | None = 256, stop: _Stop = None, ignore_eos: bool = False,
        sampler: Sampler | None = None, logprobs: int | None = None,
        timeout: float | None = None, **sampling: Unpack[Sampling],
    ) -> Completion: ...
    @overload
    def complete(
        self, prompt: list[str] | list[bytes] | list[list[int]] | list[NDArray[np.integer]], *,
        max_tokens: int | None = 256, stop: _Stop = None, ignore_eos: bool = False,
        sampler: Sampler | None = None, logprobs: int | None = None,
        timeout: float | None = None, **sampling: Unpack[Sampling],
    ) -> list[Completion]: ...
    def complete(
        self,
        prompt: _Prompt | list[Any],
        *,
        max_tokens: int | None = 256,
        stop: _Stop = None,
        ignore_eos: bool = False,
        sampler: Sampler | None = None,
        logprobs: int | None = None,
        timeout: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> Completion | list[Completion]:
        """What follows a prompt, whole. A list of prompts gives a list, computed together.

        Arguments and errors are those of generate. A sampler cannot serve several prompts. timeout
        is for all of it, and a DeadlineError has what is there by then as its completion.
        """
        if not is_list(prompt):
            generation = self._generation(self._prompt_ids(prompt), max_tokens, stop, ignore_eos,
                                          sampler, logprobs, timeout, sampling)
            with generation:
                return generation.finish()
        deadline = deadline_of(timeout)
        requests = self._requests(prompt, max_tokens=max_tokens, stop=stop, ignore_eos=ignore_eos,
                                  sampler=sampler, logprobs=logprobs, **sampling)
        return Together(self._context, self._slots, requests, self.n_parallel, deadline).run()

    def chat(
        self,
        messages: Sequence[chat_templates.Message],
        *,
        format: FormatLike | None = None,  # noqa: A002 - the name people expect
        max_tokens: int | None = 256,
        stop: _Stop = None,
        ignore_eos: bool = False,
        sampler: Sampler | None = None,
        logprobs: int | None = None,
        timeout: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generation:
        """A stream of the answer to a conversation.

        Args:
            messages: mappings with "role" and "content": [{"role": "user", "content": "안녕"}].
            format: name of a chat format (see `chat_formats`), a ChatFormat, or a callable that
                makes the prompt of the messages. None: the chat_format of this LLM, or else the
                model's own template.

        The other arguments are those of generate. The format's stop texts are added to stop.

        Raises:
            ArgumentError: there is no such format, none was named and the model has no template, or
                the format refuses the messages.
        """
        from .chat_registry import format_for

        chosen = format_for(self.model, self.chat_format if format is None else format)
        if chosen is None:
            text = chat_templates.render(self.model, messages)
            prompt = chat_templates.encode_rendered(self.tokenizer, text)
            stops = stop_strings(stop)
        else:
            prompt = chosen.encode(messages, self.tokenizer)
            stops = [*stop_strings(stop), *stop_strings(chosen.stop)]
        return self._generation(prompt, max_tokens, stops, ignore_eos, sampler, logprobs,
                                timeout, sampling)

    def embed(self, texts: _Prompt | Sequence[_Prompt], *, normalize: bool = True,
              timeout: float | None = None) -> NDArray[np.float32]:
        """Embeddings: the mean of the model's last hidden states over each text.

        Where the model's file names another pooling, it is that one. The first call makes a context
        for it, beside the one that generates.

        Args:
            texts: a list, of any length, of texts or token ids; a single text is a list of one.
            normalize: to length 1.
            timeout: seconds it may take.

        Returns:
            float32 array of shape (len(texts), n_embd).

        Raises:
            ContextFullError: a text has more than n_ctx tokens.
            ArgumentError: a text is empty, and the model has no bos.
            DeadlineError: it took longer than timeout.
        """
        return self._embedder.embed(texts, normalize, deadline_of(timeout))

    def rerank(self, query: str, documents: Iterable[str], *, timeout: float | None = None,
               ) -> NDArray[np.float32]:
        """How well documents answer a query, by a reranking model: the larger, the better.

        The model's classification head reads the two together. The first call makes a context for
        it, in which a pair is computed in one piece.

        Returns:
            float32 array of shape (len(documents),), in their order: the head's first score, as it
            gives it. ``np.argsort(-scores)`` ranks.

        Raises:
            ArgumentError: the model has no such head, or a text is empty.
            ContextFullError: query and document have more tokens together than n_ctx.
            DeadlineError: it took longer than timeout, in seconds.
        """
        return rerank(self._ranker, self.model, query, documents, deadline_of(timeout))

    def set_lora(self, lora: _Lora) -> None:
        """Takes LoRA adapters, in place of those in use, for generating and embedding.

        What is in memory was computed without the change and is dropped.

        Args:
            lora: a path of a GGUF or a Lora, or a list of these and of (path or Lora, scale);
                None or [] for none. `lora` gives those in use.

        Raises:
            BusyError: a request is unfinished.
            Those of Lora and of Context.set_lora.
        """
        with self._slots.emptied():
            self._adapters.set_lora(lora, self._all_contexts())

    @property
    def lora(self) -> list[tuple[Lora, float]]:
        """The LoRA adapters in use, each with its scale."""
        return list(self._adapters.lora)

    def set_control_vector(
        self,
        vector: ArrayLike | _Path | None,
        *,
        scale: float = 1.0,
        layers: tuple[int, int] | None = None,
    ) -> None:
        """Adds a control vector to what layers give, in place of the one in use: see set_lora.

        Args:
            vector: float32 array of shape (n_layer, n_embd), or the path of a file that
                `load_control_vector` reads; None for none.
            scale, layers: see Context.set_control_vector.

        Raises:
            BusyError: a request is unfinished.
            Those of load_control_vector and of Context.set_control_vector.
        """
        with self._slots.emptied():
            self._adapters.set_control_vector(vector, scale, layers, self._all_contexts())

    def _all_contexts(self) -> list[Context]:
        return [self._context, *self._embedder.contexts, *self._ranker.contexts]

    def _generation(
        self,
        prompt: NDArray[np.int32],
        max_tokens: int | None,
        stop: _Stop,
        ignore_eos: bool,
        sampler: Sampler | None,
        logprobs: int | None,
        timeout: float | None,
        sampling: Sampling,
    ) -> Generation:
        if not isinstance(sampler, (Sampler, NoneType)):
            raise TypeError(f"sampler must be a Sampler, not {type(sampler).__name__}")
        if sampler is not None and sampling:
            raise ArgumentError(f"give a sampler or {', '.join(sampling)}, not both")
        room: int | None = None if max_tokens is None else integer("max_tokens", max_tokens, 1)
        n_keep = 0
        if self._shifts:
            has_bos = prompt[0] == self.tokenizer.bos
            n_keep = min(self._n_keep + int(has_bos), len(prompt))
            prompt = fit(prompt, self.n_ctx, n_keep)
        elif len(prompt) > self.n_ctx:
            raise ContextFullError(f"the prompt has {len(prompt)} tokens, n_ctx is {self.n_ctx}")
        else:
            left = self.n_ctx - len(prompt) + 1  # the last sampled token needs no place
            room = left if room is None else min(left, room)
        return Generation(
            self._slots,
            prompt,
            Sampler(**sampling) if sampler is None else sampler,
            max_tokens=room,
            stop=stop_strings(stop),
            ignore_eos=boolean("ignore_eos", ignore_eos),
            logprobs=0 if logprobs is None else integer("logprobs", logprobs, 0),
            timeout=None if timeout is None else number("timeout", timeout, 0),
            shift_at=self.n_ctx if self._shifts else None,
            n_keep=n_keep,
        )

    def _requests(self, prompts: list[_Prompt], *, sampler: Sampler | None = None,
                  **options: Any) -> list[Generation]:
        if sampler is not None:
            raise ArgumentError("a sampler serves one stream at a time: pass its keywords instead")
        return [self.generate(prompt, **options) for prompt in prompts]

    def _prompt_ids(self, prompt: _Prompt) -> NDArray[np.int32]:
        tokenizer = self.tokenizer
        if isinstance(prompt, (str, bytes)):
            ids = tokenizer.encode(prompt, add_bos=tokenizer.add_bos)
        else:
            ids = token_ids(prompt)
        if ids.size == 0:
            raise ArgumentError("the prompt is empty, and the model has no bos to begin with")
        return ids

    def close(self) -> None:
        """Ends what runs and frees all memory. Idempotent.

        A Model that was passed in stays open.
        """
        self._context.close()
        self._slots.close()
        self._embedder.close()
        self._ranker.close()
        self._end_streams()
        self._adapters.close()
        self._close_models()

    def _close_models(self) -> None:
        if self._draft is not None:
            self._draft.close()
        if self._owns_model:
            self.model.close()

    def _end_streams(self) -> None:
        """For LLM, which has more to end once its context is closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.model.description
        return f"<kollama.LLM {state}, n_ctx={self.n_ctx}, n_parallel={self.n_parallel}>"


def _draft_model(path: Any, n_gpu_layers: int | Literal["auto"]) -> Model:
    if not isinstance(path, (str, bytes, PathLike)):
        raise TypeError("draft must be 'prompt-lookup', a path of a model file, a Model or None, "
                        f"not {type(path).__name__}")
    try:
        return Model(path, n_gpu_layers=n_gpu_layers)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{error}; draft can be 'prompt-lookup', a path of a model file "
                                 "or a Model") from None


def is_list(prompt: Any) -> TypeGuard[list[Any]]:
    """Whether it is several prompts, and not one of ids."""
    return isinstance(prompt, list) and bool(prompt) and hasattr(prompt[0], "__len__")
