"""The package as pip installs it: what is in it, and the command ``nucseg`` from another folder. Needs no network."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from nucseg_ray import __version__
from nucseg_ray.commands import COMMANDS
from nucseg_ray.model.bundle import FORMS, MODEL_JSON, WEIGHTS, read_bundle
from nucseg_ray.model.pretrained import FOLDER

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("nucseg_ray", "jobs", "tests", "benchmarks", "pyproject.toml", "README.md", "LICENSE")
SHIPPED = ("MODEL_CARD.md", "worst_01.jpg", MODEL_JSON, WEIGHTS, *(name for names in FORMS.values() for name in names))
HEAVY = ("ray", "tensorflow", "openvino", "numpy", "pydantic")
PIP = ("-m", "pip", "--disable-pip-version-check", "--isolated")
OFFLINE = ("--no-deps", "--no-index", "--quiet")


def _run(*call: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, call)),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds of this tree."""
    found = importlib.metadata.version("setuptools")
    if int(found.split(".")[0]) < 77:
        pytest.skip(f"building needs setuptools >= 77, as pyproject.toml says; found {found}")
    # A copy: building leaves folders behind.
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    (tree / "demo" / "images").mkdir(parents=True)
    (tree / "demo" / "images" / "a.png").write_bytes(b"")
    built = tmp_path_factory.mktemp("dist")
    ended = _run(sys.executable, *PIP, "wheel", *OFFLINE, "--no-build-isolation", "-w", built, tree, cwd=built)
    assert ended.returncode == 0, ended.stderr
    (wheel,) = built.iterdir()
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel, and this interpreter's packages below it."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    ended = _run(sys.executable, *PIP, "--python", python, "install", *OFFLINE, wheel, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    # Afterwards, since pip would find this package's own editable installation among them. A path in a .pth file is
    # only looked in for modules: the .pth files that lie there do not count.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "below.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin"


def _nucseg(installed: Path, *flags: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return _run(installed / "nucseg", *flags, cwd=cwd, PYTHONPATH="", COLUMNS="100")


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry,) = (name for name in names if name.endswith("entry_points.txt"))
        entries = archive.read(entry).decode()
    information = f"nucseg_ray-{__version__}.dist-info/"
    assert wheel.name == f"nucseg_ray-{__version__}-py3-none-any.whl"
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "nucseg_ray").rglob("*") if path.is_file()}
    expected = {name for name in files if "__pycache__" not in name}
    assert {name for name in names if not name.startswith(information)} == expected
    assert {"nucseg_ray/py.typed", "nucseg_ray/commands.py", "nucseg_ray/imaging/__init__.py"} <= expected
    assert {f"nucseg_ray/pretrained/{name}" for name in SHIPPED} <= expected
    assert f"{information}licenses/LICENSE" in names
    assert entries.split("\n")[:2] == ["[console_scripts]", "nucseg = nucseg_ray.commands:main"]


def test_the_installed_package_finds_its_model(installed: Path, tmp_path: Path) -> None:
    code = (
        "from nucseg_ray import Segmenter\nfrom nucseg_ray.model.pretrained import pretrained_folder\n"
        "print(pretrained_folder(), Segmenter.load().bundle.fingerprint)\n"
    )
    ended = _run(installed / "python", "-c", code, cwd=tmp_path, PYTHONPATH="")
    assert (ended.returncode, ended.stderr) == (0, "")
    (site,) = installed.parent.glob("lib/python*/site-packages")
    assert ended.stdout == f"{site}/nucseg_ray/pretrained {read_bundle(FOLDER).fingerprint}\n"


def test_the_command_lists_its_commands(installed: Path, tmp_path: Path) -> None:
    for flags in ([], ["--help"]):
        ended = _nucseg(installed, *flags, cwd=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert [line.split()[0] for line in ended.stdout.splitlines() if line.startswith("  ")] == list(COMMANDS)


def test_the_command_tells_its_version(installed: Path, tmp_path: Path) -> None:
    ended = _nucseg(installed, "--version", cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"nucseg {__version__}\n", "")
    version = "import importlib.metadata as m; print(m.version('nucseg_ray'))"
    assert _run(installed / "python", "-c", version, cwd=tmp_path, PYTHONPATH="").stdout == f"{__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help(installed: Path, tmp_path: Path, name: str) -> None:
    ended = _nucseg(installed, name, "--help", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"usage: nucseg {name} --")
    assert "\n  --config FILE" in ended.stdout


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["trian"], "error: 'trian' is not a command of nucseg; did you mean train?\n"),
        (["train", "--epoch", "3"], "error: '--epoch' is not a flag of this command; did you mean --epochs?\n"),
        (["pack", "--config", "none.yaml"], "error: --config: {cwd}/none.yaml: expected a file, found none."),
        (
            ["synthesize", "--config", "run.yaml"],
            "error: run.yaml, line 2: wells: expected 24, 96, 384 or 1536, found 25\n",
        ),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(installed: Path, tmp_path: Path, flags: list[str], told: str) -> None:
    (tmp_path / "run.yaml").write_text("output: o\nwells: 25\n", encoding="utf-8")
    ended = _nucseg(installed, *flags, cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith(told.format(cwd=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.yaml"]


def test_importing_the_package_loads_nothing_heavy(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys, nucseg_ray\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], nucseg_ray.__file__)\n"
        "print('Segmenter' in dir(nucseg_ray), hasattr(nucseg_ray, 'Segmentor'))\n"
        "from nucseg_ray import Segmenter\n"
        "print(Segmenter.__module__, callable(Segmenter.load), 'ray' in sys.modules)\n"
    )
    ended = _run(installed / "python", "-c", code, cwd=tmp_path, PYTHONPATH="")
    assert (ended.returncode, ended.stderr) == (0, "")
    (site,) = installed.parent.glob("lib/python*/site-packages")
    assert ended.stdout.splitlines() == [
        f"[] {site}/nucseg_ray/__init__.py",
        "True False",
        "nucseg_ray.model.segmenter True False",
    ]
