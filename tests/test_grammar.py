"""Grammars: what they say is what comes, and no text of theirs breaks anything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_samplers import LlamaSamplers
from test_process import run, silent

import kollama
from kollama.samplers import Grammar, Temperature, TopK

GRAMMARS = Path(__file__).resolve().parent.parent / "third_party" / "llama.cpp" / "grammars"

JSON_KOREAN = r"""
root   ::= "{" ws "\"이름\":" ws string "," ws "\"나이\":" ws number "," ws "\"도시\":" ws city "}"
string ::= "\"" [가-힣a-z]{1,6} "\""   # at most six
number ::= [1-9] [0-9]? | "0"
city   ::= "\"서울\"" | "\"부산\"" | "\"제주\""
ws     ::= " "?
"""


@pytest.fixture(scope="module")
def llama_cpp(tiny_path: Path) -> Iterator[LlamaSamplers]:
    library = LlamaSamplers(tiny_path)
    yield library
    library.close()


def test_korean_keys_and_values(llm: kollama.LLM) -> None:
    for seed in range(20):
        done = llm.complete("한국", grammar=JSON_KOREAN, seed=seed, max_tokens=120)
        assert done.finish_reason == "eos"
        value = json.loads(done.text)
        assert list(value) == ["이름", "나이", "도시"]
        assert re.fullmatch("[가-힣a-z]{1,6}", value["이름"])
        assert 0 <= value["나이"] <= 99
        assert value["도시"] in ("서울", "부산", "제주")


def test_syllables_that_only_bytes_can_write(llm: kollama.LLM) -> None:
    tok = llm.tokenizer
    assert not any(char in tok.piece(token) for char in "쀍뙓" for token in range(len(tok)))
    done = llm.complete("a", grammar='root ::= ("쀍" | "쀎") "뙓" "서"', seed=1)
    assert done.text in ("쀍뙓서", "쀎뙓서")
    assert len(done.tokens) > 6
    # A syllable as one token or as three: the grammar goes on behind either.
    for ids in ([tok.id("가")], [3 + byte for byte in "가".encode()]):
        sampler = kollama.Sampler(grammar='root ::= "가네"', temperature=0)
        with llm._context.sequence() as seq:
            seq.append([1, 300])
            sampler.sample(seq)
            seq.append(ids)
            text = bytearray()
            while not tok.is_eog(token := sampler.sample(seq)):
                text += tok.decode_bytes([token])
                seq.append([token])
            assert text.decode() == "네"


@pytest.mark.parametrize("path", sorted(GRAMMARS.glob("*.gbnf")), ids=lambda path: path.stem)
def test_llama_cpp_s_examples(llm: kollama.LLM, path: Path) -> None:
    done = llm.complete("a", grammar=path.read_text(), seed=1, max_tokens=60)
    if path.stem == "json" and done.finish_reason == "eos":
        json.loads(done.text)
    assert done.finish_reason in ("eos", "length")


def test_only_the_refused_are_masked(llm: kollama.LLM) -> None:
    calls: list[int] = []

    def count(_: np.ndarray, logits: np.ndarray) -> None:
        calls.append(int(np.isfinite(logits).sum()))

    free = kollama.Sampler.chain([Grammar("root ::= .*"), count])
    with llm._context.sequence() as seq:
        seq.append([1, 300])
        seq.logits[50] = 99
        assert free.sample(seq) == 50
        assert calls == [311]  # once, and nothing masked
        calls.clear()
        seq.logits[2] = 999  # the end, which a chain of one letter does not allow
        strict = kollama.Sampler.chain([Grammar('root ::= "a" | "b"'), count])
        assert llm.tokenizer.decode([strict.sample(seq)]) in "ab"
        assert calls == [311, 4]  # two letters, each a piece and a byte


def test_in_a_chain_it_masks_at_its_place(llm: kollama.LLM) -> None:
    late = kollama.Sampler.chain([TopK(1), Grammar('root ::= "가"')])
    with llm._context.sequence() as seq:
        seq.append([1, 300])
        seq.logits[9] = 99
        with pytest.raises(kollama.ArgumentError, match="grammar allows none"):
            late.sample(seq)
        first = kollama.Sampler.chain([Grammar('root ::= "가"'), TopK(1), Temperature(1)])
        assert seq.context.model.tokenizer.decode([first.sample(seq)]) in ("가", "\ufffd")


def test_special_tokens_are_no_text(llm: kollama.LLM) -> None:
    sampler = kollama.Sampler.chain([Grammar("root ::= [^가]+")])
    with llm._context.sequence() as seq:
        seq.append([1, 300])
        seq.logits[1] = 99  # <s>: four characters to llama.cpp
        assert sampler.sample(seq) != 1
        named = kollama.Sampler.chain([Grammar("root ::= <s> <[5]>")])
        for token in (1, 5, 2):
            assert named.sample(seq) == token
            seq.append([token])
        for text in ("root ::= <가나다>", "root ::= !<nonsense>", "root ::= <[311]>"):
            with pytest.raises(kollama.TokenError):
                kollama.Sampler(grammar=text).sample(seq)


def test_it_follows_what_the_caller_does(llm: kollama.LLM) -> None:
    tok = llm.tokenizer
    a, b = tok.id("a"), tok.id("b")

    def sample() -> str:
        return tok.decode([sampler.sample(seq)])

    with llm._context.sequence() as seq:
        seq.append([1, 300])
        sampler = kollama.Sampler(grammar='root ::= ("ab" | "bc")+', temperature=0)
        for _ in range(3):
            assert sample() in "ab"  # again and again, nothing appended
        seq.append([b])
        assert sample() == "c"
        seq.rewind(2)
        seq.append([a])
        assert sample() == "b"
        seq.append([a])  # what it does not allow
        for _ in range(2):
            with pytest.raises(kollama.ArgumentError, match="grammar does not allow token"):
                sampler.sample(seq)
        seq.rewind(2)
        seq.append([a])
        assert sample() == "b"
    # A generation begins anew with the same sampler.
    assert re.fullmatch("(ab|bc)+", llm.complete("x", sampler=sampler, max_tokens=8).text)
    assert re.fullmatch("(ab|bc)+", llm.complete("x", sampler=sampler, max_tokens=8).text)


def test_a_complete_grammar_with_ignore_eos_says_so(llm: kollama.LLM) -> None:
    with pytest.raises(kollama.ArgumentError, match="ignore_eos"):
        llm.complete("a", grammar='root ::= "가"', ignore_eos=True)


MALFORMED = [
    ("", "no rule 'root'"),
    ("# nothing", "no rule 'root'"),
    ("start ::= \"a\"", "no rule 'root'"),
    ("root", "line 1: expected ::="),
    ("root ::=\n  \"a\"\nroot = 5", "line 3: expected ::="),
    ("root ::= b", "a rule 'b' and does not define it"),
    ("root ::= \"a", "ends inside"),
    ("root ::= [a", "ends inside"),
    ("root ::= [a-", "ends inside"),
    ("root ::= \"\\q\"", "escapes"),
    ("root ::= \"\\", "escapes"),
    ("root ::= \"\\xZ1\"", "hexadecimal"),
    ("root ::= \"\\u12", "hexadecimal"),
    ("root ::= (\"a\"", r"expected \)"),
    ("root ::= \"a\")", "expected an element"),
    ("root ::= *", "something to repeat"),
    ("root ::= \"\"*", "something to repeat"),
    ("root ::= \"a\"{", "a number"),
    ("root ::= \"a\"{2", "} or ,"),
    ("root ::= \"a\"{2,1}", "upper limit"),
    ("root ::= \"a\"{2001}", "2000 repetitions"),
    ("root ::= \"a\"{99999999999999999999999}", "2000 repetitions"),
    ("root ::= (\"a\"{0,300}){10}", "too many rules"),
    ("root ::= (((\"a\"{0,10}){0,10}){0,10}){0,100}", "too many rules"),
    ("root ::= \"" + "a" * 2000 + "\"{2000}", "more rules than can be handled"),
    ("root ::= <a", "the > of a token"),
    ("root ::= <[x]>", "a number"),
    ("root ::= <[5>", "]>"),
    ("root ::= <[99999999999]>", "too large"),
    ("root ::= !\"a\"", "a token after !"),
    ("root ::= \"a\\x00\" \0", "NUL"),
    ("root ::= 가", "expected an element"),
    ("루트 ::= \"a\"", "a rule's name"),
    ("root ::= root", "begin with itself"),
    ("root ::= \"a\" | root \"b\"", "begin with itself"),
    ("root ::= a\na ::= b\nb ::= root \"x\" | \"y\"", "begin with itself"),
    ("root ::= e root \"x\" | \"y\"\ne ::= f\nf ::= \"\" | \"z\"", "begin with itself"),
    ("root ::= (\"a\"*)*", "begin with itself"),
    ("root ::= (e)+\ne ::= \"\"", "begin with itself"),
    ("root ::= \"a\"\nx ::= x", "begin with itself"),
    ("root ::= " + "(" * 5000 + "\"a\"" + ")" * 5000, "parentheses are nested"),
    ("root ::= a0\n" + "".join(f"a{i} ::= a{i + 1}\n" for i in range(50_000)) + "a50000 ::= \"x\"", "1000 deep"),
    ("x" * 2**20 + " ::= \"a\"", "1048576 are the most"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED, ids=lambda value: repr(value[:40]))
def test_malformed(text: str, message: str) -> None:
    with pytest.raises(kollama.ArgumentError, match=message):
        kollama.Sampler(grammar=text)


def test_long_but_harmless() -> None:
    rules = "root ::= a0\n" + "".join(f'a{i} ::= "x" a{i + 1}\n' for i in range(20_000)) + 'a20000 ::= "x"'
    kollama.Sampler(grammar=rules)
    kollama.Sampler(grammar="root ::= " + "(" * 90 + '"a"' + ")" * 90)
    kollama.Sampler(grammar="root ::= " + " | ".join(f'"{i}"' for i in range(50_000)))
    kollama.Sampler(grammar="root ::= " + " ".join(f"e{i}" for i in range(20_000)) + "\n"
                    + "".join(f'e{i} ::= "" | "a"\n' for i in range(20_000)))


ATOMS = st.sampled_from([
    "root", "a", "b", "::=", " ", "\n", "\r\n", "\t", '"x"', '"가"', '"\\u AC00"', '"\\n"', '""', '"', "[a-z]", "[^가-힣]", "[]", "[\\]-]",
    "[", "]", ".", "|", "(", ")", "*", "+", "?", "{2}", "{0,3}", "{,3}", "{2,}", "{ 1 , 2 }", "{", "}", ",", "# note", "<s>", "</s>",
    "<[5]>", "<[", "!", "<x>", "\\", "7", "-", "_", "가", "root ::= ", "\na ::= ", "\nb ::= ",
])


@settings(deadline=None, max_examples=600)
@given(st.lists(ATOMS, max_size=14).map("".join), st.booleans())
def test_what_passes_the_check_llama_cpp_reads(tiny_path: Path, text: str, with_root: bool) -> None:
    text = 'root ::= a b\na ::= "a"\nb ::= "b"\n' * with_root + text
    try:
        kollama.Sampler(grammar=text)
    except kollama.ArgumentError:
        return
    if "<x>" in text or "root" not in text:
        return
    library = LlamaSamplers(tiny_path)
    try:
        assert library.reads_grammar(text)
    finally:
        library.close()


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([*'abc가 "*+?|()[]{}', '"a"', "b", "a", "[가-힣]", "{1,2}", " | "]), max_size=10).map(" ".join))
def test_what_llama_cpp_reads_passes_the_check(tiny_path: Path, body: str) -> None:
    text = f'root ::= "x" {body}\na ::= "a"\nb ::= "b" | "c"\nc ::= "c"'
    library = LlamaSamplers(tiny_path)
    try:
        reads = library.reads_grammar(text)
    finally:
        library.close()
    if reads:
        kollama.Sampler(grammar=text)


def test_nothing_is_written_to_stderr(tiny_path: Path) -> None:
    code = """
    import sys, kollama
    llm = kollama.LLM(sys.argv[1], n_ctx=64, n_threads=1)
    for text in ("root ::= (", "root ::= <nonsense>", "root ::= root", "", "root ::= [가-힣]+"):
        try:
            llm.complete("a", grammar=text, max_tokens=3)
        except kollama.KollamaError:
            pass
    """
    done = run(code, tiny_path)
    assert silent(done), done


def test_a_grammar_in_a_batch_of_others(llm: kollama.LLM) -> None:
    alone = llm.complete("b", seed=2, max_tokens=30).text
    streams = [llm.generate("a", grammar='root ::= [가-힣]+ "."', seed=1, max_tokens=30), llm.generate("b", seed=2, max_tokens=30)]
    texts = ["", ""]
    for _ in range(30):
        for i, stream in enumerate(streams):
            texts[i] += getattr(next(stream, None), "text", "")
    assert re.fullmatch(r"[가-힣]+\.?", texts[0])
    assert texts[1] == alone
    for stream in streams:
        stream.close()


def test_mirostat_and_grammar(llm: kollama.LLM, context: Callable[..., kollama.Context]) -> None:
    for options in ({"mirostat": 1}, {"mirostat": 2}, {"adaptive_target": 0.5}, {"xtc_probability": 1.0}, {"temperature": 0}):
        done = llm.complete("a", grammar='root ::= ("서울" | "부산")+ "."', seed=1, max_tokens=60, **options)  # type: ignore[arg-type]
        assert re.fullmatch(r"(서울|부산)+(\.|[서부])?", done.text)
