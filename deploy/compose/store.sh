#!/bin/sh
# Writes the identities of the store in the Compose file, then starts its server.
#
# Each role has the policy of deploy/s3 that is meant for it, limited to s3://$BUCKET/$PREFIX. Only the
# administrator, whose credentials no other container of ours has but `bucket`, may do everything. The file
# is on a tmpfs, so that the secrets are on no disk.
set -eu
umask 077
POLICIES=${POLICIES:-/etc/distill/s3}
IDENTITIES=${IDENTITIES:-/tmp/identities.json}

die() { echo "store.sh: $*" >&2; exit 1; }

word() { # NAME VALUE ALLOWED: what is written between quotation marks must not contain any
  case $2 in
    "") die "$1 is empty" ;;
    *[!$3]*) die "$1 has a character that is not in $3" ;;
  esac
}

policy() { # FILE: as the text of a JSON string
  tr -d '\n' <"$POLICIES/$1" |
    sed -e "s|BUCKET|$BUCKET|g" -e "s|PREFIX|$PREFIX|g" -e 's/\\/\\\\/g' -e 's/"/\\"/g'
}

entry() { # NAME FILE
  printf '{"name": "%s", "content": "%s"}' "$1" "$(policy "$2")"
}

identity() { # NAME SECRET GRANT
  printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], %s}' "$1" "$1" "$2" "$3"
}

word BUCKET "$BUCKET" 'a-z0-9.-'
word PREFIX "$PREFIX" 'A-Za-z0-9._/-'
secret=
for name in ADMIN DRIVER READER COLLECTOR; do
  eval "secret=\${${name}_SECRET-}"
  word "${name}_SECRET" "$secret" 'A-Za-z0-9'
  [ ${#secret} -ge 16 ] || die "${name}_SECRET has fewer than 16 characters"
done
for file in driver-and-workers reader collector; do
  [ -r "$POLICIES/$file.json" ] || die "$POLICIES/$file.json cannot be read"
done

{
  printf '{"identities": [\n'
  identity distill-admin "$ADMIN_SECRET" '"actions": ["Admin"]'
  printf ',\n'
  identity distill-driver "$DRIVER_SECRET" '"policyNames": ["driver"]'
  printf ',\n'
  identity distill-reader "$READER_SECRET" '"policyNames": ["reader"]'
  printf ',\n'
  identity distill-collector "$COLLECTOR_SECRET" '"policyNames": ["collector"]'
  printf '\n], "policies": [\n'
  entry driver driver-and-workers.json
  printf ',\n'
  entry reader reader.json
  printf ',\n'
  entry collector collector.json
  printf '\n]}\n'
} >"$IDENTITIES"
unset ADMIN_SECRET DRIVER_SECRET READER_SECRET COLLECTOR_SECRET secret
exec "$@"
