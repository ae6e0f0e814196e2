"""Where the bundled data is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from caa_lens.files import bundled


def test_without_bundled_data_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bundled, "__file__", str(tmp_path / "package" / "files" / "bundled.py"))
    with pytest.raises(FileNotFoundError, match="caa_lens has no bundled data"):
        bundled.data_dir()
    (tmp_path / "data").mkdir()
    assert bundled.data_dir() == tmp_path / "data"
    (tmp_path / "package" / "_data").mkdir(parents=True)
    assert bundled.data_dir() == tmp_path / "package" / "_data"
