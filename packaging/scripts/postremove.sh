#!/bin/sh
# After removing. Configuration, certificates, keys and what is cached stay, as
# the account does: files of an account that is gone may become another's.
set -eu

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
case "${1:-remove}" in
remove | 0)
	echo "larder: kept /etc/larder, /var/lib/larder, /var/log/larder and the drives; remove them by hand if they are not needed"
	;;
esac
