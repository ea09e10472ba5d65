package replicate

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

const (
	snapshotDir    = "snapshots"
	snapshotSuffix = ".snap"
	damagedSuffix  = ".damaged"
	tempSuffix     = ".tmp"
)

// snapshotStore implements raft.SnapshotStore. Until serve is called List gives
// the newest snapshot first, for the start; afterwards the floor's one, because
// Raft sends the first of the list to a follower that is too far behind, and
// what lies between that snapshot and the end must reach it as entries. The floor's is the
// newest snapshot below the floor: the entry at the floor itself is needed, and
// a follower that gets snapshot S gets entries from S+1 on.
type snapshotStore struct {
	dir    string
	logger *slog.Logger

	mu sync.Mutex
	// list is sorted, newest first.
	list []*snapshotInfo
	// damaged are the files that were put aside at open, newest first.
	damaged []*SnapshotError
	serving bool
	// floor is the state's, or base where that is higher: what lies below base is
	// not in the log, whatever a state that has not caught up yet may say.
	floor, base uint64
	// installs counts the snapshots that were installed.
	installs uint64
}

// openSnapshots removes what a crash left half-written, and takes up the rest: verified are the newest and
// those that are found damaged before a whole one is. The others, which nobody may need again, are when
// they are opened; so a start reads one state and not as many as are kept.
func openSnapshots(dir string, logger *slog.Logger) (*snapshotStore, error) {
	s := &snapshotStore{dir: filepath.Join(dir, snapshotDir), logger: logger}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening snapshots: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return nil, fmt.Errorf("opening snapshots: %w", err)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("opening snapshots: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), tempSuffix) {
			if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
				return nil, fmt.Errorf("opening snapshots: %w", err)
			}
		}
	}
	for _, name := range newestFirst(entries) {
		if err := s.load(filepath.Join(s.dir, name)); err != nil {
			return nil, fmt.Errorf("opening snapshots: %w", err)
		}
	}
	s.sort()
	return s, nil
}

// newestFirst gives the names of snapshots, sorted by what they say; those that say nothing come last.
func newestFirst(entries []fs.DirEntry) []string {
	type named struct {
		index, term uint64
		name        string
	}
	var all []named
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), snapshotSuffix) {
			continue
		}
		n := named{name: e.Name()}
		n.term, n.index, _ = parseSnapshotName(n.name)
		all = append(all, n)
	}
	slices.SortStableFunc(all, func(a, b named) int {
		return cmp.Or(cmp.Compare(b.index, a.index), cmp.Compare(b.term, a.term))
	})
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].name
	}
	return names
}

// parseSnapshotName reads what snapshotID and the suffix say; zeros where a name says nothing.
func parseSnapshotName(name string) (term, index uint64, ok bool) {
	id, ok := strings.CutSuffix(name, snapshotSuffix)
	if n, _ := fmt.Sscanf(id, "%d-%d", &term, &index); !ok || n != 2 {
		return 0, 0, false
	}
	return term, index, true
}

// load takes up one file, or remembers that it is damaged. The first that is taken up is verified.
func (s *snapshotStore) load(path string) error {
	read := readSnapshotHead
	if len(s.list) == 0 {
		read = readSnapshot
	}
	info, err := read(path)
	var bad *SnapshotError
	if errors.As(err, &bad) && !bad.Newer {
		s.damaged = append(s.damaged, bad)
		return nil
	}
	if err != nil {
		return err
	}
	s.list = append(s.list, info)
	return nil
}

func (s *snapshotStore) sort() {
	slices.SortFunc(s.list, func(a, b *snapshotInfo) int {
		if a.meta.Index != b.meta.Index {
			return compareDesc(a.meta.Index, b.meta.Index)
		}
		return compareDesc(a.meta.Term, b.meta.Term)
	})
}

func compareDesc(a, b uint64) int {
	switch {
	case a > b:
		return -1
	case a < b:
		return 1
	default:
		return 0
	}
}

// newest gives the newest whole snapshot.
func (s *snapshotStore) newest() (snapshotInfo, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return snapshotInfo{}, false
	}
	return *s.list[0], true
}

// check compares the snapshots with the log's bounds (both 0 when it is empty)
// before Raft starts. It returns after which snapshot the log must begin anew; the zero
// value when it is to be left alone. A damaged snapshot is put aside when the log reaches back to an
// older one, or to its beginning; otherwise it is an error.
func (s *snapshotStore) check(first, last uint64) (emptyAfter raft.SnapshotMeta, err error) {
	var none raft.SnapshotMeta
	base, ok := s.newest()
	covered := last > 0 && first <= base.meta.Index+1
	if len(s.damaged) > 0 {
		bad := s.damaged[0]
		if !covered {
			return none, fmt.Errorf("%w; the log begins at entry %d and cannot replace it. Restore the file from a copy, or rebuild this node's directory from its peers", bad, first)
		}
		for _, d := range s.damaged {
			if err := os.Rename(d.Path, d.Path+damagedSuffix); err != nil {
				return none, fmt.Errorf("putting a damaged snapshot aside: %w", err)
			}
			s.logger.Warn("damaged snapshot put aside", "path", d.Path, "reason", d.What, "replay_from", base.meta.Index+1)
		}
		s.damaged = nil
		return none, syncDir(s.dir)
	}
	switch {
	case !ok && last > 0 && first > 1:
		return none, fmt.Errorf("the log begins at entry %d and there is no snapshot in %s of what came before. Restore the snapshots from a copy, or rebuild this node's directory from its peers", first, s.dir)
	case !ok:
		return none, nil
	case last < base.meta.Index && base.takenHere:
		return none, fmt.Errorf("the log ends at entry %d, but snapshot %s was taken here from a log that held entry %d: entries are lost. Restore the log from a copy, or rebuild this node's directory from its peers", last, base.path, base.meta.Index)
	case last < base.meta.Index:
		// A crash came between an installed snapshot and the old log's removal.
		return base.meta, nil
	case !covered:
		return none, fmt.Errorf("the log begins at entry %d, but the newest snapshot is %s: entries between are lost. Restore the log from a copy, or rebuild this node's directory from its peers", first, base.path)
	}
	return none, nil
}

