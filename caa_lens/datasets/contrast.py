"""Contrast pairs: one prompt, two completions, only one of which shows the behaviour.

A CAA dataset is a list of these, usually a two-choice question whose completions are `(A)` and `(B)` (Rimsky et al.,
arXiv 2312.06681, section 3). The published files have blemishes that bend the results: answers outside A and B, stray
spaces, one letter far more often right than the other. Loading counts them, says so in `dataset.report`, and changes
nothing without being told to.

>>> pairs = ContrastDataset.from_pairs([("Is it so? (A) Yes (B) No", "(A)", "(B)")], name="agreeing")
>>> pairs[0].letter, pairs.report.summary()
('A', '1 read, 1 kept; matching letter: A 1')
"""

from __future__ import annotations

import difflib
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, cast, overload

from caa_lens.datasets.records import Problems, check_record, read_records
from caa_lens.files.bundled import data_dir
from caa_lens.files.whole import write_whole

OtherAnswers = Literal["error", "keep", "drop"]
Part = Literal["generate", "test_ab"]

_SCHEMA = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
_LETTER = re.compile(r"\s*\(([A-Z])\)\s*")


@dataclass(frozen=True, slots=True)
class ContrastPair:
    """Two completions of one prompt; `positive` shows the behaviour and `negative` does not."""

    prompt: str
    positive: str
    negative: str

    @property
    def letter(self) -> str | None:
        """The matching letter, `"A"` where `positive` is `"(A)"`; None where it is not a letter."""
        found = _LETTER.fullmatch(self.positive)
        return found.group(1) if found else None

    def swapped(self) -> ContrastPair:
        """Positive and negative exchanged."""
        return ContrastPair(self.prompt, self.negative, self.positive)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What was found while loading.

    Attributes:
        n_read: items in the source.
        n_kept: items in the dataset.
        n_other_answers: items with an answer other than (A) or (B), kept or dropped.
        n_stripped: answers that had spaces around them, now removed.
        n_duplicates: kept items that repeat an earlier one, prompt and answers; they stay.
        letters: kept items by matching letter; `"other"` where the answer is not a letter.
    """

    n_read: int
    n_kept: int
    n_other_answers: int
    n_stripped: int
    n_duplicates: int
    letters: dict[str, int]

    def summary(self) -> str:
        """One readable line; what was not found is not mentioned."""
        others = "kept" if self.n_read == self.n_kept else "dropped"
        counts = [
            (self.n_other_answers, f"with answers outside (A) and (B), {others}"),
            (self.n_stripped, "answers had spaces around them"),
            (self.n_duplicates, "duplicates, kept"),
        ]
        found = "".join(f"; {n} {what}" for n, what in counts if n)
        letters = ", ".join(f"{letter} {n}" for letter, n in self.letters.items())
        return f"{self.n_read} read, {self.n_kept} kept{found}; matching letter: {letters}"


@dataclass(frozen=True, slots=True, repr=False)
class ContrastDataset(Sequence[ContrastPair]):
    """A named, frozen sequence of pairs. A slice is a dataset too.

    Attributes:
        name: usually the behaviour; a split's name ends in `/train`, `/dev` or `/test`.
        pairs: the pairs.
        origin: the file or call they came from, and what was selected since.
        report: what was found while loading.
    """

    name: str
    pairs: tuple[ContrastPair, ...]
    origin: str
    report: LoadReport

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[ContrastPair | tuple[str, str, str]],
        name: str = "custom",
        other_answers: OtherAnswers = "keep",
        allow_empty_prompt: bool = False,
    ) -> ContrastDataset:
        """A dataset from pairs, or from `(prompt, positive, negative)` tuples, checked as a file would be.

        Free text stays as it is; only lettered answers lose the spaces around them.

        Raises:
            ValueError: no pairs, empty or identical answers, an empty prompt, or (with `other_answers="error"`) answers
                other than (A) and (B). One error names them all.
        """
        names = ("prompt", "positive", "negative")
        rows = [_as_row(pair, names) for pair in pairs]
        if not rows:
            raise ValueError(f"{name!r}: no pairs were given")
        origin = "pairs given in Python"
        return _build(rows, names, name, f"{name} ({origin})", origin, other_answers, allow_empty_prompt)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> ContrastPair: ...
    @overload
    def __getitem__(self, index: slice) -> ContrastDataset: ...
    def __getitem__(self, index: int | slice) -> ContrastPair | ContrastDataset:
        """A pair, or for a slice a dataset."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._select(range(start, stop, step), self.name, f"[{start}:{stop}:{step}]")
        return self.pairs[index]

    def __iter__(self) -> Iterator[ContrastPair]:
        """The pairs in order."""
        return iter(self.pairs)

    def __repr__(self) -> str:
        """Name, size and letters; not the pairs."""
        letters = ", ".join(f"{letter} {n}" for letter, n in self.letter_balance().items())
        return f"ContrastDataset({self.name!r}, {len(self)} pairs, {letters})"

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the pairs in order; name and origin do not count."""
        rows = [[pair.prompt, pair.positive, pair.negative] for pair in self.pairs]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()

    def letter_balance(self) -> dict[str, int]:
        """Pairs by matching letter; `"other"` where the answer is not a letter."""
        return _letters(self.pairs)

    def split(
        self, seed: int = 0, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    ) -> tuple[ContrastDataset, ContrastDataset, ContrastDataset]:
        """Train, dev and test: extract on the first, choose layer and multiplier on the second, report on the third.

        Every matching letter is shared out in these fractions, pairs with the same prompt stay together, and the same
        seed gives the same split. Pairs keep their order.

        Raises:
            ValueError: fractions that are not positive or do not sum to 1, or fewer than 3 different prompts.
        """
        if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
            raise ValueError(f"fractions must be three positive numbers that sum to 1, got {fractions}")
        groups: dict[str, list[int]] = {}
        for index, pair in enumerate(self.pairs):
            # Without a prompt, the completions are what must not be seen twice.
            groups.setdefault(pair.prompt or f"\0{pair.positive}\0{pair.negative}", []).append(index)
        if len(groups) < 3:
            raise ValueError(
                f"{self.name!r} has {len(self)} pairs with {len(groups)} different prompts: a split into train, dev "
                "and test needs at least 3 different prompts"
            )
        chosen = _share_out(list(groups.values()), [pair.letter or "" for pair in self.pairs], fractions, seed)
        train, dev, test = [
            self._select(sorted(indices), f"{self.name}/{part}", f"{part} split {fractions}, seed {seed}")
            for part, indices in zip(("train", "dev", "test"), chosen, strict=True)
        ]
        return train, dev, test

    def balanced(self, seed: int = 0) -> ContrastDataset:
        """As many pairs matching (A) as matching (B): the surplus of the larger class is dropped at random.

        Pairs with any other answer stay.

        Raises:
            ValueError: there is no pair matching (A), or none matching (B).
        """
        by_letter = {letter: [i for i, pair in enumerate(self.pairs) if pair.letter == letter] for letter in "AB"}
        for letter, indices in by_letter.items():
            if not indices:
                raise ValueError(f"{self.name!r} cannot be balanced: no pair has ({letter}) as its matching answer")
        larger = max(by_letter.values(), key=len)
        surplus = abs(len(by_letter["A"]) - len(by_letter["B"]))
        dropped = set(random.Random(seed).sample(larger, surplus))
        return self._select([i for i in range(len(self)) if i not in dropped], self.name, f"balanced, seed {seed}")

    def to_json(self, path: str | Path) -> None:
        """Write the pairs in the CAA schema, under another name first, so that `path` is never half a file."""
        rows = [dict(zip(_SCHEMA, (p.prompt, p.positive, p.negative), strict=True)) for p in self.pairs]
        text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
        write_whole(Path(path), lambda to: to.write_text(text, encoding="utf-8"))

    def _select(self, indices: Iterable[int], name: str, what: str) -> ContrastDataset:
        pairs = tuple(self.pairs[index] for index in indices)
        n_other = sum({pair.positive, pair.negative} != {"(A)", "(B)"} for pair in pairs)
        return ContrastDataset(name, pairs, f"{self.origin}, {what}", _report(pairs, len(pairs), n_other, 0))


Pairs = ContrastDataset | Sequence[ContrastPair | tuple[str, str, str]]


def as_dataset(pairs: Pairs, name: str = "custom") -> ContrastDataset:
    """A dataset as it is, and a list of pairs or triples as one of this name; a string is refused with a TypeError."""
    if isinstance(pairs, ContrastDataset):
        return pairs
    if isinstance(pairs, str):
        raise TypeError(
            f"pairs is the string {pairs[:60]!r}: load them first, with load_contrast_pairs({pairs[:60]!r})"
        )
    if not len(pairs):
        raise ValueError("no contrast pairs were given: at least one is needed")
    return ContrastDataset.from_pairs(pairs, name, allow_empty_prompt=True)


def check_apart(sets: Mapping[str, Iterable[ContrastPair]]) -> None:
    """Refuse sets, by name, of which two share a question: a result on items that chose the vector is too good.

    Raises:
        ValueError: With the first two that do, and one such question.
    """
    for (one, pairs), (other, more) in combinations(sets.items(), 2):
        if both := ({pair.prompt for pair in pairs} & {pair.prompt for pair in more}) - {""}:
            raise ValueError(
                f"{one} and {other} share {len(both)} questions, such as {min(both)[:60]!r}: give sets apart, for "
                "example pairs.split(seed=0)"
            )


def load_contrast_pairs(
    source: str | Path, part: Part = "generate", *, other_answers: OtherAnswers = "error"
) -> ContrastDataset:
    """Load contrast pairs: a bundled behaviour by name, or a .json, .jsonl or .csv file in the CAA schema.

    The schema has `question`, `answer_matching_behavior` and `answer_not_matching_behavior`. Spaces around answers are
    removed. A file called generate*.json or test_*.json is named after its folder, any other after itself.

    Args:
        source: a name from `behaviors()`, or a path, e.g. `<caa>/datasets/generate/sycophancy/generate_dataset.json`.
        part: which file of a bundled behaviour; ignored for paths.
        other_answers: what to do with items whose answers are not (A) and (B): raise, keep, or drop them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown name, a file that cannot be read, or items that are not as they should be: one error
            with the number of problems and the first few of them.
    """
    _check_choice("part", part, ("generate", "test_ab"))
    path, bundled = _find(source, f"{part}.json")
    rows = read_records(path)
    origin = f"bundled with caa_lens: {path.parent.name}/{path.name}" if bundled else str(path)
    return _build(rows, _SCHEMA, _dataset_name(path), str(path), origin, other_answers, False)


def load_questions(source: str | Path) -> tuple[str, ...]:
    """Load open-ended questions: a bundled behaviour by name, or a file of `{"question": ...}` items.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `load_contrast_pairs`.
    """
    path, _ = _find(source, "test_open_ended.json")
    rows = read_records(path)
    problems = Problems(str(path), len(rows))
    for index, row in enumerate(rows):
        check_record(problems, index, row, ("question",))
    problems.raise_if_any()
    return tuple(row["question"] for row in rows)


def behaviors() -> tuple[str, ...]:
    """Names of the bundled behaviours, sorted."""
    return tuple(sorted(file.parent.name for file in (data_dir() / "behaviors").glob("*/generate.json")))


def _find(source: str | Path, file_name: str) -> tuple[Path, bool]:
    """The file that `source` means, and whether it is a bundled one."""
    path = Path(source)
    if isinstance(source, Path) or path.suffix or len(path.parts) > 1:
        return path, False
    known = behaviors()
    if source in known:
        return data_dir() / "behaviors" / source / file_name, True
    if path.exists():
        return path, False
    close = difflib.get_close_matches(source, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"{source!r} is not a bundled behaviour (these are: {', '.join(known) or 'none'}); {hint}a path to a .json, "
        ".jsonl or .csv file is also allowed"
    )


def _dataset_name(path: Path) -> str:
    in_folder = path.stem in ("generate", "generate_dataset") or path.stem.startswith("test_")
    return path.resolve().parent.name if in_folder else path.stem


def _as_row(pair: Any, names: Sequence[str]) -> Any:
    if isinstance(pair, ContrastPair):
        pair = (pair.prompt, pair.positive, pair.negative)
    values = cast("Sequence[Any]", pair)
    is_triple = isinstance(pair, tuple | list) and len(values) == len(names)
    return dict(zip(names, values, strict=True)) if is_triple else values


def _strip_letters(answer: str) -> str:
    """The published files have `" (A)"`; other answers are text, whose first space the `plain` format needs."""
    return answer.strip() if _LETTER.fullmatch(answer) else answer


def _build(
    rows: Sequence[Any],
    names: tuple[str, str, str],
    name: str,
    where: str,
    origin: str,
    other_answers: OtherAnswers,
    allow_empty_prompt: bool,
) -> ContrastDataset:
    """Check every row, then make the dataset; all problems are raised at once."""
    _check_choice("other_answers", other_answers, ("error", "keep", "drop"))
    problems = Problems(where, len(rows))
    pairs: list[ContrastPair] = []
    n_other = n_stripped = 0
    for index, row in enumerate(rows):
        if not check_record(problems, index, row, names, may_be_empty=names[:1] if allow_empty_prompt else ()):
            continue
        prompt, *answers = (cast("str", row[field]) for field in names)
        positive, negative = (_strip_letters(answer) for answer in answers)
        if positive == negative:
            problems.add(index, names[2], f"got {negative!r}, the same as {names[1]}")
            continue
        n_stripped += (positive != answers[0]) + (negative != answers[1])
        other = [field for field, a in zip(names[1:], (positive, negative), strict=True) if a not in ("(A)", "(B)")]
        n_other += bool(other)
        if other and other_answers == "error":
            for field in other:
                problems.add_choice(index, field, f"got {row[field]!r}, allowed (A) or (B)")
        if not other or other_answers == "keep":
            pairs.append(ContrastPair(prompt, positive, negative))
    problems.raise_if_any(advice="pass other_answers='drop' or 'keep'")
    if not pairs:
        raise ValueError(f"{where}: no pairs are left: all {len(rows)} have answers outside (A) and (B)")
    report = _report(tuple(pairs), len(rows), n_other, n_stripped)
    return ContrastDataset(name, tuple(pairs), origin, report)


def _report(pairs: Sequence[ContrastPair], n_read: int, n_other: int, n_stripped: int) -> LoadReport:
    return LoadReport(n_read, len(pairs), n_other, n_stripped, len(pairs) - len(set(pairs)), _letters(pairs))


def _letters(pairs: Iterable[ContrastPair]) -> dict[str, int]:
    return dict(sorted(Counter(pair.letter or "other" for pair in pairs).items()))


def _share_out(
    groups: list[list[int]], letters: Sequence[str], fractions: Sequence[float], seed: int
) -> list[list[int]]:
    """Deal groups of indices into parts, letter by letter, each to the part that lacks most; no part stays empty."""
    generator = random.Random(seed)
    generator.shuffle(groups)
    groups.sort(key=lambda group: sorted(letters[index] for index in group))
    parts: list[list[list[int]]] = [[] for _ in fractions]
    sizes = [0] * len(parts)
    for group in groups:
        total = sum(sizes) + len(group)
        neediest = max(range(len(parts)), key=lambda part: fractions[part] * total - sizes[part])
        parts[neediest].append(group)
        sizes[neediest] += len(group)
    for part in parts:
        if not part:
            part.append(max(parts, key=len).pop())
    return [[index for group in part for index in group] for part in parts]


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
