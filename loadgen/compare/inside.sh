#!/usr/bin/env bash
# Runs a command in a network namespace of its own with the address 10.79.0.1, because some servers
# never offer loopback addresses. Nothing of the machine's network is seen or touched.
#
# usage: inside.sh COMMAND [ARGUMENT...]      (as root, or where user namespaces are allowed)
set -euo pipefail

if (($# == 0)) || [[ $1 == -* && $1 != --made ]]; then
  echo "usage: $0 COMMAND [ARGUMENT...]" >&2
  exit 2
fi
if [[ $1 != --made ]]; then
  user=()
  ((EUID == 0)) || user=(--user --map-root-user)
  exec unshare "${user[@]}" --net "$0" --made "$@"
fi
shift
ip link set lo up
ip link add ve0 type veth peer name ve1
ip addr add 10.79.0.1/24 dev ve0
ip link set ve0 up
ip link set ve1 up
ip route add default dev ve0
exec "$@"
