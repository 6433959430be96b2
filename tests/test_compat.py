"""kollama.compat: completions with the arguments and the results of llama-cpp-python."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import legacy_files
import numpy as np
import pytest
import tiny
from adapters import merged, random_pairs, write_lora

import kollama
import kollama.compat.run
from kollama._core.runtime import live_handles
from kollama.compat import (
    GGML_TYPE_Q8_0,
    Llama,
    LlamaGrammar,
    LogitsProcessorList,
    MinTokensLogitsProcessor,
    StoppingCriteriaList,
)

PROMPT = "대한민국의 수도는"

# The script of the model card of Llama-2-ko-7b-ggml, to the letter.
CARD = """\
from llama_cpp import Llama

llm = Llama(model_path = 'Llama-2-ko-7b-ggml-q4_0.bin',
           n_ctx=1024,
            # n_gpu_layers=1 #gpu 가속을 원하는 경우 주석을 제거하고 Metal(Apple M1) 은 1, Cuda(Nvidia) 는 Video RAM Size 에 맞게 적당한 수치를 입력하십시오.
      )
output = llm("Q: 인생에 대해서 설명하시오. A: ", max_tokens=1024, stop=["Q:", "\\n"], echo=True)
print( output['choices'][0]['text'].replace('▁',' ') )
"""


@pytest.fixture
def llama(tiny_path: Path) -> Iterator[Llama]:
    with Llama(str(tiny_path), n_ctx=256, n_threads=1, seed=7) as opened:
        yield opened


def text_of(result: Any) -> str:
    return str(result["choices"][0]["text"])


def logprobs_of(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows - np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1, keepdims=True)) - rows.max(-1, keepdims=True)


# ---- the card ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ggjt", "gguf"])
def test_the_model_cards_script_with_its_import_line_changed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "Llama-2-ko-7b-ggml-q4_0.bin"
    if kind == "gguf":
        tiny.write_llama(path)
    else:
        legacy_files.write(path)
    script = tmp_path / "card.py"
    script.write_text(CARD.replace("from llama_cpp import Llama", "from kollama.compat import Llama"), "utf-8")
    done = subprocess.run([sys.executable, "-X", "utf8", str(script)], cwd=tmp_path, capture_output=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert text.startswith("Q: 인생에 대해서 설명하시오. A: ")
    assert text.endswith("\n")
    assert "\n" not in text[:-1]
    assert "▁" not in text


# ---- shapes --------------------------------------------------------------------------------------


def test_shape_of_a_completion(llama: Llama, tiny_path: Path) -> None:
    result: Any = llama(PROMPT, max_tokens=5, logit_bias={tiny.EOS: -100.0})
    assert set(result) == {"id", "object", "created", "model", "choices", "usage"}
    assert result["id"].startswith("cmpl-")
    assert (result["object"], result["model"]) == ("text_completion", str(tiny_path))
    assert isinstance(result["created"], int)
    (choice,) = result["choices"]
    assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    assert result["usage"] == {"prompt_tokens": 6, "completion_tokens": 5, "total_tokens": 11}
    assert llama(PROMPT, max_tokens=1, model="이름")["model"] == "이름"  # type: ignore[index]


def test_shape_of_chunks(llama: Llama) -> None:
    chunks: list[Any] = list(llama(PROMPT, max_tokens=12, stream=True, logprobs=1))
    assert len({(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    for chunk in chunks:
        assert set(chunk) == {"id", "object", "created", "model", "choices"}
        (choice,) = chunk["choices"]
        assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    last = chunks[-1]["choices"][0]
    assert (last["text"], last["logprobs"]) == ("", None)
    assert last["finish_reason"] in ("stop", "length")
    assert set(chunks[0]["choices"][0]["logprobs"]) == {"tokens", "text_offset", "token_logprobs", "top_logprobs"}


# ---- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"echo": True}, {"logprobs": 2}, {"logprobs": 0, "echo": True}, {"stop": ["오", "가"]},
    {"stop": "요", "logprobs": 1}, {"stop": ["수도", "요가"]}, {"stop": ["수도", "요가"], "logprobs": 1},
], ids=str)
def test_chunks_joined_are_the_whole(llama: Llama, options: dict[str, Any]) -> None:
    for seed in range(12):
        common = {"max_tokens": 60, "temperature": 3.0, "seed": seed, **options}
        whole: Any = llama(PROMPT, **common)
        chunks: list[Any] = list(llama(PROMPT, stream=True, **common))
        parts = [chunk["choices"][0] for chunk in chunks]
        assert "".join(part["text"] for part in parts) == text_of(whole)
        assert parts[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
        if "logprobs" in options:
            for key, values in whole["choices"][0]["logprobs"].items():
                joined = [value for part in parts if part["logprobs"] for value in part["logprobs"][key]]
                if key == "token_logprobs":
                    assert joined == pytest.approx(values, abs=1e-4)
                elif key == "top_logprobs":
                    assert [value and set(value) for value in joined] == [value and set(value) for value in values]
                else:
                    assert joined == values
        assert not any(stop in text_of(whole) for stop in options.get("stop", []))


def test_python_and_native_loops_write_the_same(llama: Llama, model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=256, n_threads=1) as llm:
        for seed in range(20):
            native = llama(PROMPT, max_tokens=40, temperature=2.5, seed=seed, stop=["하세"])
            by_hand = llama(PROMPT, max_tokens=40, temperature=2.5, seed=seed, stop=["하세"], logprobs=0)
            asked = llama(PROMPT, max_tokens=40, temperature=2.5, seed=seed, stop=["하세"], stopping_criteria=lambda ids, row: False)
            direct = llm.complete(PROMPT, max_tokens=40, temperature=2.5, seed=seed, stop=["하세"])
            assert text_of(native) == text_of(by_hand) == text_of(asked) == direct.text
            assert native["usage"] == by_hand["usage"]  # type: ignore[index]


def test_streams_are_whole_syllables(llama: Llama) -> None:
    korean = "가나다라마바사아자차카타파하".encode()
    ids = [tiny.FIRST_BYTE + byte for byte in korean]  # three byte tokens a syllable

    def next_byte(so_far: np.ndarray, row: np.ndarray) -> np.ndarray:
        row[:] = -np.inf
        row[ids[len(so_far) - n_prompt]] = 0
        return row

    n_prompt = len(llama.tokenize(PROMPT.encode()))
    for logprobs in (None, 1):
        chunks: list[Any] = list(llama(PROMPT, max_tokens=len(ids), stream=True, logits_processor=LogitsProcessorList([next_byte]), logprobs=logprobs))
        texts = [chunk["choices"][0]["text"] for chunk in chunks[:-1]]
        assert texts == list(korean.decode())
        if logprobs is not None:
            counts = [len(chunk["choices"][0]["logprobs"]["tokens"]) for chunk in chunks[:-1]]
            assert counts == [3] * len(texts)


def test_echo(llama: Llama) -> None:
    plain = text_of(llama(PROMPT, max_tokens=8, seed=1))
    assert text_of(llama(PROMPT, max_tokens=8, seed=1, echo=True)) == PROMPT + plain
    ids = llama.tokenize(PROMPT.encode())
    assert text_of(llama(ids, max_tokens=8, seed=1, echo=True)) == PROMPT + plain
    first: Any = next(iter(llama(PROMPT, max_tokens=8, seed=1, echo=True, stream=True)))
    assert first["choices"][0]["text"] == PROMPT


def test_an_empty_prompt_begins_with_bos_and_no_space(llama: Llama) -> None:
    force = {llama._model.tokenizer.id("▁서울"): 200.0}
    result: Any = llama("", max_tokens=1, logit_bias=force)
    assert text_of(result) == "서울"
    assert result["usage"] == {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    assert text_of(llama(PROMPT, max_tokens=1, logit_bias=force)) == " 서울"


def test_bos_is_never_doubled(llama: Llama) -> None:
    once = llama(PROMPT, max_tokens=4, temperature=0.0)
    assert llama("<s>" + PROMPT, max_tokens=4, temperature=0.0)["usage"] == once["usage"]  # type: ignore[index]


# ---- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_tokens", [None, 0, -1, 10**9])
def test_until_the_context_is_full(tiny_path: Path, max_tokens: int | None) -> None:
    with Llama(str(tiny_path), n_ctx=48, n_threads=1) as llama:
        result: Any = llama(PROMPT, max_tokens=max_tokens, logit_bias={tiny.EOS: -200})
        assert result["usage"]["total_tokens"] == 48
        assert result["choices"][0]["finish_reason"] == "length"


def test_stop_and_end_tokens_finish_with_stop(llama: Llama) -> None:
    plain = text_of(llama(PROMPT, max_tokens=60, temperature=0.0, logit_bias={tiny.EOS: -200}))
    middle = next(char for char in plain if "가" <= char <= "힣")
    stopped: Any = llama(PROMPT, max_tokens=60, temperature=0.0, stop=middle, logit_bias={tiny.EOS: -200})
    assert (text_of(stopped), stopped["choices"][0]["finish_reason"]) == (plain[: plain.index(middle)], "stop")
    ended: Any = llama(PROMPT, max_tokens=60, logit_bias={tiny.EOS: 200.0})
    assert (text_of(ended), ended["choices"][0]["finish_reason"]) == ("", "stop")
    assert ended["usage"]["completion_tokens"] == 0  # an end token is no token of the text


def test_stopping_criteria(llama: Llama) -> None:
    asked: list[tuple[int, bool]] = []

    def enough(ids: np.ndarray, row: np.ndarray) -> bool:
        asked.append((len(ids), row.shape == (llama.n_vocab(),)))
        return len(ids) >= 10

    for criteria in (StoppingCriteriaList([enough]), enough):
        asked.clear()
        result: Any = llama(PROMPT, max_tokens=30, seed=1, logit_bias={tiny.EOS: -200}, stopping_criteria=criteria)
        assert result["choices"][0]["finish_reason"] == "stop"
        assert result["usage"] == {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
        assert asked == [(n, True) for n in range(6, 11)]


# ---- logprobs ------------------------------------------------------------------------------------


def test_logprobs_are_a_log_softmax(llama: Llama, context: Any) -> None:
    result: Any = llama(PROMPT, max_tokens=20, temperature=2.0, seed=3, logprobs=5)
    found = result["choices"][0]["logprobs"]
    seq = context().sequence()
    seq.append(llama.tokenize(PROMPT.encode()))
    for token, logprob, top in zip(llama._input_ids[6:].tolist(), found["token_logprobs"], found["top_logprobs"], strict=False):
        expected = logprobs_of(seq.logits)
        assert logprob == pytest.approx(expected[token], abs=1e-4)
        assert list(top.values())[:5] == pytest.approx(np.sort(expected)[::-1][:5], abs=1e-4)
        assert len(top) in (5, 6)
        seq.append([token])
    assert len(found["tokens"]) == len(found["text_offset"]) == result["usage"]["completion_tokens"]


def test_logprobs_of_an_echoed_prompt(llama: Llama, context: Any) -> None:
    result: Any = llama(PROMPT, max_tokens=3, temperature=0.0, logprobs=1, echo=True)
    found = result["choices"][0]["logprobs"]
    ids = llama.tokenize(PROMPT.encode())
    seq = context().sequence()
    expected: list[Any] = []
    for before, token in itertools.pairwise(ids):
        seq.append([before])
        expected.append(logprobs_of(seq.logits)[token])
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    assert found["token_logprobs"][1:5] == pytest.approx(expected[1:], abs=1e-3)
    assert found["tokens"][:5] == [" 대한", "민국", "의", " 수도", "는"]
    assert found["text_offset"][:6] == [0, 2, 4, 5, 8, 9]


def test_logprobs_are_the_models_own(llama: Llama) -> None:
    plain: Any = llama(PROMPT, max_tokens=1, temperature=0.0, logprobs=1)
    biased: Any = llama(PROMPT, max_tokens=1, temperature=0.0, logprobs=1, logits_processor=lambda ids, row: row * 0.5)
    assert plain["choices"][0]["logprobs"] == biased["choices"][0]["logprobs"]


def test_logits_to_logprobs() -> None:
    rows = np.random.default_rng(0).normal(0, 5, (3, 7)).astype(np.float32)
    assert Llama.logits_to_logprobs(rows) == pytest.approx(logprobs_of(rows), abs=1e-5)
    assert Llama.logits_to_logprobs(rows.tolist()).dtype == np.float32


# ---- choices -------------------------------------------------------------------------------------


def test_seeds(tiny_path: Path) -> None:
    hot = {"max_tokens": 20, "temperature": 3.0}
    runs = []
    for _ in range(2):
        with Llama(str(tiny_path), n_ctx=128, n_threads=1, seed=5) as llama:
            runs.append([text_of(llama(PROMPT, **hot)) for _ in range(3)])
            again = [text_of(llama(PROMPT, seed=9, **hot)) for _ in range(2)]
            assert again[0] == again[1]
            llama.set_seed(5)
            runs.append([text_of(llama(PROMPT, **hot)) for _ in range(3)])
    assert runs[0] == runs[1] == runs[2] == runs[3]
    assert len(set(runs[0])) == 3
    with Llama(str(tiny_path), n_ctx=128, n_threads=1) as one, Llama(str(tiny_path), n_ctx=128, n_threads=1) as two:
        assert text_of(one(PROMPT, **hot)) != text_of(two(PROMPT, **hot))


def test_logits_processors_in_order(llama: Llama) -> None:
    wanted = llama._model.tokenizer.id("▁안녕")
    seen: list[list[int]] = []

    def forbid_all(ids: np.ndarray, row: np.ndarray) -> np.ndarray:
        seen.append(ids.tolist())
        return np.full_like(row, -50)

    def want(ids: np.ndarray, row: np.ndarray) -> np.ndarray:
        row[wanted] += 100
        return row

    result = llama(PROMPT, max_tokens=3, logits_processor=LogitsProcessorList([forbid_all, want]))
    assert text_of(result) == " 안녕 안녕 안녕"
    prompt = llama.tokenize(PROMPT.encode())
    assert seen == [prompt, prompt + [wanted], prompt + [wanted] * 2]
    # What a processor wrote is gone: the same prompt again goes by the model's logits.
    greedy = {"max_tokens": 3, "temperature": 0.0}
    with Llama(llama.model_path, n_ctx=256, n_threads=1) as fresh:
        assert text_of(llama(PROMPT, **greedy)) == text_of(fresh(PROMPT, **greedy))


def test_min_tokens(llama: Llama) -> None:
    bias = {tiny.EOS: 200.0}
    processor = MinTokensLogitsProcessor(4, llama.token_eos())
    result: Any = llama(PROMPT, max_tokens=20, logit_bias=bias, logits_processor=LogitsProcessorList([processor]))
    assert result["usage"]["completion_tokens"] == 4


def test_temperature_below_zero_is_the_models_own_distribution(llama: Llama) -> None:
    same: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    assert text_of(llama(PROMPT, temperature=-1.0, seed=4)) == text_of(llama(PROMPT, seed=4, **same))


def test_a_prefix_is_reused(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    class Counting:
        """Counts the tokens that the Python loop reads."""

        def __init__(self, sequence: Any) -> None:
            self._sequence = sequence

        def __len__(self) -> int:
            return len(self._sequence)

        def append(self, ids: Any) -> None:
            read.append(len(ids))
            self._sequence.append(ids)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sequence, name)

    real = llama._open
    monkeypatch.setattr(llama, "_sequence", Counting(real))
    monkeypatch.setattr(llama, "_choose", lambda sampler, processors: sampler.sample(real))
    n_prompt = len(llama.tokenize(PROMPT.encode()))
    options: dict[str, Any] = {"temperature": 0.0, "stopping_criteria": lambda ids, row: False}
    llama(PROMPT, max_tokens=3, **options)
    assert read == [n_prompt, 1, 1]
    read.clear()
    llama(PROMPT + " 서울", max_tokens=1, **options)
    assert read == [1]


def test_a_prefix_is_reused_by_the_native_loop(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[kollama._core.generation.TokenStream] = []

    def watch(*args: Any, **options: Any) -> kollama._core.generation.TokenStream:
        streams.append(kollama._core.generation.TokenStream(*args, **options))
        return streams[-1]

    monkeypatch.setattr(kollama.compat.run, "TokenStream", watch)
    n_prompt = len(llama.tokenize(PROMPT.encode()))
    for prompt in (PROMPT, PROMPT, PROMPT + " 서울"):
        llama(prompt, max_tokens=3, temperature=0.0)
    assert [stream.stats[0].reused_tokens for stream in streams] == [0, n_prompt - 1, n_prompt]


# ---- one thing at a time -------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"logprobs": 1}])
def test_a_new_call_ends_an_unfinished_stream(llama: Llama, options: dict[str, Any]) -> None:
    whole = text_of(llama(PROMPT, max_tokens=20, seed=1))
    stream: Any = llama(PROMPT, max_tokens=200, stream=True, seed=2, **options)
    next(stream)
    assert text_of(llama(PROMPT, max_tokens=20, seed=1)) == whole
    with pytest.raises(kollama.BusyError, match="a later call"):
        next(stream)


def test_a_stream_left_early_leaves_what_was_seen(llama: Llama) -> None:
    for options in ({}, {"logprobs": 0}):
        stream: Any = llama([1, 262, 263], max_tokens=100, stream=True, seed=2, **options)
        n_seen = 0
        while n_seen < 5:
            n_seen += bool(next(stream)["choices"][0]["text"])
        stream.close()
        assert 3 + n_seen <= llama.n_tokens + 1 <= 3 + 20
        assert llama._input_ids[:3].tolist() == [1, 262, 263]


def test_another_thread_is_told(llama: Llama) -> None:
    inside, go = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def wait(ids: np.ndarray, row: np.ndarray) -> bool:
        inside.set()
        go.wait(60)
        return True

    thread = threading.Thread(target=lambda: llama(PROMPT, stopping_criteria=wait))
    thread.start()
    assert inside.wait(60)
    try:
        llama(PROMPT)
    except kollama.BusyError as error:
        errors.append(error)
    go.set()
    thread.join(60)
    assert [str(error) for error in errors] == [
        "another thread is in a call of this Llama: give each thread one of its own, or use kollama.LLM"]


# ---- refusals ------------------------------------------------------------------------------------


def test_unusable_arguments_of_a_call(llama: Llama) -> None:
    for options, reason in [
        ({"suffix": "끝"}, "suffix"), ({"tfs_z": 0.9}, "tfs_z"), ({"logprobs": -1}, "logprobs is -1"),
        ({"stop": [""]}, "empty"), ({"top_p": -1.0}, "top_p"), ({"mirostat_mode": 3}, "mirostat_mode"),
        ({"logit_bias": {10**6: 1.0}}, "1000000"), ({"seed": 1.5}, "seed"), ({"prompt": []}, "prompt is empty"),
        ({"logits_processor": [3]}, "logits_processor must hold callables"),
        ({"logits_processor": lambda ids, row: row[:3]}, "must return an array of shape"),
        ({"logits_processor": lambda ids, row: None}, "must return an array of shape"),
        ({"grammar": "root ::= a"}, "must be a LlamaGrammar"), ({"prompt": b"a"}, "not bytes"), ({"prompt": [10**6]}, "1000000"),
    ]:
        arguments: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 3, **options}
        with pytest.raises((kollama.KollamaError, TypeError), match=reason):
            llama(**arguments)
        with pytest.raises((kollama.KollamaError, TypeError), match=reason):
            list(llama(stream=True, **arguments))
    with pytest.raises(ValueError, match="exceed context window of 256"):
        llama([5] * 256)
    with pytest.raises(TypeError, match="unexpected keyword"):
        llama(PROMPT, n_predict=5)  # type: ignore[call-arg]
    assert text_of(llama(PROMPT, max_tokens=1, suffix="", stop=None)) is not None


@pytest.mark.parametrize(("name", "value"), [
    ("split_mode", 2), ("main_gpu", 1), ("tensor_split", [1.0]), ("kv_overrides", {"a": 1}), ("rope_scaling_type", 1),
    ("rope_freq_base", 1e6), ("rope_freq_scale", 0.5), ("yarn_ext_factor", 1.0), ("yarn_orig_ctx", 100), ("offload_kqv", False),
    ("op_offload", True), ("lora_base", "a.gguf"), ("lora_scale", 0.5), ("numa", True), ("draft_model", object()),
    ("spm_infill", True), ("n_threads_batch", 4), ("n_ubatch", 7), ("tokenizer", kollama.compat.LlamaTokenizer),
    ("pooling_type", 1), ("attention_type", 1), ("type_k", 99), ("chat_format", "functionary"), ("n_ctx", -1), ("n_batch", 0),
])  # fmt: skip
def test_unusable_arguments_of_a_model(tiny_path: Path, name: str, value: Any) -> None:
    with pytest.raises(kollama.ArgumentError, match="functionary" if name == "chat_format" else name):
        Llama(str(tiny_path), **{"n_threads": 1, name: value})


def test_lora(tiny_path: Path, tmp_path: Path) -> None:
    pairs = random_pairs(tiny_path, ["blk.0.attn_q.weight", "blk.1.ffn_down.weight", "output.weight"], seed=3)
    adapter = write_lora(tmp_path / "lora.gguf", pairs, alpha=8)
    whole = merged(tiny_path, tmp_path / "merged.gguf", [(pairs, 0.7 * 8 / 4)])
    options: dict[str, Any] = {"n_ctx": 64, "n_threads": 1, "embedding": True, "logits_all": True}
    with Llama(str(tiny_path), **options) as plain, Llama(str(whole), **options) as other, \
            Llama(str(tiny_path), lora_path=str(adapter), lora_scale=0.7, **options) as llama:
        ids = llama.tokenize("대한민국의 수도는".encode())
        for one in (plain, other, llama):
            one.eval(ids)
        np.testing.assert_allclose(llama.scores[len(ids) - 1], other.scores[len(ids) - 1], atol=0.05)
        assert np.abs(llama.scores[len(ids) - 1] - plain.scores[len(ids) - 1]).max() > 0.3
        np.testing.assert_allclose(llama.embed("안녕"), other.embed("안녕"), atol=0.05)
        assert llama(PROMPT, max_tokens=8, temperature=0)["choices"][0]["text"]
    damaged = tmp_path / "lora.bin"
    damaged.write_bytes(b"algg" + bytes(64))
    for path in (damaged, tmp_path / "nowhere.gguf"):
        with pytest.raises(kollama.KollamaError, match=path.name):
            Llama(str(tiny_path), lora_path=str(path), **options)
    with pytest.raises(kollama.ArgumentError, match="vocab_only"):
        Llama(str(tiny_path), lora_path=str(adapter), vocab_only=True)


def test_the_version_is_that_of_the_interface() -> None:
    assert kollama.compat.__version__ == "0.3.36"


def test_other_refusals(tiny_path: Path) -> None:
    with pytest.raises(kollama.ModelLoadError, match=r"kollama\[cuda\]"):
        Llama(str(tiny_path), n_gpu_layers=1)
    with pytest.raises(FileNotFoundError):
        Llama("없는.bin")
    with pytest.raises(TypeError, match="unexpected keyword"):
        Llama(str(tiny_path), n_parts=1)  # type: ignore[call-arg]


def test_accepted_arguments(tiny_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Llama(
        model_path=str(tiny_path), n_gpu_layers=0, n_ctx=0, n_batch=64, n_ubatch=64, n_threads=1, n_threads_batch=1, use_mmap=False,
        logits_all=True, flash_attn=True, type_k=GGML_TYPE_Q8_0, type_v="f16", swa_full=True, no_perf=True, verbose=True, seed=-1,
        last_n_tokens_size=8, numa=False, kv_overrides={}, rope_freq_base=0, chat_format="kullm",
    ) as llama:  # fmt: skip
        assert llama.n_ctx() == 16384
        assert (llama.n_batch, llama.n_threads, llama.chat_format) == (64, 1, "kullm")
        assert text_of(llama(PROMPT, max_tokens=4)) is not None
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_closed(tiny_path: Path) -> None:
    llama = Llama(str(tiny_path), n_ctx=64, n_threads=1)
    stream: Any = llama(PROMPT, stream=True, max_tokens=30)
    next(stream)
    llama.close()
    llama.close()
    with pytest.raises(kollama.ClosedError):
        llama(PROMPT)
    with pytest.raises(kollama.KollamaError):
        list(stream)


def test_a_dropped_llama_is_freed_at_once(tiny_path: Path) -> None:
    before = live_handles()
    llama = Llama(str(tiny_path), n_ctx=64, n_threads=1)
    llama(PROMPT, max_tokens=2)
    assert live_handles() != before
    del llama  # no collection: nothing here goes round in a circle
    assert live_handles() == before


def test_pickled(tiny_path: Path) -> None:
    with Llama(str(tiny_path), n_ctx=64, n_threads=1, seed=3, chat_format="qa") as llama:
        expected = text_of(llama(PROMPT, max_tokens=8))
        with pickle.loads(pickle.dumps(llama)) as copy:
            assert (text_of(copy(PROMPT, max_tokens=8)), copy.chat_format, copy.n_ctx()) == (expected, "qa", 64)


def test_grammar_objects(tmp_path: Path) -> None:
    text = 'root ::= "네" | "아니요"'
    (tmp_path / "g.gbnf").write_text(text, "utf-8")
    assert LlamaGrammar.from_file(tmp_path / "g.gbnf") == LlamaGrammar.from_string(text)
    with pytest.raises(kollama.ArgumentError, match="empty"):
        LlamaGrammar.from_string(" ")
    with pytest.raises(FileNotFoundError):
        LlamaGrammar.from_file(tmp_path / "none")
