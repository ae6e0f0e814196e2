"""Where the bundled behaviours, texts, studies and models lie: in the wheel, or in a checkout."""

from __future__ import annotations

from pathlib import Path


def data_dir() -> Path:
    """The folder of the bundled data: inside the package when installed, beside it in a checkout.

    Raises:
        FileNotFoundError: there is neither.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "_data", package.parent / "data"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"caa_lens has no bundled data beside {package}: reinstall it")
