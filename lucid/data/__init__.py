"""File contents: cache, fetching, reading ahead, drafts of unpublished writes, segments, uploads."""
