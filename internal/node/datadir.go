package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// dataVersion is the version of a data directory's layout, in node.json. A
// directory of another version is refused and left alone.
const dataVersion = 1

// lockWait is how long a start waits for a predecessor that holds the directory:
// a killed process keeps its lock while the kernel still waits for its disk.
const lockWait = 5 * time.Second

var (
	// ErrInUse says that another process has the data directory.
	ErrInUse = errors.New("in use by another process")
	// ErrForeignData says that the data directory belongs to another node or
	// gateway, or to a newer version.
	ErrForeignData = errors.New("not this node's data directory")
)

// identity is node.json: whose directory this is.
type identity struct {
	Version int    `json:"version"`
	Node    string `json:"node"`
	Gateway string `json:"gateway"`
	// Incarnation is random, made with the directory: an emptied directory
	// under an old node id is told from the one that was lost.
	Incarnation string `json:"incarnation"`
}

// dataDir is a data directory that this process holds.
type dataDir struct {
	path     string
	lock     *os.File
	identity identity
}

// openDataDir makes or takes the directory: locked, and known to be of this node
// and gateway. It waits a moment for a predecessor that is still ending.
func openDataDir(ctx context.Context, path, node, gateway string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	lock, err := lockFile(ctx, filepath.Join(path, "lock"))
	if err != nil {
		return nil, fmt.Errorf("locking the data directory %s: %w", path, err)
	}
	d := &dataDir{path: path, lock: lock}
	if err := d.identify(node, gateway); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *dataDir) close() { d.lock.Close() }

func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, ErrInUse
		}
	}
}

// identify reads node.json, or writes it into a directory that has none. A
// directory without node.json that holds a log is not taken for a new one.
func (d *dataDir) identify(node, gateway string) error {
	path := filepath.Join(d.path, "node.json")
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.claim(path, node, gateway)
	case err != nil:
		return fmt.Errorf("reading the data directory's identity: %w", err)
	}
	if err := json.Unmarshal(text, &d.identity); err != nil {
		return fmt.Errorf("%w: %s is damaged (%w): restore it from a backup, or write it anew if the directory is known to be this node's", ErrForeignData, path, err)
	}
	switch found := d.identity; {
	case found.Version != dataVersion:
		return fmt.Errorf("%w: %s has format version %d, this program reads version %d: run the version of Forebay that wrote it; nothing was touched", ErrForeignData, d.path, found.Version, dataVersion)
	case found.Node != node:
		return fmt.Errorf("%w: %s belongs to node %q, this is node %q: correct node.id or node.dataDir", ErrForeignData, d.path, found.Node, node)
	case found.Gateway != gateway:
		return fmt.Errorf("%w: %s belongs to gateway %q, this is gateway %q: correct node.gateway or node.dataDir", ErrForeignData, d.path, found.Gateway, gateway)
	}
	return nil
}

func (d *dataDir) claim(path, node, gateway string) error {
	if _, err := os.Stat(filepath.Join(d.path, "lanes")); err == nil {
		return fmt.Errorf("%w: %s holds a log but no node.json: restore node.json, or move the directory away to begin anew", ErrForeignData, d.path)
	}
	var incarnation [16]byte
	_, _ = rand.Read(incarnation[:])
	d.identity = identity{Version: dataVersion, Node: node, Gateway: gateway, Incarnation: hex.EncodeToString(incarnation[:])}
	text, err := json.MarshalIndent(d.identity, "", "  ")
	if err != nil {
		return err
	}
	if err := writeSynced(path, append(text, '\n')); err != nil {
		return fmt.Errorf("claiming the data directory: %w", err)
	}
	return nil
}

func (d *dataDir) incarnation() (id [16]byte, err error) {
	n, err := hex.Decode(id[:], []byte(d.identity.Incarnation))
	if err != nil || n != len(id) {
		return id, fmt.Errorf("%w: node.json has a damaged incarnation %q", ErrForeignData, d.identity.Incarnation)
	}
	return id, nil
}

func (d *dataDir) lane(k uint32) string {
	return filepath.Join(d.path, "lanes", fmt.Sprint(k))
}

// writeSynced writes a file that is there whole or not at all, after a power cut too.
func writeSynced(path string, data []byte) error {
	temporary := path + ".tmp"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
