"""The table of segment slots.  For other compiled modules only: see the .pxd."""
