"""The hub: a small server that relays sealed messages between the devices of a filespace.

It has no key of a filespace and asks no store. Nothing hangs on it but how soon a change is heard
of.
"""
