#!/usr/bin/env bash
# A real S3 server on loopback: one Ceph monitor, one in-memory OSD, one RADOS gateway.
# For tests only: no authentication inside the cluster, one copy of everything, all in memory.
#
#   sudo deploy/ceph/rgw.sh install   # Debian's packages, if they are absent: 73 MB
#   eval "$(deploy/ceph/rgw.sh start)"
#   deploy/ceph/rgw.sh user NAME      # a user that may do only what a bucket's policy allows
#   deploy/ceph/rgw.sh stop
#
# `make test-ceph` starts and stops it by itself, unless it already runs.
set -euo pipefail

HOME_DIR=${DISTILL_CEPH_HOME:-${TMPDIR:-/tmp}/distill-ceph-$UID} # short, because it contains sockets
PORT=${DISTILL_CEPH_PORT:-7480}
MON_PORT=${DISTILL_CEPH_MON_PORT:-6790}
KEY=testing
PATIENCE=60 # seconds, for each step that waits
PACKAGES=(ceph-base ceph-common ceph-mon ceph-osd radosgw curl)
export CEPH_CONF=$HOME_DIR/ceph.conf

die() { echo "rgw.sh: $*" >&2; exit 1; }

missing() { # print the first program that is missing
  local tool
  for tool in ceph ceph-mon ceph-osd radosgw radosgw-admin monmaptool curl; do
    command -v "$tool" >/dev/null || { echo "$tool"; return; }
  done
}

install_packages() {
  [ -n "$(missing)" ] || return 0
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${PACKAGES[@]}" >&2
}

await() { # WHAT COMMAND...: until the command succeeds
  local what=$1 end=$((SECONDS + PATIENCE)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { tail -n 20 "$HOME_DIR"/log/*.log >&2; die "$what did not come up in $PATIENCE s"; }
    sleep 0.3
  done
}

configure() {
  mkdir -p "$HOME_DIR"/{mon,osd,run,log}
  cat >"$CEPH_CONF" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon_host = [v1:127.0.0.1:$MON_PORT]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = $HOME_DIR/run
admin_socket = $HOME_DIR/run/\$name.asok
pid_file = $HOME_DIR/run/\$name.pid
log_file = $HOME_DIR/log/\$name.log
keyring = /dev/null
# One copy of everything, on whatever disk there is.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_warn = 1
mon_data_avail_crit = 0
[mon]
mon_data = $HOME_DIR/mon/\$id
[osd]
osd_data = $HOME_DIR/osd/\$id
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_memory_target = 1073741824
# Else the OSD registers itself while it starts, and sometimes loses that race and exits.
osd_class_update_on_start = false
osd_crush_update_on_start = false
[client.rgw]
# Else each answer with a body waits for an acknowledgement that the client delays by 40 ms.
rgw_frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
rgw_thread_pool_size = 64
CONF
}

start_mon() {
  monmaptool --create --addv a "[v1:127.0.0.1:$MON_PORT]" --fsid "$(sed -n 's/^fsid = //p' "$CEPH_CONF")" \
    "$HOME_DIR/monmap" >/dev/null
  ceph-mon --mkfs -i a --monmap "$HOME_DIR/monmap" >/dev/null
  ceph-mon -i a >/dev/null
  await "the monitor" timeout 5 ceph status
}

start_osd() {
  mkdir -p "$HOME_DIR/osd/0"
  # mkfs first: it draws the id that the cluster has to know; another one leaves the OSD down.
  ceph-osd -i 0 --mkfs >/dev/null 2>&1
  ceph osd new "$(cat "$HOME_DIR/osd/0/fsid")" >/dev/null
  ceph osd crush add osd.0 1.0 host=local root=default >/dev/null 2>&1
  ceph-osd -i 0 >/dev/null 2>&1
  await "the OSD" sh -c 'ceph osd stat | grep -q "1 up"'
}

start_gateway() {
  radosgw-admin user create --uid=testing --display-name=testing \
    --access-key="$KEY" --secret-key="$KEY" >/dev/null 2>&1
  radosgw --name client.rgw >/dev/null 2>&1
  await "the gateway" curl -fsS "http://127.0.0.1:$PORT/"
}

add_user() { # NAME; its keys are NAME-key and NAME-secret
  # With -1, a user may have no buckets of its own.
  radosgw-admin user info --uid="$1" >/dev/null 2>&1 ||
    radosgw-admin user create --uid="$1" --display-name="$1" --max-buckets=-1 \
      --access-key="$1-key" --secret-key="$1-secret" >/dev/null
}

running() { # print the processes that this folder started and that still run
  local pid
  for pid in $(cat "$HOME_DIR"/run/*.pid 2>/dev/null); do
    # The number may be another process's by now.
    if grep -qzxF "CEPH_CONF=$CEPH_CONF" "/proc/$pid/environ" 2>/dev/null; then echo "$pid"; fi
  done
}

stop() {
  local pid
  for pid in $(running); do
    kill -9 "$pid" # nothing here outlives the stop, so nothing has to be written
    timeout 10 tail --pid="$pid" -f /dev/null
  done
  # Only a folder that `configure` made.
  [ ! -e "$CEPH_CONF" ] || rm -rf "$HOME_DIR"
}

start() {
  local absent
  absent=$(missing)
  [ -z "$absent" ] || die "$absent is not installed; run: sudo $0 install"
  [ -z "$(running)" ] || die "$HOME_DIR is in use; run: $0 stop"
  stop # what a server left that was killed, or that was lost with its machine
  trap stop EXIT # undone below, once everything is up
  configure
  start_mon
  start_osd
  start_gateway
  trap - EXIT
  cat <<EXPORTS
export AWS_ENDPOINT_URL=http://127.0.0.1:$PORT
export AWS_ACCESS_KEY_ID=$KEY
export AWS_SECRET_ACCESS_KEY=$KEY
export AWS_DEFAULT_REGION=us-east-1
EXPORTS
}

case ${1:-} in
  install) install_packages ;;
  start) start ;;
  user) add_user "${2:?usage: $0 user NAME}" ;;
  stop) stop ;;
  *) die "usage: $0 install|start|user NAME|stop" ;;
esac
