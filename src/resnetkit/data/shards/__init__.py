"""Sets too large for a folder: WebDataset shards, written and read by index.

Enter by `write.shard` and `read.Shards`, which is one of the three kinds of split (`data/splits`).
"""
