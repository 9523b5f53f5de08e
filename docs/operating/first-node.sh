#!/bin/sh
# From nothing to a healthy node by plain REST calls: resource group, customer,
# node, drives, install details, deployment. A test runs it as it is.
#
#	LARDER_TOKEN=… docs/operating/first-node.sh https://control.example:8440 ca.pem /etc/larder/node.yaml /srv/cache,100
#
# It wants curl and larder (or LARDER=/path/of/larder), on the machine that is to
# be the node. ENROL is the command that ties it, "node deploy --start" if not
# given; with ENROL="node register" start the node by yourself, or set RUN.
set -eu
url=$1 ca=$2 config=$3 drive=$4
larder=${LARDER:-larder}
v='api-version=2026-06-01'

ask() { # METHOD PATH [BODY]
	curl -sS --fail-with-body --cacert "$ca" -H "Authorization: Bearer $LARDER_TOKEN" -H 'Content-Type: application/json' -X "$1" "$url$2" ${3:+-d "$3"}
}
field() { # NAME: the first of that name in the JSON on stdin
	tr ',{' '\n\n' | sed -n "s/^\"$1\":\"\([^\"]*\)\".*/\1/p" | head -n 1
}
until_is() { # PATH FIELD VALUE
	tries=0
	until [ "$(ask GET "$1?$v" | field "$2")" = "$3" ]; do
		tries=$((tries + 1))
		if [ "$tries" -gt 120 ]; then
			echo "$2 is $(ask GET "$1?$v" | field "$2") still, not $3" >&2
			exit 1
		fi
		sleep 1
	done
	echo "$2: $3"
}

sub=$(ask GET '/subscriptions?api-version=2022-12-01' | field subscriptionId)
group=/subscriptions/$sub/resourceGroups/schools
customer=$group/providers/Microsoft.ConnectedCache/enterpriseMccCustomers/north
node=$customer/enterpriseMccCacheNodes/room-1

ask PUT "$group?api-version=2022-09-01" '{"location":"westeurope"}' >/dev/null
ask PUT "$customer?$v" '{"location":"westeurope"}' >/dev/null
until_is "$customer" provisioningState Succeeded
ask PUT "$node?$v" '{"location":"westeurope","properties":{"additionalCacheNodeProperties":{"osType":"Linux"}}}' >/dev/null
until_is "$node" cacheNodeStateShortText 'Not Configured'
ask PUT "$node?$v" "{\"location\":\"westeurope\",\"properties\":{\"additionalCacheNodeProperties\":{\"osType\":\"Linux\",
	\"driveConfiguration\":[{\"physicalPath\":\"${drive%,*}\",\"sizeInGb\":${drive##*,}}]}}}" >/dev/null
until_is "$node" cacheNodeStateShortText 'Not Provisioned'

details=$(ask POST "$node/getCacheNodeInstallDetails?$v")
detail() { printf %s "$details" | field "$1"; }
fingerprint=$(ask GET /api/larder/v1/roots | field fingerprint)
# shellcheck disable=SC2086 # ENROL is several words
"$larder" ${ENROL:-node deploy --start} --config "$config" controlurl="$url" controlfingerprint="$fingerprint" customerid="$(detail customerId)" \
	cachenodeid="$(detail cacheNodeId)" customerkey="$(detail primaryAccountKey)" registrationkey="$(detail registrationKey)"
if [ -n "${RUN-}" ]; then
	"$larder" node run --config "$config" &
	trap 'kill $!' EXIT
fi
until_is "$node" cacheNodeStateShortText Healthy
