"""Rows: read, checked, dealt to splits, kept, and turned into tokens."""

import os

# Arrow's own allocators keep what is freed. Arrow reads this when it is first imported, so it stands before that.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
