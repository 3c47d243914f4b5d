"""A frozen backbone put to use: its features, and a head solved on them.

Enter by `probe.probe`. Training of all layers from someone's weights is in `training/`.
"""
