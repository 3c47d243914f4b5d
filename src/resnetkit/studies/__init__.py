"""The laboratory: a claim about residual networks, put to the test.

Enter by `laboratory.run_study`. A study is one file with one table `STUDY`; `page` writes it down; what several need is
in `fit`, `spread`, `derivative` and `faults`.
"""
