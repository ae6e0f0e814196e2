"""Names of the package come when they are asked for, and every one of them is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import caa_lens as caa


def test_every_public_name_is_there() -> None:
    for name in caa.__all__:
        assert getattr(caa, name).__name__ == name
    assert set(caa.__all__) <= set(dir(caa))
    assert caa.analysis.cosine and caa.viz.__doc__


def test_an_unknown_name_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'steering_vector'; it has ContrastDataset"):
        _ = caa.steering_vector


def test_importing_waits_for_no_heavy_package() -> None:
    program = "import sys, caa_lens; print(sorted({'torch', 'transformer_lens', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
