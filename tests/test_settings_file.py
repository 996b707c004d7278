"""Settings in a YAML file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nucseg_ray.cli import parse
from nucseg_ray.config import TrainSettings
from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.errors import InputError, NucsegError, UsageError
from nucseg_ray.settings_file import read_settings_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# only a comment\n", {}),
        ("plate: 007\nwells: 24", {"plate": "007", "wells": "24"}),
        ("rate: 2e-3\nlate: 2024-13-45\nflag: off", {"rate": "2e-3", "late": "2024-13-45", "flag": "off"}),
        ("a: null\nb: ~\nc:\nd: 'null'\ne: none\nf: ''", {**dict.fromkeys("abc"), "d": "null", "e": "none", "f": ""}),
        ("shape-px: [33, 44]\nnuclei:\n- 1\n- 2", {"shape_px": ["33", "44"], "nuclei": ["1", "2"]}),
        ("a: &x b\nc: *x", {"a": "b", "c": "b"}),
        ("{a: 1, b-c: two words}", {"a": "1", "b_c": "two words"}),
        ("\ufeffa: ü", {"a": "ü"}),
    ],
)
def test_values_are_the_text_that_was_written(text: str, values: dict[str, object], file: Path) -> None:
    file.write_text(text, encoding="utf-8")
    assert read_settings_file(str(file)).values == values


def test_settings_read_that_text_as_they_read_flags(file: Path) -> None:
    file.write_text("output: 1\nplate: 007\nwells: 24\nbit-depth: 8\nshape-px: [33, 44]\nradius_px: [4, 5e0]", "utf-8")
    assert parse(SynthesizeSettings, ["--config", str(file)], prog="job") == SynthesizeSettings(
        output="1", plate="007", wells=24, bit_depth=8, shape_px=(33, 44), radius_px=(4.0, 5.0)
    )
    file.write_text("input: i\noutput: o\nmodel: m\nz: 2\nmax_failed: 3\nchannel: 01\nmasks: none", "utf-8")
    assert parse(PredictSettings, ["--config", str(file)], prog="job") == PredictSettings(
        input="i", output="o", model="m", z="2", max_failed="3", channel="01", masks="none"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- epochs: 3", ": expected lines of `key: value`, found a list"),
        (b"epochs", ": expected lines of `key: value`, found 'epochs'"),
        (b"epochs = 3", ": expected lines of `key: value`, found 'epochs = 3'"),
        (b"a: 1\nb: [1, 2", ": expected YAML in UTF-8; line 2: expected ',' or ']'"),
        (b"a: 1\n\tb: 2", ": expected YAML in UTF-8; line 2: found character '\\\\t'"),
        (b"a: 1\n---\nb: 2", ": expected YAML in UTF-8; line 2: but found another document"),
        (b"a: \xff", ": expected YAML in UTF-8; unacceptable character #x00ff: invalid start byte$"),
        (b"\x89PNG\r\n\x1a\n", ": expected YAML in UTF-8; "),
        (b"a: 1\nb: 2\na: 3", ", line 3: a was given before, in line 1"),
        (b"crop_px: 64\ncrop-px: 96", ", line 2: crop-px was given before, in line 1"),
        (b"? [a]\n: 1", ", line 1: expected `key: value`, found a list as the key"),
        (b"data: {folder: d}", ", line 1: data: expected a value or a list of values, found a mapping"),
        (b"data: !!python/name:os.system ''", ", line 1: data: expected .*, found the tag tag:.*python/name:os.system"),
        (b"data: !!python/object/apply:os.system [ls]", ", line 1: data: expected .*, found the tag tag:.*os.system"),
        (b"data: !home d", ", line 1: data: expected a value or a list of values, found the tag !home"),
        (b"a: &a [*a]", ", line 1: a: expected a value or a list of values, found a list"),
        (b"shape-px: [[1, 2]]", ", line 1: shape-px: expected a value or a list of values, found a list"),
    ],
)
def test_what_is_no_settings_file_is_told(content: bytes, message: str, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(UsageError, match="^" + re.escape(str(file)) + message):
        read_settings_file(str(file))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^--config: {re.escape(str(tmp_path))}: expected a file, found a folder"):
        read_settings_file(str(tmp_path))
    with pytest.raises(NucsegError, match=r"^--config: .*s4://.*no filesystem is known"):
        read_settings_file("s4://bucket/run.yaml")


def test_a_file_may_lie_in_a_bucket(bucket: str) -> None:
    import fsspec

    with fsspec.open(f"{bucket}/run.yaml", "w") as remote:
        remote.write(f"data: {bucket}/set\noutput: {bucket}/out\nepochs: 3\n")
    settings = parse(TrainSettings, ["--config", f"{bucket}/run.yaml", "--epochs", "4"], prog="train.py")
    assert settings == TrainSettings(data=f"{bucket}/set", output=f"{bucket}/out", epochs=4)
