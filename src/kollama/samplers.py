"""What a chain of samplers is made of: `Sampler.chain([TopK(40), Temperature(0.7), Draw()])`.

The links' fields are the keywords of `Sampler`, with the same meaning, limits and defaults. Besides
them a chain takes callables ``(tokens, logits)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from .defaults import BREAKERS
from .errors import ArgumentError
from .params import choice, integer, number
from .structured import json_grammar, lark_grammar, regex_grammar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AdaptiveP",
    "Draw",
    "Dry",
    "Grammar",
    "Infill",
    "JsonSchema",
    "Lark",
    "Link",
    "LogitBias",
    "MinP",
    "Mirostat",
    "Penalties",
    "Regex",
    "SamplerCallable",
    "Temperature",
    "TopK",
    "TopNSigma",
    "TopP",
    "TypicalP",
    "Xtc",
]

# (tokens, logits): changes the logits in place.
SamplerCallable = Callable[["NDArray[np.int32]", "NDArray[np.float32]"], None]

MAX_LAST_N = 2**20
MAX_NUMBER = 1e6
MAX_BREAKERS = 64
MAX_BREAKER_BYTES = 40  # llama.cpp cuts longer ones, in the middle of a character if need be


class Link:
    """Base of all links. `chooses`: it takes the token, and nothing can come after it."""

    kind: ClassVar[str]
    chooses: ClassVar[bool] = False

    def numbers(self) -> tuple[float, ...]:
        """The values that the native link takes, in its order."""
        return ()


@dataclass(frozen=True)
class Penalties(Link):
    """Makes tokens less likely that are among the last penalty_last_n, the prompt's included.

    repeat_penalty divides positive logits and multiplies negative ones; frequency_penalty is taken
    off for each occurrence, presence_penalty once. penalty_last_n -1: the model's n_ctx_train.
    """

    kind = "penalties"
    repeat_penalty: float = 1.0
    penalty_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    def __post_init__(self) -> None:
        number("repeat_penalty", self.repeat_penalty, 1 / MAX_NUMBER, MAX_NUMBER)
        integer("penalty_last_n", self.penalty_last_n, -1, MAX_LAST_N)
        number("presence_penalty", self.presence_penalty, -MAX_NUMBER, MAX_NUMBER)
        number("frequency_penalty", self.frequency_penalty, -MAX_NUMBER, MAX_NUMBER)

    def numbers(self) -> tuple[float, ...]:
        return (self.penalty_last_n, self.repeat_penalty, self.frequency_penalty,
                self.presence_penalty)


@dataclass(frozen=True)
class Dry(Link):
    """Makes tokens less likely that would go on with a repetition: the longer, the more.

    The penalty is dry_multiplier * dry_base ** (length - dry_allowed_length), over the last
    dry_penalty_last_n tokens (-1: the model's n_ctx_train). A repetition does not reach over a
    sequence breaker.
    """

    kind = "dry"
    dry_multiplier: float
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: Iterable[str] = BREAKERS

    def __post_init__(self) -> None:
        number("dry_multiplier", self.dry_multiplier, 0, MAX_NUMBER)
        number("dry_base", self.dry_base, 1, MAX_NUMBER)
        integer("dry_allowed_length", self.dry_allowed_length, 0)
        integer("dry_penalty_last_n", self.dry_penalty_last_n, -1, MAX_LAST_N)
        breakers = self.dry_sequence_breakers
        if isinstance(breakers, (str, bytes)) or not isinstance(breakers, Iterable):
            raise TypeError("dry_sequence_breakers must be a list of str, "
                            f"not {type(breakers).__name__}")
        texts = tuple(breakers)
        if len(texts) > MAX_BREAKERS:
            raise ArgumentError(f"dry_sequence_breakers has {len(texts)} texts; "
                                f"{MAX_BREAKERS} are the most")
        for text in texts:
            size = len(_utf8("dry_sequence_breakers", text))
            if not 1 <= size <= MAX_BREAKER_BYTES or "\0" in text:
                raise ArgumentError(
                    f"dry_sequence_breakers holds {text!r}; "
                    f"a breaker has 1 to {MAX_BREAKER_BYTES} bytes, and no NUL"
                )
        object.__setattr__(self, "dry_sequence_breakers", texts)

    def numbers(self) -> tuple[float, ...]:
        return (self.dry_multiplier, self.dry_base, self.dry_allowed_length,
                self.dry_penalty_last_n)


@dataclass(frozen=True)
class TopNSigma(Link):
    """Keeps tokens within top_n_sigma standard deviations of the largest logit; <= 0: all."""

    kind = "top_n_sigma"
    top_n_sigma: float

    def __post_init__(self) -> None:
        number("top_n_sigma", self.top_n_sigma, -1, MAX_NUMBER)

    def numbers(self) -> tuple[float, ...]:
        return (self.top_n_sigma,)


@dataclass(frozen=True)
class TopK(Link):
    """Keeps the top_k most likely tokens; 0: all."""

    kind = "top_k"
    top_k: int = 40

    def __post_init__(self) -> None:
        integer("top_k", self.top_k, 0)

    def numbers(self) -> tuple[float, ...]:
        return (self.top_k,)


@dataclass(frozen=True)
class TypicalP(Link):
    """Keeps tokens about as surprising as is expected, up to this probability; 1: all."""

    kind = "typical_p"
    typical_p: float
    min_keep: int = 0

    def __post_init__(self) -> None:
        number("typical_p", self.typical_p, 0, 1)
        integer("min_keep", self.min_keep, 0)

    def numbers(self) -> tuple[float, ...]:
        return (self.typical_p, self.min_keep)


@dataclass(frozen=True)
class TopP(Link):
    """Keeps the most likely tokens that together reach this probability; 1: all."""

    kind = "top_p"
    top_p: float = 0.95
    min_keep: int = 0

    def __post_init__(self) -> None:
        number("top_p", self.top_p, 0, 1)
        integer("min_keep", self.min_keep, 0)

    def numbers(self) -> tuple[float, ...]:
        return (self.top_p, self.min_keep)


@dataclass(frozen=True)
class MinP(Link):
    """Keeps tokens at least this likely, relative to the most likely; 0: all."""

    kind = "min_p"
    min_p: float = 0.05
    min_keep: int = 0

    def __post_init__(self) -> None:
        number("min_p", self.min_p, 0, 1)
        integer("min_keep", self.min_keep, 0)

    def numbers(self) -> tuple[float, ...]:
        return (self.min_p, self.min_keep)


@dataclass(frozen=True)
class Xtc(Link):
    """Removes likely tokens: all at least as likely as xtc_threshold but the last of them.

    It does so with xtc_probability. A threshold above 0.5 does nothing.
    """

    kind = "xtc"
    xtc_probability: float
    xtc_threshold: float = 0.1
    min_keep: int = 0

    def __post_init__(self) -> None:
        number("xtc_probability", self.xtc_probability, 0, 1)
        number("xtc_threshold", self.xtc_threshold, 0, 1)
        integer("min_keep", self.min_keep, 0)

    def numbers(self) -> tuple[float, ...]:
        return (self.xtc_probability, self.xtc_threshold, self.min_keep)


@dataclass(frozen=True)
class Temperature(Link):
    """Divides the logits; 0 leaves the most likely token alone.

    With dynatemp_range it is between temperature - range and temperature + range: the larger, the
    more uncertain the model is (normalised entropy ** dynatemp_exponent).
    """

    kind = "temperature"
    temperature: float = 0.8
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0

    def __post_init__(self) -> None:
        number("temperature", self.temperature, 0)
        number("dynatemp_range", self.dynatemp_range, 0, MAX_NUMBER)
        number("dynatemp_exponent", self.dynatemp_exponent, 0, MAX_NUMBER)

    def numbers(self) -> tuple[float, ...]:
        return (self.temperature, self.dynatemp_range, self.dynatemp_exponent)


@dataclass(frozen=True)
class Mirostat(Link):
    """Draws tokens so that the text's surprise stays near mirostat_tau (bits); version 1 or 2."""

    chooses = True
    mirostat: int = 2
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1

    def __post_init__(self) -> None:
        choice("mirostat", self.mirostat, {1: 1, 2: 2})
        number("mirostat_tau", self.mirostat_tau, 0, 100)
        number("mirostat_eta", self.mirostat_eta, 0, 100)

    @property
    def kind(self) -> str:  # type: ignore[override]
        return "mirostat" if self.mirostat == 1 else "mirostat_v2"

    def numbers(self) -> tuple[float, ...]:
        return (self.mirostat_tau, self.mirostat_eta)


@dataclass(frozen=True)
class AdaptiveP(Link):
    """Draws tokens whose probability is near adaptive_target, over time; negative: a plain draw."""

    kind = "adaptive_p"
    chooses = True
    adaptive_target: float
    adaptive_decay: float = 0.9

    def __post_init__(self) -> None:
        number("adaptive_target", self.adaptive_target, -1, 1)
        number("adaptive_decay", self.adaptive_decay, 0, 0.99)

    def numbers(self) -> tuple[float, ...]:
        return (self.adaptive_target, self.adaptive_decay)


@dataclass(frozen=True)
class Infill(Link):
    """For text in the middle: prefers an end, joins what begins alike. After TopK and TopP."""

    kind = "infill"


@dataclass(frozen=True)
class Draw(Link):
    """Draws one of the tokens that are left, by their probability."""

    kind = "draw"
    chooses = True


@dataclass(frozen=True)
class LogitBias(Link):
    """Adds to logits, by token id or by text, all of whose tokens get it. -inf forbids a token."""

    kind = "logit_bias"
    logit_bias: Mapping[int | str, float]
    pairs: tuple[tuple[int | bytes, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.logit_bias, Mapping):
            raise TypeError("logit_bias must be a mapping of ids or texts to numbers, "
                            f"not {type(self.logit_bias).__name__}")
        pairs = [(_bias_key(key), _bias(key, value)) for key, value in self.logit_bias.items()]
        object.__setattr__(self, "pairs", tuple(pairs))


@dataclass(frozen=True)
class Grammar(Link):
    """Only what a GBNF grammar allows, from the first token that is sampled.

    The chain runs without it first; where its choice is refused it runs again, with all other
    tokens masked at this place.
    """

    kind = "grammar"
    grammar: str
    grammar_root: str = "root"

    def __post_init__(self) -> None:
        _utf8("grammar", self.grammar)
        _utf8("grammar_root", self.grammar_root)


@dataclass(frozen=True)
class Form(Link):
    """Base of what llguidance keeps the output to; masked like Grammar. `form` is its grammar."""

    kind = "form"
    keyword: ClassVar[str]
    form: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "form", self._compiled())

    def _compiled(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class JsonSchema(Form):
    """JSON that a schema allows, and its end; True or {}: any JSON.

    json_schema is a mapping, JSON text of one, or a Pydantic model or TypeAdapter. Properties come
    in the schema's order. What llguidance does not know is an error; see docs/structured.md.
    """

    keyword = "json_schema"
    json_schema: Any

    def _compiled(self) -> str:
        return json_grammar(self.json_schema)


@dataclass(frozen=True)
class Regex(Form):
    """Text that a regular expression (as of Rust's regex crate) matches as a whole."""

    keyword = "regex"
    regex: str

    def _compiled(self) -> str:
        return regex_grammar(_utf8("regex", self.regex).decode())


@dataclass(frozen=True)
class Lark(Form):
    """Text of a grammar in llguidance's dialect of Lark, which begins with the rule `start`."""

    keyword = "lark"
    lark: str

    def _compiled(self) -> str:
        return lark_grammar(_utf8("lark", self.lark).decode())


def _utf8(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        reason = f"{name} is not valid Unicode: it holds half of a surrogate pair"
        raise ArgumentError(reason) from None


def _bias_key(key: Any) -> int | bytes:
    if isinstance(key, str):
        return _utf8("logit_bias", key)
    return integer("logit_bias: a token id", key, 0)


def _bias(key: Any, value: Any) -> float:
    if isinstance(value, float) and value == -float("inf"):
        return value
    return number(f"logit_bias of {key!r}", value, -MAX_NUMBER, MAX_NUMBER)
