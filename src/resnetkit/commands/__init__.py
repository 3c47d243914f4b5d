"""One typed function for each command, one file for each. Its signature and docstring are its `--help`."""
