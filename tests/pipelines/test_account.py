"""The account of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nucseg_ray.pipelines.account import Account

ACCOUNT = Account(sites=200, segmented=180, empty=10, failed=10, done_before=40)


def test_the_last_line() -> None:
    assert str(ACCOUNT) == "200 sites = 180 segmented + 10 empty + 10 failed (of these, done before: 40)"


def test_balance() -> None:
    assert ACCOUNT.is_balanced
    assert not replace(ACCOUNT, empty=9).is_balanced
    assert not replace(ACCOUNT, failed=11).is_balanced
    assert Account(sites=0, segmented=0, empty=0, failed=0, done_before=0).is_balanced


@pytest.mark.parametrize(
    ("max_failed", "within"),
    [
        ("0", False),
        ("9", False),
        ("10", True),
        ("11", True),
        ("0%", False),
        ("4.9%", False),
        ("5%", True),
        ("100%", True),
    ],
)
def test_how_many_may_fail(max_failed: str, within: bool) -> None:
    assert ACCOUNT.is_within(max_failed) is within


def test_no_failure_is_always_within() -> None:
    assert replace(ACCOUNT, failed=0).is_within("0")
    assert replace(ACCOUNT, failed=0).is_within("0%")
    assert Account(sites=0, segmented=0, empty=0, failed=0, done_before=0).is_within("5%")
