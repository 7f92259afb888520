"""Train on made-up digits, in a process that is killed after 11 steps."""

import os
import signal
import sys

from experiments.tasks import mnist
from experiments.train.__main__ import main
from experiments.train.run import Run
from tests.experiments.fake_mnist import fake_mnist

if __name__ == "__main__":
    mnist.load_mnist = lambda root: fake_mnist()
    real = Run.step

    def fatal_step(run, x, y):
        real(run, x, y)
        if run.progress.epoch * run.task.steps_per_epoch + run.progress.batch == 11:
            os.kill(os.getpid(), signal.SIGKILL)

    Run.step = fatal_step
    sys.exit(main(sys.argv[1:]))
