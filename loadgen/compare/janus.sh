#!/usr/bin/env bash
# Runs Janus (Debian's package) with only the VideoRoom plugin and the plain HTTP API, and its own
# defaults for everything that touches media. It stays in the foreground under the pid of this
# script, so whoever started it pins it with `taskset` and ends it with SIGTERM.
#
# usage: [taskset -c CORE] janus.sh [--install] ADDRESS [HTTP_PORT]
#   ADDRESS    an IPv4 address of this machine (or network namespace) other than 127.0.0.0/8: its
#              ICE library never offers loopback addresses
#   HTTP_PORT  8088 if not said; the API is then http://ADDRESS:HTTP_PORT/janus
#   --install  apt-get install the package if it is missing (as root); without ADDRESS, that is all
set -euo pipefail

install=no
if [[ ${1:-} == --install ]]; then
  install=yes
  shift
fi
if (($# < 1 || $# > 2)) && [[ $install == no || $# -gt 0 ]] || [[ ${1:-} == -* ]]; then
  echo "usage: [taskset -c CORE] $0 [--install] ADDRESS [HTTP_PORT]" >&2
  exit 2
fi
address=${1:-}
port=${2:-8088}

if [[ $address == 127.* ]]; then
  echo "$address is a loopback address, which Janus would never offer to a client" >&2
  exit 2
fi
if ! command -v janus >/dev/null; then
  if [[ $install == no ]]; then
    echo "there is no janus here: $0 --install, or apt-get install --no-install-recommends janus" >&2
    exit 1
  fi
  apt-get install -y --no-install-recommends janus >&2
  # The package starts a service of its own where there is an init system; it is not wanted here.
  if [[ -d /run/systemd/system ]]; then systemctl disable --now janus >&2; fi
fi
# Only to be installed.
[[ -n $address ]] || exit 0

# The libraries are in the folder of Debian's architecture name, e.g. x86_64-linux-gnu.
videoroom=$(dpkg -L janus | grep '/libjanus_videoroom\.so$')
libraries=${videoroom%/plugins/*}

config=$(mktemp -d "${TMPDIR:-/tmp}/janus.XXXXXX")
# Plugins and transports are switched off by leaving them out of folders of links.
mkdir "$config/plugins" "$config/transports"
ln -s "$videoroom" "$config/plugins/"
ln -s "$libraries/transports/libjanus_http.so" "$config/transports/"

cat >"$config/janus.jcfg" <<EOF
general: {
	configs_folder = "$config"
	plugins_folder = "$config/plugins"
	transports_folder = "$config/transports"
	interface = "$address"
	debug_level = 3
	debug_colors = false
}
nat: {
	ice_enforce_list = "$address"
}
EOF
cat >"$config/janus.transport.http.jcfg" <<EOF
general: {
	json = "compact"
	base_path = "/janus"
	http = true
	https = false
	port = $port
	ip = "$address"
}
admin: {
	admin_http = false
	admin_https = false
}
EOF
# No rooms: the client makes the ones it needs.
echo 'general: {}' >"$config/janus.plugin.videoroom.jcfg"

# After the exec there is nobody left to tidy up, so a child waits for the server's end.
(tail --pid=$$ -f /dev/null && rm -rf "$config") >/dev/null 2>&1 </dev/null &
exec janus --configs-folder="$config"
