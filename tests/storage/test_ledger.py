from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucseg_ray.errors import OutputBusyError, OutputError, UsageError
from nucseg_ray.storage import ledger
from nucseg_ray.storage.atomic import remove, write_bytes, write_table
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.ledger import (
    begin_run,
    commit_part,
    committed_stems,
    done_keys,
    drop_failed,
    outcome_counts,
    sweep,
)
from nucseg_ray.storage.listing import find_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import failed_name, key_rows, list_parts, part_location, part_name, read_parts, run_of
from nucseg_ray.storage.schemas import KEY_NAMES, MASKS, NUCLEI, SITES

P = "P"


def key(number: int, plate: str = P) -> tuple[str, str, str, None]:
    return (plate, "A01", str(number), None)


def stand(out: Location) -> set[str]:
    return {name for name, _ in find_files(out) if name.endswith(".parquet")}


def test_a_part_is_three_files_of_one_stem(out: Location, make_block: Any) -> None:
    begin_run(out, "r1", ())
    stems = commit_part(out, "r1", make_block(P, {key(1): 2, key(2): 0}))
    (stem,) = stems
    assert stand(out) == {f"{table}/plate=P/{stem}.parquet" for table in ("nuclei", "masks", "sites")}
    assert committed_stems(out) == {stem}
    assert key_rows(done_keys(out, stems)) == [key(1), key(2)]
    assert outcome_counts(out) == {"segmented": 1, "empty": 1, "failed": 0}
    assert read_parts(out, "nuclei", stems).schema.equals(NUCLEI, check_metadata=True)
    assert read_parts(out, "masks", stems).schema.equals(MASKS, check_metadata=True)
    assert read_parts(out, "sites", None, columns=["n_nuclei"]).to_pydict() == {"n_nuclei": [2, 0]}
    assert read_parts(out, "sites", ()).equals(SITES.empty_table())


def test_nothing_done_is_an_empty_account(out: Location) -> None:
    assert committed_stems(out) == frozenset()
    assert outcome_counts(out) == {"segmented": 0, "empty": 0, "failed": 0}
    assert done_keys(out, ()).equals(pa.schema([SITES.field(name) for name in KEY_NAMES]).empty_table())
    begin_run(out, "r1", ())
    assert sweep(out, "r1", ()) == 0


def test_failed_sites_get_a_part_of_their_own_and_can_be_dropped(out: Location, make_block: Any) -> None:
    begin_run(out, "r1", ())
    stem, failed = commit_part(out, "r1", make_block(P, {key(1): 2, key(2): None, key(3): 1}))
    assert failed == failed_name(stem)
    assert failed.startswith("failed-r1-")
    assert outcome_counts(out) == {"segmented": 2, "empty": 0, "failed": 1}
    assert key_rows(done_keys(out, committed_stems(out))) == [key(2), key(1), key(3)]
    assert drop_failed(out) == 1
    assert drop_failed(out) == 0
    assert key_rows(done_keys(out, committed_stems(out))) == [key(1), key(3)]


def test_a_block_that_failed_whole_has_no_other_part(out: Location, make_block: Any) -> None:
    begin_run(out, "r1", ())
    (failed,) = commit_part(out, "r1", make_block(P, {key(1): None}))
    assert stand(out) == {f"sites/plate=P/{failed}.parquet"}


def test_names_depend_on_keys_as_text_and_not_on_order(make_block: Any) -> None:
    def name(*numbers: str) -> str:
        return part_name("r-1", make_block(P, {(P, "A01", number, None): 0 for number in numbers}).sites)

    assert name("1", "2") == name("2", "1")
    assert len({name("1", "2"), name("01", "2"), name("12"), name("1"), name("1,2")}) == 5
    assert run_of(name("1")) == "r-1"
    assert run_of(failed_name(name("1"))) == "r-1"
    timed = part_name("r-1", make_block(P, {(P, "A01", "1", "None"): 0}).sites)
    assert timed != name("1")
    for bad in ("", "a/b", "-x", "x" * 65, ".x"):
        with pytest.raises(UsageError, match="Run id"):
            part_name(bad, make_block(P, {key(1): 0}).sites)


