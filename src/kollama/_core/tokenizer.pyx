"""Text <-> token ids."""

cimport cython
from cpython.bytes cimport PyBytes_AsString
from cpython.unicode cimport PyUnicode_DecodeUTF16
from libc.stdlib cimport free, malloc
from kollama._core.capi cimport *
from kollama._core.memory cimport as_tokens, take_tokens
from kollama._core.runtime cimport check

import os
import sys

import numpy as np

from kollama import unicode
from kollama._core import runtime
from kollama.errors import TokenError
from kollama.params import boolean, check_file, choice, integer

cdef extern from "Python.h":
    const char * PyUnicode_AsUTF8AndSize(object text, Py_ssize_t * size) except NULL
    object PyUnicode_AsUTF16String(object text)
    Py_ssize_t PyUnicode_GetLength(object text) except -1

# Characters from which on a text is taken as UTF-16: see _borrow.
cdef Py_ssize_t LONG_TEXT = 4096

cdef int BYTE_ORDER = -1 if sys.byteorder == "little" else 1


@cython.final
@cython.no_gc_clear
cdef class Tokenizer:
    """A vocabulary and its rules: text to token ids and back.

    Of a model it is ``model.tokenizer``; ``Tokenizer.from_file`` reads one without a model. Usable
    from any thread. ``len(tokenizer)`` is the number of token ids.
    """

    def __cinit__(self):
        self._handle = NULL

    def __init__(self):
        raise TypeError("take model.tokenizer, or read one: Tokenizer.from_file(path)")

    def __dealloc__(self):
        kollama_tokenizer_free(self._handle)

    @staticmethod
    def from_file(path):
        """Reads the tokenizer of a file, without any model.

        Args:
            path: a Hugging Face tokenizer.json, a GGUF, or a GGML file of 2023.

        Raises:
            ModelNotFoundError: there is no such file.
            FormatError: the file is none of these, is damaged, or its rules are not known here.
        """
        cdef Tokenizer self = Tokenizer.__new__(Tokenizer)
        cdef str name = os.fsdecode(path)
        cdef bytes encoded = os.fsencode(path)
        cdef const char * c_path = encoded
        cdef kollama_status status
        check_file(name, "tokenizer")
        with open(name, "rb") as file:
            if file.read(4) == b"GGUF":  # it may have a vocabulary that is llama.cpp's to read
                runtime.ensure_initialised()
        with nogil:
            status = kollama_tokenizer_load(c_path, &self._handle)
        check(status)
        self.path = name
        kollama_tokenizer_get_info(self._handle, &self._info)
        return self

    @staticmethod
    def _of(Model model not None):
        cdef Tokenizer self = Tokenizer.__new__(Tokenizer)
        check(kollama_model_tokenizer(model.handle(), &self._handle))
        self._model = model
        kollama_tokenizer_get_info(self._handle, &self._info)
        return self

    cdef kollama_tokenizer * handle(self) except NULL:
        if self._handle == NULL:  # made by __new__
            raise TypeError("take model.tokenizer, or read one: Tokenizer.from_file(path)")
        if self._model is not None:
            self._model.handle()  # raises where it is closed
        return self._handle

    def encode(self, text, *, add_bos=False, parse_special=False, normalize=None):
        """The token ids of a text.

        Args:
            text: str, or bytes of UTF-8.
            add_bos: put the beginning-of-sequence token in front.
            parse_special: read special tokens in the text, such as "</s>", as tokens; as
                `tokenizers` does by default, where False is its encode_special_tokens=True.
            normalize: "NFC" composes the text first. Decomposed Hangul, as macOS has it in the
                names of files, costs several times the tokens.

        Returns:
            int32 array, shape (n,)

        Raises:
            TokenError: the text is not valid Unicode, or there is no token to add in front.
        """
        cdef kollama_encoded_text given
        cdef kollama_encode_params params
        cdef int32_t * tokens = NULL
        cdef size_t count = 0
        _read_params(&params, add_bos, parse_special)
        owner = _borrow(_normalized(text, normalize), &given)
        self._run(owner, &given, &params, &tokens, &count, NULL)
        return take_tokens(tokens, count)

    def encode_with_offsets(self, text, *, add_bos=False, parse_special=False, normalize=None):
        """The token ids of a text, and the characters that each stands for.

        The arguments are those of encode. A character that is spelled in bytes is the source of
        each of its tokens; so is, for the space that encoding puts in front, the first character,
        as `tokenizers` counts it. Tokens that are put in front have no characters.

        Returns:
            (ids, offsets): int32 arrays of shape (n,) and (n, 2). Token i stands for
            ``text[offsets[i, 0]:offsets[i, 1]]``; offsets count characters of text as it was
            given, before normalize.

        Raises:
            TokenError: as encode.
            ArgumentError: the vocabulary is of a kind that llama.cpp encodes.
        """
        cdef kollama_encoded_text given
        cdef kollama_encode_params params
        cdef int32_t * tokens = NULL
        cdef int32_t * offsets = NULL
        cdef size_t count = 0
        _read_params(&params, add_bos, parse_special)
        sources = None
        if _normalizes(normalize):
            text, sources = unicode.compose_with_sources(_as_str(text))
        owner = _borrow(text, &given)
        self._run(owner, &given, &params, &tokens, &count, &offsets)
        ids = take_tokens(tokens, count)
        spans = take_tokens(offsets, 2 * count).reshape(-1, 2)
        return ids, spans if sources is None else _original(spans, sources)

    cdef int _run(self, object owner, kollama_encoded_text * text, kollama_encode_params * params,
                  int32_t ** tokens, size_t * count, int32_t ** offsets) except -1:
        # owner keeps alive what text points at.
        cdef kollama_status status
        cdef kollama_tokenizer * handle = self.handle()
        self._pin()
        with nogil:
            status = kollama_encode(handle, text, params, tokens, count, offsets)
        self._unpin()
        check(status)
        return 0

    cdef _pin(self):
        # The vocabulary may be llama.cpp's, which goes with the model.
        if self._model is not None:
            kollama_model_pin(self._model.handle())

    cdef _unpin(self):
        if self._model is not None:
            kollama_model_unpin(self._model.handle())

    def encode_batch(self, texts, *, threads=None, add_bos=False, parse_special=False,
                     normalize=None):
        """The token ids of many texts, over several threads.

        Args:
            texts: an iterable of str or bytes.
            threads: how many; None: as many as there are cores for this process.

        The other arguments are those of encode.

        Returns:
            A list of int32 arrays, one for each text. They are parts of one piece of memory,
            which lives as long as one of them: copy what is to be kept for long.

        Raises:
            TokenError: as encode; the error names the text.
        """
        if isinstance(texts, (str, bytes, bytearray, memoryview)):
            raise TypeError("texts must be a list of texts, not one text")
        cdef kollama_encode_params params
        cdef int32_t n_threads = (
            kollama_default_threads() if threads is None else integer("threads", threads, 1, 1024))
        _read_params(&params, add_bos, parse_special)
        _normalizes(normalize)  # of a list without texts too
        cdef list owners = list(texts)
        cdef size_t count = len(owners)
        cdef kollama_encoded_text * given = <kollama_encoded_text *> malloc(
            (count + 1) * sizeof(kollama_encoded_text))
        cdef size_t * ends = <size_t *> malloc((count + 1) * sizeof(size_t))
        cdef int32_t * tokens = NULL
        cdef kollama_status status
        cdef kollama_tokenizer * handle = self.handle()
        cdef size_t i
        try:
            if given == NULL or ends == NULL:
                raise MemoryError()
            for i in range(count):
                try:
                    owners[i] = _borrow(_normalized(owners[i], normalize), &given[i])
                except (TokenError, TypeError) as error:
                    raise type(error)(f"text {i}: {error}") from None
            self._pin()
            with nogil:
                status = kollama_encode_batch(
                    handle, given, count, &params, n_threads, &tokens, ends)
            self._unpin()
            check(status)
            ids = take_tokens(tokens, ends[count - 1] if count else 0)
            limits = [ends[i] for i in range(count)]
            return [ids[a:b] for a, b in zip([0, *limits], limits)]
        finally:
            free(given)
            free(ends)

    def decode(self, ids, *, skip_special=False):
        """The text of token ids, without the one leading space that encoding may have added.

        Bytes that are not valid UTF-8 become U+FFFD; of a vocabulary with byte tokens each of
        them one, as with `tokenizers`. skip_special leaves out control tokens.

        Raises:
            TokenError: an id is outside the vocabulary.
        """
        return self._decode(ids, boolean("skip_special", skip_special), KOLLAMA_UTF16)

    def decode_bytes(self, ids, *, skip_special=False):
        """As decode, but the bytes as the tokens have them."""
        return self._decode(ids, boolean("skip_special", skip_special), KOLLAMA_BYTES)

    cdef object _decode(self, object ids, bint skip_special, kollama_text_encoding encoding):
        cdef const int32_t[::1] view = as_tokens(ids)
        cdef const int32_t * tokens = &view[0] if view.shape[0] else NULL
        cdef size_t count = view.shape[0]
        cdef char * memory = NULL
        cdef const char * text = NULL
        cdef size_t size = 0
        cdef int order = BYTE_ORDER
        cdef kollama_status status
        cdef kollama_tokenizer * handle = self.handle()
        self._pin()
        with nogil:
            status = kollama_decode(
                handle, tokens, count, skip_special, encoding, &memory, &text, &size)
        self._unpin()
        check(status)
        try:
            if encoding == KOLLAMA_BYTES:
                return text[:size]
            return PyUnicode_DecodeUTF16(<char *> text, size, NULL, &order)
        finally:
            kollama_free(memory)

    def decoder(self, *, skip_special=False):
        """A Decoder: ids in one by one, text out as soon as its characters are complete."""
        return Decoder(self, skip_special=skip_special)

    def piece(self, token):
        """The vocabulary's own text of a token id, such as "▁오늘은".

        Raises:
            TokenError: the id is outside the vocabulary.
        """
        cdef const char * text = NULL
        cdef size_t length = 0
        cdef kollama_tokenizer * handle = self.handle()
        if not kollama_token_piece(handle, integer("token", token, -2**31), &text, &length):
            raise TokenError(
                f"no piece has token id {token}: it is outside the vocabulary, 0 to "
                f"{self._info.n_tokens - 1}, or the file has none")
        return text[:length].decode("utf-8", "replace")

    def id(self, piece):
        """The token id whose piece this is.

        Raises:
            TokenError: there is none.
        """
        cdef bytes data = _as_str(piece).encode("utf-8", "surrogatepass")
        cdef int32_t token = kollama_token_id(self.handle(), data, len(data))
        if token < 0:
            raise TokenError(f"no token has the piece {piece!r}")
        return token

    def _token_bytes(self):
        """(bytes of every token, ids of those that are no text)."""
        cdef const char * text = NULL
        cdef size_t length = 0
        cdef bint special = False
        cdef int32_t token
        cdef kollama_tokenizer * handle = self.handle()
        cdef list tokens = [], specials = []
        for token in range(self._info.n_tokens):
            check(kollama_token_bytes(handle, token, &text, &length, &special))
            tokens.append(text[:length])
            if special:
                specials.append(token)
        return tokens, specials

    @property
    def bos(self):
        """Id of the beginning-of-sequence token, or None."""
        return None if self._info.bos < 0 else self._info.bos

    @property
    def eos(self):
        """Id of the end-of-sequence token, or None."""
        return None if self._info.eos < 0 else self._info.eos

    @property
    def add_bos(self):
        """Whether the model asks for bos in front of a prompt."""
        return self._info.add_bos

    @property
    def native(self):
        """Whether kollama encodes with it, and not llama.cpp: kinds of GGUF vocabulary that it
        does not know, such as byte-level BPE, go there."""
        return self._info.is_native

    def is_eog(self, token):
        """Whether the token ends a generation: eos, an end of turn, and the like."""
        return kollama_token_is_eog(self.handle(), integer("token", token, -2**31))

    def __len__(self):
        self.handle()
        return self._info.n_tokens

    def __repr__(self):
        if self._model is not None:
            return f"<kollama.Tokenizer of {self._model!r}>"
        return f"<kollama.Tokenizer {self.path!r}, {self._info.n_tokens} pieces>"


