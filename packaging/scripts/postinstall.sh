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
install -d -m 0750 -o root -g larder /etc/larder
install -d -m 0750 -o larder -g larder /var/lib/larder /var/log/larder
install -d -m 0700 -o larder -g larder /var/lib/larder/tls
if command -v restorecon >/dev/null; then
	restorecon -R /etc/larder /var/lib/larder /var/log/larder || true
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# Only a node that runs: an upgrade is used at once.
	systemctl try-restart larder-node.service
fi
if [ ! -e /etc/larder/node.yaml ]; then
	echo "larder: write /etc/larder/node.yaml (an example is /usr/share/doc/larder/node.yaml), then: larder node deploy --start"
fi
