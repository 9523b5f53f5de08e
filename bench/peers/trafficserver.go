package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// trafficServer runs with or without the plug-ins that cut files into blocks of 1 MiB.
type trafficServer struct {
	process
	slice bool
}

func newTrafficServer(slice bool) *trafficServer {
	name := "Traffic Server"
	if slice {
		name += ", slice"
	}
	return &trafficServer{process: process{name: name}, slice: slice}
}

const (
	trafficServerModules = "/usr/lib/trafficserver/modules" // Debian's

	trafficServerLayout = `prefix: $DIR
exec_prefix: $DIR
bindir: /usr/bin
sbindir: /usr/bin
sysconfdir: $DIR/etc
datadir: $DIR/cache
includedir: $DIR
libdir: /usr/lib/trafficserver
libexecdir: $MODULES
localstatedir: $DIR/run
runtimedir: $DIR/run
logdir: $DIR/log
mandir: $DIR
infodir: $DIR
cachedir: $DIR/cache
`
	trafficServerRecords = `CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.task_threads INT 1
CONFIG proxy.config.cache.threads_per_disk INT 2
CONFIG proxy.config.http.server_ports STRING $HTTP:ip-in=127.0.0.1 $TLS:ip-in=127.0.0.1:ssl
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 600
CONFIG proxy.config.http.cache.http INT 1
CONFIG proxy.config.http.cache.required_headers INT 0
CONFIG proxy.config.cache.enable_read_while_writer INT 1
CONFIG proxy.config.http.background_fill_active_timeout INT 0
CONFIG proxy.config.http.background_fill_completed_threshold FLOAT 0.0
CONFIG proxy.config.cache.ram_cache.size INT 256M
CONFIG proxy.config.cache.ram_cache_cutoff INT 16M
CONFIG proxy.config.cache.limits.http.max_alts INT 5
CONFIG proxy.config.crash_log_helper STRING ""
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.diags.debug.enabled INT 0
CONFIG proxy.config.url_remap.remap_required INT 1
CONFIG proxy.config.url_remap.pristine_host_hdr INT 1
CONFIG proxy.config.reverse_proxy.enabled INT 1
CONFIG proxy.config.admin.user_id STRING $USER
CONFIG proxy.config.ssl.server.cert.path STRING $DIR/etc
CONFIG proxy.config.ssl.server.private_key.path STRING $DIR/etc
CONFIG proxy.config.ssl.server.TLSv1_3.cipher_suites STRING TLS_AES_128_GCM_SHA256
CONFIG proxy.config.ssl.max_record_size INT 0
`
)

func (t *trafficServer) Start(ctx context.Context, dir, origin string, cert *certificate) (Addrs, error) {
	if err := missing("traffic_server"); err != nil {
		return Addrs{}, err
	}
	plugins := ""
	if t.slice {
		for _, plugin := range []string{"slice.so", "cache_range_requests.so"} {
			if _, err := os.Stat(filepath.Join(trafficServerModules, plugin)); err != nil {
				return Addrs{}, fmt.Errorf("run bench/install-peers.sh: %w", err)
			}
		}
		plugins = " @plugin=slice.so @pparam=--blockbytes=1m @plugin=cache_range_requests.so"
	}
	addrs, err := freeAddrs(2)
	if err != nil {
		return Addrs{}, err
	}
	user := "#-1" // stay who starts it
	if os.Getuid() == 0 {
		user = "trafficserver"
	}
	for _, sub := range []string{"etc", "run", "log", "cache"} {
		path := filepath.Join(dir, sub)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return Addrs{}, err
		}
		if os.Getuid() == 0 {
			if err := ownBy(user, path); err != nil {
				return Addrs{}, err
			}
		}
	}
	certPEM, err1 := os.ReadFile(cert.CertFile)
	keyPEM, err2 := os.ReadFile(cert.KeyFile)
	if err := errors.Join(err1, err2); err != nil {
		return Addrs{}, err
	}
	if err := writeFiles(dir, map[string]string{
		"runroot.yaml":             trafficServerLayout,
		"etc/records.config":       trafficServerRecords,
		"etc/remap.config":         "map / http://$ORIGIN/" + plugins + "\n",
		"etc/storage.config":       "$DIR/cache 2G\n",
		"etc/ssl_multicert.config": "dest_ip=* ssl_cert_name=cert.pem ssl_key_name=key.pem\n",
		"etc/cert.pem":             string(certPEM),
		"etc/key.pem":              string(keyPEM),
		"etc/plugin.config":        "",
		"etc/ip_allow.yaml":        "ip_allow:\n  - apply: in\n    ip_addrs: 127.0.0.1\n    action: allow\n    methods: ALL\n",
	}, "$DIR", dir, "$MODULES", trafficServerModules, "$ORIGIN", origin, "$HTTP", port(addrs[0]), "$TLS", port(addrs[1]), "$USER", user); err != nil {
		return Addrs{}, err
	}
	if err := t.run(dir, nil, "traffic_server", "--run-root="+filepath.Join(dir, "runroot.yaml")); err != nil {
		return Addrs{}, err
	}
	return Addrs{HTTP: addrs[0], HTTPS: addrs[1]}, t.await(ctx, addrs...)
}
