"""Running text that has nothing to do with a behaviour: what steering should leave alone is measured on it."""

from __future__ import annotations

from pathlib import Path

from caa_lens.datasets.records import Problems, check_record, read_records
from caa_lens.files.bundled import data_dir
from caa_lens.files.messages import brief


def load_texts(source: str | Path) -> list[str]:
    """Running texts: bundled ones by name, the lines of a .txt, or the field ``text`` of a .json or .jsonl.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: For an unknown name, or a file without texts.
    """
    path = Path(source)
    if not path.suffix and len(path.parts) == 1:
        path = data_dir() / "texts" / f"{source}.json"
        if not path.is_file():
            known = sorted(file.stem for file in path.parent.glob("*.json"))
            raise ValueError(f"there are no bundled texts {brief(source)}: give one of {', '.join(known)}, or a file")
    if path.suffix == ".txt":
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        texts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not texts:
            raise ValueError(f"{path} holds no texts")
        return texts
    rows = read_records(path)
    problems = Problems(str(path), len(rows))
    for index, row in enumerate(rows):
        check_record(problems, index, row, ("text",))
    problems.raise_if_any()
    return [row["text"] for row in rows]
