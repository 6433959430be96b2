"""The command line: text on stdout, everything else on stderr, one line and a status for an error."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny

import kollama
from kollama.cli import main

PROMPT = "대한민국의 수도는"


def kollama_command(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "kollama", *map(str, arguments)], input=stdin,
                          capture_output=True, timeout=120, check=False)


def options(extra: Sequence[str] = ()) -> list[str]:
    return ["--n-threads", "1", "--n-ctx", "256", *extra]


def expected_text(model: kollama.Model, **sampling: object) -> str:
    with kollama.LLM(model, n_ctx=256, n_threads=1) as llm:
        return llm.complete(PROMPT, **sampling).text  # type: ignore[call-overload, no-any-return]


def test_run(tiny_path: Path, model: kollama.Model) -> None:
    flags = options(["--max-tokens", "20", "--temperature", "0"])
    done = kollama_command("run", tiny_path, PROMPT, *flags)
    assert done.returncode == 0
    assert done.stdout.decode() == expected_text(model, max_tokens=20, temperature=0) + "\n"
    echoed = kollama_command("run", tiny_path, PROMPT, "--echo", *flags)
    assert echoed.stdout.decode() == PROMPT + done.stdout.decode()
    piped = kollama_command("run", tiny_path, "-", *flags, stdin=PROMPT.encode())
    assert piped.stdout == done.stdout


def test_run_flags_are_the_keywords(tiny_path: Path, model: kollama.Model, capsys: pytest.CaptureFixture[str]) -> None:
    sampling = {"max_tokens": 12, "temperature": 1.5, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "seed": 4}
    flags = [word for key, value in sampling.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    assert main(["run", str(tiny_path), PROMPT, "--ignore-eos", *options(flags)]) == 0
    assert capsys.readouterr().out == expected_text(model, ignore_eos=True, **sampling) + "\n"


def test_run_with_samplers_and_a_grammar(tiny_path: Path, model: kollama.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grammar = 'root ::= ("서울" | "부산" | "a")+'
    (tmp_path / "도시.gbnf").write_text(grammar, "utf-8")
    sampling = {"repeat_penalty": 1.2, "penalty_last_n": 9, "dry_multiplier": 0.5, "top_n_sigma": 3.0, "seed": 4, "max_tokens": 12}
    flags = [word for key, value in sampling.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    flags += ["--grammar", str(tmp_path / "도시.gbnf"), "--logit-bias", "a=-inf", "--logit-bias", "9=1.5"]
    assert main(["run", str(tiny_path), PROMPT, *options(flags)]) == 0
    expected = expected_text(model, grammar=grammar, logit_bias={"a": -float("inf"), 9: 1.5}, **sampling)
    assert expected and "a" not in expected
    assert capsys.readouterr().out == expected + "\n"
    assert main(["run", str(tiny_path), PROMPT, "--grammar", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
    assert main(["run", str(tiny_path), PROMPT, "--mirostat", "7"]) == 1
    assert "mirostat is 7" in capsys.readouterr().err


def test_run_with_a_form(tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = '{"enum": ["서울", "부산"]}'
    (tmp_path / "도시.json").write_text(schema, "utf-8")
    (tmp_path / "도시.lark").write_text('start: "서울" | "부산"', "utf-8")
    for flags in (["--json-schema", schema], ["--json-schema", str(tmp_path / "도시.json")]):
        assert main(["run", str(tiny_path), PROMPT, *flags]) == 0
        assert capsys.readouterr().out in ('"서울"\n', '"부산"\n')
    for flags in (["--regex", "서울|부산"], ["--lark", str(tmp_path / "도시.lark")]):
        assert main(["run", str(tiny_path), PROMPT, *flags]) == 0
        assert capsys.readouterr().out in ("서울\n", "부산\n")
    assert main(["run", str(tiny_path), PROMPT, "--json-schema", '{"enum": []}']) == 1
    assert "Unsatisfiable" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["run", str(tiny_path), PROMPT, "--json-schema", str(tmp_path / "none")])
    assert "neither JSON nor a file" in capsys.readouterr().err


def test_tokenize(tiny_path: Path, model: kollama.Model) -> None:
    done = kollama_command("tokenize", tiny_path, PROMPT, "--json", "--add-bos")
    ids = model.tokenizer.encode(PROMPT, add_bos=True).tolist()
    assert json.loads(done.stdout) == {"ids": ids, "pieces": ["<s>", "▁대한", "민국", "의", "▁수도", "는"]}
    lines = kollama_command("tokenize", tiny_path, PROMPT).stdout.decode().splitlines()
    assert lines[0] == f"{ids[1]}\t▁대한"


def test_inspect(tiny_path: Path) -> None:
    done = kollama_command("inspect", tiny_path, "--json")
    assert json.loads(done.stdout)["metadata"]["general.architecture"] == "llama"
    table = kollama_command("inspect", tiny_path, "--tensors").stdout.decode()
    assert "general.architecture" in table
    assert "blk.1.ffn_up.weight" in table


def test_devices() -> None:
    done = kollama_command("devices", "--json")
    assert "cpu" in {device["type"] for device in json.loads(done.stdout)}
    assert b"threads by default" in kollama_command("devices").stdout


def test_bench(tiny_path: Path, tmp_path: Path) -> None:
    flags = ["--prompt", "5", "40", "--generate", "4", "--repeats", "2", "--n-threads", "1"]
    done = kollama_command("bench", tiny_path, "--json", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(speed["work"], speed["tokens"]) for speed in found["speeds"]] == [
        ("prompt", 5), ("prompt", 40), ("generation", 4)]
    assert all(0 < speed["least"] <= speed["median"] <= speed["most"] for speed in found["speeds"])
    assert (found["threads"], found["format"]) == (1, "gguf")
    lines = kollama_command("bench", tiny_path, *flags).stdout.decode().splitlines()
    assert ["tokens/s" in line for line in lines] == [False, True, True, True, False]
    plotted = kollama_command("bench", tiny_path, *flags, "--plot", tmp_path / "speed.svg")
    if importlib.util.find_spec("matplotlib"):
        assert (tmp_path / "speed.svg").read_bytes().startswith(b"<?xml")
    else:
        assert plotted.returncode == 1
        assert b"matplotlib" in plotted.stderr


def test_chat(tiny_path: Path) -> None:
    flags = options(["--max-tokens", "5", "--seed", "1"])
    done = kollama_command("chat", tiny_path, *flags, "--system", "짧게", stdin="안녕\n\n또 안녕\n".encode())
    assert done.returncode == 0, done.stderr
    assert b"> " not in done.stdout
    assert done.stdout.count(b"\n") >= 2
    base = kollama_command("chat", tiny.write_llama(tiny_path.with_name("base.gguf")), *flags, stdin=b"a\n")
    assert (base.returncode, base.stdout) == (1, b"")
    assert b"no chat template" in base.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["run", "없는.gguf", "a"], "there is no such file"),
        (["run", "MODEL", "a", "--n-ctx", "0"], "n_ctx is 0"),
        (["run", "MODEL", "a", "--temperature", "-1"], "temperature is -1"),
        (["run", "MODEL", "a", "--max-tokens", "0"], "max_tokens is 0"),
        (["run", "MODEL", "a", "--n-gpu-layers", "5"], "kollama[cuda]"),
        (["run", "MODEL", "안" * 300, "--n-ctx", "64"], "n_ctx is 64"),
        (["inspect", "/"], "is a directory"),
        (["bench", "MODEL", "--prompt", "1"], "--prompt is 1"),
        (["bench", "MODEL", "--repeats", "0"], "--repeats is 0"),
        (["tokenize", "/dev/null", "a"], "is not a regular file"),
    ],
)
def test_errors_are_one_line(tiny_path: Path, arguments: list[str], reason: str) -> None:
    done = kollama_command(*[str(tiny_path) if word == "MODEL" else word for word in arguments])
    assert done.returncode == 1
    assert done.stdout == b""
    text = done.stderr.decode()
    assert reason in text
    assert text.count("\n") == 1
    assert text.startswith("kollama: ")


@pytest.mark.parametrize("arguments", [[], ["sing"], ["run"], ["run", "a", "b", "c"], ["run", "a", "--loud"]])
def test_wrong_usage(arguments: list[str]) -> None:
    done = kollama_command(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"usage:" in done.stderr


def test_a_reader_that_has_enough(tiny_path: Path) -> None:
    command = f"'{sys.executable}' -m kollama inspect '{tiny_path}' --tensors | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False)
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""
