"""The tasks: each turns a data set into batches for the loop in ``experiments/train``."""

from experiments.tasks.action import ActionConfig
from experiments.tasks.listops import ListOpsConfig
from experiments.tasks.mnist import MnistConfig
from experiments.tasks.reviews import ReviewsConfig
from experiments.tasks.selection import CountingConfig, RecallConfig, SelectiveCopyConfig
from experiments.tasks.sessions import SessionsConfig
from experiments.tasks.shakespeare import ShakespeareConfig
from experiments.tasks.signals import SignalsConfig
from experiments.tasks.synthetic import AddingConfig, CopyConfig
from experiments.train.config import TrainConfig

#: The tasks of the command line, by name.
TASKS: dict[str, type[TrainConfig]] = {
    "action": ActionConfig,
    "adding": AddingConfig,
    "copy": CopyConfig,
    "counting": CountingConfig,
    "listops": ListOpsConfig,
    "mnist": MnistConfig,
    "recall": RecallConfig,
    "reviews": ReviewsConfig,
    "selective-copy": SelectiveCopyConfig,
    "sessions": SessionsConfig,
    "shakespeare": ShakespeareConfig,
    "signals": SignalsConfig,
}
