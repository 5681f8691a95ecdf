"""Mappings in messages and states: copied and read-only, whoever makes the value."""

import copy
import pickle
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

import msgspec
import pytest
from magnetar.aggregates import Aggregate, StateCodec, given
from magnetar.schemas import Command, Event, Immutable


class Priced(Immutable):
    prices: Mapping[str, int]
    nested: tuple[Mapping[str, Mapping[str, int]], ...] = ()
    some: Mapping[str, int] = {"a": 1}


class Late(Immutable):
    prices: "Mapping[str, int]"
    later: "tuple[Much, ...]" = ()


class Much(Immutable):
    x: int = 0


WAYS: dict[str, Callable[[dict[str, int]], Priced]] = {
    "constructor": Priced,
    "proxy": lambda prices: Priced(MappingProxyType(prices)),
    "replace": lambda prices: Priced({}).replace(prices=prices),
    "convert": lambda prices: msgspec.convert({"prices": prices}, Priced),
    "decode": lambda prices: msgspec.msgpack.decode(msgspec.msgpack.encode({"prices": prices}), type=Priced),
    "copy": lambda prices: copy.copy(Priced(prices)),
    "pickle": lambda prices: pickle.loads(pickle.dumps(Priced(prices))),
}


def attempts(mapping: Any) -> list[Callable[[], Any]]:
    return [
        lambda: mapping.__setitem__("b", 2),
        lambda: mapping.__delitem__("a"),
        lambda: mapping.update(b=2),
        lambda: mapping.pop("a"),
        mapping.popitem,
        mapping.clear,
        lambda: mapping.setdefault("b", 2),
        lambda: mapping.__ior__({"b": 2}),
    ]


@pytest.mark.parametrize("way", WAYS)
def test_a_mapping_cannot_be_changed_whoever_made_the_value(way: str) -> None:
    given_one = {"a": 1}
    value = WAYS[way](given_one)
    given_one["a"] = 2
    for mapping in (value.prices, value.some):
        assert mapping == {"a": 1}
        for attempt in attempts(mapping):
            with pytest.raises(TypeError, match="immutable"):
                attempt()
    assert value == Priced({"a": 1})
    assert hash(value) == hash(Priced({"a": 1}))
    assert msgspec.json.encode(value) == b'{"prices":{"a":1},"nested":[],"some":{"a":1}}'
    assert repr(value.prices) == "{'a': 1}"


def test_mappings_within_tuples_and_mappings_are_read_only_too() -> None:
    value = Priced({}, ({"x": {"y": 1}},))
    for attempt in (*attempts(value.nested[0]), *attempts(value.nested[0]["x"])):
        with pytest.raises(TypeError, match="immutable"):
            attempt()


def test_annotations_that_are_texts_are_understood() -> None:
    late = Late({"a": 1})
    with pytest.raises(TypeError, match="immutable"):
        attempts(late.prices)[0]()


def test_a_class_with_a_post_init_of_its_own_has_both() -> None:
    class Checked(Immutable):
        prices: Mapping[str, int]

        def __post_init__(self) -> None:
            if not self.prices:
                raise ValueError("nothing")

    class Derived(Checked):
        more: Mapping[str, int] = {}

    with pytest.raises(ValueError, match="nothing"):
        Derived({})
    with pytest.raises(TypeError, match="immutable"):
        attempts(Derived({"a": 1}, {"a": 1}).more)[0]()
    with pytest.raises(TypeError, match="immutable"):
        attempts(Derived({"a": 1}).prices)[0]()


class Put(Command):
    name: str
    price: int


class PricePut(Event):
    name: str
    price: int


class Shop(Aggregate):
    prices: Mapping[str, int] = {}
    by_day: Mapping[int, tuple[Mapping[str, int], ...]] = {}

    def execute(self, command: Put) -> PricePut:
        return PricePut(command.name, command.price)

    def apply(self, event: PricePut) -> Self:
        return self.replace(prices={**self.prices, event.name: event.price})


def test_a_state_may_have_mappings() -> None:
    then = given(Shop, PricePut("a", 1)).when(Put("b", 2))
    then.then(PricePut("b", 2))
    assert then.state.prices == {"a": 1, "b": 2}
    codec = StateCodec(Shop)
    state = codec.decode(codec.encode(Shop({"a": 1}, {1: ({"b": 2},)})))
    assert state == Shop({"a": 1}, {1: ({"b": 2},)})
    for mapping in (state.prices, state.by_day, state.by_day[1][0]):
        with pytest.raises(TypeError, match="immutable"):
            attempts(mapping)[0]()


def test_the_kit_sees_a_mapping_of_the_wrong_values() -> None:
    class Wrong(Shop):
        def apply(self, event: PricePut) -> Self:
            prices: Any = {event.name: str(event.price)}
            return self.replace(prices=prices)

    with pytest.raises(AssertionError, match="Expected `int`, got `str`"):
        given(Wrong, PricePut("a", 1))
