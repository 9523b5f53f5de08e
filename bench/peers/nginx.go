package main

import (
	"context"
	"os"
)

type nginx struct{ process }

const nginxConf = `daemon off;
$USER
worker_processes 1;
pid $DIR/nginx.pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
	access_log off;
	default_type application/octet-stream;
	sendfile on;
	tcp_nopush on;
	aio off;
	keepalive_timeout 600s;
	keepalive_requests 1000000000;
	client_body_temp_path $DIR/tmp-body;
	proxy_temp_path $DIR/tmp-proxy;
	fastcgi_temp_path $DIR/tmp-fastcgi;
	uwsgi_temp_path $DIR/tmp-uwsgi;
	scgi_temp_path $DIR/tmp-scgi;
	proxy_cache_path $DIR/cache levels=2:2 keys_zone=bench:10m max_size=8g inactive=30d use_temp_path=off;
	upstream origin { server $ORIGIN; keepalive 64; }
	server {
		listen $HTTP;
		listen $TLS ssl;
		ssl_certificate $CERT;
		ssl_certificate_key $KEY;
		ssl_protocols TLSv1.3;
		ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
		location / {
			slice 1m;
			proxy_cache bench;
			proxy_cache_key $uri$slice_range;
			proxy_cache_valid 200 206 30d;
			proxy_cache_lock on;
			proxy_cache_lock_age 60s;
			proxy_cache_lock_timeout 60s;
			proxy_set_header Range $slice_range;
			proxy_set_header Host $host;
			proxy_set_header Connection "";
			proxy_http_version 1.1;
			proxy_pass http://origin;
		}
	}
}
`

func (n *nginx) Start(ctx context.Context, dir, origin string, cert *certificate) (Addrs, error) {
	if err := missing("nginx"); err != nil {
		return Addrs{}, err
	}
	addrs, err := freeAddrs(2)
	if err != nil {
		return Addrs{}, err
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // the files lie in a directory of ours
	}
	if err := writeFiles(dir, map[string]string{"nginx.conf": nginxConf},
		"$USER", user, "$DIR", dir, "$ORIGIN", origin, "$HTTP", addrs[0], "$TLS", addrs[1], "$CERT", cert.CertFile, "$KEY", cert.KeyFile); err != nil {
		return Addrs{}, err
	}
	if err := n.run(dir, nil, "nginx", "-p", dir, "-c", dir+"/nginx.conf"); err != nil {
		return Addrs{}, err
	}
	return Addrs{HTTP: addrs[0], HTTPS: addrs[1]}, n.await(ctx, addrs...)
}
