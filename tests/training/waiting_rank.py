"""`resnetkit` on the command line, but at step AT every rank, or the one that WAITS, waits to be asked to stop."""

import os
import signal
import time

from resnetkit.cli.app import main
from resnetkit.training.step import Stepper

take = Stepper.__call__


def waiting(self, batch, step):
    waits = os.environ.get("WAITS", os.environ["RANK"]) == os.environ["RANK"]
    while waits and str(step) == os.environ.get("AT") and not signal.getsignal(signal.SIGTERM).__self__.number:
        time.sleep(0.01)
    return take(self, batch, step)


Stepper.__call__ = waiting
main()
