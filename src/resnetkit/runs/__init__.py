"""A run on disk: which recipe it gets, its folder, its journal, what going on needs.

Enter by `folder.open_run`; `verification.verify_resume` proves that a killed run goes on exactly. What a step computes
is in `training/`.
"""
