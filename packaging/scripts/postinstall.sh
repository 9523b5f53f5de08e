#!/bin/sh
# After installing or upgrading, for dpkg and rpm: the account and its
# directories. Nothing is started: there is no configuration yet.
set -eu

if ! getent passwd larder >/dev/null; then
	if command -v systemd-sysusers >/dev/null; then
		systemd-sysusers larder.conf
	else
		useradd --system --user-group --home-dir /var/lib/larder --no-create-home --shell /usr/sbin/nologin larder
	fi
fi

# directory OWNER PATH: made if nothing is there by that name, in a directory
# that is root's. What lies in a directory of larder's is not touched here: that
# account could have put a link to anything there. The node and its commands
# make what they need below.
directory() {
	path=${DPKG_ROOT:-}$2
	if [ ! -e "$path" ] && [ ! -L "$path" ] && mkdir -m 0750 "$path"; then
		chown -h "$1" "$path"
		if command -v restorecon >/dev/null; then
			restorecon "$path" || true
		fi
	fi
}
directory root:larder /etc/larder
directory larder:larder /var/lib/larder
directory larder:larder /var/log/larder

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# Only what runs: an upgrade is used at once. The control plane first, as it
	# speaks to nodes of the version before.
	systemctl try-restart larder-control.service
	systemctl try-restart larder-node.service
fi
if [ ! -e "${DPKG_ROOT:-}/etc/larder/node.yaml" ]; then
	echo "larder: write /etc/larder/node.yaml (an example is /usr/share/doc/larder/node.yaml), then: larder node deploy --start"
fi
