"""Who decodes the commits: ClickHouse or, where it cannot, Python. The rows are the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from magnetar.aggregates import Aggregate
from magnetar.pipelines import Pipeline
from magnetar.pipelines.preflight import Severity
from magnetar.pipelines.server_preflight import examine_decoding
from magnetar.projections import decoding_trial
from magnetar.projections.container import container
from magnetar.projections.decoding import Decoder, Decoding
from magnetar.projections.decoding_trial import made_up, misreading
from magnetar.projections.range_loop import Range
from magnetar.projections.row_binary import CommitRows
from magnetar.projections.store import Store, embedded_dsn
from magnetar.projections.tables import MirrorTables
from magnetar.schemas import Event, Immutable, PartitionRefused, StoreUnavailable
from magnetar.schemas.commit import CommitCodec, Parked

from tests.unit.projections.test_mirror import OPENED, Closed, Context, Denied, Open, Opened
from tests.unit.projections.test_types import Everything
from tests.unit.schemas.classes import EVENTS, Typed


class Card(Immutable):
    number: str


class Paid(Event):
    card: Card | None = None


class Account(Aggregate):
    def execute(self, command: Open) -> Closed:
        return Closed()

    def apply(self, event: Closed) -> Self:
        return self


WAYS = [(Decoding.ENGINE, Decoding.PYTHON), (Decoding.PYTHON, Decoding.ENGINE)]


@pytest.fixture
def lesser(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The engine as it is from 26.5 to 26.7, unless somebody sets this."""
    folder = Path(str(store._at).removeprefix("chdb://")).parent
    lesser = Store(embedded_dsn(folder))
    lesser.command("SET enable_nullable_tuple_type = 0")
    yield lesser
    lesser.close()


def filled_both_ways(context: Context) -> tuple[MirrorTables, MirrorTables]:
    """Two generations, from all that the log has: one that ClickHouse decodes, and one that Python does."""
    made = []
    for mirror in (
        context.mirror,
        context.open(generation=2, decoder=Decoder(context.store, context.folder, Decoding.PYTHON)),
    ):
        context.mirror = mirror
        loop = context.loop()
        while loop.step():
            pass
        made.append(mirror.tables)
    return made[0], made[1]


def without_their_twin(context: Context, ours: str, theirs: str) -> int:
    """The rows of one table that the other has not."""
    rows = "SELECT toString(tuple(*)), count() FROM {} GROUP BY 1"
    found = context.rows(f"SELECT count() FROM ({rows.format(ours)} EXCEPT {rows.format(theirs)})")
    return int(found[0][0])


