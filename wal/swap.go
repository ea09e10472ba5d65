package wal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// ErrUnfinished says that a repair or an import was begun in the directory and did not
// end: until `forebay wal repair` has finished it nothing opens the log.
var ErrUnfinished = errors.New("a repair of the log was begun and has not ended: `forebay wal repair` finishes it")

const (
	swapName      = "repair"
	swapVersion   = 1
	quarantineDir = "quarantine"
	stagedDir     = "new"
)

// swap is the file "repair": which files of the directory change places with those that
// were made ready in Quarantine. DESIGN.md, "Repair", argues its steps. All names are relative
// to the log's directory.
type swap struct {
	Version    uint32   `json:"version"`
	Quarantine string   `json:"quarantine"`
	Replace    []string `json:"replace"`
	Remove     []string `json:"remove"`
}

// Held is a stopped log that this process holds, to change it. It is not safe for
// concurrent use.
type Held struct {
	files Files
	p     paths
	lock  *os.File
}

// Hold takes the lock of the log in dir, and waits for it at most wait. Errors: ErrInUse
// (wrapped) while a node runs on it, fs.ErrNotExist if there is no such directory.
func Hold(dir string, wait time.Duration) (*Held, error) { return hold(osFiles{}, dir, wait) }

func hold(files Files, dir string, wait time.Duration) (*Held, error) {
	p := pathsOf(dir)
	if _, err := os.Stat(p.dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(p.lock, wait)
	if err != nil {
		return nil, err
	}
	return &Held{files: files, p: p, lock: lock}, nil
}

// Close lets the log go.
func (h *Held) Close() error { return h.lock.Close() }

// Finish ends a repair or an import that was interrupted, and gives the place of the
// files that it took out, relative to the directory; "" when there is nothing to finish.
func (h *Held) Finish() (string, error) {
	sw, err := readSwap(h.files, h.p)
	if err != nil || sw == nil {
		return "", err
	}
	return sw.Quarantine, h.carryOut(sw)
}

// readSwap gives the swap that was begun, or nil.
func readSwap(files Files, p paths) (*swap, error) {
	f, err := files.Open(filepath.Join(p.dir, swapName), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the file of a repair: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("reading the file of a repair: %w", err)
	}
	text, err := readUpTo(f, int(size))
	if err != nil {
		return nil, fmt.Errorf("reading the file of a repair: %w", err)
	}
	sw := &swap{}
	if err := json.Unmarshal(text, sw); err != nil {
		return nil, fmt.Errorf("the file %s of a repair cannot be read: %w", filepath.Join(p.dir, swapName), err)
	}
	if sw.Version != swapVersion {
		return nil, &VersionError{File: filepath.Join(p.dir, swapName), Version: sw.Version, Known: swapVersion}
	}
	return sw, nil
}

// stage makes the place of a swap: everything that it puts in and takes out.
func (h *Held) stage(at time.Time) (string, error) {
	name := filepath.Join(quarantineDir, at.UTC().Format("20060102T150405.000Z"))
	for _, dir := range []string{
		quarantineDir, name, filepath.Join(name, segmentsDir), filepath.Join(name, stagedDir), filepath.Join(name, stagedDir, segmentsDir),
	} {
		if err := h.files.MkdirAll(h.abs(dir)); err != nil {
			return "", err
		}
	}
	return name, nil
}

func (h *Held) abs(rel string) string { return filepath.Join(h.p.dir, rel) }

// put writes one file of a swap, before it is begun, and syncs it.
func (h *Held) put(place, rel string, write func(File) error) error {
	f, err := h.files.Open(h.abs(filepath.Join(place, stagedDir, rel)), os.O_CREATE|os.O_RDWR|os.O_TRUNC)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// begin makes a swap durable: from here on it will be carried out.
func (h *Held) begin(sw *swap) error {
	sw.Version = swapVersion
	for _, dir := range []string{
		filepath.Join(sw.Quarantine, stagedDir, segmentsDir), filepath.Join(sw.Quarantine, stagedDir),
		filepath.Join(sw.Quarantine, segmentsDir), sw.Quarantine, quarantineDir, ".",
	} {
		if err := h.files.SyncDir(h.abs(dir)); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(sw, "", "  ")
	if err != nil {
		return err
	}
	f, err := writeFile(h.files, h.p.dir, h.abs(swapName), append(text, '\n'))
	if err != nil {
		return err
	}
	return f.Close()
}

// carryOut moves the old files out and the new ones in. Each step may have been done
// already, by a run that was interrupted: a new file that is not ready any more is in its place.
func (h *Held) carryOut(sw *swap) error {
	dirs := []string{"."}
	for _, rel := range slices.Concat(sw.Remove, sw.Replace) {
		for _, dir := range []string{".", sw.Quarantine, filepath.Join(sw.Quarantine, stagedDir)} {
			if dir = filepath.Join(dir, filepath.Dir(rel)); !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
		if err := h.files.MkdirAll(h.abs(filepath.Join(sw.Quarantine, filepath.Dir(rel)))); err != nil {
			return err
		}
	}
	var ready []string
	for _, rel := range sw.Replace {
		there, err := h.exists(filepath.Join(sw.Quarantine, stagedDir, rel))
		if err != nil {
			return err
		}
		if there {
			ready = append(ready, rel)
		}
	}
	for _, rel := range slices.Concat(sw.Remove, ready) {
		if err := h.takeOut(sw, rel); err != nil {
			return fmt.Errorf("moving %s into %s: %w", rel, sw.Quarantine, err)
		}
	}
	// What was taken out must be safe before something else has its name.
	if err := h.syncDirs(dirs); err != nil {
		return err
	}
	for _, rel := range ready {
		if err := h.files.Rename(h.abs(filepath.Join(sw.Quarantine, stagedDir, rel)), h.abs(rel)); err != nil {
			return fmt.Errorf("putting the new %s in its place: %w", rel, err)
		}
	}
	if err := h.syncDirs(dirs); err != nil {
		return err
	}
	if err := h.files.Remove(h.abs(swapName)); err != nil {
		return err
	}
	return h.files.SyncDir(h.p.dir)
}

func (h *Held) syncDirs(dirs []string) error {
	for _, dir := range dirs {
		if err := h.files.SyncDir(h.abs(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (h *Held) exists(rel string) (bool, error) {
	f, err := h.files.Open(h.abs(rel), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// takeOut moves an old file out, if there is one that has not been moved.
func (h *Held) takeOut(sw *swap, rel string) error {
	out, err := h.exists(filepath.Join(sw.Quarantine, rel))
	if err != nil || out {
		return err
	}
	if err := h.files.Rename(h.abs(rel), h.abs(filepath.Join(sw.Quarantine, rel))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
