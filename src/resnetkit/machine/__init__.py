"""The machine: device and precision, several processes, signals, the disk, the console."""
