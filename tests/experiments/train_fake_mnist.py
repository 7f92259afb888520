"""Train on made-up digits: ``python -m tests.experiments.train_fake_mnist mnist ...``.

The environment variable HARM is ``KILL 11``, ``HANG 11`` or ``TERMINATE 11``: after this number of
steps, the last worker is killed, stands still, or has torchrun terminate the job.
"""

import os
import signal
import sys
import time
from datetime import timedelta

from experiments.tasks import mnist
from experiments.train import distributed
from experiments.train.__main__ import main
from experiments.train.run import Run
from tests.experiments.fake_mnist import fake_mnist


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # or torchrun would wait for half a minute
    time.sleep(600)


def terminate() -> None:
    stop, stopped = signal.getsignal(signal.SIGTERM), []

    def note(*arguments: object) -> None:
        stopped.append(True)
        stop(*arguments)

    signal.signal(signal.SIGTERM, note)
    os.kill(os.getppid(), signal.SIGTERM)
    while not stopped:  # no step goes by while torchrun passes the signal on
        time.sleep(0.01)


def harm(name: str, step: str) -> None:
    real, do = Run.step, {"KILL": kill, "HANG": hang, "TERMINATE": terminate}[name]

    def fatal_step(run, x, y):
        real(run, x, y)
        done = run.progress.epoch * run.task.steps_per_epoch + run.progress.batch
        if done == int(step) and run.fabric.global_rank == run.workers - 1:
            do()

    Run.step = fatal_step


if __name__ == "__main__":
    mnist.load_mnist = lambda root: fake_mnist()
    if "HARM" in os.environ:
        name, step = os.environ["HARM"].split()
        harm(name, step)
        if name == "HANG":
            distributed.PATIENCE = timedelta(seconds=3)
    sys.exit(main(sys.argv[1:]))
