"""The account of a batch run: every site of the manifest ends as exactly one outcome."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """How many sites there are and what became of them; ``done_before`` counts those that earlier runs did."""

    sites: int
    segmented: int
    empty: int
    failed: int
    done_before: int

    def __str__(self) -> str:
        """Give the last line of a run."""
        return (
            f"{self.sites} sites = {self.segmented} segmented + {self.empty} empty + {self.failed} failed "
            f"(of these, done before: {self.done_before})"
        )

    @property
    def is_balanced(self) -> bool:
        """Tell whether every site has an outcome."""
        return self.sites == self.segmented + self.empty + self.failed

    def is_within(self, max_failed: str) -> bool:
        """Tell whether no more sites failed than ``"N"`` or ``"P%"`` of them."""
        if max_failed.endswith("%"):
            return self.failed * 100 <= float(max_failed[:-1]) * self.sites
        return self.failed <= int(max_failed)
