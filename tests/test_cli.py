"""From a command line to settings."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin

import pytest

from nucseg_ray.cli import flag, parse
from nucseg_ray.config import EvaluateSettings, PredictSettings, Settings, TrainSettings
from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.errors import UsageError

NEEDED: dict[type[Settings], list[str]] = {
    TrainSettings: ["--data", "d", "--output", "o"],
    PredictSettings: ["--input", "i", "--output", "o", "--model", "m"],
    EvaluateSettings: ["--output", "o"],
    SynthesizeSettings: ["--output", "o"],
}
EVERY_FLAG = [(each, name) for each in NEEDED for name in each.model_fields]


def other_value(settings_class: type[Settings], name: str) -> Any:
    """Give a value that fits a setting and is not its default."""
    field = settings_class.model_fields[name]
    annotation: Any = field.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = get_args(annotation)[0]
    special = {"crop_px": 320, "tile_px": 320, "max_failed": "7%", "z": "3", "shape_px": (33, 44), "nuclei": (1, 2)}
    if name in special:
        return special[name]
    if annotation is bool:
        return True
    if get_origin(annotation) is tuple:
        return (1.5, 2.5)
    choices = [choice for choice in get_args(annotation) if choice != field.default]
    return choices[0] if choices else {int: 2, float: 0.5, str: "text"}[annotation]


@pytest.mark.parametrize(("settings_class", "name"), EVERY_FLAG, ids=lambda value: getattr(value, "__name__", value))
def test_every_flag_is_read(settings_class: type[Settings], name: str) -> None:
    value = other_value(settings_class, name)
    words = [] if value is True else [str(part) for part in value] if isinstance(value, tuple) else [str(value)]
    settings = parse(settings_class, [*NEEDED[settings_class], flag(name), *words], prog="job.py")
    assert getattr(settings, name) == value
    base = parse(settings_class, NEEDED[settings_class], prog="job.py")
    assert settings == base.model_copy(update={name: value})
    if value is not True and not isinstance(value, tuple):
        assert parse(settings_class, [*NEEDED[settings_class], f"{flag(name)}={value}"], prog="job.py") == settings


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
        assert " ".join((field.description or "").replace("%%", "%").split()) in words
        if isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
            assert f"(default: {field.default})" in words


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epoch", "3"], r"'--epoch' is not a flag of this command; did you mean --epochs\?"),
        (["--batchsize=3"], r"did you mean --batch-size\?"),
        (["--batch_size", "3"], r"did you mean --batch-size\?"),
        (["--qqq"], "'--qqq' is not a flag of this command; see --help"),
        (["stray"], "'stray' is not a flag of this command"),
        (["--epochs"], "--epochs: expected one argument; see --help"),
        (["--epochs", "many"], "--epochs: .*valid integer.*found 'many'"),
        (["--epochs", "0"], "--epochs: .*greater than or equal to 1, found '0'"),
        (["--seed", "-1"], "--seed: .*greater than or equal to 0, found '-1'"),
        (["--crop-px", "100"], "--crop-px: .*multiple of 32, found '100'"),
        (["--maps", "nuclei"], "--maps: .*'distance' or 'foreground', found 'nuclei'"),
        (["--maps"], "--maps: expected one argument"),
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
    with pytest.raises(UsageError, match="nuclei must be"):
        parse(SynthesizeSettings, ["--output", "o", "--nuclei", "9", "3"], prog="synthesize.py")
    with pytest.raises(UsageError, match="--wells: .*24, 96 or 384, found 5"):
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
