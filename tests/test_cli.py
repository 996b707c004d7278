"""From a command line to settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import Field, model_validator

from nucseg_ray.cli import parse
from nucseg_ray.config import EvaluateSettings, ExportSettings, PackSettings, Settings, TrainSettings
from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.errors import MissingInputError, UsageError
from nucseg_ray.flags import flag

NEEDED: dict[type[Settings], list[str]] = {
    TrainSettings: ["--data", "d", "--output", "o"],
    PredictSettings: ["--input", "i", "--output", "o"],
    EvaluateSettings: ["--output", "o"],
    SynthesizeSettings: ["--output", "o"],
    PackSettings: ["--data", "d", "--output", "o"],
    ExportSettings: ["--output", "o"],
}
EVERY_FLAG = [(each, name) for each in NEEDED for name in each.model_fields]


def other_value(settings_class: type[Settings], name: str) -> Any:
    """Give a value that fits a setting and is not its default."""
    field = settings_class.model_fields[name]
    special = {"crop_px": 320, "tile_px": 320, "max_failed": "7%", "z": "3"}
    special |= {"nucleus_diameter_px": 20.5 if settings_class is TrainSettings else "20.5"}
    special |= {"shape_px": (33, 44), "nuclei": (1, 2), "radius_px": (1.5, 2.5)}
    if name in special:
        return special[name]
    if field.annotation is bool:
        return not field.default
    if get_origin(field.annotation) is Literal:
        return next(choice for choice in get_args(field.annotation) if choice != field.default)
    return next(
        value for kind, value in {"int": 2, "float": 0.5, "str": "text"}.items() if kind in str(field.annotation)
    )


def as_flags(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag(name if value else f"no_{name}")]
    return [flag(name), *map(str, value if isinstance(value, tuple) else (value,))]


@pytest.mark.parametrize(("settings_class", "name"), EVERY_FLAG, ids=lambda value: getattr(value, "__name__", value))
def test_every_flag_is_read(settings_class: type[Settings], name: str) -> None:
    value = other_value(settings_class, name)
    needed = NEEDED[settings_class]
    settings = parse(settings_class, [*needed, *as_flags(name, value)], prog="job.py")
    assert getattr(settings, name) == value
    base = parse(settings_class, needed, prog="job.py")
    assert settings == base.model_copy(update={name: value})
    if not isinstance(value, bool | tuple):
        assert parse(settings_class, [*needed, f"{flag(name)}={value}"], prog="job.py") == settings


@pytest.mark.parametrize("dashes", [True, False])
@pytest.mark.parametrize(("settings_class", "name"), EVERY_FLAG, ids=lambda value: getattr(value, "__name__", value))
def test_every_key_is_read_and_a_flag_wins_over_it(
    settings_class: type[Settings], name: str, dashes: bool, tmp_path: Path
) -> None:
    value = other_value(settings_class, name)
    file = tmp_path / "run.yaml"
    key = name.replace("_", "-") if dashes else name
    file.write_text(yaml.safe_dump({key: list(value) if isinstance(value, tuple) else value}), encoding="utf-8")
    needed = NEEDED[settings_class]
    rest = [
        word
        for flag_, word in zip(needed[::2], needed[1::2], strict=True)
        if flag_ != flag(name)
        for word in (flag_, word)
    ]
    base = parse(settings_class, needed, prog="job.py")
    settings = parse(settings_class, [*rest, "--config", str(file)], prog="job.py")
    assert settings == base.model_copy(update={name: value})
    before = getattr(base, name)
    if before is not None:
        assert parse(settings_class, [*needed, "--config", str(file), *as_flags(name, before)], prog="job.py") == base


def test_without_flags_the_defaults_hold() -> None:
    assert parse(TrainSettings, NEEDED[TrainSettings], prog="train.py") == TrainSettings(data="d", output="o")


@pytest.mark.parametrize("settings_class", NEEDED)
def test_help_shows_every_flag_and_its_default(
    settings_class: type[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(settings_class, ["--help"], prog="job.py")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    assert (settings_class.__doc__ or "").splitlines()[0] in shown
    for name, field in settings_class.model_fields.items():
        assert f"\n  {flag(name)}" in shown
        assert field.description and " ".join(field.description.split()) in words
        if isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
            assert f"(default: {field.default})" in words
        assert (f"\n  {flag(name)}, {flag('no_' + name)}" in shown) == (field.default is True)
    titles = re.findall(r"^(\S.*):$", shown, flags=re.MULTILINE)
    assert titles == [*settings_class.groups.values(), "settings file and help", "examples"]
    assert set(settings_class.groups) <= set(settings_class.model_fields)
    assert next(iter(settings_class.groups)) == next(iter(settings_class.model_fields))
    assert max(map(len, shown.splitlines())) <= 100
    assert "relative paths in it start where the command runs" in words


@pytest.mark.parametrize("settings_class", NEEDED)
def test_the_examples_of_the_help_are_right_calls(settings_class: type[Settings], tmp_path: Path) -> None:
    assert settings_class.examples
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({flag_[2:]: "x" for flag_ in NEEDED[settings_class][::2]}))
    for example in settings_class.examples:
        parse(settings_class, example.replace("run.yaml", str(tmp_path / "run.yaml")).split(), prog="job.py")


@pytest.mark.parametrize("settings_class", NEEDED)
def test_no_setting_has_the_name_of_a_common_flag(settings_class: type[Settings]) -> None:
    names = set(settings_class.model_fields)
    assert names & {"config", "print_config", "help"} == set()
    assert names & {f"no_{name}" for name in names} == set()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epoch", "3"], r"'--epoch' is not a flag of this command; did you mean --epochs\?"),
        (["--batchsize=3"], r"did you mean --batch-size\?"),
        (["--batch_size", "3"], r"did you mean --batch-size\?"),
        (["--qqq"], "'--qqq' is not a flag of this command; see --help"),
        (["stray"], "'stray' is not a flag of this command"),
        (["--epochs"], "--epochs: expected one argument; see --help"),
        (["--epochs", "many"], "^--epochs: expected a whole number, found 'many'$"),
        (["--epochs", "0"], "^--epochs: expected a number greater than or equal to 1, found '0'$"),
        (["--seed", "-1"], "--seed: .*greater than or equal to 0, found '-1'"),
        (["--crop-px", "100"], "--crop-px: .*multiple of 32, found '100'"),
        (["--maps", "nuclei"], "^--maps: expected 'centres' or 'foreground', found 'nuclei'$"),
        (["--maps"], "--maps: expected one argument"),
        (["--learning-rate", "inf"], "--learning-rate: expected a finite number, found 'inf'"),
        (["--use-gpus"], r"did you mean --use-gpu\?"),
        (["--no-resum"], r"did you mean --no-resume\?"),
        (["--confg", "run.yaml"], r"did you mean --config\?"),
        (["--print_config"], r"did you mean --print-config\?"),
        (["--epochs", "0", "--workers", "none"], "--epochs: .*; --workers: "),
    ],
)
def test_wrong_flags_are_named(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(TrainSettings, [*NEEDED[TrainSettings], *argv], prog="train.py")


def test_a_mistyped_flag_is_told_before_the_lack_of_the_right_one() -> None:
    with pytest.raises(UsageError, match=r"'--dat' is not a flag of this command; did you mean --data\?"):
        parse(TrainSettings, ["--dat", "d", "--output", "o"], prog="train.py")


def test_own_checks_speak_in_their_own_words() -> None:
    with pytest.raises(UsageError, match=r"^--max-failed: expected a number of sites such as 3.*, found 'all'$"):
        parse(PredictSettings, [*NEEDED[PredictSettings], "--max-failed", "all"], prog="predict.py")
    with pytest.raises(
        UsageError, match=r"^--nuclei: expected fewest and most, 0 <= fewest <= most, found \['9', '3'\]$"
    ):
        parse(SynthesizeSettings, ["--output", "o", "--nuclei", "9", "3"], prog="synthesize.py")
    with pytest.raises(UsageError, match="^--empty-wells: expected 0 to 24, the number of wells, found '25'$"):
        parse(SynthesizeSettings, ["--output", "o", "--empty-wells", "25", "--wells", "24"], prog="synthesize.py")
    with pytest.raises(UsageError, match="--wells: .*24, 96, 384 or 1536, found 5"):
        parse(SynthesizeSettings, ["--output", "o", "--wells", "5"], prog="synthesize.py")
    with pytest.raises(UsageError, match="--wells: .*'many'"):
        parse(SynthesizeSettings, ["--output", "o", "--wells", "many"], prog="synthesize.py")


@pytest.mark.parametrize("settings_class", NEEDED)
def test_missing_flags_are_named(settings_class: type[Settings]) -> None:
    with pytest.raises(UsageError) as refused:
        parse(settings_class, [], prog="job.py")
    assert str(refused.value).endswith("; see --help")
    for needed in NEEDED[settings_class][::2]:
        assert needed in str(refused.value)


def test_abbreviations_are_not_guessed() -> None:
    with pytest.raises(UsageError, match=r"'--learning'.*did you mean --learning-rate\?"):
        parse(TrainSettings, [*NEEDED[TrainSettings], "--learning", "1"], prog="train.py")


def test_the_file_names_what_is_wrong_in_it(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: d\noutput: o\n\ncrops-per-epoch: many\nepochs: 0\n", encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        parse(TrainSettings, ["--config", str(file)], prog="train.py")
    assert str(refused.value) == (
        f"{file}, line 5: epochs: expected a number greater than or equal to 1, found '0'; "
        f"{file}, line 4: crops-per-epoch: expected a whole number, found 'many'"
    )
    # A flag in its place: the flag is told of, not the file.
    with pytest.raises(UsageError, match="^--epochs: .* found '-1'$"):
        parse(TrainSettings, ["--config", str(file), "--crops-per-epoch", "5", "--epochs=-1"], prog="train.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "crop_per_epoch: 3",
            r"line 1: 'crop_per_epoch' is not a setting of this command; did you mean crops_per_epoch\?",
        ),
        ("\nCrop-PX: 3", r"line 2: 'Crop-PX' is not a setting of this command; did you mean crop_px\?"),
        ("actors: 2", "line 1: 'actors' is not a setting of this command"),
        ("config: other.yaml", "line 1: 'config' is not a setting of this command"),
        ("epochs: yes", "line 1: epochs: expected a whole number, found 'yes'"),
        ("epochs: null", "line 1: epochs: expected a whole number, found nothing"),
        ("data: null", "line 1: data: expected text, found nothing"),
        ("data: [a, b]", r"line 1: data: expected text, found \['a', 'b'\]"),
        ("use-gpu: 2", "line 1: use-gpu: expected true or false, found '2'"),
    ],
)
def test_wrong_keys_and_values_are_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    needed = [] if text.startswith("data") else ["--data", "d"]
    with pytest.raises(UsageError, match=f"^{re.escape(str(file))}, {message}"):
        parse(TrainSettings, [*needed, "--output", "o", "--config", str(file)], prog="train.py")


def test_a_check_of_several_settings_speaks_for_itself() -> None:
    class Range(Settings):
        lowest: int = Field(0, description="from")
        highest: int = Field(9, description="to")

        @model_validator(mode="after")
        def _check(self) -> Range:
            if self.lowest > self.highest:
                raise ValueError("--lowest is above --highest")
            return self

    with pytest.raises(UsageError, match="^--lowest is above --highest$"):
        parse(Range, ["--lowest", "10"], prog="job.py")


def test_what_is_missing_in_flags_and_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("output: o", encoding="utf-8")
    with pytest.raises(UsageError, match=f"^--data is required, here or in {re.escape(str(file))}; see --help$"):
        parse(TrainSettings, ["--config", str(file)], prog="train.py")
    with pytest.raises(MissingInputError, match="^--config: .*none.yaml: expected a file, found none"):
        parse(TrainSettings, ["--config", str(tmp_path / "none.yaml")], prog="train.py")


def test_what_the_file_turned_on_can_be_turned_off(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("use_gpu: yes\npreflight: off\noverwrite: true\n", encoding="utf-8")
    needed = [*NEEDED[PredictSettings], "--config", str(file)]
    settings = parse(PredictSettings, needed, prog="predict.py")
    assert (settings.use_gpu, settings.preflight, settings.overwrite) == (True, False, True)
    settings = parse(PredictSettings, [*needed, "--no-use-gpu", "--preflight"], prog="predict.py")
    assert (settings.use_gpu, settings.preflight, settings.overwrite) == (False, True, True)
