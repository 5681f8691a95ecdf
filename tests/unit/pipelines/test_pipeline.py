"""Pipelines and the modules that declare them: what is refused, naming the thing."""

import sys
from pathlib import Path
from typing import Any, Self

import pytest
from magnetar.aggregates import Aggregate
from magnetar.pipelines import Pipeline
from magnetar.pipelines.event_source import along
from magnetar.pipelines.loading import load_pipeline
from magnetar.pipelines.provisioning import read_topics, wanted_topics
from magnetar.pipelines.settings import load_settings
from magnetar.pipelines.topology import as_mermaid, as_text, wiring_of
from magnetar.projections import Fold, Rows, Sql
from magnetar.schemas import Command, DeclarationError, Event, SettingsError, TopicKind


class Buy(Command):
    pass


class Bought(Event):
    pass


class Order(Aggregate):
    def execute(self, command: Buy) -> Bought:
        return Bought()

    def apply(self, event: Bought) -> Self:
        return self


class Basket(Aggregate):
    def execute(self, command: Buy) -> Bought:
        return Bought()

    def apply(self, event: Bought) -> Self:
        return self


def test_a_pipeline_names_its_topics() -> None:
    assert str(Pipeline("shop", aggregates=[Order]).topic("Order", TopicKind.EVENTS)) == "shop/order-events"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"aggregates": []}, "has no aggregate"),
        ({"aggregates": [Buy]}, "is no Aggregate"),
        ({"aggregates": [Order()]}, "is no Aggregate"),
        ({"aggregates": [Order, Order]}, "have an event 'Bought'"),
        ({"aggregates": [Order, Basket]}, "have an event 'Bought'"),
        ({"aggregates": [Order], "projections": [Buy]}, "is no projection"),
        ({"aggregates": [Order], "partitions": 0}, "cannot have 0 partitions"),
    ],
)
def test_what_cannot_be_a_pipeline_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        Pipeline("shop", **arguments)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"m{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(request.param)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("x = 1", "declares no pipeline"),
        ("import nonexistent_module_x", r"does not import: ModuleNotFoundError.*\.py:1"),
        ("def f(:", r"does not import: SyntaxError.*\.py:1"),
        ("x = 1\n1 / 0", r"does not import: ZeroDivisionError.*\.py:2"),
        ("from magnetar import Pipeline\np = Pipeline('p', aggregates=[])", "has no aggregate"),
        (
            "from tests.unit.pipelines.test_pipeline import *\na, b = (Pipeline(n, aggregates=[Order]) for n in 'ab')",
            "several",
        ),
    ],
    indirect=["module"],
)
def test_a_module_that_gives_no_pipeline_is_refused(module: str, words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        load_pipeline(module)


@pytest.mark.parametrize("target", ["no_such_module", "no.such.module", "a b", "", "../x"])
def test_a_module_that_is_not_there_is_told(target: str) -> None:
    with pytest.raises(SettingsError):
        load_pipeline(target)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MAGNETAR_BROKER", "kafka://x", "MAGNETAR_BROKER is 'kafka://x'"),
        ("MAGNETAR_DECODING", "java", "MAGNETAR_DECODING is not usable: Input should be 'tried', 'engine' or 'python'"),
    ],
)
def test_a_setting_that_is_wrong_is_named(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=words):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAGNETAR_BROKER", "pulsar://ann:hunter2@pulsar:6650"),
        ("MAGNETAR_BROKER", "ann:hunter2@pulsar:6650"),
        ("MAGNETAR_BROKER_ADMIN", "https://ann:hunter2@pulsar:8443"),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name} has a user or a password in it") as refused:
        load_settings()
    assert "hunter2" not in f"{refused.value!r} {refused.value} {refused.value.cure}"


class Strange(Event):
    pass


class OfStrange(Fold):
    def apply(self, event: Strange) -> Self:
        return self


class Cart(Aggregate):
    def execute(self, command: Buy) -> Strange:
        return Strange()

    def apply(self, event: Strange) -> Self:
        return self


class OfBoth(Fold):
    def apply(self, event: Bought | Strange) -> Self:
        return self


class EachOfBoth(Rows):
    @classmethod
    def project(cls, event: Bought | Strange) -> tuple[Self, ...]:
        return ()


class Named(Rows, wire_name="Order"):
    @classmethod
    def project(cls, event: Bought) -> tuple[Self, ...]:
        return ()


