"""Prompts to completions, with what earlier calls left in memory."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Mapping, Sequence

import numpy as np

from ..errors import ArgumentError, ContextFullError
from ..generate import stop_strings
from ..params import SEED_MAX, boolean, integer
from ..slots import n_common
from .cache import BaseLlamaCache, LlamaState
from .completion import Completion
from .grammar import LlamaGrammar
from .loop import Loop
from .processors import LogitsProcessor, StoppingCriteria, listed
from .run import Request
from .sampling import Sampling
from .types import CreateCompletionResponse

__all__ = ["Completing"]

_Chunks = Generator[CreateCompletionResponse, None, None]


class Completing(Loop):
    """Completions, and the cache and the states that they can begin with."""

    cache: BaseLlamaCache | None = None
    model_path: str

    def set_cache(self, cache: BaseLlamaCache | None) -> None:
        """Keeps the state after each completion in this cache, and looks for prompts there."""
        self.cache = cache

    def save_state(self) -> LlamaState:
        """The tokens in memory with all that was computed of them, and the seed."""
        state = self._open.state()
        return LlamaState(
            input_ids=self.input_ids,
            scores=np.empty((0, self.n_vocab()), np.single),
            n_tokens=self.n_tokens,
            llama_state=state,
            llama_state_size=len(state),
            seed=self._seed,
        )

    def load_state(self, state: LlamaState) -> None:
        """Brings back a state of this model.

        Raises:
            FormatError: the state is of another model, or damaged.
        """
        self._open.restore(state.llama_state)
        self._seed = state.seed
        self._sampler = None

    def create_completion(
        self,
        prompt: str | Sequence[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: str | Iterable[str] | None = (),
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: Iterable[StoppingCriteria] | StoppingCriteria | None = None,
        logits_processor: Iterable[LogitsProcessor] | LogitsProcessor | None = None,
        grammar: LlamaGrammar | None = None,
        logit_bias: Mapping[int, float] | None = None,
    ) -> CreateCompletionResponse | _Chunks:
        """What follows a prompt.

        Args:
            prompt: text, in which special tokens are read; a bos is added where the model asks for
                one and the text does not begin with it. Or ids, taken as they are.
            suffix: None: filling a gap is not supported.
            max_tokens: None, 0 or less: until the context is full.
            logprobs: give this many of the most likely tokens at each step. 0: the token's own.
            echo: put the prompt before the text.
            stop: text or texts that end the completion, and are not part of it.
            stream: return an iterator of chunks instead.
            seed: None: drawn from the seed before it, so that one seed stands for all calls.
            model: the name in the result; None: model_path.
            stopping_criteria, logits_processor: Python that is called at every token.

        Raises:
            ContextFullError: the prompt leaves no room in the context.
            ArgumentError: a value out of range, or that cannot be honoured.
        """
        if suffix:
            raise ArgumentError("suffix: filling a gap is not supported; leave it None")
        sampling = Sampling(top_k, top_p, min_p, typical_p, temperature, repeat_penalty,
                            frequency_penalty, presence_penalty, tfs_z, mirostat_mode, mirostat_tau,
                            mirostat_eta, True, grammar, logit_bias, self.last_n_tokens_size)
        ids = self._prompt_ids(prompt)
        self.set_seed(self._next_seed() if seed is None else seed)
        request = Request(
            prompt=ids,
            sampler=sampling.sampler(self._seed),
            max_tokens=self._room(ids, max_tokens),
            stop=stop_strings(stop),
            logprobs=None if logprobs is None else integer("logprobs", logprobs, 0),
            processors=listed("logits_processor", logits_processor),
            criteria=listed("stopping_criteria", stopping_criteria),
            stream=boolean("stream", stream),
        )
        text = prompt
        if not isinstance(text, str):
            text = self._model.tokenizer.decode(ids[bos(self, ids) :])
        completion = Completion(self, request, self.model_path if model is None else model, text,
                                boolean("echo", echo), strip_space=len(prompt) == 0)
        return self._stream(completion) if stream else self._whole(completion)

    __call__ = create_completion

    def _prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        if isinstance(prompt, (bytes, bytearray)):
            raise TypeError("prompt must be a str or a list of ids, not bytes")
        if not isinstance(prompt, str):
            return [int(token) for token in prompt]
        ids = self.tokenize(prompt.encode(), add_bos=False, special=True)
        if self._model.tokenizer.add_bos and not bos(self, ids):
            ids.insert(0, self.token_bos())
        if self.metadata.get("tokenizer.ggml.add_eos_token") == "true":
            ids.append(self.token_eos())
        return ids

    def _room(self, prompt: list[int], max_tokens: int | None) -> int:
        """How many tokens to generate at the most."""
        n_ctx = self._open.context.n_ctx
        room = n_ctx - len(prompt)
        if not prompt:
            raise ArgumentError("the prompt is empty, and the model has no bos to begin with")
        if room <= 0:
            raise ContextFullError(
                f"Requested tokens ({len(prompt)}) exceed context window of {n_ctx}")
        wanted = 0 if max_tokens is None else integer("max_tokens", max_tokens, -(2**31))
        return room if wanted <= 0 else min(wanted, room)

    def _next_seed(self) -> int:
        return random.Random(self._seed).randint(0, SEED_MAX - 1)

    def _whole(self, completion: Completion) -> CreateCompletionResponse:
        self._look_up(completion)
        result = completion.whole()
        self._keep(completion)
        return result

    def _stream(self, completion: Completion) -> _Chunks:
        self._look_up(completion)
        yield from completion.chunks()
        self._keep(completion)

    def _look_up(self, completion: Completion) -> None:
        """Loads the cached state that has most of the prompt, where it has more than memory."""
        if self.cache is None:
            return
        prompt = np.array(completion.request.prompt, np.int32)
        try:
            state = self.cache[completion.request.prompt]
        except KeyError:
            return
        cached = state.input_ids[: state.n_tokens]
        if n_common(cached, prompt) > n_common(self._input_ids, prompt):
            seed = self._seed
            self.load_state(state)
            self._seed = seed

    def _keep(self, completion: Completion) -> None:
        if self.cache is not None:
            self.cache[completion.request.prompt + completion.tokens] = self.save_state()


def bos(llama: Loop, ids: Sequence[int]) -> int:
    """1 where the ids begin with a bos, else 0."""
    return int(len(ids) > 0 and ids[0] == llama.token_bos())
