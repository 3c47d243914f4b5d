"""The command line: one typed function a command.

Enter by `app.main`. A command reads its flags, calls one function of the library and prints; what it does is elsewhere.
"""
