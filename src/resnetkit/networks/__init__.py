"""The networks: what they are in numbers, their blocks, the one class, and its size and work."""
