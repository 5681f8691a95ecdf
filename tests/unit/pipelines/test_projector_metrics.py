"""What a projector counts, as a scrape shows it."""

from magnetar.pipelines.projector_metrics import TableMetrics
from magnetar.schemas import StoreUnavailable
from prometheus_client import REGISTRY


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"context": "c", "projection": "board", "aggregate": "Order", **labels})


def test_ranges_and_losses_are_counted_by_table() -> None:
    metrics = TableMetrics("c", "board", "Order")
    metrics.inserted(2, 40, 40, 0.2)
    metrics.inserted(2, 41, 1, 0.1)
    metrics.lost(StoreUnavailable("gone"))
    assert sample("magnetar_fed_commits_total") == 41
    assert sample("magnetar_range_commits_count") == 2
    assert sample("magnetar_table_number", partition="2") == 41
    assert sample("magnetar_table_partitions_lost_total", error="StoreUnavailable") == 1
