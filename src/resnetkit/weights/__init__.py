"""Anyone's weights: where they are, how they are read, whose names they bear."""
