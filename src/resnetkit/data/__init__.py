"""Labelled images: found, split, put in order, fed.

Enter by `load.load_data`, which gives a `dataset.Data`; `batches` feeds its splits. How one image becomes pixels is in
`images/`; what is wrong with a folder, in `doctor/`.
"""