def test_a_retried_task_writes_nothing_more(out: Location, make_block: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_run(out, "r1", ())
    block = make_block(P, {key(1): 2, key(2): None})
    stems = commit_part(out, "r1", block)
    before = {name: fetch_bytes(out / name) for name in stand(out)}
    slower = block.sites.set_column(block.sites.schema.get_field_index("seconds"), "seconds", pa.array([9.0, 9.0]))
    backwards = dataclasses.replace(block, sites=slower.take([1, 0]))
    assert commit_part(out, "r1", backwards) == stems
    assert {name: fetch_bytes(out / name) for name in stand(out)} == before


OUTCOMES_OF_ATTEMPTS = [{1: 2, 2: 1, 3: 0}, {1: 2, 2: None, 3: 0}, {1: None, 2: None, 3: None}, {1: 2, 2: 1, 3: None}]


@pytest.mark.parametrize("first", OUTCOMES_OF_ATTEMPTS)
@pytest.mark.parametrize("second", OUTCOMES_OF_ATTEMPTS)
def test_attempts_may_come_to_other_outcomes(out: Location, make_block: Any, first: Any, second: Any) -> None:
    begin_run(out, "r1", ())
    for attempt in (first, second):
        commit_part(out, "r1", make_block(P, {key(number): count for number, count in attempt.items()}))
    sweep(out, "r1", ())
    rows = read_parts(out, "sites", None).to_pylist()
    assert {int(row["Metadata_Site"]): row["n_nuclei"] for row in rows} == second
    assert len(rows) == 3
    assert read_parts(out, "nuclei", None).num_rows == sum(count or 0 for count in second.values())


def test_listings_are_not_needed_to_commit(out: Location, make_block: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_run(out, "r1", ())

    def no_listing(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("listed")

    with monkeypatch.context() as unlisted:
        for method in ("ls", "find", "walk", "glob"):
            unlisted.setattr(type(out.fs), method, no_listing)
        (stem,) = commit_part(out, "r1", make_block(P, {key(number): 3 for number in range(16)}))
    assert committed_stems(out) == {stem}


def test_a_part_without_its_sites_does_not_count_and_is_removed(out: Location, make_block: Any) -> None:
    begin_run(out, "r1", ())
    (kept,) = commit_part(out, "r1", make_block(P, {key(1): 1}))
    half = make_block(P, {key(2): 5})
    stem = part_name("r1", half.sites)
    write_table(part_location(out, "nuclei", P, stem), half.nuclei)
    assert committed_stems(out) == {kept}
    begin_run(out, "r2", committed_stems(out))
    assert stand(out) == {f"{table}/plate=P/{kept}.parquet" for table in ("nuclei", "masks", "sites")}


def test_a_run_removes_its_own_halves_at_the_end(out: Location, make_block: Any) -> None:
    begin_run(out, "r1", ())
    half = make_block(P, {key(2): 5})
    write_table(part_location(out, "nuclei", P, part_name("r1", half.sites)), half.nuclei)
    assert sweep(out, "r1", ()) == 1
    assert stand(out) == set()


def test_a_superseded_run_cannot_commit(out: Location, make_block: Any) -> None:
    begin_run(out, "r1", ())
    begin_run(out, "r2", ())
    with pytest.raises(OutputBusyError, match="run r1 was superseded by run r2"):
        commit_part(out, "r1", make_block(P, {key(1): 1}))
    assert stand(out) == set()


def test_a_task_that_slips_through_does_not_count(
    out: Location, make_block: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked before the new run began, and writes after; at worst after the new run's last sweep."""
    begin_run(out, "r1", ())
    begin_run(out, "r2", ())
    (own,) = commit_part(out, "r2", make_block(P, {key(1): 1, key(2): 2}))
    with monkeypatch.context() as slipping:
        slipping.setattr(ledger, "_check_latest", lambda out, run_id: None)
        (late,) = commit_part(out, "r1", make_block(P, {key(2): 2, key(3): 1}))
        assert committed_stems(out) == {own}
        assert sweep(out, "r2", ()) == 3
        assert committed_stems(out) == set(list_parts(out, "sites")) == {own}
        commit_part(out, "r1", make_block(P, {key(2): 2, key(3): 1}))
    assert late in list_parts(out, "sites")
    assert committed_stems(out) == {own}
    assert outcome_counts(out) == {"segmented": 2, "empty": 0, "failed": 0}
    begin_run(out, "r3", committed_stems(out))
    assert set(list_parts(out, "nuclei")) == {own}


def test_committing_before_beginning_is_refused(out: Location, make_block: Any) -> None:
    with pytest.raises(UsageError, match="Call begin_run first"):
        commit_part(out, "r1", make_block(P, {key(1): 1}))


def test_beginning_anew_forgets_what_was_done(out: Location, make_block: Any) -> None:
    begin_run(out, "r1", ())
    commit_part(out, "r1", make_block(P, {key(1): 1}))
    begin_run(out, "r2", ())
    assert stand(out) == set()


def test_beginning_checks_its_arguments(out: Location) -> None:
    begin_run(out, "r1", ())
    with pytest.raises(UsageError, match="used before"):
        begin_run(out, "r1", ())
    with pytest.raises(UsageError, match="Run id"):
        begin_run(out, "../r", ())
    with pytest.raises(UsageError, match=r"expected to stand in sites/, not found: \['part-x"):
        begin_run(out, "r2", ["part-x-0123456789abcdef"])


def test_a_lost_record_is_said(out: Location, make_block: Any) -> None:
    begin_run(out, "r1", ())
    (stem,) = commit_part(out, "r1", make_block(P, {key(1): 1}))
    record = out / "runs" / "r1.json"
    assert json.loads(fetch_bytes(record))["accepted"] == []
    remove(record)
    with pytest.raises(OutputError, match=r"r1\.json: expected the record .*delete"):
        committed_stems(out)
    write_bytes(out / "latest_run.json", b"{")
    with pytest.raises(OutputError, match="expected JSON"):
        committed_stems(out)
    remove(out / "latest_run.json")
    assert committed_stems(out) == {stem}


def test_a_site_that_stands_twice_is_said(out: Location, make_block: Any) -> None:
    begin_run(out, "r1", ())
    stems = [
        *commit_part(out, "r1", make_block(P, {key(1): 1})),
        *commit_part(out, "r1", make_block(P, {key(1): 1, key(2): 0})),
    ]
    for look in (lambda: outcome_counts(out), lambda: done_keys(out, stems)):
        with pytest.raises(OutputError, match=r"site \('P', 'A01', '1', None\).* and in .*Delete all but one"):
            look()
    with pytest.raises(OutputError, match="are gone"):
        done_keys(out, ["part-r1-0123456789abcdef"])


def test_a_broken_part_is_named(out: Location, make_block: Any) -> None:
    begin_run(out, "r1", ())
    (stem,) = commit_part(out, "r1", make_block(P, {key(1): 1}))
    write_bytes(part_location(out, "sites", P, stem), b"")
    with pytest.raises(OutputError, match=rf"{stem}\.parquet: expected a Parquet file"):
        outcome_counts(out)
    commit_part(out, "r1", make_block(P, {key(1): 1}))
    assert outcome_counts(out)["segmented"] == 1


def _changed(block: Any, **tables: Any) -> Any:
    return dataclasses.replace(block, **{name: change(getattr(block, name)) for name, change in tables.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plate": lambda plate: "Q"}, "sites of this plate only"),
        ({"sites": lambda table: pa.concat_tables([table, table])}, "a site twice"),
        ({"sites": lambda table: table.slice(0, 0)}, "expected one row a site, found none"),
        ({"nuclei": lambda table: table.slice(1)}, "its row says 2 nuclei, the nuclei table holds 1"),
        ({"nuclei": lambda table: pa.concat_tables([table, table.slice(0, 1)])}, "holds 3"),
        ({"masks": lambda table: table.slice(1)}, "one mask for each site"),
        ({"sites": lambda table: table.drop_columns(["stage"])}, "expected the columns"),
        ({"sites": lambda t: t.set_column(4, "outcome", pa.array(["done", "empty"]))}, r"found \['done'\]"),
        ({"nuclei": lambda t: t.set_column(2, "Metadata_Site", pa.array([None, None], pa.string()))}, "its schema"),
    ],
)
def test_tables_that_contradict_each_other_are_refused(
    out: Location, make_block: Any, change: Any, message: str
) -> None:
    begin_run(out, "r1", ())
    with pytest.raises(UsageError, match=message):
        commit_part(out, "r1", _changed(make_block(P, {key(1): 2, key(2): 0}), **change))
    assert stand(out) == set()


def test_columns_as_ray_gives_them_are_cast(out: Location, make_block: Any) -> None:
    def as_ray(table: pa.Table) -> pa.Table:
        kinds = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary(), pa.int32(): pa.int64()}
        fields = [pa.field(field.name, kinds.get(field.type, field.type)) for field in table.schema]
        table = table.cast(pa.schema(fields)).select(table.column_names[::-1])
        place = table.schema.get_field_index("Metadata_Timepoint")
        return table.set_column(place, "Metadata_Timepoint", pa.nulls(table.num_rows))

    begin_run(out, "r1", ())
    block = make_block(P, {key(1): 2, key(2): None})
    stems = commit_part(out, "r1", _changed(block, nuclei=as_ray, masks=as_ray, sites=as_ray))
    assert stems[0] == part_name("r1", block.sites)
    assert read_parts(out, "nuclei", stems).equals(block.nuclei)


def test_pandas_reads_the_nuclei_as_one_dataset(tmp_path: Path, make_block: Any) -> None:
    out = Location(str(tmp_path / "out"))
    begin_run(out, "r1", ())
    counts = {"0042": 3, "a b=c/ä": 2, "7": 0}
    for plate, count in counts.items():
        commit_part(out, "r1", make_block(plate, {key(1, plate): count, (plate, "", "x", "1"): 1}))
    assert {path.name for path in (tmp_path / "out" / "nuclei").iterdir()} == {
        "plate=0042",
        "plate=a%20b%3Dc%2F%C3%A4",
        "plate=7",
    }
    for folder, column in (("nuclei", "Nuclei_AreaShape_Area"), ("sites", "outcome"), ("masks", "png")):
        frame = pd.read_parquet(tmp_path / "out" / folder)
        assert set(frame["Metadata_Plate"]) == set(counts)
        assert column in frame
    frame = pd.read_parquet(tmp_path / "out" / "nuclei")
    assert frame.groupby("Metadata_Plate").size().to_dict() == {plate: count + 1 for plate, count in counts.items()}
    only = pd.read_parquet(tmp_path / "out" / "nuclei" / "plate=0042")
    assert set(only["Metadata_Plate"]) == {"0042"}
    begin_run(out, "r2", committed_stems(out))
    assert Counter(row[0] for row in key_rows(done_keys(out, committed_stems(out)))) == dict.fromkeys(counts, 2)


def test_png_masks_beside_the_parts_are_left_alone(out: Location, make_block: Any) -> None:
    write_bytes(out / "masks" / "P" / "A01" / "1.png", b"png")
    write_bytes(out / "masks" / "plate=P" / "A01" / "1.png", b"png of a plate with an odd name")
    begin_run(out, "r1", ())
    commit_part(out, "r1", dataclasses.replace(make_block(P, {key(1): 1}), masks=None))
    begin_run(out, "r2", ())
    assert [name for name, _ in find_files(out / "masks")] == ["P/A01/1.png", "plate=P/A01/1.png"]


def _blocks(numbers: list[int], chance: random.Random) -> list[list[int]]:
    """Cut shuffled sites into blocks of 1 to 4."""
    numbers = chance.sample(numbers, len(numbers))
    blocks = []
    while numbers:
        size = chance.randint(1, 4)
        blocks.append(numbers[:size])
        numbers = numbers[size:]
    return blocks


def _broken_off_run(out: Location, run_id: str, make: Any, chance: random.Random, zombies: list[Any]) -> None:
    """Do some of what is pending, in every way in which it can go wrong."""
    if chance.random() < 0.3:
        drop_failed(out)
    accepted = committed_stems(out)
    begin_run(out, run_id, accepted)
    done = {int(row[2]) for row in key_rows(done_keys(out, accepted))}
    for numbers in _blocks([number for number in range(12) if number not in done], chance):
        attempts = [
            make(P, {key(number): None if chance.random() < 0.2 else number % 4 for number in numbers}) for _ in "ab"
        ]
        match chance.randrange(5):
            case 0:
                commit_part(out, run_id, attempts[0])
            case 1:
                for attempt in attempts:
                    commit_part(out, run_id, attempt)
            case 2:  # killed after the nuclei
                stem = part_name(run_id, attempts[0].sites)
                write_table(part_location(out, "nuclei", P, stem), attempts[0].nuclei)
            case 3:
                zombies.append((run_id, attempts[0]))
        if zombies and chance.random() < 0.3 and zombies[0][0] != run_id:
            _slip_through(out, *zombies.pop(0))


def _slip_through(out: Location, run_id: str, block: Any) -> None:
    with pytest.MonkeyPatch.context() as slipping:
        slipping.setattr(ledger, "_check_latest", lambda out, run_id: None)
        commit_part(out, run_id, block)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_whatever_happened_before_every_site_ends_exactly_once(memory: Location, make_block: Any, seed: int) -> None:
    chance = random.Random(seed)
    out = memory / f"out{seed}"
    zombies: list[Any] = []
    for turn in range(chance.randint(1, 4)):
        _broken_off_run(out, f"r{turn}", make_block, chance, zombies)
    drop_failed(out)
    accepted = committed_stems(out)
    begin_run(out, "last", accepted)
    done = {int(row[2]) for row in key_rows(done_keys(out, accepted))}
    for numbers in _blocks([number for number in range(12) if number not in done], chance):
        if zombies:
            _slip_through(out, *zombies.pop())
        commit_part(out, "last", make_block(P, {key(number): number % 4 for number in numbers}))
    sweep(out, "last", accepted)
    rows = read_parts(out, "sites", None)
    assert sorted(int(name) for name in rows.column("Metadata_Site").to_pylist()) == list(range(12))
    assert outcome_counts(out) == {"segmented": 9, "empty": 3, "failed": 0}
    nuclei = read_parts(out, "nuclei", None)
    found = Counter(zip(nuclei["Metadata_Site"].to_pylist(), nuclei["ObjectNumber"].to_pylist(), strict=True))
    assert found == {(str(number), nth): 1 for number in range(12) for nth in range(1, number % 4 + 1)}
    assert pc.sum(rows["n_nuclei"]).as_py() == 18
