#!/bin/sh
# importCert.sh of Connected Cache, for runbooks that call it: "larder tls import" reads its flags as they are.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
larder=${LARDER:-}
if [ -z "$larder" ] && [ -x "$here/larder" ]; then
	larder=$here/larder
fi
if [ -z "$larder" ]; then
	larder=$(command -v larder || echo /usr/bin/larder)
fi
exec "$larder" tls import "$@"
