"""Keys and sealing: member keys, slots, generations and the keys under them.

Nothing here touches a store, a disk or a clock; randomness is passed in. Which bytes these are
stands in docs/FORMAT.md, sections 3 to 7.
"""
