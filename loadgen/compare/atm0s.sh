#!/usr/bin/env bash
# Runs atm0s-media-server (from the Rust registry) as one media node by itself: one media worker, no
# gateway, no connector, tokens handed out by its own HTTP API, WHIP and WHEP. It stays in the
# foreground under the pid of this script, so whoever started it pins it with `taskset` and ends it
# with SIGTERM.
#
# usage: [taskset -c CORE] atm0s.sh [--install] ADDRESS [HTTP_PORT [UDP_PORT]]
#   ADDRESS    an IPv4 address of this machine (or network namespace), the one it offers to clients
#   HTTP_PORT  3000 if not said; it listens on all addresses: http://ADDRESS:HTTP_PORT/whip/endpoint
#   UDP_PORT   20000 if not said; the one port of all media. Its cluster port is the one below
#   --install  cargo install it if it is missing, with the Debian packages its build wants (as root); without
#              ADDRESS, that is all
set -euo pipefail

version=0.2.0-alpha.8
packages=(build-essential cmake clang libclang-dev pkg-config protobuf-compiler libssl-dev libsoxr-dev libopus-dev)

install=no
if [[ ${1:-} == --install ]]; then
  install=yes
  shift
fi
if (($# < 1 || $# > 3)) && [[ $install == no || $# -gt 0 ]] || [[ ${1:-} == -* ]]; then
  echo "usage: [taskset -c CORE] $0 [--install] ADDRESS [HTTP_PORT [UDP_PORT]]" >&2
  exit 2
fi
address=${1:-}
http_port=${2:-3000}
udp_port=${3:-20000}

PATH=$PATH:${CARGO_INSTALL_ROOT:-${CARGO_HOME:-$HOME/.cargo}}/bin
if ! command -v atm0s-media-server >/dev/null; then
  if [[ $install == no ]]; then
    echo "there is no atm0s-media-server here: $0 --install builds it (700 crates: a long while)" >&2
    exit 1
  fi
  apt-get install -y --no-install-recommends "${packages[@]}" >&2
  # Without its console it does not compile, and the console's pages are built with pnpm from the npm
  # registry. Nobody looks at them here: an empty page is put in their place.
  tools=$(mktemp -d "${TMPDIR:-/tmp}/atm0s.XXXXXX")
  printf '#!/bin/sh\nmkdir -p dist && touch dist/index.html\n' >"$tools/pnpm"
  chmod +x "$tools/pnpm"
  PATH=$tools:$PATH cargo install --locked "atm0s-media-server@$version" >&2
  rm -rf "$tools"
fi
# Only to be installed.
[[ -n $address ]] || exit 0

# Its caches go to the working directory.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/atm0s.XXXXXX")
cd "$scratch"
# After the exec there is nobody left to tidy up, so a child waits for the server's end.
(tail --pid=$$ -f /dev/null && rm -rf "$scratch") >/dev/null 2>&1 </dev/null &

# It logs every request and keyframe at `info`, which would count against it.
export RUST_LOG=${RUST_LOG:-warn}
exec atm0s-media-server \
  --node-ip "$address" --sdn-port "$((udp_port - 1))" --sdn-zone-node-id 1 \
  --workers 1 --http-port "$http_port" --secret insecure \
  media --enable-token-api --disable-gateway-agent --disable-connector-agent \
  --webrtc-port-seed "$udp_port" --ccu-per-core 100000
