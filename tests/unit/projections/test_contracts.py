"""What a Rows or a Fold has to declare, and what is refused, with the cure."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Self

import pytest
from magnetar.projections import Fold, Rows, Sql
from magnetar.projections.contracts import contract_of
from magnetar.schemas import Command, DeclarationError, Event, Meta

from tests.unit.projections.projected import Balance, Large, Put, Taken

NAMES: dict[str, Any] = {
    "Command": Command,
    "Event": Event,
    "Fold": Fold,
    "Iterator": Iterator,
    "Meta": Meta,
    "Put": Put,
    "Rows": Rows,
    "Self": Self,
    "Sql": Sql,
    "Taken": Taken,
    "__name__": __name__,
    "timedelta": timedelta,
}


def declared(text: str) -> Any:
    """The last class of a module with this text."""
    scope = dict(NAMES)
    exec(text, scope)
    return scope["P"]


def test_the_annotations_say_which_events_and_whether_meta() -> None:
    assert contract_of(Balance).events[:2] == (Put, Taken)
    assert not contract_of(Balance).takes_meta
    assert contract_of(Large).takes_meta
    assert (contract_of(Large).kind, contract_of(Balance).kind) == ("rows", "fold")


PROJECT = "@classmethod\n  def project(cls, event: Put) -> Iterator[Self]: ..."
APPLY = "def apply(self, event: Put) -> Self: return self"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"class P(Fold):\n  a: list[int] = []\n  {APPLY}", "P.a is a list"),
        (f"class P(Fold):\n  a: int\n  {APPLY}", "P.a has no default"),
        (f"class P(Fold):\n  a: object = None\n  {APPLY}", "which has no Avro type"),
        (f"class P(Fold):\n  _a: int = 0\n  {APPLY}", "which cannot stand in Avro and ClickHouse"),
        (f"class P(Fold):\n  revision: int = 0\n  {APPLY}", "which is a name of Magnetar's"),
        (f"class P(Fold):\n  by: str = ''\n  {APPLY}", "has a field 'by', which is a name of Magnetar's"),
        ("class P(Fold):\n  a: int = 0", "P has no method `apply`"),
        ("class P(Fold):\n  async def apply(self, event: Put) -> Self: return self", "is async"),
        ("class P(Fold):\n  def apply(self, event) -> Self: return self", "does not say which events"),
        ("class P(Fold):\n  def apply(self, event: Event) -> Self: return self", "stands for every event"),
        ("class P(Fold):\n  def apply(self, event: int) -> Self: return self", "which is no class derived from Event"),
        ("class P(Fold):\n  def apply(self, event: Put) -> int: return 1", "has to return the row"),
        ("class P(Fold):\n  def apply(self, event: Put, meta: int) -> Self: return self", "and is given the Meta"),
        ("class P(Fold):\n  def apply(self, event: Put, meta: Meta, x: int) -> Self: return self", "has to read"),
        (
            "class P(Fold):\n  def apply(self, event: 'Gone') -> Self: return self",
            "'Gone' of P.apply cannot be resolved",
        ),
        (f"class P(Fold):\n  keep = timedelta(days=1)\n  {APPLY}", "P has `keep`, which is for Rows alone"),
        (f"class P(Fold):\n  a: int = 0\n  order_by = ('a',)\n  {APPLY}", "P has `order_by`, which is for Rows alone"),
        ("class P(Sql):\n  keep = timedelta(days=1)\n  select = 'SELECT 1 AS a'\n  a: int", "P has `keep`, which is"),
        (f"class P(Rows):\n  a: int\n  order_by = ('b',)\n  {PROJECT}", "P is ordered by 'b', which is no field of it"),
        (f"class P(Rows):\n  a: str\n  order_by = 'a'\n  {PROJECT}", "P.order_by is 'a'"),
        (f"class P(Rows):\n  a: tuple[int, ...]\n  order_by = ('a',)\n  {PROJECT}", "cannot be ordered by 'a'"),
        (f"class P(Rows):\n  a: int\n  order_by = ('a', 'a')\n  {PROJECT}", "cannot be ordered by 'a'"),
        (f"class P(Rows):\n  a: int\n  keep = 365\n  {PROJECT}", "P.keep is 365"),
        (f"class P(Rows):\n  a: int\n  keep = timedelta(days=-1)\n  {PROJECT}", "P.keep is"),
        (f"class P(Rows):\n  a: int\n  keep = timedelta(milliseconds=1500)\n  {PROJECT}", "P.keep is"),
        (
            f"class P(Rows):\n  a: int\n  codecs = {{'b': 'ZSTD'}}\n  {PROJECT}",
            "P.codecs has 'b', which is no field of it",
        ),
        (
            f"class P(Rows):\n  a: int\n  codecs = {{'a': 'ZSTD(1)) TTL (1'}}\n  {PROJECT}",
            "P.codecs has 'ZSTD.1.. TTL .1' for 'a'",
        ),
        (f"class P(Fold):\n  a: int = 0\n  codecs = ('ZSTD',)\n  {APPLY}", "P.codecs is .'ZSTD',."),
        (
            "class P(Sql):\n  codecs = {'a': 'ZSTD'}\n  select = 'SELECT 1 AS a'\n  a: int",
            "which is for Rows and Folds",
        ),
        (f"class P(Rows):\n  keep: int\n  {PROJECT}", "has a field 'keep', which is a name of Magnetar's"),
        ("class P(Rows):\n  a: int", "P has no class method `project`"),
        ("class P(Rows):\n  def project(self, event: Put) -> Iterator[Self]: ...", "no class method `project`"),
        ("class P(Rows):\n  @classmethod\n  async def project(cls, event: Put) -> Iterator[Self]: ...", "is async"),
        ("class P(Rows):\n  @classmethod\n  def project(cls, event: Put) -> Self: ...", "has to yield or return rows"),
        ("class P(Rows):\n  @classmethod\n  def project(cls) -> Iterator[Self]: ...", "has to read"),
    ],
)
def test_what_cannot_be_is_refused_at_its_declaration(text: str, what: str) -> None:
    with pytest.raises(DeclarationError, match=what) as refused:
        declared(text)
    assert refused.value.cure


BEFORE = "class P(Fold):\n  '''Says one thing.'''\n  a: int = 0\n  def apply(self, event: Put) -> Self: return self"


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ("one thing", "another", True),
        ("return self", "return self.replace(a=1)", True),
        ("a: int = 0", "b: int = 0", False),
        ("a: int = 0", "a: float = 0.0", False),
        ("a: int = 0", "a: int = 1", False),
        ("event: Put", "event: Put | Taken", False),
        ("a: int = 0", "revision = 2\n  a: int = 0", False),
    ],
)
def test_the_fingerprint_is_another_where_the_old_rows_are_of_no_use(old: str, new: str, *, is_same: bool) -> None:
    before, after = declared(BEFORE), declared(BEFORE.replace(old, new))
    found = [contract_of(each).fingerprint(each.revision) for each in (before, after)]
    assert (found[0] == found[1]) is is_same
