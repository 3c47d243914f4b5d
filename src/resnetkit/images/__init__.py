"""From a file to what a network sees.

Enter by `reading.read_image` (no torch) and `preprocess.Preprocess`; `augment.Augment` changes training images at
random. Labels, folders and batches are in `data/`.
"""
