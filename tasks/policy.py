"""What may become of the teacher when a dataset has changed."""

from __future__ import annotations

from typing import Literal

# keep: taken over as it is; a class that it has no output for is refused.
# fine_tune: its weights are where the training on the data of now starts.
# squeeze_again: nothing is carried over but class ids.
TeacherPolicy = Literal["keep", "fine_tune", "squeeze_again"]