// Create implements raft.SnapshotStore.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("creating a snapshot: version %d is not supported", version)
	}
	meta := raft.SnapshotMeta{
		Version: version, ID: snapshotID(term, index), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}
	f, err := os.CreateTemp(s.dir, meta.ID+".*"+tempSuffix)
	if err != nil {
		return nil, fmt.Errorf("creating a snapshot: %w", err)
	}
	info := snapshotInfo{meta: meta, path: filepath.Join(s.dir, meta.ID+snapshotSuffix)}
	return &snapshotSink{store: s, info: info, file: f, sum: crc32.New(castagnoli)}, nil
}

// add lists a durable snapshot, unless installed has removed it already.
func (s *snapshotStore) add(sink *snapshotSink) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sink.overtaken() {
		return errOvertaken
	}
	kept := sink.info
	s.list = slices.DeleteFunc(s.list, func(o *snapshotInfo) bool { return o.meta.ID == kept.meta.ID })
	s.list = append(s.list, &kept)
	s.sort()
	return nil
}

// List implements raft.SnapshotStore; see the type for the order. Above the
// floor's snapshot nothing is offered once Raft runs: with nothing below the
// floor the log goes back to its beginning, and no follower needs a snapshot.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var metas []*raft.SnapshotMeta
	for _, info := range s.list {
		if s.serving && info.meta.Index >= s.floor {
			continue
		}
		meta := info.meta
		metas = append(metas, &meta)
	}
	return metas, nil
}

// Open implements raft.SnapshotStore. The file is verified before it is given out.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	info, err := readSnapshot(filepath.Join(s.dir, id+snapshotSuffix))
	if err != nil {
		return nil, nil, fmt.Errorf("opening a snapshot: %w", err)
	}
	f, err := os.Open(info.path)
	if err != nil {
		return nil, nil, fmt.Errorf("opening a snapshot: %w", err)
	}
	data := io.NewSectionReader(f, info.dataAt, info.meta.Size)
	return &info.meta, &sectionCloser{SectionReader: data, file: f}, nil
}

type sectionCloser struct {
	*io.SectionReader
	file *os.File
}

// Close implements io.Closer.
func (c *sectionCloser) Close() error { return c.file.Close() }

// serve changes the order of List: Raft has started.
func (s *snapshotStore) serve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = true
}

// setFloor takes the state's floor and returns the index of the floor's
// snapshot, 0 when there is none: the log keeps the entry at that index, which Raft
// reads when a follower that has just been given the snapshot goes on from it.
func (s *snapshotStore) setFloor(floor uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.floor = max(floor, s.base)
	return belowFloor(s.list, s.floor)
}

// setBase says where the log begins: at open, and after an installed snapshot.
func (s *snapshotStore) setBase(first uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base = first
	s.floor = max(s.floor, first)
}

// installed says that a leader's snapshot up to index took the place of the state,
// and that the log now begins after it. Newer snapshots go, also such as are not
// listed yet; those that are still being written do not come into being.
func (s *snapshotStore) installed(index uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.installs++
	s.base = index + 1
	s.floor = max(s.floor, s.base)
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, at, ok := parseSnapshotName(e.Name()); !ok || at <= index {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
			return err
		}
	}
	s.list = slices.DeleteFunc(s.list, func(info *snapshotInfo) bool { return info.meta.Index > index })
	return syncDir(s.dir)
}

func (s *snapshotStore) installCount() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.installs
}

// rename gives a snapshot its own name, unless one was installed since it was taken.
func (s *snapshotStore) rename(tmp string, sink *snapshotSink) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sink.overtaken() {
		return errOvertaken
	}
	return os.Rename(tmp, sink.info.path)
}

// errOvertaken says that a snapshot was installed while another one was written.
var errOvertaken = errors.New("a leader's snapshot was installed meanwhile")

// logged tells whether the log held an entry, and not only an installed snapshot of it:
// one may be due, and be taken at the very index, when another is installed.
func (s *snapshotStore) logged(index uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return index >= s.base
}

// indexBelow tells which snapshot would be the floor's if the floor were this.
func (s *snapshotStore) indexBelow(floor uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return belowFloor(s.list, floor)
}

func belowFloor(list []*snapshotInfo, floor uint64) uint64 {
	for _, info := range list {
		if info.meta.Index < floor {
			return info.meta.Index
		}
	}
	return 0
}
