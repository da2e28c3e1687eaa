"""Property tests without a deadline: on a busy machine an example's time says nothing."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("jobd", deadline=None)
settings.load_profile("jobd")
