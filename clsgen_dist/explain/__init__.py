"""A teacher writes the reasons, checks guard them, and no labelled row is lost."""
