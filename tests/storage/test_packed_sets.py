"""Packed sets: what makes one, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from nucseg_ray.errors import InputError, OutputError, OutputMismatchError
from nucseg_ray.storage.atomic import remove, write_bytes
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.labelled_images import Part, Sample
from nucseg_ray.storage.listing import find_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.packed_sets import (
    abandon_packing,
    begin_packing,
    encode_part,
    fingerprint,
    finish_packing,
    open_part,
    part_name,
)
from nucseg_ray.storage.training_sets import TrainingSet, find_training_set

SAMPLES = tuple(
    Sample(name, "", (), one_mask=True, group=f"group {name in 'ab'}", kind="tissue", fold=None if name == "c" else 1)
    for name in "abcde"
)
SOURCE = TrainingSet(Location("/elsewhere"), "a layout", SAMPLES)


def rows(*names: str) -> pa.Table:
    return pa.table(
        {"image_id": list(names), "image": pa.array([name.encode() * 999 for name in names], pa.large_binary())}
    )


def write_parts(output: Location) -> list[tuple[Part, tuple[Sample, ...]]]:
    """Write the five samples in two parts."""
    parts = []
    for number, cut in enumerate((SAMPLES[:3], SAMPLES[3:])):
        tables = [rows(sample.image_id) for sample in cut]
        data = encode_part(tables, tables[0].schema)
        write_bytes(output / part_name(number), data)
        parts.append((Part(part_name(number), len(data), hashlib.sha256(data).hexdigest()), cut))
    return parts


@pytest.fixture
def packed(out: Location) -> Location:
    begin_packing(out, "this")
    finish_packing(out, write_parts(out), source="there")
    return out


def test_what_was_packed_is_found_with_all_that_is_known_of_it(packed: Location) -> None:
    assert [name for name, _ in find_files(packed)] == ["packed.json", "part-00000.parquet", "part-00001.parquet"]
    found = find_training_set(packed)
    assert (found.root, found.layout) == (packed, "packed, 2 parts, from there")
    assert [part.name for part in found.parts] == ["part-00000.parquet", "part-00001.parquet"]
    assert [dataclasses.replace(sample, image="") for sample in found.samples] == list(SAMPLES)
    assert [sample.image[-9] for sample in found.samples] == list("00011")
    part = open_part(packed, found.parts[0])
    # One image can be read without the others.
    assert part.read_row_group(1).equals(rows("b"))
    assert part.read().equals(rows("a", "b", "c"))


def test_without_packed_json_there_is_no_set(out: Location) -> None:
    begin_packing(out, "this")
    with pytest.raises(InputError, match=r"no packed\.json.*run the same pack command again"):
        find_training_set(out)
    write_parts(out)
    remove(out / "packing.json")
    with pytest.raises(InputError, match=r"no packed\.json.*not copied to the end"):
        find_training_set(out)


def test_a_missing_part_is_refused(packed: Location) -> None:
    remove(packed / "part-00001.parquet")
    with pytest.raises(
        InputError, match=r"1 of the 2 parts in packed\.json are missing \(such as part-00001\.parquet\)"
    ):
        find_training_set(packed)


def test_a_part_that_is_cut_short_is_refused(packed: Location) -> None:
    data = fetch_bytes(packed / "part-00001.parquet")
    write_bytes(packed / "part-00001.parquet", data[:-1])
    with pytest.raises(
        InputError, match=rf"part-00001\.parquet: expected {len(data)} bytes.*found {len(data) - 1}; copy"
    ):
        find_training_set(packed)


def test_a_part_that_was_altered_is_refused_when_it_is_read(packed: Location) -> None:
    data = bytearray(fetch_bytes(packed / "part-00001.parquet"))
    data[100] ^= 1
    write_bytes(packed / "part-00001.parquet", bytes(data))
    found = find_training_set(packed)
    open_part(packed, found.parts[0])
    with pytest.raises(InputError, match=r"part-00001\.parquet: was altered since packed\.json was written"):
        open_part(packed, found.parts[1])


def _without_hash(value: dict[str, Any]) -> None:
    del value["parts"][0]["sha256"]


def _fold_as_text(value: dict[str, Any]) -> None:
    value["parts"][0]["images"][0]["fold"] = "1"


def _newer(value: dict[str, Any]) -> None:
    value |= {"format": 2, "codec": "jpeg"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_hash, r"is damaged \(parts\.0\.sha256: Field required\); copy the whole folder again"),
        (_fold_as_text, r"is damaged \(parts\.0\.images\.0\.fold: Input should be a valid integer\)"),
        (_newer, "expected format 1, found 2; pack the set anew"),
    ],
)
def test_a_packed_json_of_another_form_is_refused(
    packed: Location, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    value = json.loads(fetch_bytes(packed / "packed.json"))
    change(value)
    write_bytes(packed / "packed.json", json.dumps(value).encode())
    with pytest.raises(InputError, match=rf"packed\.json: {message}"):
        find_training_set(packed)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_packed_json_that_is_cut_short_is_refused(packed: Location, content: bytes) -> None:
    write_bytes(packed / "packed.json", content)
    with pytest.raises(InputError, match=r"packed\.json: is damaged"):
        find_training_set(packed)


def test_only_the_same_set_goes_on_in_what_is_there(out: Location) -> None:
    begin_packing(out, "this")
    write_parts(out)
    with pytest.raises(OutputMismatchError, match="holds the beginning of another packed set"):
        begin_packing(out, "that")
    begin_packing(out, "this")
    finish_packing(out, write_parts(out), source="there")
    for packing in ("this", "that"):
        with pytest.raises(OutputError, match="holds a packed set already"):
            begin_packing(out, packing)


def test_an_output_with_anything_else_is_refused(out: Location) -> None:
    write_bytes(out / "images/a.png", b"")
    with pytest.raises(OutputMismatchError, match=r"found 1 other files \(such as images/a\.png\)"):
        begin_packing(out, "this")
    remove(out / "images/a.png")
    write_parts(out)  # whose parts they are is not known
    with pytest.raises(OutputMismatchError, match="beginning of another"):
        begin_packing(out, "this")
    write_bytes(out / "packing.json", b"{")
    with pytest.raises(OutputMismatchError, match="beginning of another"):
        begin_packing(out, "this")


def test_what_is_abandoned_leaves_nothing(out: Location) -> None:
    begin_packing(out, "this")
    write_parts(out)
    abandon_packing(out, [part_name(number) for number in range(4)])
    assert find_files(out) == []


def test_the_fingerprint_tells_sets_apart() -> None:
    first, *others = SAMPLES
    sets = [
        SOURCE,
        dataclasses.replace(SOURCE, root=Location("/other")),
        SOURCE.only(others),
        SOURCE.only([dataclasses.replace(first, fold=2), *others]),
        SOURCE.only([dataclasses.replace(first, masks=("m.png",)), *others]),
        dataclasses.replace(SOURCE, parts=(Part("part-00000.parquet", 3, "abc"),)),
    ]
    told = {fingerprint(each, images_per_part=64) for each in sets} | {fingerprint(SOURCE, images_per_part=8)}
    assert len(told) == 7
    assert fingerprint(SOURCE.only(SAMPLES), images_per_part=64) in told
