"""The file of one segment on the local disk.  For other compiled modules only: see the .pxd."""
