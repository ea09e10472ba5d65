package faultfs

import (
	"fmt"
	"hash/maphash"
)

// Event is one operation that succeeded and changed something, or made it durable.
type Event struct {
	Op   Op
	Path string // for people
	// Node is what it was done to: the file, the directory synced, what was
	// created, linked, renamed or unlinked.
	Node uint64
	// Dir and Name are where the name was made or unlinked; of a rename, where it was.
	Dir  uint64
	Name string
	// NewDir and NewName are where a rename put it.
	NewDir  uint64
	NewName string
	// Off and Data are of a write.
	Off  int64
	Data []byte
	// Size is of a truncate.
	Size int64
	// Mark is what the workload wrote to MarkName, when Op is 0.
	Mark string
}

// MarkName is a file in the root of the mount, not listed, that takes marks: each
// write to it becomes an event of the trace. It is how a workload says, in causal order
// with its own operations, what it has acknowledged. It touches no disk.
const MarkName = ".faultfs-mark"

// String is for people.
func (e Event) String() string {
	switch e.Op {
	case 0:
		return fmt.Sprintf("mark %q", e.Mark)
	case OpWrite:
		return fmt.Sprintf("write %s [%d,%d)", e.Path, e.Off, e.Off+int64(len(e.Data)))
	case OpTruncate:
		return fmt.Sprintf("truncate %s to %d", e.Path, e.Size)
	case OpRename:
		return fmt.Sprintf("rename %s to %s", e.Path, e.NewName)
	}
	return fmt.Sprintf("%s %s", e.Op, e.Path)
}

// String names the operations of a set.
func (op Op) String() string {
	names := []string{
		"open", "create", "read", "write", "truncate", "allocate", "sync", "syncdir",
		"mkdir", "rename", "link", "unlink", "rmdir", "readdir", "statfs",
	}
	s := ""
	for i, name := range names {
		if op&(1<<i) != 0 {
			s += "|" + name
		}
	}
	if s == "" {
		return "none"
	}
	return s[1:]
}

// Trace is what was done between Record and its end, from a beginning at which
// everything counts as durable.
type Trace struct {
	Events []Event
	start  []imageNode
	seed   maphash.Seed // of the sums of its states
}

// imageNode is a file or directory as it was when the recording began. The root comes first.
type imageNode struct {
	id    uint64
	dir   bool
	data  []byte
	names map[string]uint64
}

// image copies the tree as programs see it.
func (d *disk) image() ([]imageNode, error) {
	var all []imageNode
	seen := map[uint64]bool{}
	err := d.walk(func(_ string, n *node) error {
		if seen[n.id] {
			return nil
		}
		seen[n.id] = true
		in := imageNode{id: n.id, dir: n.dir, names: map[string]uint64{}}
		for name, child := range n.entries {
			in.names[name] = child.id
		}
		if !n.dir {
			in.data = make([]byte, n.size)
			if _, err := d.read(n, in.data, 0); err != nil {
				return err
			}
		}
		all = append(all, in)
		return nil
	})
	return all, err
}
