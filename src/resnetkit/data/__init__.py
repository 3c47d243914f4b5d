"""Labelled images: found, split, put in order, fed."""
