"""The drive: a filespace under a mount point, through llfuse, and the process that keeps it there.

operations.py answers the kernel from a `Surface`; notifier.py tells the kernel what others changed;
session.py is one mount from llfuse.init to the end; serve.py is the life of the process around it,
control.py its socket, registry.py how others find it, daemon.py how it goes to the background.
llfuse is process-global: one mount a process.
"""
