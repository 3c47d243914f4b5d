"""What others are told of a run while it goes on: loggers.

Enter by `loggers.open_loggers`.
"""
