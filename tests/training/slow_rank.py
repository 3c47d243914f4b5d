"""`resnetkit` on the command line, but every step, or every step of one rank, takes SECONDS_A_STEP longer."""

import os
import time

from resnetkit.cli.app import main
from resnetkit.training.step import Stepper

take = Stepper.__call__


def slow(self, batch, step):
    if os.environ.get("SLOW", os.environ["RANK"]) == os.environ["RANK"]:
        time.sleep(float(os.environ["SECONDS_A_STEP"]))
    return take(self, batch, step)


Stepper.__call__ = slow
main()
