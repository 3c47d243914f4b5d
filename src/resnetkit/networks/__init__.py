"""Residual networks: what they are in numbers, and as modules.

Enter by `arch.VARIANTS` (every network that has a name) and `resnet.ResNet`. Weights that somebody has trained are in
`weights/`; whatever is done with a network is further up.
"""
