"""The state directory of one device: its lock, the journal and the staging area (FORMAT 10, 11).

Everything that this room does to a disk goes through a `Disk`, which is passed in.
"""

from __future__ import annotations
