"""One study under way: its settings, its folder, its data, and stages that show a bar and note their seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from caa_lens.studies import folder as run_folder
from caa_lens.studies.data import BehaviorData
from caa_lens.studies.settings import StudySettings

DESCRIBED = 38
"""Width of a progress bar's description: a stage and a behaviour."""


@dataclass(frozen=True, slots=True)
class Run:
    """What every stage needs to know."""

    settings: StudySettings
    path: Path
    data: Mapping[str, BehaviorData]
    progress: bool


def stage(run: Run, name: str, parts: Iterable[str], *files: Path) -> Iterator[str]:
    """Go through a stage's parts with a progress bar, and note its seconds; neither where its files are there."""
    done = bool(files) and all(file.is_file() for file in files)
    with run_folder.timed(run.path, name, done):
        yield from shown(name, parts, progress=run.progress and not done)


def shown(name: str, parts: Iterable[str], *, progress: bool) -> Iterator[str]:
    """Go through a stage's parts with a progress bar."""
    names = list(parts)
    look = "{desc} {percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} [{elapsed}]"
    with tqdm(total=len(names), desc=name.ljust(DESCRIBED), disable=not progress, bar_format=look) as bar:
        for part in names:
            bar.set_description_str(f"{name} {part}"[:DESCRIBED].ljust(DESCRIBED))
            yield part
            bar.update()
        bar.set_description_str(name.ljust(DESCRIBED))
