"""A frozen backbone put to use: its features, and a head solved on them."""