@given(EVENTS, st.data())
@settings(
    max_examples=15, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
def test_generated_events_have_the_same_rows_whoever_decodes_them(
    store: Store, tmp_path: Path, typed: Typed, data: st.DataObject
) -> None:
    context = Context(store, tmp_path, [typed.annotation, Closed], decoding=Decoding.ENGINE)
    for number, value in enumerate(data.draw(st.lists(typed.values, min_size=1, max_size=3)), 1):
        context.accepted(number, Closed(), value, version=2 * number)
    one, other = filled_both_ways(context)
    for ours, theirs in ((one.events, other.events), (one.commits, other.commits)):
        assert without_their_twin(context, ours, theirs) == without_their_twin(context, theirs, ours) == 0
    assert context.rows(f"SELECT count() FROM {other.events}") == [(2 * (len(context.messages) - 1),)]
    context.store.command(f"DROP DATABASE {one.database}")


def test_every_outcome_has_the_same_row_whoever_decodes_it(store: Store, tmp_path: Path) -> None:
    context = Context(store, tmp_path, decoding=Decoding.ENGINE)
    codec = CommitCodec(context.schemas[0])
    context.accepted(1, OPENED, Closed())
    context.commit(2, codec.nothing("01234567-89ab-7def-8123-456789abcdef"))
    context.commit(3, codec.rejected(Denied('say "no"')))
    context.commit(4, codec.parked(Parked.of("undecodable", "broken", b"junk\xff\0")))
    context.commit(5, codec.parked(Parked.of("undecodable", "broken", bytes(100_000))))
    one, other = filled_both_ways(context)
    for ours, theirs in ((one.events, other.events), (one.commits, other.commits)):
        assert without_their_twin(context, ours, theirs) == without_their_twin(context, theirs, ours) == 0
    assert context.rows(f"SELECT count() FROM {other.commits}") == [(5,)]


@pytest.mark.parametrize("ways", WAYS)
def test_a_range_that_is_inserted_again_the_other_way_is_there_once(
    store: Store, tmp_path: Path, ways: tuple[Decoding, Decoding]
) -> None:
    context = Context(store, tmp_path)
    context.accepted(1, OPENED, Closed())
    lease, payloads = context.mirror.take_lease(0, "one"), [context.messages[-1].payload]
    for way in (*ways, *ways):
        mirror = context.open(decoder=Decoder(store, tmp_path, way))
        mirror.insert(0, lease, Range(1, 1, None, None), 1, payloads)
    assert context.rows("SELECT count() FROM DB.account__events__g1") == [(2,)]
    assert context.rows("SELECT count() FROM DB.commits") == [(1,)]


@pytest.mark.parametrize("ways", WAYS)
def test_a_range_that_stopped_between_its_tables_is_ended_the_other_way(
    store: Store, tmp_path: Path, ways: tuple[Decoding, Decoding]
) -> None:
    def stop(_: str) -> None:
        raise StoreUnavailable("between the tables")

    context = Context(store, tmp_path)
    context.accepted(1, OPENED, Closed())
    one, other = (Decoder(store, tmp_path, way) for way in ways)
    context.mirror = context.open(failpoint=stop, decoder=one)
    with pytest.raises(StoreUnavailable, match="between the tables"):
        context.loop().step()
    assert context.rows("SELECT count() FROM DB.account__events__g1") == [(0,)]
    context.mirror = context.open(decoder=other)
    context.loop()
    assert context.rows("SELECT count() FROM DB.account__events__g1") == [(2,)]
    assert context.rows("SELECT count() FROM DB.commits") == [(1,)]


def test_an_engine_that_reads_all_types_decodes_itself(store: Store, tmp_path: Path) -> None:
    context = Context(store, tmp_path, [Everything, Opened, Closed])
    assert misreading(store, context.schemas[0].commit_json, tmp_path / "tried") is None
    framed = context.decoder.framed(context.schemas[0].commit_json, [])
    assert framed.format == "Avro"
    assert list(tmp_path.iterdir()) == []


def test_for_an_engine_that_cannot_python_decodes_and_the_log_says_why(lesser: Store, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logged:
        context = Context(lesser, tmp_path)
        context.accepted(1, OPENED, Closed())
        context.accepted(2, Closed())
        loop = context.loop(range_commits_max=2)  # the claim and a commit
        while loop.step():
            pass
    assert context.rows("SELECT owner, since FROM DB.Opened") == [(OPENED.owner, OPENED.since)]
    assert context.rows("SELECT count() FROM DB.Closed") == [(2,)]
    (line,) = [line for line in logged if line["event"] == "decoding"]
    assert line["by"] == "python"
    assert line["schema"] == f"{context.name}.account.Commit"
    assert "Nullable Tuple type is not allowed. Set setting enable_nullable_tuple_type = 1" in line["why"]
    assert line["log_level"] == "warning"


def test_the_doctor_says_whose_commits_python_decodes(lesser: Store, store: Store) -> None:
    pipeline = Pipeline("bank", aggregates=[Account])
    (found,) = examine_decoding(pipeline, lesser)
    assert (found.severity, found.subject) == (Severity.WARNING, "bank/Account")
    assert "decoding is by Python: The query was refused: Code: 44." in str(found)
    assert "Set setting enable_nullable_tuple_type = 1" in str(found)
    assert examine_decoding(pipeline, store) == []


def test_with_the_setting_it_is_not_tried(lesser: Store, tmp_path: Path) -> None:
    context = Context(lesser, tmp_path, decoding=Decoding.ENGINE)
    context.accepted(1, Closed())
    with pytest.raises(StoreUnavailable, match="Nullable Tuple type is not allowed"):
        context.loop().step()


def test_a_struct_that_may_be_none_needs_an_engine_with_such_columns(lesser: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="Set setting enable_nullable_tuple_type = 1 in order to allow it"):
        Context(lesser, tmp_path, [Paid])


def test_an_engine_that_reads_something_else_than_was_written_does_not_decode(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Context(store, tmp_path).schemas[0].commit_json

    def with_another(schema: str, payloads: list[bytes]) -> Any:
        return container(schema, [*payloads[1:], payloads[-1]])

    monkeypatch.setattr(decoding_trial, "container", with_another)
    assert misreading(store, text, tmp_path / "tried") == "it reads made-up commits otherwise than they were written"


def test_while_the_engine_is_away_nothing_is_chosen(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(store, tmp_path)

    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("ClickHouse does not answer")

    text = context.schemas[0].commit_json
    with monkeypatch.context() as patched:
        patched.setattr(store, "query", away)
        with pytest.raises(StoreUnavailable):
            context.decoder.framed(text, [])
    assert context.decoder.framed(text, []).format == "Avro"


def test_made_up_commits_have_all_types_full_and_empty(store: Store, tmp_path: Path) -> None:
    schema = Context(store, tmp_path).schemas[0]
    commits = [CommitCodec(schema).decode(payload) for payload in made_up(schema.commit_schema)]
    assert [[type(event) for event in commit.events] for commit in commits] == [[Closed, Opened]] * len(commits)
    assert [(commit.rejection is None, commit.parked is None) for commit in commits] == [
        *((True, True), (True, False), (False, True)),
        *((True, True), (True, False), (False, True)),
    ]
    assert [commit.events[1].limit for commit in commits] == [2**63 - 1] * 3 + [None] * 3


@pytest.mark.parametrize(
    ("change", "why"), [(lambda b: b[:-3], "is no commit by its schema"), (lambda b: b + b"x", "1 bytes stand behind")]
)
def test_bytes_that_are_no_commit_stop_the_partition(store: Store, tmp_path: Path, change: Any, why: str) -> None:
    context = Context(store, tmp_path)
    context.accepted(1, OPENED)
    rows = CommitRows(context.schemas[0].commit_schema).rows([change(context.messages[-1].payload)])
    with pytest.raises(PartitionRefused, match=why):
        list(rows)
