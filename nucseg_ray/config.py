"""The settings of every run: one definition makes the flags, ``--help``, the checks and what ``run.json`` records."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

# The text beside the type is what stands for the value in ``--help``.
Place = Annotated[str, "PATH"]
MODEL_TEXT = "folder or URI of a model bundle; pretrained: the one that comes with the package"
TTA_TEXT = "the mean over each image turned and mirrored in all 8 ways (test-time augmentation): eight times as long"


class Settings(BaseModel):
    """Base of all settings: frozen, and nothing unknown is accepted.

    ``groups`` gives the titles in ``--help``, each by the first field of its group; ``examples`` are flags that go with
    the command's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    groups: ClassVar[dict[str, str]] = {}
    examples: ClassVar[tuple[str, ...]] = ()


def _as_number(value: Any) -> Any:
    """Read the text of a flag; pydantic does so for an int, but not for a choice of ints."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


NumberText = BeforeValidator(_as_number)


def _check_diameter(value: str) -> str:
    try:
        is_one = value == AUTO or 0 < float(value) < math.inf
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError("expected auto, or a number of pixels above 0 such as 24")
    return value if value == AUTO else f"{float(value):g}"


AUTO = "auto"
DiameterText = Annotated[str, AfterValidator(_check_diameter), "auto|NUMBER"]


def as_diameter(text: str) -> float | None:
    """Give the diameter, in pixels, that a setting of ``DiameterText`` names; None where it is to be found."""
    return None if text == AUTO else float(text)


class TrainSettings(Settings):
    """Train a MobileNetV2 U-Net on labelled images."""

    groups: ClassVar[dict[str, str]] = {
        "data": "input and output",
        "maps": "model",
        "epochs": "training",
        "workers": "running on the machine or cluster",
    }
    examples: ClassVar[tuple[str, ...]] = (
        "--data stage1_train --index index.csv --fold 0 --output model",
        "--data s3://bucket/packed --output s3://bucket/model --workers 2",
        "--config run.yaml --epochs 30",
    )

    data: Place = Field(
        description="labelled images: folder (<id>/images + <id>/masks, or images/ + masks/), packed set, or manifest "
        "(CSV or Parquet: image, mask and any of group, kind, fold)"
    )
    output: Place = Field(description="new folder for the model bundle, scores and pictures")
    index: Place | None = Field(None, description="CSV with a row an image: ImageId and any of group, kind, fold")
    validation_data: Place | None = Field(
        None, description="labelled images to validate on, instead of a part of --data"
    )
    folds: int | None = Field(None, description="cut the images into so many folds, by group; needs --fold", ge=2)
    fold: int | None = Field(None, description="validate on this fold, of --folds or of the index", ge=0)
    validation_fraction: float = Field(0.2, description="part of the images to validate on, without folds", gt=0, lt=1)
    resume: bool = Field(False, description="go on from the last checkpoint in --output, with the same split and seeds")
    pictures: int = Field(6, description="validation images shown before and after training", ge=1)
    mlflow: Annotated[str, "URI"] | None = Field(
        None, description="URI of an MLflow tracking server (or folder) to log to as well"
    )

    maps: Literal["centres", "foreground"] = Field(
        "centres", description="predict nuclei and the way to each one's centre, or the foreground alone"
    )
    nucleus_diameter_px: float = Field(
        44.0,
        description="diameter that images are brought to by their nuclei's, for the network: smaller is faster",
        ge=8,
        le=100,
    )
    normalisation: Literal["percentile", "full-range"] = Field(
        "percentile", description="stretch the 1st and 99.8th percentile to [0, 1], or divide by 255 or 65535"
    )
    encoder_weights: Annotated[str, "imagenet|none|pretrained|PATH"] = Field(
        "imagenet",
        description="imagenet or the path of a Keras no-top HDF5 file: a frozen encoder; none: train it from scratch; "
        "pretrained (the model that comes with the package) or a folder of a model bundle: go on from that model, or "
        "where it has other maps, from its encoder",
    )

    epochs: int = Field(20, description="how many epochs at most, the encoder frozen", ge=1)
    finetune_epochs: int = Field(0, description="so many more, in which the encoder learns too", ge=0)
    crops_per_epoch: int = Field(2000, description="training crops an epoch", ge=1)
    crop_px: int = Field(256, description="side of a training crop, in pixels", ge=64, multiple_of=32)
    batch_size: int = Field(16, description="crops a step, over all workers together", ge=1)
    learning_rate: float = Field(2e-3, description="highest learning rate, after the warm-up", gt=0)
    encoder_rate: float = Field(0.3, description="the encoder's part of the learning rate, once it learns", gt=0, le=1)
    patience: int = Field(
        10,
        description="with --keep best: stop after so many epochs without a better validation score, of those in which "
        "the encoder learns where --finetune-epochs are asked for",
        ge=1,
    )
    keep: Literal["best", "last", "mean"] = Field(
        "best",
        description="weights to keep: those of the epoch with the best validation score, of the last, or the mean of "
        "the last and of the model that --encoder-weights names",
    )
    seed: int = Field(0, description="seed of everything random", ge=0)

    workers: int = Field(1, description="training workers; one GPU each with --use-gpu", ge=1)
    use_gpu: bool = Field(False, description="train on GPUs")
    cpus_per_worker: float = Field(1.0, description="CPUs that Ray reserves for each worker", gt=0)
    threads_per_worker: int = Field(2, description="TensorFlow's threads in each worker", ge=1)
    max_restarts: int = Field(3, description="how often a dead worker is replaced before the run fails", ge=0)


class EvaluateSettings(Settings):
    """Score a model on labelled images, or masks that are on disk against the truth."""

    groups: ClassVar[dict[str, str]] = {
        "output": "output",
        "model": "to score a model",
        "masks": "to score masks",
        "runtime": "running on the machine or cluster",
    }
    examples: ClassVar[tuple[str, ...]] = (
        "--model model --data stage1_train --index index.csv --fold 0 --output scores",
        "--masks segmented/masks --truth truth --output scores",
    )

    output: Place = Field(description="folder for scores.json, the table of images and the picture")
    model: Place | None = Field(None, description=f"{MODEL_TEXT}; to score on --data")
    data: Place | None = Field(None, description="folder of labelled images")
    index: Place | None = Field(None, description="CSV with a row an image: ImageId and any of group, kind, fold")
    fold: int | None = Field(None, description="score the images of this fold of the index only", ge=0)
    nucleus_diameter_px: DiameterText = Field(AUTO, description="diameter of the nuclei; auto: found for each image")
    tta: bool = Field(False, description=TTA_TEXT)
    masks: Place | None = Field(None, description="folder of label masks, such as OUT/masks, to score against --truth")
    truth: Place | None = Field(None, description="folder of true label images, named as those in --masks")

    runtime: Literal["auto", "openvino", "tensorflow"] = Field(
        "auto", description="what runs the network: OpenVINO on CPUs, TensorFlow on GPUs"
    )
    actors: int = Field(1, description="processes that run the network", ge=1)
    use_gpu: bool = Field(False, description="run the network on GPUs, one an actor")
    cpus_per_actor: float = Field(1.0, description="CPUs that Ray reserves for each actor", gt=0)
    threads_per_actor: int = Field(2, description="the network's threads in each actor", ge=1)


class PackSettings(Settings):
    """Pack labelled images into a few Parquet files: quicker to fetch than thousands of small ones."""

    groups: ClassVar[dict[str, str]] = {"data": "input and output"}
    examples: ClassVar[tuple[str, ...]] = ("--data stage1_train --index index.csv --output s3://bucket/packed",)

    data: Place = Field(description="labelled images, as train takes them")
    output: Place = Field(description="new folder for the packed set; give it to train as --data")
    index: Place | None = Field(None, description="CSV with a row an image: ImageId and any of group, kind, fold")
    images_per_part: int = Field(64, description="images in each Parquet file", ge=1)


class ExportSettings(Settings):
    """Write the network of a model bundle for other software: a TensorFlow SavedModel, ONNX, or both."""

    groups: ClassVar[dict[str, str]] = {"model": "input and output"}
    examples: ClassVar[tuple[str, ...]] = ("--output exported --to onnx", "--model model --output exported")

    model: Place = Field("pretrained", description=MODEL_TEXT)
    output: Place = Field(description="new folder to write to")
    to: Literal["savedmodel", "onnx", "both"] = Field("both", description="format")
