package main

import (
	"context"
)

// varnish has no TLS of its own.
type varnish struct{ process }

const varnishVCL = `vcl 4.1;
backend origin { .host = "127.0.0.1"; .port = "$PORT"; }
sub vcl_recv { return (hash); }
`

func (v *varnish) Start(ctx context.Context, dir, origin string, _ *certificate) (Addrs, error) {
	if err := missing("varnishd"); err != nil {
		return Addrs{}, err
	}
	addrs, err := freeAddrs(1)
	if err != nil {
		return Addrs{}, err
	}
	if err := writeFiles(dir, map[string]string{"bench.vcl": varnishVCL}, "$PORT", port(origin)); err != nil {
		return Addrs{}, err
	}
	if err := v.run(dir, nil, "varnishd", "-F", "-j", "none", "-n", dir+"/work", "-a", addrs[0], "-f", dir+"/bench.vcl",
		"-s", "malloc,512m", "-p", "thread_pools=1", "-p", "timeout_idle=600"); err != nil {
		return Addrs{}, err
	}
	return Addrs{HTTP: addrs[0]}, v.await(ctx, addrs...)
}
