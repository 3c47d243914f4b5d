"""Questions put to residual networks, each answered by an experiment that anybody can repeat.

A study is one file with one `STUDY`; `laboratory.py` runs it, `page.py` writes it down. Nothing but the command line
imports this package.
"""
