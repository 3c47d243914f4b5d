"""How strange a picture is to a network: scores of novelty from its penultimate features and its logits.

Enter by `unknown.learn_unknown`. Knows tensors alone: no network, no image, no file.
"""
