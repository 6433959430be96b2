"""Choosing the next token."""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from kollama._core.capi cimport *
from kollama._core.matchers cimport Matchers, know
from kollama._core.memory cimport RowArray
from kollama._core.runtime cimport check
from kollama._core.sequence cimport Sequence

import numpy as np

from kollama import defaults, params

# kollama.samplers and what reads grammars are not imported before there is a Sampler: their many
# small classes take half as long to make as all else of `import kollama`.

_KINDS = {
    "penalties": KOLLAMA_LINK_PENALTIES,
    "top_n_sigma": KOLLAMA_LINK_TOP_N_SIGMA,
    "top_k": KOLLAMA_LINK_TOP_K,
    "typical_p": KOLLAMA_LINK_TYPICAL_P,
    "top_p": KOLLAMA_LINK_TOP_P,
    "min_p": KOLLAMA_LINK_MIN_P,
    "xtc": KOLLAMA_LINK_XTC,
    "temperature": KOLLAMA_LINK_TEMPERATURE,
    "mirostat": KOLLAMA_LINK_MIROSTAT,
    "mirostat_v2": KOLLAMA_LINK_MIROSTAT_V2,
    "adaptive_p": KOLLAMA_LINK_ADAPTIVE_P,
    "infill": KOLLAMA_LINK_INFILL,
    "draw": KOLLAMA_LINK_DRAW,
}


