"""A run on disk: which recipe it gets, its folder, its journal, what going on needs."""
