#!/bin/sh
# Before removing, for dpkg (remove, upgrade) and rpm (0: removal, 1: upgrade).
set -eu

case "${1:-remove}" in
remove | deconfigure | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now larder-node.service || true
		systemctl disable --now larder-control.service || true
	fi
	;;
esac
