"""What projectors leave on a broker that share an event topic out in groups."""

import json
from collections.abc import Callable
from urllib.request import urlopen

from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.schemas import Topic, TopicKind

from tests.pulsar_rig import Existing


def subscriptions(broker: Existing, topic: Topic) -> set[str]:
    """Of the topic's one partition; another process is asked, and this one is told nothing that it knows."""
    with urlopen(f"{broker.admin_url}/admin/v2/persistent/public/{topic}-partition-0/subscriptions") as answer:
        return set(json.load(answer))


def test_the_last_projector_of_a_group_takes_its_subscription_with_it(
    broker: Existing, open_log: Callable[[], PulsarLog], new_topic: Callable[[TopicKind], Topic]
) -> None:
    topic, log = new_topic(TopicKind.EVENTS), open_log()
    first, second = (log.share(topic, name=name, group="boards") for name in ("a", "b"))
    alone = log.share(topic, name="c")
    assert subscriptions(broker, topic) >= {"projectors", "projectors-boards"}
    first.close()
    assert "projectors-boards" in subscriptions(broker, topic), "another one is there"
    second.close()
    assert "projectors-boards" not in subscriptions(broker, topic)
    alone.close()
    assert "projectors" in subscriptions(broker, topic), "it is always the same one"
