"""File contents: cache, fetching, reading ahead, drafts of what is written, segments, uploads."""
