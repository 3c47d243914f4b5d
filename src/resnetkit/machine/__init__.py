"""The machine that a run is on: devices, processes, signals, disks, consoles.

Enter by `device.choose`, `ranks.current`, `storage.replace_file`, `console.Reporter`. Nothing here knows of images,
networks or recipes.
"""
