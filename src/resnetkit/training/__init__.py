"""From a recipe to a classifier.

Enter by `train.train`. `loop.fit` is the story of a run, `step` one step of it, `guards` what may end it. What a run
leaves on the disk is in `runs/`.
"""
