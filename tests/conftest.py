"""What all tests share."""

from hypothesis import settings

# A busy machine is slow, and no test asserts a time.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")
