"""Bytes to values and back, as docs/FORMAT.md says: no I/O, no clock, no randomness, no keys.

Every module here holds one thing of the format. All functions are pure and may be called by any
thread; what they refuse they refuse with `FormatError` or `UnsupportedFormat`.
"""
