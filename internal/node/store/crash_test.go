package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	crashEnv  = "LARDER_TEST_CRASH"   // directory: this process is the one that is killed
	crashesOf = "LARDER_TEST_CRASHES" // how often, if not 50 times
)

// crashOptions make evictions and batches frequent.
func crashOptions(dir string) Options {
	return Options{Reserve: 1, MaxOpen: shards, batchDelay: 20 * time.Millisecond, Drives: []Drive{
		{Path: filepath.Join(dir, "1"), Budget: 16 * mib}, {Path: filepath.Join(dir, "2"), Budget: 8 * mib}}}
}

// hammer uses a store as hard as it can until it is killed.
func hammer(dir string) {
	s, err := Open(context.Background(), crashOptions(dir))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	for range 3 {
		go func() {
			for {
				if err := strike(s); err != nil {
					fmt.Println("wrong:", err)
					os.Exit(3)
				}
			}
		}()
	}
	select {}
}

// strike does one thing to a random key.
func strike(s *Store) error {
	key := fmt.Sprint("key ", rand.IntN(60))
	o, err := s.Get(key)
	if errors.Is(err, ErrNotFound) || err == nil && rand.IntN(4) == 0 {
		if err == nil {
			o.Release()
		}
		size := []int64{0, 1, 5000, 700_000, mib, mib + 1, 3*mib + 99}[rand.IntN(7)]
		o, err = s.Create(key, Meta{Publisher: "test", URL: "https://host.example/" + key, Size: size})
		if errors.Is(err, ErrFull) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	defer o.Release()
	size := o.Meta().Size
	for i := range o.Chunks() {
		if !o.Has(i) && rand.IntN(3) > 0 {
			err := o.Put(i, content(key, o.Generation(), size, i))
			if err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrGone) {
				return err
			}
		}
	}
	switch rand.IntN(40) {
	case 0:
		o.Doom()
	case 1:
		_, err := s.Purge(Filter{Prefix: "host.example/key 1"}, false)
		return err
	case 2:
		_, err := s.Pin(Filter{Key: key}, rand.IntN(8) == 0)
		return err
	}
	_, err = check(o)
	return err
}

func TestKilledAtAnyMomentItServesOnlyWhatIsRight(t *testing.T) {
	t.Parallel()
	kills := 50
	if n, err := strconv.Atoi(os.Getenv(crashesOf)); err == nil {
		kills = n
	}
	var wg sync.WaitGroup
	const lanes = 2
	for lane := range lanes {
		wg.Go(func() {
			dir := t.TempDir()
			chunks, lost := 0, 0
			for n := lane; n < kills && !t.Failed(); n += lanes {
				// A drive that was left cleanly and not opened since has lost
				// nothing, and is believed.
				if killOne(t, dir) && n%3 == 0 {
					damage(t, dir)
				}
				c, l := reopen(t, dir)
				chunks, lost = chunks+c, lost+l
			}
			t.Logf("%d chunks compared, %d lost", chunks, lost)
			if chunks == 0 && !t.Failed() {
				t.Error("nothing survived: the test shows nothing")
			}
		})
	}
	wg.Wait()
}

// killOne starts a process that hammers the store in dir, and kills it. It
// reports whether the process had opened the store.
func killOne(t *testing.T, dir string) (opened bool) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return false
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return false
	}
	lines := bufio.NewScanner(out)
	if rand.IntN(10) > 0 { // else it is killed while it starts
		opened = lines.Scan() && lines.Text() == "ready"
	}
	timer := time.AfterFunc(rand.N(150*time.Millisecond), func() { cmd.Process.Kill() })
	defer timer.Stop()
	for lines.Scan() {
		if lines.Text() != "ready" {
			t.Errorf("the process said: %s", lines.Text())
		}
		opened = true
	}
	cmd.Wait()
	return opened
}

// damage does to a file what a loss of power might.
func damage(t *testing.T, dir string) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(path)))) == objectsName {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		return
	}
	f, err := os.OpenFile(files[rand.IntN(len(files))], os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return
	}
	if rand.IntN(2) == 0 {
		err = f.Truncate(rand.Int64N(fi.Size()))
	} else {
		_, err = f.WriteAt(make([]byte, 4096), rand.Int64N(fi.Size())) // zeros, as of blocks never written
	}
	if err != nil {
		t.Error(err)
	}
}

// reopen compares all that the store in dir says it has.
func reopen(t *testing.T, dir string) (chunks, lost int) {
	s, err := Open(t.Context(), crashOptions(dir))
	if err != nil {
		t.Error(err)
		return 0, 0
	}
	infos, err := s.List(Filter{}, "", 0)
	if err != nil {
		t.Error(err)
	}
	for _, in := range infos {
		o, err := s.Get(in.Key)
		if errors.Is(err, ErrNotFound) {
			continue // its file was lost
		}
		if err != nil {
			t.Error(err)
			continue
		}
		n, err := check(o)
		if err != nil {
			t.Error(err)
		}
		chunks, lost = chunks+n, lost+int(in.ChunksPresent)-n
		o.Release()
	}
	audit(t, s)
	if rand.IntN(2) == 0 {
		abandon(s)
	} else if err := s.Close(); err != nil {
		t.Error(err)
	}
	return chunks, lost
}

// audit compares the totals with the rows.
func audit(t interface {
	Helper()
	Error(...any)
	Errorf(string, ...any)
}, s *Store) {
	t.Helper()
	for _, v := range s.volumes() {
		if err := v.flush(); err != nil {
			t.Error(err)
			continue
		}
		rows, err := v.ix.Scan(0, 1<<20)
		if err != nil {
			t.Error(err)
			continue
		}
		var used, objects int64
		for _, r := range rows {
			used += r.Disk
			objects++
		}
		if got := v.used.Load(); got != used {
			t.Errorf("drive %s: used %d, the rows sum up to %d", v.dir, got, used)
		}
		if got := v.objects.Load(); got != objects {
			t.Errorf("drive %s: %d objects, %d rows", v.dir, got, objects)
		}
		st, err := v.ix.State()
		if err != nil || st.Used != used || st.Objects != objects {
			t.Errorf("drive %s: index says %+v, %v; the rows say %d bytes, %d objects", v.dir, st, err, used, objects)
		}
		if used > v.budget.Load() {
			t.Errorf("drive %s: used %d of a budget of %d", v.dir, used, v.budget.Load())
		}
	}
}
