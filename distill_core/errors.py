"""The exception tree. Messages follow one template:

``<where>: <what came>, <what was expected>. <what to do>.``

Each class takes exactly one string: an exception with required keyword arguments cannot be
unpickled and would reach the driver as Ray's ``UnserializableException``, without its message.

DistillError            retryable = False
├── ConfigError         the configuration is wrong: correct it
├── DataError           input is missing, truncated or of another shape: correct the data
│   └── ShardError      a stored shard does not match its marker
├── DivergedError       a loss is not finite any more; the same seed would repeat this
├── OutOfMemoryError    a device has too little memory for a job; half of it may fit
├── ShardsFailed        some shards failed in all attempts; the others are done
├── StorageError        retryable: the object store refused or timed out
│   └── StorageRefused  not retryable: permission, credentials or address
└── ClusterError        retryable: a node, actor or worker process was lost or did not start
"""


class DistillError(Exception):
    """Base of every error this project raises on purpose."""

    retryable = False


class ConfigError(DistillError):
    """The configuration of a run is wrong."""


class DataError(DistillError):
    """Input is missing, truncated or of another shape."""


class ShardError(DataError):
    """A stored shard does not match its marker."""


class DivergedError(DistillError):
    """A loss is not finite."""


class OutOfMemoryError(DistillError):
    """A device has too little memory for a job."""


class ShardsFailed(DistillError):
    """Some shards failed in all attempts; every other shard is done."""


class StorageError(DistillError):
    """The object store refused, timed out, or lost a request."""

    retryable = True


class StorageRefused(StorageError):
    """The object store refuses until credentials, permissions or address are changed."""

    retryable = False


class ClusterError(DistillError):
    """A node, an actor or a worker process was lost or did not become ready."""

    retryable = True
