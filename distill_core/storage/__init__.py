"""Artifacts in object storage: stores, markers, manifests and file formats.

store:            objects by path in a folder or bucket, with a conditional create.
shard_store:      the shards of a stage: commit, lookup by key, verified loading.
markers:          the record of a complete shard; manifest: of a complete stage of a run.
records:          digests that records carry of themselves.
patience:         waiting for a store that is away.
checkpoints:      states of long jobs.
image_shards:     the file format of images.
label_shards:     the file format of soft labels; label_rows: its contents, label_schema: columns.
statistics_files: the file format of class statistics.
parquet:          writing and verified reading; row_groups: one row group at a time from a store.
object_names:     the names that a store gives to its objects; identity: the proof that it is one.
shared_files:     files that the processes of a machine share, in its memory.
digest:           sha256, and reading a file by URL.
backends, listing, filesystems, error_hints: internals of `store`.
"""
