"""Real weights: Gemma 3 270M in Korean, SmolLM2 135M in chat."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

import kollama

pytestmark = pytest.mark.model

PROMPT = "대한민국의 수도는"


def hangul_share(text: str) -> float:
    letters = [c for c in text if c.isalpha()]
    return sum(unicodedata.name(c, "").startswith("HANGUL") for c in letters) / max(1, len(letters))


def test_gemma_writes_korean(gemma: kollama.Model) -> None:
    with kollama.LLM(gemma, n_ctx=512) as llm:
        pieces = [token.text for token in llm.generate(PROMPT, max_tokens=48, temperature=0)]
    text = "".join(pieces)
    assert hangul_share(text) > 0.9
    assert "\ufffd" not in text
    assert sum(bool(piece) for piece in pieces) > 20  # it came in pieces


def test_gemma_pieces(gemma: kollama.Model) -> None:
    tok = gemma.tokenizer
    assert [tok.piece(i) for i in tok.encode(PROMPT)] == ["대한", "민", "국의", "▁수도", "는"]
    assert tok.decode(tok.encode(PROMPT, add_bos=True), skip_special=True) == PROMPT


def test_gemma_prefers_seoul(gemma: kollama.Model) -> None:
    tok = gemma.tokenizer
    with gemma.context(n_ctx=64) as ctx, ctx.sequence() as seq:
        seq.append(tok.encode("Q: 대한민국의 수도는 어디입니까?\nA:", add_bos=True))
        row = seq.logits.copy()
    rank = int((row > row[tok.id("▁서울")]).sum())
    assert rank < 10


def test_smollm2_answers(smollm2: kollama.Model) -> None:
    with kollama.LLM(smollm2, n_ctx=512) as llm:
        messages = [{"role": "user", "content": "What is the capital of Korea?"}]
        stream = llm.chat(messages, max_tokens=32, temperature=0)
        assert "Seoul" in "".join(token.text for token in stream)
        assert stream.result.finish_reason == "eos"


def test_smollm2_in_batches_says_the_same(smollm2: kollama.Model) -> None:
    tok = smollm2.tokenizer
    ids = tok.encode("The quick brown fox jumps over the lazy dog. " * 12)
    rows = []
    for n_batch in (512, 32):
        with smollm2.context(n_ctx=512, n_batch=n_batch) as ctx, ctx.sequence() as seq:
            seq.append(ids)
            rows.append(seq.logits.copy())
    assert int(rows[0].argmax()) == int(rows[1].argmax())
    assert np.abs(rows[0] - rows[1]).max() < 1.0


def test_smollm2_spells_hangul_in_bytes(smollm2: kollama.Model) -> None:
    # Its vocabulary has no Korean: every syllable is split between tokens.
    with kollama.LLM(smollm2, n_ctx=256) as llm:
        done = llm.complete("안녕하세요 안녕하세요 안녕하세요 안녕", max_tokens=24, temperature=0)
        tokens = list(llm.generate("안녕하세요 안녕하세요 안녕하세요 안녕", max_tokens=24, temperature=0))
    assert "하세요" in done.text
    assert "\ufffd" not in done.text
    assert any(token.text == "" for token in tokens)
