"""Faults that are planted in real runs. README.md says which, and how each test was seen to fail."""
