"""Numbers to pointers: for the engine's own modules, nothing in it is for Python."""
