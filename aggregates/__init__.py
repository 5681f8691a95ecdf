"""The brain's contract, the logic of a partition, and the test kit. It knows no broker and no database."""

from .aggregate import Aggregate, Brain, contract_of
from .given import Given, Then, given
from .id_window import IdWindow
from .processor import Decision, PartitionProcessor

__all__ = [
    "Aggregate",
    "Brain",
    "Decision",
    "Given",
    "IdWindow",
    "PartitionProcessor",
    "Then",
    "contract_of",
    "given",
]
