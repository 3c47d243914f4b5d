"""How good a classifier is, and how sure that is.

Enter by `evaluate.evaluate`. Knows a `Classifier` and nothing of training; what a classifier says of an image is in
`prediction`.
"""
