"""From a recipe to a classifier."""
