#!/bin/sh
# Installs the caches that `make bench` measures larder against, from the
# distribution's packages (Debian, Ubuntu). Nothing is left running and nothing
# starts at boot: bench/peers starts each with its own configuration.
set -eu

packages="nginx-light varnish squid trafficserver trafficserver-experimental-plugins"
services="nginx varnish varnishncsa squid trafficserver"

if [ "$(id -u)" -ne 0 ]; then
	echo "install-peers: run it as root: it installs packages" >&2
	exit 1
fi

# While the packages are unpacked, policy-rc.d keeps their services from starting.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086 # a list of words
apt-get install -q -y --no-install-recommends $packages

for service in $services; do
	if [ -d /run/systemd/system ]; then
		systemctl stop "$service" 2>/dev/null || true
	fi
	if command -v systemctl >/dev/null; then
		systemctl disable "$service" 2>/dev/null || true
	else
		update-rc.d "$service" disable 2>/dev/null || true
	fi
done
