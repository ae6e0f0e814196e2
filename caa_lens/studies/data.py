"""The items of a study: which pairs make the vectors, which choose the layer, and which are kept for the report.

Vectors and layer come from the generate set alone, split by a seed, unless dev items are given as a file. (They should
be where the pairs are not questions like the test items.) The test items are a file of their own where there is one;
otherwise a part of the same split, which neither extraction nor the choice of the layer sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from caa_lens.datasets.contrast import ContrastDataset, behaviors, load_contrast_pairs, load_questions
from caa_lens.files.messages import brief
from caa_lens.studies.settings import StudySettings

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class BehaviorData:
    """One behaviour's items.

    Attributes:
        train: Pairs that the vector is made from.
        dev: Pairs that the layer is chosen on.
        test: Items that are reported on.
        questions: Shown to the steered model: open-ended ones, or prompts of test items where there are none.
    """

    train: ContrastDataset
    dev: ContrastDataset
    test: ContrastDataset
    questions: tuple[str, ...]

    @property
    def hash(self) -> str:
        """Changes when any item does."""
        import hashlib

        parts = [self.train.hash, self.dev.hash, self.test.hash, *self.questions]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_study_data(settings: StudySettings) -> dict[str, BehaviorData]:
    """Load and split every behaviour of the settings, by the behaviour's name.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: Items that are not as they should be, two behaviours of one name, or dev or test items for a
            behaviour that is not in the study.
    """
    found: dict[str, BehaviorData] = {}
    for source in settings.behaviors:
        pairs = load_contrast_pairs(_file(source, "generate"), other_answers=settings.other_answers)
        if pairs.name in found:
            raise ValueError(f"two behaviours are called {pairs.name!r}: rename one of the files")
        found[pairs.name] = _behavior(source, pairs, settings)
    for part, given in (("dev", settings.dev), ("test", settings.test)):
        if unknown := sorted(set(given) - set(found)):
            there = ", ".join(found)
            raise ValueError(f"{part}: there is no behaviour {brief(unknown[0])} in this study (there are: {there})")
    return found


def describe(data: Mapping[str, BehaviorData]) -> pd.DataFrame:
    """One row a behaviour: ``behavior``, ``n_train``, ``n_dev``, ``n_test``, ``test_letters``, ``seen``.

    ``seen`` counts test prompts that are also among the pairs or dev items, which makes a test result too good.
    """
    import pandas as pd

    rows: list[dict[str, object]] = []
    for name, items in data.items():
        known = {pair.prompt for part in (items.train, items.dev) for pair in part}
        rows.append(
            {
                "behavior": name,
                "n_train": len(items.train),
                "n_dev": len(items.dev),
                "n_test": len(items.test),
                "test_letters": ", ".join(f"{letter} {n}" for letter, n in items.test.letter_balance().items()),
                "seen": sum(pair.prompt in known for pair in items.test),
            }
        )
    return pd.DataFrame(rows)


def _behavior(source: str, pairs: ContrastDataset, settings: StudySettings) -> BehaviorData:
    if settings.max_pairs is not None:
        pairs = pairs[: settings.max_pairs]
    dev = _given(settings.dev.get(pairs.name), settings)
    test = _given(settings.test.get(pairs.name) or _bundled_test(source), settings)
    share = settings.dev_fraction
    train = pairs
    if dev is None and test is None:
        train, dev, test = pairs.split(settings.seed, (1 - 2 * share, share, share))
    elif dev is None or test is None:
        train, first, second = pairs.split(settings.seed, (1 - share, share / 2, share / 2))
        held = _joined(first, second, f"{pairs.origin}, {share:g} held out, seed {settings.seed}")
        dev, test = dev or held, test or held
    for part, items in (("train", train), ("dev", dev), ("test", test)):
        if not len(items):
            raise ValueError(f"{pairs.name}: {len(pairs)} pairs leave none for the {part} part: give more pairs")
    return BehaviorData(train, dev, test, _questions(source, test, settings.n_questions))


def _joined(first: ContrastDataset, second: ContrastDataset, origin: str) -> ContrastDataset:
    pairs = ContrastDataset.from_pairs([*first, *second], first.name, allow_empty_prompt=True)
    return replace(pairs, origin=origin)


def _given(file: str | None, settings: StudySettings) -> ContrastDataset | None:
    return load_contrast_pairs(file, "test_ab", other_answers=settings.other_answers) if file is not None else None


def _bundled_test(source: str) -> str | None:
    """The behaviour's own test items, where it has a file of them."""
    file = _file(source, "test_ab")
    return file if source in behaviors() or (Path(source).is_dir() and Path(file).is_file()) else None


def _questions(source: str, test: ContrastDataset, n: int) -> tuple[str, ...]:
    file = _file(source, "test_open_ended")
    if source in behaviors() or (Path(source).is_dir() and Path(file).is_file()):
        return load_questions(file)[:n]
    return tuple(dict.fromkeys(pair.prompt for pair in test if pair.prompt))[:n]


def _file(source: str, part: str) -> str:
    """The file of a behaviour's folder; the source itself where it is a bundled name or a file."""
    if source not in behaviors() and Path(source).is_dir():
        return str(Path(source) / f"{part}.json")
    return source
