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
	"slices"
	"strings"
	"syscall"
	"time"
)

// dataVersion is the version of a data directory's layout, in node.json. A
// directory of another version is refused and left alone.
const dataVersion = 1

var (
	// ErrInUse says that another process has the data directory or the address of
	// node.http: a later try may succeed.
	ErrInUse = errors.New("in use by another process")
	// ErrForeignData says that the data directory belongs to another node or
	// gateway, is of a newer version, or lacks what it had.
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
	// Lanes have been opened here, each before its first record: one whose
	// directory is gone is lost, not new.
	Lanes []uint32 `json:"lanes,omitempty"`
}

// dataDir is a data directory that this process holds.
type dataDir struct {
	path        string
	lock        *os.File
	identity    identity
	incarnation [16]byte
}

// turn is how a start waits for a predecessor that still has what it needs.
type turn struct {
	most time.Duration
	// says is told once that the wait begins, and who is waited for, as far as that is known.
	says func(holder string)
}

// begins says that the wait begins.
func (t *turn) begins(holder string) {
	if t.says != nil {
		t.says(holder)
		t.says = nil
	}
}

// openDataDir makes or takes the directory: locked, and known to be of this node
// and gateway. It waits its turn for a predecessor that is still ending.
func openDataDir(ctx context.Context, path, node, gateway string, turn turn) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	lock, err := lockFile(ctx, filepath.Join(path, "lock"), turn)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("locking the data directory: %w: make %s writable for the user that runs this", err, path)
	case errors.Is(err, syscall.EROFS):
		return nil, fmt.Errorf("locking the data directory: %w: set node.dataDir to a disk that can be written", err)
	case err != nil:
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

// lockFile takes the lock and writes this process into it, for people.
func lockFile(ctx context.Context, path string, turn turn) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(turn.most); ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			holder := lockHolder(f)
			if !time.Now().Before(deadline) {
				f.Close()
				return nil, fmt.Errorf("%w (%q): end that one, or set another node.dataDir", ErrInUse, holder)
			}
			turn.begins(holder)
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
	// That it cannot be written, as on a full disk, is no reason to stop.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "pid %d\n", os.Getpid()), 0)
	}
	return f, nil
}

// lockHolder reads what the process that has the lock has written into it.
func lockHolder(f *os.File) string {
	holder := make([]byte, 16)
	n, _ := f.ReadAt(holder, 0)
	return strings.TrimSpace(string(holder[:n]))
}

// dataDirHolder names the process that has a data directory, "" when none has.
func dataDirHolder(path string) string {
	f, err := os.Open(filepath.Join(path, "lock"))
	if err != nil {
		return ""
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		return ""
	}
	return lockHolder(f)
}

// identify reads node.json, or writes it into a directory that has none. A
// directory without node.json that holds a log is not taken for a new one.
func (d *dataDir) identify(node, gateway string) error {
	path := filepath.Join(d.path, "node.json")
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.claim(node, gateway)
	case err != nil:
		return fmt.Errorf("reading the data directory's identity: %w", err)
	}
	damaged := func(err error) error {
		return fmt.Errorf("%w: %s is damaged (%w): restore it from a backup, or write it anew if the directory is known to be this node's", ErrForeignData, path, err)
	}
	// The version first: what else a newer one says may not even parse.
	var found identity
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return damaged(err)
	}
	if version.Version != dataVersion {
		return fmt.Errorf("%w: %s has format version %d, this program reads version %d: run the version of Forebay that wrote it; nothing was touched", ErrForeignData, d.path, version.Version, dataVersion)
	}
	if err := json.Unmarshal(text, &found); err != nil {
		return damaged(err)
	}
	switch {
	case found.Node != node:
		return fmt.Errorf("%w: %s belongs to node %q, this is node %q: correct node.id or node.dataDir", ErrForeignData, d.path, found.Node, node)
	case found.Gateway != gateway:
		return fmt.Errorf("%w: %s belongs to gateway %q, this is gateway %q: correct node.gateway or node.dataDir", ErrForeignData, d.path, found.Gateway, gateway)
	}
	n, err := hex.Decode(d.incarnation[:], []byte(found.Incarnation[:min(len(found.Incarnation), 2*len(d.incarnation))]))
	if err != nil || n != len(d.incarnation) || len(found.Incarnation) != 2*n {
		return damaged(fmt.Errorf("incarnation %q", found.Incarnation))
	}
	d.identity = found
	return nil
}

// claim makes an empty directory this node's.
func (d *dataDir) claim(node, gateway string) error {
	if _, err := os.Stat(filepath.Join(d.path, "lanes")); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%w: %s holds a log but no node.json: restore node.json, or move the directory away to begin anew", ErrForeignData, d.path), err)
	}
	_, _ = rand.Read(d.incarnation[:]) // never fails
	d.identity = identity{Version: dataVersion, Node: node, Gateway: gateway, Incarnation: hex.EncodeToString(d.incarnation[:])}
	if err := d.write(); err != nil {
		return fmt.Errorf("claiming the data directory: %w", err)
	}
	return nil
}

func (d *dataDir) write() error {
	text, err := json.MarshalIndent(d.identity, "", "  ")
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(d.path, "node.json"), append(text, '\n'))
}

// lane makes or finds the directory of a lane.
func (d *dataDir) lane(k uint32) (string, error) {
	path := filepath.Join(d.path, "lanes", fmt.Sprint(k))
	held, err := os.ReadDir(path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("looking into the lane's directory: %w", err)
	case len(held) == 0 && slices.Contains(d.identity.Lanes, k):
		return "", fmt.Errorf("%w: %s is gone or empty, and with it the log of lane %d: restore it from a copy; or, if what it held is given up, move %s away to begin anew", ErrForeignData, path, k, d.path)
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return "", fmt.Errorf("making the lane's directory: %w", err)
	}
	return path, nil
}

// formed records that a lane has its log in this directory.
func (d *dataDir) formed(k uint32) error {
	if slices.Contains(d.identity.Lanes, k) {
		return nil
	}
	// The lane's own directory must be durable before it is said to be there.
	for _, dir := range []string{filepath.Join(d.path, "lanes"), d.path} {
		if err := syncDir(dir); err != nil {
			return fmt.Errorf("recording the new lane: %w", err)
		}
	}
	d.identity.Lanes = append(d.identity.Lanes, k)
	if err := d.write(); err != nil {
		return fmt.Errorf("recording the new lane: %w", err)
	}
	return nil
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
