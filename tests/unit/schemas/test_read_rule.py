"""The read rule, by its published vectors and by its laws."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magnetar.schemas import ReadRule, Verdict
from magnetar.schemas.commit import counting_run
from magnetar.schemas.framing import write_long

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "read_rule.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["title"] for vector in VECTORS])
def test_published_vector(vector: dict[str, list[list[object]]]) -> None:
    rule = ReadRule()
    judged = [[n, o, rule.judge(int(str(n)), str(o).encode()).value] for n, o, _ in vector["messages"]]
    assert judged == vector["messages"]


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from([b"a", b"b", b"c"])), max_size=40))
def test_what_counts_is_contiguous_from_one_and_written_by_the_claimed_owner(log: list[tuple[int, bytes]]) -> None:
    rule, claimed, numbers = ReadRule(), None, []
    for number, owner in log:
        verdict = rule.judge(number, owner)
        if verdict is Verdict.CLAIM:
            claimed = owner
        if verdict is Verdict.COUNTS:
            assert owner == claimed
            numbers.append(number)
    assert numbers == list(range(1, len(numbers) + 1))


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from([b"a", b"b"])), max_size=30), st.integers(0, 30))
def test_resuming_with_owner_and_number_judges_the_same(log: list[tuple[int, bytes]], cut: int) -> None:
    whole = ReadRule()
    verdicts = [whole.judge(number, owner) for number, owner in log]
    first = ReadRule()
    for number, owner in log[:cut]:
        first.judge(number, owner)
    resumed = ReadRule(first.owner, first.expected)
    assert [resumed.judge(number, owner) for number, owner in log[cut:]] == verdicts[cut:]


@pytest.mark.parametrize("first", [1, 63, 64, 8_191, 1_048_500])
@pytest.mark.parametrize("ends_after", [0, 1, 63, 64, 65, 200])
def test_a_long_run_ends_where_a_commit_is_not_the_expected_one(first: int, ends_after: int) -> None:
    owner = b"o" * 16
    payloads = [write_long(number) + owner + b"rest" for number in range(first, first + 200)]
    payloads[ends_after:ends_after] = [write_long(first + ends_after + 1) + owner]
    rule = ReadRule(owner, first)
    assert counting_run(rule, payloads, 0) == ends_after
    assert rule.expected == first + ends_after


OWNERS = [bytes([n]) * 16 for n in range(3)]


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(OWNERS)), max_size=40), st.integers(1, 70_000))
def test_a_run_of_counting_commits_is_what_the_rule_judges_one_by_one(log: list[tuple[int, bytes]], first: int) -> None:
    messages = [(0 if number == 0 else first + number, owner) for number, owner in log]
    payloads = [write_long(number) + owner for number, owner in messages]
    fast, slow, at = ReadRule(None, first + 1), ReadRule(None, first + 1), 0
    while at < len(payloads):
        run = counting_run(fast, payloads, at)
        assert all(slow.judge(*messages[i]) is Verdict.COUNTS for i in range(at, at + run))
        at += run
        if at < len(payloads):
            assert fast.judge(*messages[at]) is slow.judge(*messages[at]) is not Verdict.COUNTS
            at += 1
        assert (fast.owner, fast.expected) == (slow.owner, slow.expected)


def judged(*log: tuple[int, bytes]) -> ReadRule:
    rule = ReadRule()
    for number, owner in log:
        rule.judge(number, owner)
    return rule


def test_a_log_that_begins_without_a_claim_or_far_from_one_is_cut() -> None:
    cut = judged((7, b"a"), (8, b"a"), (0, b"b"), (9, b"b"))
    assert (cut.begins_at, cut.is_cut) == (7, True)
    far = judged((0, b"a"), (20_001, b"a"), (20_002, b"a"))
    assert (far.begins_at, far.is_cut) == (20_001, True)


def test_a_log_whose_first_writer_failed_is_not_cut() -> None:
    failed = [(0, b"a"), (2, b"a"), (3, b"a")]
    assert (judged(*failed).begins_at, judged(*failed).is_cut) == (2, False)
    assert judged(*failed, (0, b"b"), (1, b"b")).begins_at is None
    assert judged((0, b"a"), (1, b"a"), (3, b"a")).begins_at is None
