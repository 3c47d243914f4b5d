"""Sets too large for a folder: WebDataset shards, read by index and written."""
