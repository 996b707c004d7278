"""The settings of every run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import example, given
from hypothesis import settings as run_with
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from nucseg_ray.cli import parse
from nucseg_ray.config import EvaluateSettings, ExportSettings, PackSettings, Settings, TrainSettings, as_diameter
from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.errors import UsageError
from nucseg_ray.flags import described
from nucseg_ray.settings_file import as_settings_file

NEEDED: dict[type[Settings], dict[str, str]] = {
    TrainSettings: {"data": "d", "output": "o"},
    PredictSettings: {"input": "i", "output": "o"},
    EvaluateSettings: {"output": "o"},
    SynthesizeSettings: {"output": "o"},
    PackSettings: {"data": "d", "output": "o"},
    ExportSettings: {"output": "o"},
}


@pytest.mark.parametrize("settings_class", NEEDED)
def test_settings_are_frozen_and_complete(settings_class: type[Settings]) -> None:
    settings = settings_class(**NEEDED[settings_class])
    assert settings_class(**settings.model_dump()) == settings
    assert settings_class.model_validate_json(settings.model_dump_json()) == settings
    with pytest.raises(ValidationError, match="frozen"):
        settings.output = "other"  # type: ignore[attr-defined]
    with pytest.raises(ValidationError, match="colour"):
        settings_class(**NEEDED[settings_class], colour="red")
    assert {name for name, field in settings_class.model_fields.items() if field.is_required()} == set(
        NEEDED[settings_class]
    )


@pytest.mark.parametrize("settings_class", NEEDED)
def test_every_setting_is_explained(settings_class: type[Settings]) -> None:
    assert [name for name, field in settings_class.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("settings_class", "name", "right", "wrong"),
    [
        (TrainSettings, "epochs", [1, 50], [0, -1, 1.5, "many"]),
        (TrainSettings, "crop_px", [64, 96, 256], [32, 65, 100]),
        (TrainSettings, "validation_fraction", [0.01, 0.99], [0, 1, -0.2]),
        (TrainSettings, "fold", [None, 0, 3], [-1]),
        (TrainSettings, "learning_rate", [1e-5], [0, -1, float("inf"), float("nan")]),
        (TrainSettings, "maps", ["centres", "foreground"], ["nucleus", ""]),
        (TrainSettings, "normalisation", ["percentile", "full-range"], ["full_range"]),
        (TrainSettings, "max_restarts", [0, 5], [-1]),
        (TrainSettings, "use_gpu", [True, False], ["perhaps"]),
        (PredictSettings, "max_failed", ["0", "12", "5%", "0.5%"], ["-1", "5 %", "%", "1.5", "all", "5%%", ""]),
        (
            PredictSettings,
            "z",
            [None, "max", "mean", "best-focus", "projection", "0", "12"],
            ["min", "-1", "1.5", "best focus", ""],
        ),
        (PredictSettings, "pixel_size_um", [None, 0.65, 2], [0, -1, "0.65um", "inf", "auto", ""]),
        (PredictSettings, "min_area_px", [None, 0, 40], [-1, 1.5, "auto"]),
        (PredictSettings, "drop_border", [True, False], ["perhaps"]),
        (PredictSettings, "nucleus_diameter_um", [None, 10, 7.5], [0, -1, "10um", "inf", "auto"]),
        (PredictSettings, "masks", ["png", "parquet", "both", "none"], ["tif"]),
        (PredictSettings, "tile_px", [64, 1024], [32, 1000]),
        (PredictSettings, "overlap_px", [0, 128], [-1]),
        (PredictSettings, "nucleus_diameter_px", ["auto", "24", "12.5"], ["0", "-3", "nan", "inf", "Auto", "", "3 px"]),
        (EvaluateSettings, "nucleus_diameter_px", ["auto", "24"], ["0", "all", "10um"]),
        (EvaluateSettings, "fold", [None, 0], [-1]),
        (SynthesizeSettings, "nuclei", [(0, 0), (3, 9)], [(9, 3), (-1, 3), (1, 2, 3)]),
        (SynthesizeSettings, "empty_wells", [0, 96], [-1, 97]),
        (SynthesizeSettings, "wells", [24, 384], [25, "25", "many", -24]),
        (TrainSettings, "folds", [None, 2, 5], [0, 1]),
        (ExportSettings, "to", ["savedmodel", "onnx", "both"], ["ONNX", "tflite"]),
        (PackSettings, "images_per_part", [1, 64], [0]),
    ],
)
def test_ranges(settings_class: type[Settings], name: str, right: list[object], wrong: list[object]) -> None:
    needed = NEEDED[settings_class]
    for value in right:
        assert getattr(settings_class(**needed, **{name: value}), name) == value
    for value in wrong:
        with pytest.raises(ValidationError):
            settings_class(**needed, **{name: value})


def test_one_diameter_is_one_text() -> None:
    """So that a rerun with 24.0 goes on with what was made with 24; and what is wrong is said with the flag."""
    assert PredictSettings(**NEEDED[PredictSettings], nucleus_diameter_px="24.0").nucleus_diameter_px == "24"
    assert (as_diameter("24"), as_diameter("auto")) == (24.0, None)
    with pytest.raises(UsageError, match="--nucleus-diameter-px.*expected auto, or a number of pixels above 0"):
        parse(EvaluateSettings, ["--output", "o", "--nucleus-diameter-px", "large"], prog="job")
    both = ["--nucleus-diameter-px", "24", "--nucleus-diameter-um", "10"]
    with pytest.raises(UsageError, match="^--nucleus-diameter-um: expected one diameter, but --nucleus-diameter-px"):
        parse(PredictSettings, ["--input", "i", "--output", "o", *both], prog="job")


TEXT = st.text(min_size=1)
PAIRS = {
    "nuclei": st.tuples(st.integers(0, 50), st.integers(50, 99)),
    "shape_px": st.tuples(st.integers(), st.integers()),
    "radius_px": st.tuples(st.floats(-9, 9), st.floats(allow_nan=False, allow_infinity=False)),
}
SPECIAL = PAIRS | {
    "crop_px": st.integers(2, 99).map(lambda n: 32 * n),
    "tile_px": st.integers(2, 99).map(lambda n: 32 * n),
    "max_failed": st.integers(0, 99).flatmap(lambda n: st.sampled_from([f"{n}", f"{n}%", f"{n}.5%"])),
    "nucleus_diameter_um": st.none(),
    "z": st.one_of(st.sampled_from([None, "max", "mean", "best-focus", "projection"]), st.integers(0, 99).map(str)),
    "empty_wells": st.integers(0, 24),
}


def values_of(name: str, field: FieldInfo) -> st.SearchStrategy[Any]:
    """Draw any value that fits a setting."""
    annotation: Any = field.annotation
    lowest = next((rule.ge for rule in field.metadata if hasattr(rule, "ge")), None)
    highest = next((rule.le for rule in field.metadata if hasattr(rule, "le")), None)
    if name in SPECIAL:
        return SPECIAL[name]
    if name == "nucleus_diameter_px" and annotation is str:
        return st.one_of(st.just("auto"), st.floats(0.1, 500).map("{:g}".format))
    if annotation is bool:
        return st.booleans()
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    drawn: st.SearchStrategy[Any] = TEXT
    if "int" in str(annotation):
        drawn = st.integers(lowest, highest)
    elif "float" in str(annotation):
        upper = 1.0 if name in ("validation_fraction", "encoder_rate") else highest
        drawn = st.floats(
            lowest or 0, upper, exclude_min=not lowest, exclude_max=upper is not None, allow_infinity=False
        )
    return drawn if type(None) not in get_args(annotation) else st.none() | drawn


@st.composite
def any_settings(draw: st.DrawFn) -> Settings:
    settings_class = draw(st.sampled_from(list(NEEDED)))
    return settings_class(**{name: draw(values_of(name, field)) for name, field in settings_class.model_fields.items()})


def parse_file(settings_class: type[Settings], text: str, flags: Sequence[str] = ()) -> Settings:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.yaml"
        # As bytes: what is printed must not depend on a system's line ends.
        file.write_bytes(text.encode())
        return parse(settings_class, ["--config", str(file), *flags], prog="job")


@run_with(deadline=None, max_examples=60)
@given(settings=any_settings())
@example(settings=ExportSettings(model="mödel/核", output="\x85\u2028\r\n\t 'null'"))
def test_the_printed_file_reads_as_equal_settings(settings: Settings) -> None:
    text = as_settings_file(type(settings), settings.model_dump(), prog="job")
    assert parse_file(type(settings), text) == settings


@run_with(deadline=None, max_examples=60)
@given(settings=any_settings())
def test_the_record_of_a_run_reads_as_equal_settings(settings: Settings) -> None:
    assert type(settings)(**json.loads(json.dumps(settings.model_dump()))) == settings


@pytest.mark.parametrize("settings_class", NEEDED)
def test_print_config_gives_all_settings(
    settings_class: type[Settings], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    needed = NEEDED[settings_class]
    flags = [word for name, value in needed.items() for word in (f"--{name}", value)]
    with pytest.raises(SystemExit) as ended:
        parse(settings_class, [*flags, "--print-config"], prog="nucseg x")
    printed = capsys.readouterr()
    assert (ended.value.code, printed.err) == (0, "")
    assert parse_file(settings_class, printed.out) == settings_class(**needed)
    lines = printed.out.splitlines()
    names = [line.split(":")[0] for line in lines if line and not line.startswith("#")]
    assert names == list(settings_class.model_fields)
    comments = " ".join(" ".join(line.removeprefix("#") for line in lines if line.startswith("#")).split())
    assert all(" ".join(described(field).split()) in comments for field in settings_class.model_fields.values())
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("settings_class", NEEDED)
def test_print_config_comments_out_what_is_missing(
    settings_class: type[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(settings_class, ["--print-config"], prog="nucseg x")
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    needed = NEEDED[settings_class]
    assert [name for name in settings_class.model_fields if f"\n# {name}: PATH\n" in printed] == list(needed)
    flags = [word for name, value in needed.items() for word in (f"--{name}", value)]
    assert parse_file(settings_class, printed, flags) == settings_class(**needed)


def test_print_config_merges_and_checks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_file(
            TrainSettings, "epochs: 7\nworkers: 2", ["--workers", "3", "--use-gpu", "--data", "d", "--print-config"]
        )
    printed = capsys.readouterr().out
    expected = TrainSettings(data="d", output="o", epochs=7, workers=3, use_gpu=True)
    assert parse_file(TrainSettings, printed, ["--output", "o"]) == expected
    with pytest.raises(UsageError, match="line 1: epochs: expected a whole number, found 'x'"):
        parse_file(TrainSettings, "epochs: x", ["--print-config"])
