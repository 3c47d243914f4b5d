"""What is on pictures: one answer for every input, in the order in which they are given.

Enter by `predict.predict`. Knows a `Classifier` and no labels; how good the answers are is in `evaluation/`.
"""
