"""Anyone's weights: where they are, how they are read, whose names they bear.

Enter by `load.load` (as a `Classifier`) and `load.create_model` (as a network). `table` lists what is
published; `own/` holds ours. A run's checkpoints are in `runs/`.
"""
