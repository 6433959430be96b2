"""Text <-> token ids, over the vocabulary of a model."""

cimport cython
from kollama._core.capi cimport *
from kollama._core.memory cimport as_tokens, take_tokens
from kollama._core.runtime cimport check

from kollama.errors import TokenError
from kollama.params import boolean, integer


@cython.final
@cython.no_gc_clear
cdef class Tokenizer:
    """The vocabulary of a model: ``model.tokenizer``. Usable from any thread.

    ``len(tokenizer)`` is the number of token ids.
    """

    def __init__(self):
        raise TypeError("a Tokenizer belongs to a model: take model.tokenizer")

    @staticmethod
    def _of(Model model not None):
        cdef Tokenizer self = Tokenizer.__new__(Tokenizer)
        self._model = model
        kollama_vocab_get_info(model.handle(), &self._info)
        return self

    cdef kollama_model * handle(self) except NULL:
        if self._model is None:  # made by __new__, not by a model
            raise TypeError("a Tokenizer belongs to a model: take model.tokenizer")
        return self._model.handle()

    def encode(self, text, *, add_bos=False, parse_special=False):
        """The token ids of a text.

        Args:
            text: str, or bytes of UTF-8.
            add_bos: put the beginning-of-sequence token in front.
            parse_special: read special tokens in the text, such as "<|im_end|>", as tokens.

        Returns:
            int32 array, shape (n,)

        Raises:
            TokenError: the text is not valid Unicode, or there is no token to add in front.
        """
        cdef bytes utf8 = _utf8(text)
        cdef const char * data = utf8
        cdef size_t length = len(utf8)
        cdef bint bos = boolean("add_bos", add_bos)
        cdef bint special = boolean("parse_special", parse_special)
        cdef int32_t * tokens = NULL
        cdef size_t count = 0
        cdef kollama_status status
        cdef kollama_model * model = self.handle()
        kollama_model_pin(model)
        with nogil:
            status = kollama_tokenize(model, data, length, bos, special, &tokens, &count)
        kollama_model_unpin(model)
        check(status)
        return take_tokens(tokens, count)

    def decode(self, ids, *, skip_special=False):
        """The text of token ids, without the one leading space that encoding may have added.

        Bytes that are not valid UTF-8 become U+FFFD. skip_special leaves out control tokens.

        Raises:
            TokenError: an id is outside the vocabulary.
        """
        return self._decode_bytes(ids, boolean("skip_special", skip_special)).decode(
            "utf-8", "replace")

    def decode_bytes(self, ids, *, skip_special=False):
        """As decode, but the bytes as the tokens have them."""
        return self._decode_bytes(ids, boolean("skip_special", skip_special))

    cdef bytes _decode_bytes(self, object ids, bint skip_special):
        cdef const int32_t[::1] view = as_tokens(ids)
        cdef const int32_t * tokens = &view[0] if view.shape[0] else NULL
        cdef size_t count = view.shape[0]
        cdef char * data = NULL
        cdef size_t length = 0
        cdef kollama_status status
        cdef kollama_model * model = self.handle()
        kollama_model_pin(model)
        with nogil:
            status = kollama_detokenize(model, tokens, count, skip_special, &data, &length)
        kollama_model_unpin(model)
        check(status)
        try:
            if self._info.add_space_prefix and length > 0 and data[0] == c" ":
                return data[1:length]
            return data[:length]
        finally:
            kollama_free(data)

    def decoder(self, *, skip_special=False):
        """A Decoder: ids in one by one, text out as soon as its characters are complete."""
        return Decoder(self, skip_special=skip_special)

    def piece(self, token):
        """The vocabulary's own text of a token id, such as "▁오늘은".

        Raises:
            TokenError: the id is outside the vocabulary.
        """
        cdef const char * text = kollama_vocab_piece(
            self.handle(), integer("token", token, -2**31))
        if text == NULL:
            raise TokenError(
                f"no piece has token id {token}: it is outside the vocabulary, 0 to "
                f"{len(self) - 1}, or the file has none")
        return text.decode("utf-8", "replace")

    def id(self, piece):
        """The token id whose piece this is.

        Raises:
            TokenError: there is none.
        """
        cdef bytes data = _utf8(piece)
        cdef int32_t token = kollama_vocab_id(self.handle(), data, len(data))
        if token < 0:
            raise TokenError(f"no token has the piece {piece!r}")
        return token

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

    def is_eog(self, token):
        """Whether the token ends a generation: eos, an end of turn, and the like."""
        return kollama_vocab_is_eog(self.handle(), integer("token", token, -2**31))

    def __len__(self):
        return kollama_model_n_vocab(self.handle())

    def __repr__(self):
        return f"<kollama.Tokenizer of {self._model!r}>"


@cython.final
@cython.no_gc_clear
cdef class Decoder:
    """Token ids in, complete characters out: a Hangul syllable may arrive as three byte tokens."""

    def __cinit__(self, Tokenizer tokenizer not None, *, skip_special=False):
        cdef bint skip = boolean("skip_special", skip_special)
        self._handle = kollama_decoder_init(tokenizer.handle(), skip)
        self._model = tokenizer._model
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
        self._model.handle()
        check(kollama_decoder_push(self._handle, number, &text, &length))
        return text[:length].decode("utf-8")

    def flush(self):
        """What is left of an unfinished character, as U+FFFD; empty where there is none."""
        cdef const char * text = NULL
        cdef size_t length = 0
        check(kollama_decoder_flush(self._handle, &text, &length))
        return text[:length].decode("utf-8")


cdef bytes _utf8(object text):
    """text as bytes of valid UTF-8."""
    if isinstance(text, str):
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TokenError(
                f"the text has a lone surrogate at character {error.start}: it is not valid Unicode"
            ) from None
    if isinstance(text, (bytes, bytearray, memoryview)):
        data = bytes(text)
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise TokenError(f"the bytes are not UTF-8: {error.reason} at {error.start}") from None
        return data
    raise TypeError(f"text must be str or bytes, not {type(text).__name__}")
