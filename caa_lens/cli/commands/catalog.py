"""`caa-lens behaviors` and `caa-lens models`: what comes with the package."""

from __future__ import annotations

import json
from typing import Any

from caa_lens.cli import options
from caa_lens.cli.output import show_json, show_table


def behaviors(
    *,
    as_json: options.Json = False,
) -> None:
    """List the bundled behaviours, with their numbers of items and their matching letters.

    For example:

        caa-lens behaviors

        caa-lens behaviors --json
    """
    from caa_lens.datasets.contrast import behaviors as names
    from caa_lens.datasets.contrast import load_contrast_pairs, load_questions

    records: list[dict[str, Any]] = []
    for name in names():
        pairs, test = load_contrast_pairs(name), load_contrast_pairs(name, "test_ab")
        sizes = {"generate": len(pairs), "test_ab": len(test), "test_open_ended": len(load_questions(name))}
        letters = {"letters_generate": pairs.letter_balance(), "letters_test": test.letter_balance()}
        records.append({"behavior": name, **sizes, **letters})
    if as_json:
        show_json(records)
        return
    header = ["behaviour", "pairs", "test items", "open questions", "letters of pairs", "letters of test"]
    rows = [[_cell(value) for value in record.values()] for record in records]
    show_table(header, rows, numbers=header[1:4])


def models(
    *,
    as_json: options.Json = False,
) -> None:
    """List the bundled models.

    For example:

        caa-lens models
    """
    from caa_lens.files.bundled import data_dir

    records: list[dict[str, Any]] = []
    for file in sorted((data_dir() / "models").glob("*/config.json")):
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        size = sum(part.stat().st_size for part in file.parent.iterdir() if part.is_file())
        records.append(
            {
                "model": file.parent.name,
                "architecture": str(config.get("model_type", "unknown")),
                "n_layers": config.get("num_hidden_layers"),
                "d_model": config.get("hidden_size"),
                "n_ctx": config.get("max_position_embeddings"),
                "d_vocab": config.get("vocab_size"),
                "megabytes": round(size / 1e6, 1),
            }
        )
    if as_json:
        show_json(records)
        return
    header = ["model", "architecture", "layers", "d_model", "context", "vocabulary", "MB"]
    show_table(header, [[_cell(value) for value in record.values()] for record in records], numbers=header[2:])


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{letter} {n}" for letter, n in value.items())
    return str(value)
