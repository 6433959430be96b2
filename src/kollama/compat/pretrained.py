"""Model files from the Hugging Face Hub."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from ..errors import ArgumentError, KollamaError

__all__ = ["download"]


def download(repo_id: str, patterns: Sequence[str], **folders: Any) -> str:
    """Downloads what the patterns name, one file each, and returns the first one's path."""
    try:
        from huggingface_hub import HfApi, hf_hub_download
    except ImportError:
        raise KollamaError(
            "from_pretrained needs huggingface_hub: pip install huggingface_hub"
        ) from None
    names = HfApi().list_repo_files(repo_id)
    files = [_match(repo_id, names, pattern) for pattern in patterns]
    paths = [hf_hub_download(repo_id, name, **folders) for name in files]
    return str(paths[0])


def _match(repo_id: str, names: Sequence[str], pattern: str) -> str:
    found = [name for name in names if fnmatch.fnmatch(name, pattern)]
    if len(found) != 1:
        which = ", ".join(found or names)
        raise ArgumentError(f"{len(found)} files of {repo_id} match {pattern!r}: {which}")
    return found[0]
