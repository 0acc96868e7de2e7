"""The cache map without Python.  For other compiled modules only: see the .pxd."""
