"""Measurements: what a drive does on this machine, and what others do: `./build.sh bench`."""

__all__ = ["ProgramMissing"]


class ProgramMissing(Exception):
    """A program that a scenario needs is not installed; the sentence names it."""
