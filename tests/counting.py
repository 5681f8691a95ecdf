"""The read rule as docs/wire-format.md tells it, written down once more, on purpose: to judge the product's."""

from collections.abc import Sequence

from magnetar.pipelines.log import Message
from magnetar.schemas.commit import read_head


def counting(messages: Sequence[Message]) -> list[Message]:
    """The messages that count."""
    owner, expected, found = b"", 1, []
    for message in messages:
        number, its_owner, _ = read_head(message.payload)
        if number == 0:
            owner = its_owner
        elif its_owner == owner and number == expected:
            expected += 1
            found.append(message)
        elif its_owner == owner and number > expected:
            owner = b""
    return found
