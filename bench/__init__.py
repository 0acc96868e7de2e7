"""Measurements: what a drive does on this machine, and what others do: `./build.sh bench`."""