@cython.final
@cython.no_gc_clear
cdef class Sampler:
    """Chooses tokens from logits, by all samplers of llama.cpp.

    Meaning, defaults and order are llama.cpp's: a form of the output, logit_bias, penalties, DRY,
    top_n_sigma, top_k, typical_p, top_p, min_p, XTC, temperature, and a draw. `links` shows what
    was made of the keywords; `Sampler.chain` takes links in an order of your own. With temperature,
    top_k, top_p and min_p alone a token costs one pass over the logits, and where a form is asked
    for as long as what they choose has it.

    One sampler serves one stream at a time. It follows the stream: penalties and DRY see all
    tokens of the sequence, the prompt's too; a grammar begins at the first token that it chooses
    in the stream. Where tokens were replaced or rewound in between, it goes over them again. A
    generation begins a stream; so does a sample from a sequence that does not go on with the last.

    Args:
        temperature: 0.8; 0 takes the most likely token that is left.
        top_k: 40: keep the k most likely tokens; 0: all.
        top_p: 0.95: keep the most likely tokens that together reach this probability; 1: all.
        min_p: 0.05: keep tokens at least this likely, relative to the most likely; 0: all.
        seed: 0 to 2**32 - 1; None: a random one, to be read from `seed`.
        min_keep: 0: top_p, min_p, typical_p and XTC leave at least this many.
        typical_p: 1.0 (all), see samplers.TypicalP.
        top_n_sigma: -1.0 (off), see samplers.TopNSigma.
        repeat_penalty, penalty_last_n, presence_penalty, frequency_penalty: 1.0 (off), 64, 0.0,
            0.0, see samplers.Penalties.
        dry_multiplier, dry_base, dry_allowed_length, dry_penalty_last_n, dry_sequence_breakers:
            0.0 (off), 1.75, 2, 64, ("\\n", ":", '"', "*"), see samplers.Dry.
        xtc_probability, xtc_threshold: 0.0 (off), 0.1, see samplers.Xtc.
        infill: False; True joins and prefers ends, for text in the middle, see samplers.Infill.
        dynatemp_range, dynatemp_exponent: 0.0 (off), 1.0, see samplers.Temperature.
        mirostat, mirostat_tau, mirostat_eta: 0 (off), 5.0, 0.1, see samplers.Mirostat; it takes the
            place of top_n_sigma, top_k, typical_p, top_p, min_p and XTC, which then do nothing.
        adaptive_target, adaptive_decay: -1.0 (off), 0.9, see samplers.AdaptiveP.
        logit_bias: {id or text: number}, see samplers.LogitBias.
        grammar, grammar_root: GBNF text and the rule it begins with ("root"), see samplers.Grammar.
        json_schema: mapping, JSON text or Pydantic model, True for any JSON, see
            samplers.JsonSchema.
        regex: what the whole output matches, see samplers.Regex.
        lark: a grammar in llguidance's dialect of Lark, see samplers.Lark.

    Raises:
        ArgumentError: a value out of range, two forms at once, a grammar that is malformed or
            begins with itself, a schema that cannot be met.
        TypeError: a value of the wrong type, an unknown keyword.
        KollamaError: json_schema, regex or lark, and llguidance is not installed.
    """

    def __cinit__(self, *, seed=None, **options):
        from kollama import chain

        cdef kollama_sampler_params numbers
        self.seed = params.seed_of(seed)
        self._callables = []
        self._rows = []
        self._matchers = Matchers()
        self._error = None
        self._keywords, links = chain.from_keywords(options)
        numbers.temperature = self._keywords["temperature"]
        numbers.top_k = self._keywords["top_k"]
        numbers.top_p = self._keywords["top_p"]
        numbers.min_p = self._keywords["min_p"]
        numbers.seed = self.seed
        self._handle = kollama_sampler_init(&numbers)
        if self._handle == NULL:
            raise MemoryError()
        self.links = tuple(links)
        if chain.is_plain(self._keywords, links):
            forms = [link for link in links if type(link) in chain.FORMS]
            if forms:
                self._build(forms)
                kollama_sampler_choose_by_params(self._handle)
        else:
            self._build(links)

    def __dealloc__(self):
        kollama_sampler_free(self._handle)

    @staticmethod
    def chain(links, *, seed=None):
        """A sampler of links in this order; one that ends without choosing takes the most likely.

        Args:
            links: of `kollama.samplers`, e.g. [TopK(40), Temperature(0.7), Draw()], and callables
                ``(tokens, logits)``. Such a one gets the ids so far (int32, shape (n,)) and a
                writable float32 array of shape (n_vocab,), not a copy, in which removed candidates
                are -inf. It changes the array in place and returns None. The array stays valid
                memory, and the next token rewrites it.
            seed: as for Sampler.

        Raises:
            ArgumentError: a link that takes the token is not the last, a grammar is malformed.
            TypeError: something is neither a link nor a callable.
        """
        from kollama.chain import check_chain

        checked = check_chain(links)
        cdef Sampler sampler = Sampler(seed=seed)
        sampler._keywords = None
        sampler.links = tuple(checked)
        sampler._build(checked)
        return sampler

    cdef _build(self, links):
        kollama_sampler_set_callback(self._handle, _call_back, <void *> self)
        self._matchers.attach(self._handle)
        for link in links:
            self._add(link)

    cdef int _add(self, link) except -1:
        from kollama.samplers import Link

        cdef double numbers[4]
        cdef kollama_text name
        cdef bytes text
        if not isinstance(link, Link):
            text = _name(link).encode("utf-8", "replace")
            name.data = text
            name.size = len(text)
            check(kollama_sampler_add_callback(self._handle, &name, len(self._callables)))
            self._callables.append(link)
            self._rows.append(RowArray())
            return 0
        if link.kind == "dry":
            return self._add_dry(link)
        if link.kind == "logit_bias":
            return self._add_bias(link)
        if link.kind == "grammar":
            return self._add_grammar(link)
        if link.kind == "form":
            return self._add_form(link)
        cdef size_t count = 0
        for number in link.numbers():
            numbers[count] = number
            count += 1
        cdef int kind = _KINDS[link.kind]
        return check(kollama_sampler_add(self._handle, <kollama_link_kind> kind, numbers, count))

    cdef int _add_dry(self, link) except -1:
        cdef double numbers[4]
        cdef list texts = [text.encode() for text in link.dry_sequence_breakers]
        cdef size_t i, count = len(texts)
        cdef kollama_text * breakers = <kollama_text *> malloc((count + 1) * sizeof(kollama_text))
        try:
            if breakers == NULL:
                raise MemoryError()
            for i in range(count):
                breakers[i].data = <bytes> texts[i]
                breakers[i].size = len(<bytes> texts[i])
            for i in range(4):
                numbers[i] = link.numbers()[i]
            return check(kollama_sampler_add_dry(self._handle, numbers, 4, breakers, count))
        finally:
            free(breakers)

    cdef int _add_bias(self, link) except -1:
        cdef list pairs = list(link.pairs)
        cdef size_t i, count = len(pairs)
        cdef int32_t * ids = <int32_t *> malloc((count + 1) * sizeof(int32_t))
        cdef kollama_text * texts = <kollama_text *> malloc((count + 1) * sizeof(kollama_text))
        cdef float * biases = <float *> malloc((count + 1) * sizeof(float))
        try:
            if ids == NULL or texts == NULL or biases == NULL:
                raise MemoryError()
            for i in range(count):
                key, bias = pairs[i]
                biases[i] = bias
                texts[i].data = NULL
                if isinstance(key, bytes):
                    texts[i].data = <bytes> key
                    texts[i].size = len(<bytes> key)
                else:
                    ids[i] = key
            return check(kollama_sampler_add_bias(self._handle, ids, texts, biases, count))
        finally:
            free(ids)
            free(texts)
            free(biases)

    cdef int _add_grammar(self, link) except -1:
        cdef bytes grammar = link.grammar.encode(), root = link.grammar_root.encode()
        cdef kollama_text text, name
        text.data = grammar
        text.size = len(grammar)
        name.data = root
        name.size = len(root)
        return check(kollama_sampler_add_grammar(self._handle, &text, &name))

    cdef int _add_form(self, link) except -1:
        from kollama.structured import Matcher

        cdef bytes name = link.keyword.encode()
        cdef kollama_text text
        text.data = name
        text.size = len(name)
        check(kollama_sampler_add_matcher(self._handle, &text, len(self._matchers.items)))
        self._matchers.items.append(Matcher(link.keyword, link.form))
        return 0

    cdef int check_own(self, kollama_status status) except -1:
        """As runtime.check, but what a callable raised is raised as it is."""
        if status != KOLLAMA_ERROR_CALLBACK:
            return check(status)  # the engine may be ahead: a later token raised what is kept
        error = self._error or self._matchers.error
        self._error = self._matchers.error = None
        if error is not None:
            raise error
        return check(status)

    def sample(self, Sequence sequence not None):
        """Chooses the next token of a sequence from its logits, the caller's changes included.

        Penalties, grammar and the like take it as accepted; appending it is the caller's.

        Raises:
            StateError: the sequence has no logits.
            ArgumentError: a logit is NaN, all are -inf, a link left no token to choose from, or
                what was appended is not of the form that was asked for.
            TokenError: logit_bias or the grammar names what this model has no token for.
            BusyError: the sampler or the sequence is in use.
        """
        cdef int32_t token = -1
        know(sequence.context.model)
        cdef kollama_status status = self._sample(sequence, &token)
        if status == KOLLAMA_ERROR_BUSY:
            with sequence.context.turn:
                status = self._sample(sequence, &token)
        self.check_own(status)
        return token

    cdef kollama_status _sample(self, Sequence sequence, int32_t * token) except *:
        cdef kollama_sequence * handle = sequence.hold()
        cdef kollama_status status
        with nogil:
            status = kollama_sampler_sample(self._handle, handle, token)
        sequence.release()
        return status

    def clone(self):
        """A sampler in the same state: for a fork of the sequence that this one follows.

        From the same logits both choose the same tokens. Callables are shared.

        Raises:
            BusyError: the sampler is in use.
        """
        cdef Sampler other = Sampler(seed=self.seed)
        cdef kollama_sampler * handle = NULL
        check(kollama_sampler_clone(self._handle, &handle))
        kollama_sampler_free(other._handle)
        other._handle = handle
        other._keywords = self._keywords
        other._callables = self._callables
        other._rows = [RowArray() for _ in self._callables]
        other._matchers = self._matchers.clone()
        other.links = self.links
        if other._matchers.items:
            other._matchers.attach(handle)
        if self._callables:
            kollama_sampler_set_callback(handle, _call_back, <void *> other)
        return other

    def __repr__(self):
        from kollama.samplers import Link

        if self._keywords is None:
            names = ", ".join(repr(link) if isinstance(link, Link) else _name(link)
                              for link in self.links)
            return f"kollama.Sampler.chain([{names}], seed={self.seed})"
        shown = [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value!r}"
                 for name, value in self._keywords.items()
                 if name in ("temperature", "top_k", "top_p", "min_p")
                 or value != defaults.DEFAULTS[name]]
        return f"kollama.Sampler({', '.join(shown)}, seed={self.seed})"


def _name(link):
    return getattr(link, "__name__", None) or type(link).__name__


cdef int _call_back(void * user, size_t index, const int32_t * tokens, size_t n_tokens,
                    kollama_row * row) noexcept with gil:
    cdef Sampler sampler = <Sampler> user
    cdef Py_buffer buffer
    try:
        ids = np.empty(n_tokens, np.int32)
        PyObject_GetBuffer(ids, &buffer, PyBUF_WRITABLE)
        if n_tokens:
            memcpy(buffer.buf, tokens, n_tokens * sizeof(int32_t))
        PyBuffer_Release(&buffer)
        kollama_row_retain(row)
        link = sampler._callables[index]
        if link(ids, (<RowArray> sampler._rows[index]).of(row)) is not None:
            raise TypeError(f"the sampler link {_name(link)} must change logits in place "
                            "and return None")
        return 0
    except BaseException as error:
        sampler._error = error
        return 1
