"""The names of probes' files say what is in them."""

from pathlib import Path

import pytest

from runner.kept import Kept, parsed, stem


@pytest.mark.parametrize("what", ["weights", "H", "heldout_H_r", "a-step3"])
@pytest.mark.parametrize("replica", [None, 0, 17])
def test_a_name_gives_what_it_was_made_of(what: str, replica: int | None) -> None:
    assert parsed(Path("folder") / f"{stem(what, 40, replica)}.npy") == Kept(what, 40, replica or 0)


def test_names() -> None:
    assert stem("weights", 3) == "weights-step3"
    assert stem("weights", 3, 0) == "weights-step3-replica0"


@pytest.mark.parametrize(
    "name", ["weights.pt", "weights-step.pt", "-step3.pt", "weights-step3-replica.pt", "a-step3b.pt"]
)
def test_other_names_are_none(name: str) -> None:
    assert parsed(Path(name)) is None
