"""In which form a state is kept: small ones as bytes, large ones as objects."""

from typing import Any, Self

import pytest
from magnetar.aggregates import Aggregate, Cells, StateCodec, StoredCell
from magnetar.aggregates.cells import PACKED_BYTES_MAX
from magnetar.schemas import Command, Event, PartitionRefused


class Put(Command):
    pass


class Noted(Event):
    note: str


class Pad(Aggregate):
    note: str = ""

    def execute(self, command: Put) -> Noted:
        return Noted("")

    def apply(self, event: Noted) -> Self:
        return self.replace(note=event.note)


CODEC = StateCodec(Pad)
SMALL, LARGE = Pad("a" * 100), Pad("a" * PACKED_BYTES_MAX)
Broken: Any = Pad.replace  # what `apply` can make in spite of its annotations


def put(cells: Cells, state: Any, version: int = 1) -> None:
    cells.get("pad")
    cells.put("pad", version, state)


def state_in(cells: Cells) -> Any:
    found = cells.get("pad")
    assert found is not None
    return found[1]


def test_a_small_state_is_kept_as_bytes_and_a_large_one_as_it_is() -> None:
    cells = Cells(CODEC)
    put(cells, SMALL)
    assert state_in(cells) == SMALL
    assert state_in(cells) is not SMALL
    put(cells, LARGE)
    assert state_in(cells) is LARGE


def test_a_large_state_is_encoded_when_it_becomes_large_and_not_with_every_event(monkeypatch: Any) -> None:
    cells, encoded = Cells(CODEC), list[Any]()
    put(cells, LARGE)
    monkeypatch.setattr(CODEC, "encode", encoded.append)
    for version in range(10):
        put(cells, LARGE.replace(note=LARGE.note + "b" * version), version)
    assert encoded == []


def test_a_large_state_from_a_checkpoint_is_decoded_once() -> None:
    cells = Cells(CODEC)
    cells.restore([StoredCell("pad", 7, CODEC.encode(LARGE))])
    assert cells.get("pad") == (7, LARGE)
    assert state_in(cells) is state_in(cells)


@pytest.mark.parametrize("state", [None, SMALL, LARGE], ids=["ended", "small", "large"])
def test_each_form_is_the_same_in_a_checkpoint(state: Any) -> None:
    cells = Cells(CODEC)
    put(cells, state, 3)
    ((stored,),) = list(cells.dump())
    assert stored == StoredCell("pad", 3, CODEC.encode(state))


def test_a_state_that_cannot_be_stored_is_kept_until_it_has_to_be() -> None:
    cells, state = Cells(CODEC), Broken(SMALL, note=object())
    put(cells, state)
    assert state_in(cells) is state
    with pytest.raises(PartitionRefused, match="A state of Pad cannot be stored"):
        list(cells.dump())


def test_a_state_that_its_class_cannot_read_is_refused_when_it_is_asked_for_and_not_after_the_next_start() -> None:
    cells = Cells(CODEC)
    put(cells, Broken(SMALL, note=17))
    with pytest.raises(PartitionRefused, match="Expected `str`, got `int`"):
        cells.get("pad")
    assert "pad" in cells