@cython.final
@cython.no_gc_clear
cdef class Decoder:
    """Token ids in, complete characters out: a Hangul syllable may arrive as three byte tokens."""

    def __cinit__(self, Tokenizer tokenizer not None, *, skip_special=False):
        cdef bint skip = boolean("skip_special", skip_special)
        self._handle = kollama_decoder_init(tokenizer.handle(), skip)
        self._tokenizer = tokenizer
        if self._handle == NULL:
            raise MemoryError()

    def __dealloc__(self):
        kollama_decoder_free(self._handle)

    def push(self, token):
        """The text that this token completes; often empty.

        Raises:
            TokenError: the id is outside the vocabulary.
        """
        cdef const char * text = NULL
        cdef size_t length = 0
        cdef int32_t number = integer("token", token, -2**31)
        self._tokenizer.handle()
        check(kollama_decoder_push(self._handle, number, &text, &length))
        return text[:length].decode("utf-8")

    def flush(self):
        """What is left of an unfinished character, as U+FFFD; empty where there is none."""
        cdef const char * text = NULL
        cdef size_t length = 0
        check(kollama_decoder_flush(self._handle, &text, &length))
        return text[:length].decode("utf-8")


cdef int _read_params(
        kollama_encode_params * params, object add_bos, object parse_special) except -1:
    params.add_bos = boolean("add_bos", add_bos)
    params.parse_special = boolean("parse_special", parse_special)
    return 0


