"""llama.cpp's own samplers, called by ctypes: what kollama's links must give."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from test_tokenizer_reference import LlamaCpp


class _Candidate(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int32), ("logit", ctypes.c_float), ("p", ctypes.c_float)]


class _Candidates(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(_Candidate)), ("size", ctypes.c_size_t), ("selected", ctypes.c_int64),
                ("sorted", ctypes.c_bool)]


INT, F, Z, P = ctypes.c_int32, ctypes.c_float, ctypes.c_size_t, ctypes.c_void_p
SIGNATURES = {
    "penalties": [INT, INT, F, F, F], "top_n_sigma": [F], "top_k": [INT], "typical": [F, Z], "top_p": [F, Z],
    "min_p": [F, Z], "xtc": [F, F, Z, ctypes.c_uint32], "temp_ext": [F, F, F], "infill": [P],
    "dry": [P, F, F, INT, INT, P, Z], "grammar": [P, ctypes.c_char_p, ctypes.c_char_p],
}


class LlamaSamplers(LlamaCpp):
    """Samplers over the vocabulary of a GGUF file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        library = self._library
        for name, arguments in SIGNATURES.items():
            function = getattr(library, f"llama_sampler_init_{name}")
            function.restype, function.argtypes = P, arguments
        library.llama_sampler_apply.argtypes = [P, ctypes.POINTER(_Candidates)]
        library.llama_sampler_accept.argtypes = [P, INT]
        library.llama_sampler_free.argtypes = [P]

    def make(self, name: str, *arguments: object) -> int:
        made = getattr(self._library, f"llama_sampler_init_{name}")(*arguments)
        assert made
        return int(made)

    def dry(self, multiplier: float, base: float, allowed: int, last_n: int, breakers: Sequence[str]) -> int:
        texts = (ctypes.c_char_p * len(breakers))(*[text.encode() for text in breakers])
        return self.make("dry", self._vocab, multiplier, base, allowed, last_n, texts, len(breakers))

    def infill(self) -> int:
        return self.make("infill", self._vocab)

    def reads_grammar(self, text: str, root: str = "root") -> bool:
        made = self._library.llama_sampler_init_grammar(self._vocab, text.encode(), root.encode())
        if made:
            self._library.llama_sampler_free(made)
        return bool(made)

    def run(self, samplers: Iterable[int], logits: np.ndarray, accepted: Iterable[int] = ()) -> np.ndarray:
        """The row after all of them: removed candidates at -inf. Frees the samplers."""
        n = len(logits)
        storage = (_Candidate * n)(*[(i, float(logit), 0) for i, logit in enumerate(logits)])
        array = _Candidates(storage, n, -1, False)
        samplers, accepted = list(samplers), list(accepted)
        for sampler in samplers:
            for token in accepted:
                self._library.llama_sampler_accept(sampler, token)
        for sampler in samplers:
            self._library.llama_sampler_apply(sampler, ctypes.byref(array))
            self._library.llama_sampler_free(sampler)
        row = np.full(n, -np.inf, np.float32)
        for i in range(array.size):
            row[array.data[i].id] = array.data[i].logit
        return row
