"""What a run is to do: one checked TOML file."""
