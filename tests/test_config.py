"""The settings of every run."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from nucseg_ray.config import EvaluateSettings, PredictSettings, Settings, TrainSettings
from nucseg_ray.config_synthesize import SynthesizeSettings

NEEDED: dict[type[Settings], dict[str, str]] = {
    TrainSettings: {"data": "d", "output": "o"},
    PredictSettings: {"input": "i", "output": "o", "model": "m"},
    EvaluateSettings: {"output": "o"},
    SynthesizeSettings: {"output": "o"},
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
        (TrainSettings, "learning_rate", [1e-5], [0, -1]),
        (TrainSettings, "maps", ["distance", "foreground"], ["nucleus", ""]),
        (TrainSettings, "normalisation", ["percentile", "full-range"], ["full_range"]),
        (TrainSettings, "max_restarts", [0, 5], [-1]),
        (TrainSettings, "use_gpu", [True, False], ["perhaps"]),
        (PredictSettings, "max_failed", ["0", "12", "5%", "0.5%"], ["-1", "5 %", "%", "1.5", "all", "5%%", ""]),
        (PredictSettings, "z", ["max", "0", "12"], ["min", "-1", "1.5", ""]),
        (PredictSettings, "masks", ["png", "parquet", "both", "none"], ["tif"]),
        (PredictSettings, "tile_px", [64, 1024], [32, 1000]),
        (PredictSettings, "overlap_px", [0, 128], [-1]),
        (EvaluateSettings, "fold", [None, 0], [-1]),
        (SynthesizeSettings, "nuclei", [(0, 0), (3, 9)], [(9, 3), (-1, 3), (1, 2, 3)]),
        (SynthesizeSettings, "empty_wells", [0, 96], [-1, 97]),
    ],
)
def test_ranges(settings_class: type[Settings], name: str, right: list[object], wrong: list[object]) -> None:
    needed = NEEDED[settings_class]
    for value in right:
        assert getattr(settings_class(**needed, **{name: value}), name) == value
    for value in wrong:
        with pytest.raises(ValidationError):
            settings_class(**needed, **{name: value})
