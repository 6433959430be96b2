"""Generation with guessed tokens (LLM's draft) beside generation without, by kind of text.

Both sides share the weights and take turns, on a prompt that neither has seen: the paragraphs,
names and numbers change with the pair. What counts is the time from the first token to the last.
Texts are compared, too: a batch of several rows may be rounded otherwise than single ones, so where
two tokens are nearly as likely as each other the two can part.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import generate
from outcome import Outcome, heading, tell

import kollama

REPEATS, ELSEWHERE = 2.0, 0.97  # the targets

KOREAN = [
    "{name}는 매일 아침 {place}역에서 기차를 타고 회사에 간다. 회사는 강 건너편에"
    " 있는 오래된 벽돌 건물이다. 점심에는 동료들과 시장 골목의 국숫집에 가고, 저녁에는 "
    "강변을 따라 {n}분쯤 걸어서 돌아온다. 주말이면 도서관에서 지도와 여행책을 빌려 읽는다.",
    "{place}의 겨울은 길고 눈이 많이 내린다. {name}의 할머니는 김장을 {n}포기나"
    " 담그고, 마당에는 장독이 줄지어 서 있다. 밤이 되면 아랫목에 둘러앉아 고구마를 구워 "
    "먹으며 옛날이야기를 듣는다. 아침에는 온 마을이 하얗게 덮여 있다.",
    "지난달 {place}에 문을 연 과학관에는 첫날에만 {n}명이 찾아왔다. {name} "
    "관장은 아이들이 직접 만지고 움직여 볼 수 있는 전시를 늘리겠다고 말했다. 천체 투영관은 "
    "하루에 여섯 번 문을 열며, 예약은 누리집에서만 받는다. 입장료는 당분간 받지 않는다.",
]
ENGLISH = [
    "{name} opened a small repair shop near {place} station in the spring of 19{n}. At "
    "first only neighbours came, with radios and clocks that had stopped. By the second "
    "winter there was a line in front of the door, and two apprentices worked at the long"
    " bench under the window.",
    "The harbour of {place} freezes for {n} days in an ordinary year. Ships wait outside "
    "the breakwater until the icebreaker has cut a lane, and the pilots, led by {name}, "
    "bring them in one by one. In the last three winters the ice came late and left "
    "early, and the fishing season grew longer.",
    "In the archive of {place}, {name} found a box of {n} letters that nobody had opened "
    "for a century. They were written by a surveyor who had walked the whole coast with a"
    " chain and a notebook. He described every village, the depth of every well, and the "
    "songs that people sang while they mended their nets.",
]
CODE = '''\
def report_{name}(orders, rate):
    """Totals of the orders of {place}, with tax."""
    total = 0.0
    largest = None
    for order in orders:
        price = order["price"] * order["count"]
        if order["discount"] > {n}:
            price -= price * order["discount"] / 100
        if largest is None or price > largest["price"]:
            largest = {{"id": order["id"], "price": price}}
        total += price
    tax = total * rate
    return {{"total": total, "tax": tax, "largest": largest}}
'''
LINES = "{place} | {name} | {n} | open from nine to five, closed on Mondays\n"

NAMES = [
    "minsu",
    "jiwoo",
    "Anna",
    "Tomas",
    "하은",
    "도윤",
    "Ingrid",
    "Pavel",
    "서준",
    "Maria",
    "유진",
    "Olga",
]
PLACES = [
    "수원",
    "Gdansk",
    "대전",
    "Bergen",
    "춘천",
    "Porto",
    "목포",
    "Turku",
    "강릉",
    "Riga",
    "전주",
    "Genoa",
]


def values(index: int) -> dict[str, Any]:
    return {"name": NAMES[index % 12], "place": PLACES[(index * 5 + 3) % 12], "n": 17 + index * 7}


def korean_edit(index: int) -> str:
    text = " ".join(KOREAN[(index + i) % 3].format(**values(index + i)) for i in range(3))
    return f"다음 글을 그대로 옮겨 쓰되 '그리고'로 시작하시오.\n\n글: {text}\n\n고친 글: 그리고 {text[:60]}"


def code_edit(index: int) -> str:
    code = CODE.format(**values(index)) + "\n\n" + CODE.format(**values(index + 1))
    edited = code.replace("total", "amount", 2)
    return (f"Rename total to amount.\n\n```python\n{code}```\n\n"
            f"The edited code:\n\n```python\n{edited[:120]}")


def quotes(index: int) -> str:
    text = " ".join(ENGLISH[(index + i) % 3].format(**values(index + i)) for i in range(3))
    first = text.partition(". ")[0]
    return f'Text: {text}\n\nThe key sentences of the text, quoted in order:\n\n"{first}."\n\n"'


def table(index: int) -> str:
    return "".join(LINES.format(**values(index + i)) for i in range(8)) * 2


def story(index: int) -> str:
    return (
        ENGLISH[index % 3].format(**values(index)) + "\n\nOne evening a stranger came in and said"
    )


def korean_story(index: int) -> str:
    return KOREAN[index % 3].format(**values(index)) + " 그런데 어느 날"


def answer(index: int) -> str:
    now = values(index)
    return (
        f"Question: What should {now['name']} pack for {now['n']} days of walking in the hills around {now['place']}, "
        "and why?\nAnswer:"
    )


GREEDY: dict[str, Any] = {"temperature": 0.0}
DRAWN: dict[str, Any] = {"temperature": 0.8}
TASKS: dict[str, tuple[Callable[[int], str], dict[str, Any], float]] = {
    "Korean text, copied with a change": (korean_edit, GREEDY, REPEATS),
    "code, edited": (code_edit, GREEDY, REPEATS),
    "sentences quoted": (quotes, GREEDY, REPEATS),
    "a table that repeats": (table, GREEDY, REPEATS),
    "code, edited, drawn": (code_edit, {"temperature": 0.2}, REPEATS),
    "story, greedy": (story, GREEDY, ELSEWHERE),
    "story, drawn": (story, DRAWN, ELSEWHERE),
    "Korean story, drawn": (korean_story, DRAWN, ELSEWHERE),
    "answer, drawn": (answer, DRAWN, ELSEWHERE),
}


@dataclass
class Pair:
    """Tokens/s of the two sides, and whether they wrote the same."""

    plain: float
    drafting: float
    same: bool
    drafted: int
    accepted: int

    @property
    def ratio(self) -> float:
        return self.drafting / self.plain


@dataclass
class Series:
    """The pairs of one kind of text."""

    model: str
    task: str
    target: float
    pairs: list[Pair] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(pair.ratio for pair in self.pairs)

    def row(self) -> str:
        """This series as a row of the Markdown table."""
        ratios = [pair.ratio for pair in self.pairs]
        drafted, accepted = (
            sum(getattr(pair, name) for pair in self.pairs) for name in ("drafted", "accepted")
        )
        return (
            f"| {self.model} | {self.task} | {statistics.median(pair.plain for pair in self.pairs):.0f} "
            f"| {statistics.median(pair.drafting for pair in self.pairs):.0f} | {self.ratio:.2f} "
            f"| {min(ratios):.2f}-{max(ratios):.2f} | {self.target:g} | {accepted} of {drafted} "
            f"| {sum(pair.same for pair in self.pairs)} of {len(ratios)} |"
        )


def main() -> None:
    args = arguments()
    models = args.models or list(generate.installed_models())
    if not models:
        raise SystemExit("no model: name a GGUF file, or pip install 'kollama[demo]'")
    series = [one for model in models for one in measure_model(model, args)]
    print(
        "\n".join(
            [
                heading(f"{args.threads} threads"),
                f"- {args.pairs} pairs of {args.tokens} tokens, draft={args.draft}",
                "",
                "| model | text | without, t/s | with, t/s | ratio, median | min-max | target | guesses right | same text |",
                "|---|---|--:|--:|--:|--:|--:|--:|--:|",
                *(one.row() for one in series),
                "",
                tell(Outcome(f"{one.model}, guessed tokens: {one.task}", one.target,
                             tuple(pair.ratio for pair in one.pairs)) for one in series),
            ]
        )
    )
    if args.json:
        raw = [asdict(one) for one in series]
        args.json.write_text(json.dumps(raw, indent=1) + "\n", "utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="GGUF", help="default: the installed ones"
    )
    parser.add_argument(
        "--draft", default="prompt-lookup", metavar="GGUF", help="default: %(default)s"
    )
    parser.add_argument(
        "--pairs", type=generate.at_least(1), default=10, help="default: %(default)s"
    )
    parser.add_argument(
        "--tokens", type=generate.at_least(2), default=160, help="default: %(default)s"
    )
    parser.add_argument("--threads", type=generate.at_least(1), default=kollama.default_threads())
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TEXT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    return parser.parse_args()


def measure_model(path: Path, args: argparse.Namespace) -> list[Series]:
    options: dict[str, Any] = {"n_ctx": 2048, "n_threads": args.threads}
    series = []
    with kollama.Model(path) as model:
        for task in args.tasks:
            make, sampling, target = TASKS[task]
            one = Series(path.name, task, target)
            # Anew for each kind of text: what paid for the one before says nothing of it.
            with (
                kollama.LLM(model, **options) as plain,
                kollama.LLM(model, draft=args.draft, **options) as drafting,
            ):
                for index in range(-1, args.pairs):  # the first warms up
                    pair = measure_pair(plain, drafting, make(index % 1000), index, sampling, args)
                    if index >= 0:
                        one.pairs.append(pair)
                        generate.progress(
                            f"{path.name}, {task} {index + 1}/{args.pairs}: {pair.ratio:.2f}"
                        )
            series.append(one)
    generate.progress("")
    return series


def measure_pair(
    plain: kollama.LLM,
    drafting: kollama.LLM,
    prompt: str,
    index: int,
    sampling: dict[str, Any],
    args: argparse.Namespace,
) -> Pair:
    """Who goes first alternates: a machine that slows down over time favours neither."""
    done = {}
    for llm in (plain, drafting) if index % 2 == 0 else (drafting, plain):
        done[llm] = llm.complete(
            prompt, max_tokens=args.tokens, ignore_eos=True, seed=index % 1000, **sampling
        )
    without, with_ = done[plain], done[drafting]
    return Pair(
        speed(without),
        speed(with_),
        without.text == with_.text,
        with_.usage.drafted_tokens,
        with_.usage.accepted_tokens,
    )


def speed(done: kollama.Completion) -> float:
    """Tokens/s behind the first."""
    return (len(done.tokens) - 1) / done.timings.generate_seconds


if __name__ == "__main__":
    main()
