#!/bin/bash
# Runs a command in a root with /proc, /dev, and empty /tmp, /home/distill and /dev/shm; called by rehearse.sh in
# namespaces of its own. READ_ONLY=1 makes the root read-only, as readOnlyRootFilesystem does.
set -euo pipefail
root=$1
shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
if [ "${READ_ONLY:-}" = 1 ]; then
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  mount -t tmpfs -o mode=755,uid=1000,gid=1000 tmpfs "$root/home/distill"
  mount -t tmpfs -o mode=1777,size=2g tmpfs "$root/dev/shm"
  mount -o remount,ro,bind "$root"
fi
exec chroot "$root" "$@"