cdef bint _normalizes(object normalize) except -1:
    if normalize is None:
        return False
    return choice("normalize", normalize, {None: 0, "NFC": 1})


cdef object _normalized(object text, object normalize):
    return unicode.compose(_as_str(text)) if _normalizes(normalize) else text


cdef str _as_str(object text):
    if isinstance(text, str):
        return text
    if isinstance(text, (bytes, bytearray, memoryview)):
        try:
            return bytes(text).decode("utf-8")
        except UnicodeDecodeError as error:
            raise TokenError(f"the bytes are not UTF-8: {error.reason} at {error.start}") from None
    raise TypeError(f"text must be str or bytes, not {type(text).__name__}")


cdef object _borrow(object text, kollama_encoded_text * out):
    """Points out at the text; what is returned keeps that alive.

    CPython writes a str as UTF-16 five times faster than as UTF-8, which a str moreover keeps for
    as long as it lives. A short one has too little to gain, and one of ASCII is UTF-8 already.
    """
    cdef Py_ssize_t size = 0
    out.encoding = KOLLAMA_BYTES
    if isinstance(text, str):
        try:
            if PyUnicode_GetLength(text) >= LONG_TEXT and not text.isascii():
                data = PyUnicode_AsUTF16String(text)
                out.encoding = KOLLAMA_UTF16
                out.data = PyBytes_AsString(data) + 2  # the byte order mark
                out.size = len(data) - 2
                return data
            out.data = PyUnicode_AsUTF8AndSize(text, &size)
        except UnicodeEncodeError as error:
            raise TokenError(
                f"the text has a lone surrogate at character {error.start}: it is not valid Unicode"
            ) from None
        out.size = size
        return text
    if not isinstance(text, (bytes, bytearray, memoryview)):
        raise TypeError(f"text must be str or bytes, not {type(text).__name__}")
    data = bytes(text)
    out.data = PyBytes_AsString(data)
    out.size = len(data)
    return data


cdef object _original(object spans, object sources):
    """Offsets into composed text -> into the text it was composed from."""
    first, last = spans[:, 0], spans[:, 1]
    length = sources[-1, 1] if len(sources) else 0
    begin = np.append(sources[:, 0], length)[first]
    end = np.where(last > first, np.append(0, sources[:, 1])[last], begin)
    return np.stack([begin, end], axis=1).astype(np.int32)
