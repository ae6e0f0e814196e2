"""Retrain the bundled models, remake their datasets, or measure them: ``python -m caa_lens.organism --help``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

LOGGER = logging.getLogger("caa_lens.organism")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands ``train``, ``data`` and ``evaluate``.

    Args:
        arguments: The command line, without the program; the process's own by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m caa_lens.organism", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train both models on one CPU thread")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--out", type=Path, required=True, help="directory for organism-base and organism-chat")
    train.add_argument("--base-steps", type=int, help="optimizer steps of the base model")
    train.add_argument("--chat-steps", type=int, help="optimizer steps of the chat model")
    data = commands.add_parser("data", help="write the datasets")
    data.add_argument("--out", type=Path, required=True, help="the behaviours' folder, such as data/behaviors")
    data.add_argument("--seed", type=int, default=0)
    measure = commands.add_parser("evaluate", help="measure both models on held-out items")
    measure.add_argument("--models", type=Path, default=Path("data/models"))
    measure.add_argument("--json", type=Path, help="also write every figure to this file")
    measure.add_argument("--fast", action="store_true", help="two-choice figures and facts alone")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if options.command == "data":
        from caa_lens.organism.datasets import write_datasets

        for path in write_datasets(options.out, options.seed):
            sys.stdout.write(f"{path}\n")
    elif options.command == "train":
        from caa_lens.organism.training import TrainingConfig, train_pair

        config = TrainingConfig(seed=options.seed)
        steps = {"base_steps": options.base_steps, "chat_steps": options.chat_steps}
        train_pair(options.out, replace(config, **{key: value for key, value in steps.items() if value is not None}))
    else:
        from caa_lens.organism.evaluation import evaluate
        from caa_lens.organism.report import as_markdown

        report = evaluate(options.models, options.fast)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(as_markdown(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
