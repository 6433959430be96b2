"""The vocabulary of a folder, as a GGUF has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FormatError, ModelNotFoundError
from ..params import check_file
from .byte_level import ByteLevel, is_byte_level, read_byte_level
from .json_files import list_of, object_of, read_object, read_optional
from .sentencepiece_model import read_model
from .tokenizer_json import read_tokenizer_json

__all__ = ["Vocabulary", "read_vocabulary"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
MARK = "▁"
PAD_SCORE = -1e9  # after all others
FIRST_PIECE = 259  # of Llama's: the special ones and the bytes come before


@dataclass
class Vocabulary:
    """Pieces in the order of their ids, with their scores and GGUF's types.

    `json` is the text of a tokenizer.json that has the rules. `ids` and `flags` are by GGUF's keys:
    "bos_token_id", "add_bos_token" ... Pieces from the id `first_added` on merge after all others.
    """

    pieces: list[str]
    scores: list[float]
    types: list[int]
    flags: dict[str, bool]
    ids: dict[str, int] = field(default_factory=dict)
    json: str | None = None
    merges: list[str] | None = None  # of byte-level BPE, which has no scores
    first_added: int | None = None
    chat_template: str | None = None


def read_vocabulary(folder: Path, n_vocab: int, config: dict[str, Any],
                    tokenizer: Path | None = None) -> Vocabulary:
    """Reads tokenizer.json, or tokenizer.model with added_tokens.json.

    Args:
        n_vocab: rows of the embeddings; what the tokenizer has fewer becomes unused pieces.
        config: of config.json, for the ids that it names.
        tokenizer: a file to read in place of the folder's.

    Raises:
        ModelNotFoundError: there is no tokenizer.
        FormatError: it is damaged, of another kind, or has more pieces than the embeddings.
    """
    path = tokenizer or next((folder / name for name in ("tokenizer.json", "tokenizer.model")
                              if (folder / name).exists()), None)
    if path is None:
        raise ModelNotFoundError(f"{folder}: there is no tokenizer.json and no tokenizer.model")
    settings = read_optional(folder / "tokenizer_config.json")
    named = read_optional(folder / "special_tokens_map.json")
    check_file(str(path), "tokenizer")
    if path.suffix == ".model":
        vocabulary = _from_model(path, folder, settings, named)
    elif is_byte_level(content := read_object(path)):
        vocabulary = _from_byte_level(read_byte_level(path, content), content, settings)
    else:
        vocabulary = _from_json(path, settings)
    if len(vocabulary.pieces) > n_vocab:
        raise FormatError(f"{path}: has {len(vocabulary.pieces)} pieces, more than the model's "
                          f"{n_vocab} rows of embeddings")
    for i in range(len(vocabulary.pieces), n_vocab):
        _add_unused(vocabulary, i)
    ids: dict[str, int] = {}
    for i, piece in enumerate(vocabulary.pieces):
        if ids.setdefault(piece, i) != i:
            raise FormatError(f"{path}: {piece!r} is the piece of the ids {ids[piece]} and {i}")
    others = (settings, named, config, read_optional(folder / "generation_config.json"))
    _name_ids(vocabulary, ids, others)
    vocabulary.chat_template = _chat_template(folder, settings)
    return vocabulary


def _add_unused(vocabulary: Vocabulary, index: int) -> None:
    vocabulary.pieces.append(f"[PAD{index}]")  # as llama.cpp's converter calls them
    vocabulary.scores.append(PAD_SCORE)
    vocabulary.types.append(UNUSED)


def _spelled(piece: str, kind: int) -> str:
    """As llama.cpp wants it: it looks for user-defined pieces before spaces become marks."""
    return piece.replace(MARK, " ") if kind == USER_DEFINED else piece


def _from_json(path: Path, settings: dict[str, Any]) -> Vocabulary:
    read = read_tokenizer_json(path)
    vocabulary = Vocabulary([], [], [], {}, json=read.text)
    for i, piece in enumerate(read.pieces):
        if piece is None:
            _add_unused(vocabulary, i)
            continue
        kind = read.types[i]
        vocabulary.pieces.append(_spelled(piece, kind))
        vocabulary.scores.append(read.scores[i])
        vocabulary.types.append(kind)
    vocabulary.ids = {f"{name}_token_id": i for name, i in read.ids.items()}
    # Llama's own classes add bos where nothing says otherwise; the bare class asks the file.
    bare = settings.get("tokenizer_class") == "PreTrainedTokenizerFast"
    vocabulary.flags = _flags(settings, read.adds_bos or not bare, read.adds_space)
    return vocabulary


def _from_byte_level(read: ByteLevel, content: dict[str, Any],
                     settings: dict[str, Any]) -> Vocabulary:
    vocabulary = Vocabulary([], [], [], {}, merges=read.merges)
    for i, piece in enumerate(read.pieces):
        if piece is None:
            _add_unused(vocabulary, i)
        else:
            vocabulary.pieces.append(piece)
            vocabulary.scores.append(0.0)
            vocabulary.types.append(read.types[i])
    vocabulary.flags = _flags(settings, _begins_with_special(content.get("post_processor")), False)
    return vocabulary


def _begins_with_special(processor: Any) -> bool:
    """Whether the template that is put around a text begins with a special token."""
    parts = processor.get("processors") or [processor] if isinstance(processor, dict) else ()
    templates = [part.get("single") for part in parts if isinstance(part, dict)]
    return any(isinstance(template, list) and template and "SpecialToken" in template[0]
               for template in templates)


def _flags(settings: dict[str, Any], add_bos: bool, add_space: bool) -> dict[str, bool]:
    flags = {"add_bos_token": add_bos, "add_eos_token": False, "add_space_prefix": add_space}
    return flags | {key: settings[key] for key in ("add_bos_token", "add_eos_token")
                    if isinstance(settings.get(key), bool)}


def _from_model(path: Path, folder: Path, settings: dict[str, Any],
                named: dict[str, Any]) -> Vocabulary:
    model = read_model(path)
    prefix = settings.get("add_prefix_space")
    flags = _flags(settings, True, prefix if isinstance(prefix, bool) else model.adds_space)
    vocabulary = Vocabulary([], model.scores, model.types, flags)
    for piece, kind in zip(model.pieces, model.types, strict=True):
        vocabulary.pieces.append(_spelled(piece, kind))
    added = _added_tokens(folder, settings)
    special = {_content(value) for source in (settings, named) for key, value in source.items()
               if key.endswith("_token")}
    special |= {_content(value) for source in (settings, named)
                for value in list_of(folder, source, "additional_special_tokens")}
    n_base = len(model.pieces)
    known = set(model.pieces) | {text for text, _ in added.values()}
    for i in sorted(added):
        text, is_special = added[i]
        if i < n_base:
            if model.pieces[i] != text:
                raise FormatError(f"{folder}: the added token {text!r} has id {i}, which in "
                                  f"{path.name} is {model.pieces[i]!r}")
            continue
        if i - len(vocabulary.pieces) > 100_000:
            raise FormatError(f"{folder}: the added token {text!r} has id {i}, "
                              "far beyond the others")
        for missing in range(len(vocabulary.pieces), i):
            _add_unused(vocabulary, missing)
        kind = CONTROL if is_special or text in special else \
            NORMAL if _can_be_merged(text, known) else USER_DEFINED
        vocabulary.pieces.append(_spelled(text, kind))
        vocabulary.scores.append(-float(i - FIRST_PIECE))
        vocabulary.types.append(kind)
        if kind == NORMAL:
            vocabulary.first_added = n_base
    return vocabulary


def _can_be_merged(text: str, known: set[str]) -> bool:
    """Whether two pieces make this one: it was added to the vocabulary, and is no mark."""
    return len(text) == 1 or any(text[:n] in known and text[n:] in known
                                 for n in range(1, len(text)))


def _added_tokens(folder: Path, settings: dict[str, Any]) -> dict[int, tuple[str, bool]]:
    """id -> (text, whether it is special) of added_tokens.json and tokenizer_config.json."""
    path = folder / "added_tokens.json"
    added: dict[int, tuple[str, bool]] = {}
    for text, i in read_optional(path).items():
        if type(i) is not int or i < 0 or i in added:
            raise FormatError(f"{path}: the id {i!r} of {text!r} is none, or another token's too")
        added[i] = (text, False)
    path = folder / "tokenizer_config.json"
    for key, entry in object_of(path, settings, "added_tokens_decoder").items():
        found = _content(entry) if isinstance(entry, dict) else None
        if not key.isdecimal() or len(key) > 9 or found is None:
            raise FormatError(f"{path}: added_tokens_decoder has the entry {key!r}, "
                              "which is no token")
        added[int(key)] = (found, bool(entry.get("special")))
    return added


def _content(value: Any) -> str | None:
    """The text of a token, which is given as it is or in an object with its properties."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _name_ids(vocabulary: Vocabulary, texts: dict[str, int],
              sources: tuple[dict[str, Any], ...]) -> None:
    """bos, eos, unk and pad: the first source that names one, by its text or by its id."""
    n = len(vocabulary.pieces)
    keys = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id",
            "pad": "padding_token_id"}
    for name, key in keys.items():
        for source in sources:
            value = source.get(f"{name}_token_id")
            i = texts.get(_content(source.get(f"{name}_token")) or "",
                          value[0] if isinstance(value, list) and value else value)
            if type(i) is int and 0 <= i < n:
                vocabulary.ids[key] = i
                break
    # A chat model's generation_config.json often has a list, whose second one ends a turn.
    ends = sources[-1].get("eos_token_id")
    for i in ends if isinstance(ends, list) else ():
        if type(i) is int and 0 <= i < n and i != vocabulary.ids.get("eos_token_id"):
            vocabulary.ids.setdefault("eot_token_id", i)


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The default chat template; a file of its own comes first, as in transformers."""
    path = folder / "chat_template.jinja"
    if path.exists():
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError:
            raise FormatError(f"{path}: is not UTF-8") from None
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = next((entry.get("template") for entry in template
                         if isinstance(entry, dict) and entry.get("name") == "default"), None)
    return template if isinstance(template, str) else None
