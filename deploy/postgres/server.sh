#!/usr/bin/env bash
# A real PostgreSQL on loopback for Prefect's server: a cluster of its own, in a folder of its own.
# For tests only: it does not wait for the disk. The cluster of the system is never touched.
#
#   sudo deploy/postgres/server.sh install   # Debian's packages, if they are absent: 17 MB
#   eval "$(deploy/postgres/server.sh start)"   # and start Prefect's server in this environment
#   deploy/postgres/server.sh crash             # as a machine that loses power; `start` recovers
#   deploy/postgres/server.sh stop              # and remove the data
#
# PostgreSQL refuses to run as root, so root starts it as the user `nobody`.
set -euo pipefail

HOME_DIR=${DISTILL_POSTGRES_HOME:-${TMPDIR:-/tmp}/distill-postgres-$UID}
PORT=${DISTILL_POSTGRES_PORT:-5433}
DATA=$HOME_DIR/data
LOG=$HOME_DIR/postgres.log
PASSWORD=$HOME_DIR/password
NAME=prefect # of the user and of the database
PATIENCE=60  # seconds, for each step that waits

die() { echo "server.sh: $*" >&2; exit 1; }

programs() { # print the folder of the newest PostgreSQL
  find /usr/lib/postgresql -path '*/bin/postgres' -printf '%h\n' 2>/dev/null | sort -V | tail -n 1
}

install_packages() {
  [ -z "$(programs)" ] || return 0
  # Debian's package would create and start a cluster of the system.
  mkdir -p /etc/postgresql-common/createcluster.d
  echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/distill-tests.conf
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >&2
}

unprivileged() { # COMMAND...
  if [ "$UID" -eq 0 ]; then
    (cd / && exec setpriv --reuid=nobody --regid=nogroup --clear-groups "$@")
  else
    "$@"
  fi
}

control() { # pg_ctl's arguments
  unprivileged "$BIN/pg_ctl" -D "$DATA" -s -t "$PATIENCE" "$@" >&2
}

initialise() {
  mkdir -p "$HOME_DIR"
  chmod 700 "$HOME_DIR"
  (umask 077 && head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$PASSWORD")
  [ "$UID" -ne 0 ] || chown -R nobody:nogroup "$HOME_DIR"
  unprivileged "$BIN/initdb" -D "$DATA" -U "$NAME" --pwfile="$PASSWORD" --auth=scram-sha-256 \
    -E UTF8 --locale=C --no-sync >/dev/null
  cat >>"$DATA/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $PORT
unix_socket_directories = ''
fsync = off
CONF
}

start() {
  if [ ! -e "$DATA/PG_VERSION" ]; then
    initialise
    control start -w -l "$LOG" || { tail -n 20 "$LOG" >&2; die "the server did not start"; }
    PGPASSWORD=$(cat "$PASSWORD") "$BIN/createdb" -h 127.0.0.1 -p "$PORT" -U "$NAME" "$NAME"
  else
    control start -w -l "$LOG" || { tail -n 20 "$LOG" >&2; die "the server did not start"; }
  fi
  echo "export PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://$NAME:$(cat "$PASSWORD")@127.0.0.1:$PORT/$NAME"
}

BIN=$(programs)
case ${1:-} in
  install) install_packages ;;
  start | crash | stop)
    [ -n "$BIN" ] || die "PostgreSQL is not installed; run: sudo $0 install"
    case $1 in
      start) start ;;
      crash) control stop -m immediate ;;
      stop)
        [ ! -e "$DATA/postmaster.pid" ] || control stop -m immediate
        rm -rf "$HOME_DIR"
        ;;
    esac
    ;;
  *) die "usage: $0 install|start|crash|stop" ;;
esac
