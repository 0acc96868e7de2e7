"""Aligned buffers that are used again.  For other compiled modules only: see the .pxd."""
