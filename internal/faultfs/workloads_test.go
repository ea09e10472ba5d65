package faultfs_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
	_ "modernc.org/sqlite" // the driver of the workload

	"forebay/internal/faultfs"
)

// workloads are what the test binary does as a child, in a mount of its parent.
var workloads = map[string]func(dir string) error{
	"mmap": mmapWorkload, "bbolt": bboltWorkload, "sqlite": sqliteWorkload,
	"bbolt check": bboltCheck, "sqlite check": sqliteCheck,
}

// TestMmapIsCoherent: a shared map of a file shows what is written to it by
// pwrite, at once, in the middle and beyond its old end.
func TestMmapIsCoherent(t *testing.T) {
	f := mount(t)
	finish(t, workload(t, f, "mmap"))
}

func mmapWorkload(dir string) error {
	file, err := os.Create(filepath.Join(dir, "mapped"))
	if err != nil {
		return err
	}
	defer file.Close()
	const pages = 64
	if err := file.Truncate(pages * 4096); err != nil {
		return err
	}
	m, err := syscall.Mmap(int(file.Fd()), 0, pages*4096, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	for round := range byte(20) {
		for page := range pages {
			want := bytes.Repeat([]byte{round + 1, byte(page)}, 1000)
			if _, err := file.WriteAt(want, int64(page)*4096+100); err != nil {
				return err
			}
			if got := m[page*4096+100:][:2000]; !bytes.Equal(got, want) {
				return fmt.Errorf("round %d, page %d: the map shows %v…, %v… was written", round, page, got[:4], want[:4])
			}
			if err := file.Sync(); err != nil {
				return err
			}
		}
	}
	return syscall.Munmap(m)
}

// TestDatabasesSurvive: bbolt and SQLite commit and mark what they have committed, while the power is cut at
// any sync, with anything lost that may be lost; they open whole, with all of it.
func TestDatabasesSurvive(t *testing.T) {
	for _, name := range []string{"bbolt", "sqlite"} {
		t.Run(name, func(t *testing.T) {
			f := mount(t)
			for seed := range uint64(12) {
				must(t, f.Record())
				inject(t, f, faultfs.Rule{Op: faultfs.OpSync, Nth: 3 + int(seed*7), Times: 1, Cut: faultfs.CutBefore})
				cmd := workload(t, f, name)
				if err := cmd.Wait(); err == nil {
					t.Fatal("the workload came through a power cut")
				}
				wait(t, "the power cut", f.WasCut())
				committed := ""
				for _, e := range f.Trace().Events {
					if e.Op == 0 {
						committed = e.Mark
					}
				}
				restore(t, f, faultfs.KeepTorn(seed))
				must(t, os.WriteFile(filepath.Join(f.Dir(), "committed"), []byte(committed), 0o600))
				finish(t, workload(t, f, name+" check"))
			}
		})
	}
}

// commits adds numbers, and marks each one that add has made durable.
func commits(dir string, last int, add func(n int) error) error {
	marks, err := os.OpenFile(filepath.Join(dir, faultfs.MarkName), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for n := last + 1; n < last+1000; n++ {
		if err := add(n); err != nil {
			return err
		}
		if _, err := fmt.Fprint(marks, n); err != nil {
			return err
		}
	}
	return errors.New("no power cut in a thousand commits")
}

// compare holds what a database has against what was committed.
func compare(dir string, count, last int) error {
	b, err := os.ReadFile(filepath.Join(dir, "committed"))
	if err != nil {
		return err
	}
	committed := 0
	if len(b) > 0 {
		if committed, err = strconv.Atoi(string(b)); err != nil {
			return err
		}
	}
	if count != last || last < committed || committed > 0 && last > committed+1 {
		return fmt.Errorf("%d rows up to %d, committed was %d", count, last, committed)
	}
	return nil
}

func openBolt(dir string) (*bbolt.DB, error) {
	name := filepath.Join(dir, "bolt.db")
	_, err := os.Stat(name)
	if err == nil {
		return bbolt.Open(name, 0o600, nil)
	}
	// As an application has to: laid out under another name.
	db, err := bbolt.Open(name+".new", 0o600, nil)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(db.Close(), os.Rename(name+".new", name)); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return nil, err
	}
	return bbolt.Open(name, 0o600, nil)
}

func boltRows(db *bbolt.DB) (count, last int, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("rows"))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, _ []byte) error {
			count++
			var err error
			last, err = strconv.Atoi(string(k))
			return err
		})
	})
	return count, last, err
}

func bboltWorkload(dir string) error {
	db, err := openBolt(dir)
	if err != nil {
		return err
	}
	_, last, err := boltRows(db)
	if err != nil {
		return err
	}
	return commits(dir, last, func(n int) error {
		return db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("rows"))
			if err != nil {
				return err
			}
			return b.Put(fmt.Appendf(nil, "%08d", n), bytes.Repeat([]byte("v"), 3000))
		})
	})
}

func bboltCheck(dir string) error {
	db, err := openBolt(dir)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // it was only read
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	count, last, err := boltRows(db)
	return errors.Join(err, compare(dir, count, last))
}

func openSQLite(dir string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "lite.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	_, err = db.Exec("create table if not exists numbers (n integer primary key, v text)")
	return db, err
}

func sqliteWorkload(dir string) error {
	db, err := openSQLite(dir)
	if err != nil {
		return err
	}
	var last int
	if err := db.QueryRow("select coalesce(max(n), 0) from numbers").Scan(&last); err != nil {
		return err
	}
	return commits(dir, last, func(n int) error {
		_, err := db.Exec("insert into numbers values (?, ?)", n, string(bytes.Repeat([]byte("v"), 3000)))
		return err
	})
}

func sqliteCheck(dir string) error {
	db, err := openSQLite(dir)
	if err != nil {
		return err
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRow("pragma integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		return fmt.Errorf("integrity check: %q, %w", verdict, err)
	}
	var count, last int
	if err := db.QueryRow("select count(*), coalesce(max(n), 0) from numbers").Scan(&count, &last); err != nil {
		return err
	}
	return compare(dir, count, last)
}
