"""What a run is to do: one checked TOML file.

Enter by `load.load_recipe`; `schema.Recipe` says every key. Which recipe a run gets is decided in `runs/choice`.
"""
