"""`resnetkit` on the command line, as torchrun starts it, with a fault at step AT: rank DIES is killed, the first time,
or, where WAITS is set, every rank waits to be asked to stop.
"""

import os

from faults import plants
from resnetkit.cli.app import main

if "WAITS" in os.environ:
    plants.before_step(int(os.environ["AT"]), plants.wait_to_be_asked)
elif os.environ.get("DIES") == os.environ["RANK"] and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    plants.before_step(int(os.environ["AT"]), plants.kill)
main()
