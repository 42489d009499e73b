"""Settings of all tests."""

from hypothesis import settings

# No test asserts a time, and a busy machine is no failure. The same examples every time, so that CI is repeatable.
settings.register_profile("megarc", deadline=None, derandomize=True)
settings.load_profile("megarc")
