package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
)

type squid struct{ process }

const squidConf = `http_port $HTTP accel defaultsite=$HOST no-vhost
https_port $TLS accel defaultsite=$HOST no-vhost tls-cert=$CERT tls-key=$KEY
cache_peer 127.0.0.1 parent $PORT 0 no-query no-digest originserver name=origin
http_access allow all
cache_dir ufs $DIR/cache 8192 16 256
cache_mem 64 MB
maximum_object_size 4 GB
range_offset_limit -1
quick_abort_min -1 KB
collapsed_forwarding on
client_idle_pconn_timeout 600 seconds
workers 1
access_log none
cache_log $DIR/cache.log
cache_store_log none
coredump_dir $DIR
pid_filename $DIR/squid.pid
visible_hostname $HOST
shutdown_lifetime 0 seconds
pinger_enable off
$USER
`

func (s *squid) Start(ctx context.Context, dir, origin string, cert *certificate) (Addrs, error) {
	if err := missing("squid"); err != nil {
		return Addrs{}, err
	}
	addrs, err := freeAddrs(2)
	if err != nil {
		return Addrs{}, err
	}
	effective := ""
	if os.Getuid() == 0 {
		effective = "cache_effective_user proxy"
		if err := ownBy("proxy", dir); err != nil {
			return Addrs{}, err
		}
	}
	conf := filepath.Join(dir, "squid.conf")
	if err := writeFiles(dir, map[string]string{"squid.conf": squidConf},
		"$HTTP", addrs[0], "$TLS", addrs[1], "$HOST", hostName, "$PORT", port(origin), "$CERT", cert.CertFile, "$KEY", cert.KeyFile, "$DIR", dir, "$USER", effective); err != nil {
		return Addrs{}, err
	}
	if out, err := exec.CommandContext(ctx, "squid", "-N", "-z", "-f", conf).CombinedOutput(); err != nil {
		return Addrs{}, fmt.Errorf("squid -z: %w\n%s", err, out)
	}
	if err := s.run(dir, nil, "squid", "-N", "-f", conf); err != nil {
		return Addrs{}, err
	}
	return Addrs{HTTP: addrs[0], HTTPS: addrs[1]}, s.await(ctx, addrs...)
}

// ownBy gives dir to a user of the system.
func ownBy(name, dir string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return errors.Join(err1, err2, os.Chown(dir, uid, gid))
}
