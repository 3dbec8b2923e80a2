"""What all tests share."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)  # the machine may be busy with something else
settings.load_profile("patient")
