"""Object stores: what a filespace rests on, and nothing of what it means.

Everything above sees `ObjectStore` (base.py) and `open_store` (stack.py). The stores are S3 (s3.py
over http.py), a directory, and memory; retry, limit, trace and faulty lay over any of them. This
room moves opaque bytes: it knows no key, no format and no file.
"""

from lucid.store.base import Body, Buffer, Counters, ObjectInfo, ObjectStore, StoreLayer
from lucid.store.stack import open_store

__all__ = [
    "Body",
    "Buffer",
    "Counters",
    "ObjectInfo",
    "ObjectStore",
    "StoreLayer",
    "open_store",
]
