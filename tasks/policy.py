"""The choices for the teacher of a new version of a dataset.

The command line offers them in its options, so this module imports nothing: `tasks.series`, which
stores the choice, would load NumPy, PyArrow and Pydantic for every ``--help``.
"""

from __future__ import annotations

from typing import Literal

# keep: the teacher is used as it is; a dataset with classes that it has no output for, or that it
#   was trained without, is refused.
# fine_tune: training on the new dataset starts from its weights.
# squeeze_again: a new teacher is trained; only the class ids are carried over.
TeacherPolicy = Literal["keep", "fine_tune", "squeeze_again"]
