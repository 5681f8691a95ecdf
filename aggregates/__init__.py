"""The brain's contract, the logic of a partition, and the test kit. It knows no broker and no database."""

from .aggregate import Aggregate, Brain, contract_of
from .budget import Budget
from .cells import Cells, Spill, StoredCell
from .checkpoint import CheckpointUnusable, FoundRound, Round
from .given import Given, Then, given
from .id_window import IdWindow
from .processor import Decision, PartitionProcessor
from .state_codec import StateCodec

__all__ = [
    "Aggregate",
    "Brain",
    "Budget",
    "Cells",
    "CheckpointUnusable",
    "Decision",
    "FoundRound",
    "Given",
    "IdWindow",
    "PartitionProcessor",
    "Round",
    "Spill",
    "StateCodec",
    "StoredCell",
    "Then",
    "contract_of",
    "given",
]
