"""The exception tree. Messages follow one template:

``<where>: <what came> <what was expected>. <what to do, or because>.``

Each class takes exactly one string: an exception with required keyword arguments cannot be
unpickled and would reach the driver as Ray's ``UnserializableException``, its meaning lost.

DistillError            retryable = False
├── ConfigError         the run is described wrongly: fix the file
├── DataError           input missing, truncated or of another shape: fix the data
│   └── ShardError      a stored shard does not match its marker
├── DivergedError       a loss stopped being finite; the same seed will do it again
├── OutOfMemoryError    a device had no room for a job; half as much at once may fit
├── ShardsFailed        some shards used up their attempts; the others are done
├── StorageError        retryable: the object store refused or timed out
│   └── StorageRefused  not retryable: permission, credentials, address; it will refuse again
└── ClusterError        retryable: a node, actor or worker process was lost, or never came
"""


class DistillError(Exception):
    """Base of every error this project raises on purpose."""

    retryable = False


class ConfigError(DistillError):
    """The run is described wrongly."""


class DataError(DistillError):
    """Input is missing, truncated or of another shape."""


class ShardError(DataError):
    """A stored shard does not match its marker."""


class DivergedError(DistillError):
    """A loss stopped being finite."""


class OutOfMemoryError(DistillError):
    """A device had no room for what a job computes at once."""


class ShardsFailed(DistillError):
    """Some shards used up their attempts; every other shard is done."""


class StorageError(DistillError):
    """The object store refused, timed out, or lost a request."""

    retryable = True


class StorageRefused(StorageError):
    """The object store will refuse again until a person changes something."""

    retryable = False


class ClusterError(DistillError):
    """A node, an actor or a worker process was lost, or never became ready."""

    retryable = True
