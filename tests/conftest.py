"""What holds for all tests."""

from __future__ import annotations

import hypothesis

# How long one example takes says more about what else the machine does than about the code.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")
