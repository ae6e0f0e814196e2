"""What a user gets: the wheel carries the data, and works where no checkout is. Also the pinned versions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import caa_lens as caa

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9A-Za-z.]*)")


def run(*command, cwd):
    """Runs a command as a user would, without this process's Python settings; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["COLUMNS"] = "200"
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def data_files():
    return {path.relative_to(DATA).as_posix(): path for path in DATA.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel made from it: so the sdist is complete enough to build."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment with the wheel in it; everything else comes from the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=ROOT,
    )
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file brings packages, but not the .pth files there: the editable install stays out of sight.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return folder


def test_the_wheel_holds_every_data_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert data_files(), "there is no bundled data"
        for name, path in data_files().items():
            assert archive.read(f"caa_lens/_data/{name}") == path.read_bytes()
    assert {name.split("/")[0] for name in names} == {"caa_lens", f"caa_lens-{caa.__version__}.dist-info"}
    assert "caa_lens/py.typed" in names
    ours = [path for path in (ROOT / "caa_lens").rglob("*.*") if path.suffix in (".py", ".html", ".js", ".md")]
    assert {path.relative_to(ROOT).as_posix() for path in ours} <= names


def test_the_source_archive_can_be_tested_and_read(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "constraints.txt", ".ci/run"):
        assert name in names
    for name in (".pre-commit-config.yaml", "tests/conftest.py", "docs/folders.py", "docs/architecture.svg"):
        assert name in names
    assert {f"data/{name}" for name in data_files()} <= names


def test_the_installed_package_is_the_one_from_the_wheel(installed, tmp_path):
    where = run(installed / "bin" / "python", "-c", "import caa_lens; print(caa_lens.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed)


def test_the_installed_command_finds_its_data(installed, tmp_path):
    listed = run(installed / "bin" / "caa-lens", "behaviors", cwd=tmp_path)
    names = [path.name for path in (DATA / "behaviors").iterdir() if path.is_dir()]
    assert names
    for name in names:
        assert name in listed


def test_the_installed_command_explains_itself(installed, tmp_path):
    assert "Usage" in run(installed / "bin" / "python", "-m", "caa_lens.cli.app", "--help", cwd=tmp_path)


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-tl3.txt"])
def test_every_dependency_is_pinned(name):
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pins = {}
    for line in lines:
        match = PIN.fullmatch(line)
        assert match, f"{name}: {line!r} is not name==version"
        pins[_normal(match[1])] = match[2]
    assert len(pins) == len(lines)
    extras = [text for extra in PROJECT["optional-dependencies"].values() for text in extra]
    wanted = [text for text in [*PROJECT["dependencies"], *extras] if not text.startswith("caa_lens[")]
    missing = [text for text in wanted if _normal(re.split(r"[\[<>=!~; ]", text)[0]) not in pins]
    assert missing == []
    assert pins["transformer-lens"].startswith("3.9." if "tl3" in name else "4.")


def test_the_two_environments_differ_in_transformer_lens_only():
    """So that a test that passes in one and fails in the other tells about TransformerLens."""
    old, new = (set((ROOT / name).read_text().splitlines()) for name in ("constraints-tl3.txt", "constraints.txt"))
    assert {line.split("==")[0] for line in old ^ new if not line.startswith("#")} == {"transformer-lens", "better-abc"}


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()