@pytest.mark.parametrize(
    ("projections", "words"),
    [
        ([OfStrange], "OfStrange takes Strange, which is an event of no aggregate of 'shop'"),
        ([Named], "two things called 'Order'"),
        ([OfStrange, EachOfBoth, type("EachOfBoth", (Sql,), {})], "two things called 'EachOfBoth'"),
    ],
)
def test_projections_of_what_the_pipeline_has_not_are_refused(projections: list[Any], words: str) -> None:
    aggregates: list[Any] = [Order] if len(projections) == 1 else [Order, Cart]
    with pytest.raises(DeclarationError, match=words):
        Pipeline("shop", aggregates=aggregates, projections=projections)


def test_a_copy_of_an_events_class_is_told_from_an_event_that_is_not_there() -> None:
    class Copied(Event, wire_name="Bought"):
        pass

    class OfCopied(Fold):
        def apply(self, event: Copied) -> Self:
            return self

    OfCopied.apply.__annotations__["event"] = Copied
    words = "OfCopied takes .*Copied of .*which is another class than the event of that name of 'shop', that of "
    with pytest.raises(DeclarationError, match=words) as refused:
        Pipeline("shop", aggregates=[Order], projections=[OfCopied])
    assert f"`from {__name__} import Bought`" in refused.value.cure


def test_rows_take_events_of_several_aggregates_and_a_fold_of_one() -> None:
    pipeline = Pipeline("shop", aggregates=[Order, Cart], projections=[EachOfBoth])
    assert pipeline.aggregates_of(EachOfBoth) == ("Order", "Cart")
    with pytest.raises(DeclarationError, match="events of Order and Cart, and a fold is over one aggregate"):
        Pipeline("shop", aggregates=[Order, Cart], projections=[OfBoth])


class OfElsewhere(Rows):
    @classmethod
    def project(cls, event: Bought | Strange) -> tuple[Self, ...]:
        return ()


carts = Pipeline("carts", aggregates=[Cart], partitions=3)


def test_a_pipeline_takes_events_of_another_context_that_it_reads() -> None:
    pipeline = Pipeline("shop", aggregates=[Order], projections=[OfElsewhere, OfStrange], reads=[carts])
    assert pipeline.aggregates_of(OfElsewhere) == ("Order", "carts/Cart")
    assert pipeline.aggregates_of(OfStrange) == ("carts/Cart",)
    assert list(pipeline.aggregates) == ["Order"]
    assert (str(pipeline.events_of("carts/Cart").topic), pipeline.events_of("carts/Cart").partitions) == (
        "carts/cart-events",
        3,
    )
    assert [str(wanted.topic) for wanted in wanted_topics(pipeline) if "cart" in str(wanted.topic)] == []
    assert [(str(wanted.topic), wanted.reader) for wanted in read_topics(pipeline)] == [("carts/cart-events", "shop")]
    wiring = wiring_of(pipeline)
    assert [(read.name, read.projections) for read in wiring.reads] == [("carts/Cart", ("OfElsewhere", "OfStrange"))]
    assert "  carts/cart-events: read by OfElsewhere, OfStrange" in as_text(wiring).splitlines()
    assert '  read0[("carts/cart-events")] --> projection1' in as_mermaid(wiring).splitlines()


def test_what_runs_in_one_data_folder_is_what_is_read_first() -> None:
    shop = Pipeline("shop", aggregates=[Order], reads=[carts])
    till = Pipeline("till", aggregates=[Order], reads=[carts, shop])
    assert along(till) == [carts, shop, till]
    assert along(carts) == [carts]


class Odd(Event):
    pass


class Third(Aggregate):
    def execute(self, command: Buy) -> Odd:
        return Odd()

    def apply(self, event: Odd) -> Self:
        return self


class Other(Aggregate):
    def execute(self, command: Buy) -> Bought:
        return Bought()

    def apply(self, event: Bought) -> Self:
        return self


@pytest.mark.parametrize(
    ("reads", "words"),
    [
        ([], "takes Strange, which is an event of no aggregate of 'shop'\\. Add"),
        (
            [Pipeline("others", aggregates=[Third])],
            "takes Strange, which is an event of no aggregate of 'shop', nor of what it reads: others",
        ),
        (
            [carts, Pipeline("others", aggregates=[Other])],
            "takes Bought, which is an event of Order and of others/Other, and it cannot be said whose",
        ),
        ([carts, Pipeline("carts", aggregates=[Cart])], "reads two of the name 'carts'"),
        ([Pipeline("shop", aggregates=[Cart])], "'shop' reads one of its own name"),
        ([Cart], "Cart.*in what 'shop' reads is no Pipeline"),
        (["carts"], "'carts' in what 'shop' reads is no Pipeline"),
    ],
)
def test_what_cannot_be_read_is_refused(reads: list[Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        Pipeline("shop", aggregates=[Order], projections=[OfElsewhere], reads=reads)
