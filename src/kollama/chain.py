"""From the keywords of a Sampler to the links that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .defaults import DEFAULTS
from .errors import ArgumentError
from .params import boolean, choice
from .samplers import (
    AdaptiveP,
    Draw,
    Dry,
    Grammar,
    Infill,
    JsonSchema,
    Lark,
    Link,
    LogitBias,
    MinP,
    Mirostat,
    Penalties,
    Regex,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
    TypicalP,
    Xtc,
)

if TYPE_CHECKING:
    from .samplers import SamplerCallable

__all__ = ["FORMS", "check_chain", "from_keywords", "is_plain"]

# What the one-pass sampler does by itself, and what it can keep to besides.
PLAIN = (TopK, TopP, MinP, Temperature, Draw)
FORMS = (Grammar, JsonSchema, Regex, Lark)


def from_keywords(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[Link]]:
    """All keywords with their values, and the links they stand for, in llama.cpp's order.

    Links that do nothing are left out.
    """
    unknown = [name for name in options if name not in DEFAULTS]
    if unknown:
        raise TypeError(f"Sampler has no keyword argument {unknown[0]!r}")
    values = DEFAULTS | dict(options)

    def make(kind: Callable[..., Link], *names: str) -> Link:
        return kind(**{name: values[name] for name in names})

    penalties = make(Penalties, "repeat_penalty", "penalty_last_n", "presence_penalty",
                     "frequency_penalty")
    dry = make(Dry, "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n",
               "dry_sequence_breakers")
    temperature = make(Temperature, "temperature", "dynatemp_range", "dynatemp_exponent")
    adaptive = make(AdaptiveP, "adaptive_target", "adaptive_decay")
    mode = choice("mirostat", values["mirostat"], {0: 0, 1: 1, 2: 2})
    mirostat = Mirostat(mode or 2, values["mirostat_tau"], values["mirostat_eta"])
    bias = LogitBias({} if values["logit_bias"] is None else values["logit_bias"])
    cuts: list[tuple[Link, bool]] = [
        (make(TopNSigma, "top_n_sigma"), values["top_n_sigma"] > 0),
        (make(TopK, "top_k"), values["top_k"] > 0),
        (make(TypicalP, "typical_p", "min_keep"), values["typical_p"] < 1),
        (make(TopP, "top_p", "min_keep"), values["top_p"] < 1),
        (make(MinP, "min_p", "min_keep"), values["min_p"] > 0),
        (make(Xtc, "xtc_probability", "xtc_threshold", "min_keep"),
         values["xtc_probability"] > 0),
    ]
    off = Penalties(penalty_last_n=values["penalty_last_n"])
    greedy = values["temperature"] == 0 and values["dynatemp_range"] == 0
    order: list[tuple[Link, bool]] = [
        *((form, True) for form in _forms(values)),
        (bias, bool(bias.pairs)),
        (penalties, penalties != off and values["penalty_last_n"] != 0),
        (dry, values["dry_multiplier"] > 0 and values["dry_penalty_last_n"] != 0),
        *(cuts if mode == 0 else []),
        (Infill(), boolean("infill", values["infill"])),
        (temperature, True),
        (mirostat, mode != 0),
        (adaptive, mode == 0 and values["adaptive_target"] >= 0),
        (Draw(), mode == 0 and values["adaptive_target"] < 0 and not greedy),
    ]
    return values, [link for link, does in order if does]


def _forms(values: Mapping[str, Any]) -> list[Link]:
    """The form that was asked for, if any."""
    Grammar("", values["grammar_root"])  # checks it, used or not
    given = [name for name in ("grammar", "json_schema", "regex", "lark")
             if values[name] is not None]
    if len(given) > 1:
        raise ArgumentError(f"give one of {' and '.join(given)}: an output has one form")
    if not given:
        return []
    value = values[given[0]]
    if given[0] == "grammar":
        return [Grammar(value, values["grammar_root"])]
    return [{"json_schema": JsonSchema, "regex": Regex, "lark": Lark}[given[0]](value)]


def is_plain(values: Mapping[str, Any], links: list[Link]) -> bool:
    """Whether the one-pass sampler does all that was asked for, a form perhaps left aside."""
    extra = values["min_keep"] != 0 or values["dynatemp_range"] != 0
    return not extra and all(type(link) in (*PLAIN, *FORMS) for link in links)


def check_chain(links: Iterable[Link | SamplerCallable]) -> list[Link | SamplerCallable]:
    """The links of an explicit chain."""
    if not isinstance(links, Iterable):
        raise TypeError(f"a chain is made of a list of links, not of {type(links).__name__}")
    checked = list(links)
    for i, link in enumerate(checked):
        if isinstance(link, type):
            raise TypeError(f"{link.__name__} is a class: write {link.__name__}(...)")
        if not isinstance(link, Link) and not callable(link):
            raise TypeError("a link is one of kollama.samplers or a callable, "
                            f"not {type(link).__name__}")
        if isinstance(link, Link) and link.chooses and i + 1 < len(checked):
            raise ArgumentError(f"{type(link).__name__} takes the token: nothing can come after it")
    return checked
