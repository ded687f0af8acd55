#!/bin/bash
# Executes deploy/Dockerfile without Docker: a Debian bookworm root by debootstrap stands for the base image, and
# the file's own RUN, COPY, ENV, ARG, WORKDIR and USER lines are executed in it, in order. Then `distill demo` runs
# inside as the image's user, without capabilities, with a read-only root. By hand, as root, on Debian:
#   deploy/image/rehearse.sh FOLDER [NAME=VALUE]...      arguments of the build, e.g. COMPILER=g++
# It needs 10 GB in FOLDER and an hour. What differs from the real base: Python is Debian's 3.11, with its own
# pip; the machine's configuration of pip and apt is copied for the time of the build and removed after.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:?"usage: rehearse.sh FOLDER [NAME=VALUE]..."}
shift
root=$folder/root
mkdir -p "$folder"

base() {
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv,libpython3-dev \
    bookworm "$root" >"$folder/debootstrap.log"
  rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED "$root"/var/cache/apt/archives/*.deb
  for name in python pip; do ln -sf ${name}3 "$root/usr/bin/$name"; done
}

# Namespaces of its own, so that nothing stays mounted when it ends.
inside() { unshare --mount --pid --fork "$here/deploy/image/enter.sh" "$root" "$@"; }

[ -e "$root/usr/bin/pip" ] || base
for file in /etc/pip.conf /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
  [ ! -e $file ] || install -D $file "$root$file"
done
cp -rT /etc/apt/apt.conf.d "$root/etc/apt/apt.conf.d"
cp -rT /etc/apt/sources.list.d "$root/etc/apt/sources.list.d"
python3 "$here/deploy/image/steps.py" "$here/deploy/Dockerfile" "$@" >"$folder/steps.sh"
here=$here root=$root folder=$folder bash -euo pipefail "$folder/steps.sh" | tee "$folder/layers.txt"
rm -f "$root/etc/pip.conf" "$root/etc/resolv.conf"
cp "$folder/environment" "$root/environment"
echo "whole image: $(du -sxm "$root" | cut -f1) MB"

echo "demo, as uid 1000, root read-only, no network:"
READ_ONLY=1 inside setpriv --reuid 1000 --regid 1000 --clear-groups --no-new-privs --bounding-set=-all \
  /usr/bin/tini -g -- bash -c 'set -a; . /environment; HOME=/home/distill; cd /tmp; touch /x 2>&1; time distill demo --store /tmp/demo'
