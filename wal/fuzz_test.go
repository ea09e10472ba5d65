package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/hashicorp/raft"
)

// FuzzScan gives any bytes to the scanner as a segment: it never panics, never
// reads beyond, gives out only frames whose sums are right, and looking ahead ends.
func FuzzScan(f *testing.F) {
	segment := func(logs ...*raft.Log) []byte {
		var b []byte
		for _, e := range logs {
			frame, _ := appendFrame(nil, e, syncMark{index: e.Index - 1, offset: int64(len(b))})
			b = binary.AppendUvarint(b, uint64(len(frame)))
			b = append(b, frame...)
		}
		return b
	}
	whole := segment(testEntries(5, 9, 3, 50)...)
	f.Add(whole, uint64(5), false)
	f.Add(whole[:len(whole)-7], uint64(5), true)
	f.Add(append(bytes.Clone(whole), make([]byte, 100)...), uint64(5), false)
	f.Add(whole, uint64(4), false)
	f.Add([]byte{}, uint64(1), true)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, uint64(1), false)
	f.Fuzz(func(t *testing.T, b []byte, first uint64, hop bool) {
		if first == 0 {
			first = 1
		}
		sc := newScanner(bytes.NewReader(b), int64(len(b)), first)
		sc.hop = hop
		next := first
		for !sc.done() {
			at := sc.off
			h, body, bad := sc.frame()
			if bad != nil {
				if bad.expected == "" || bad.found == "" || bad.index != next || bad.offset < at || bad.offset > int64(len(b)) {
					t.Fatalf("flaw %+v", bad)
				}
				for was := sc.off; ; was = sc.off {
					if _, _, ok := sc.resync(); !ok {
						break
					}
					if sc.off <= was {
						t.Fatalf("looking ahead went from %d to %d", was, sc.off)
					}
				}
				return
			}
			if h.index != next || sc.off <= at || sc.off > int64(len(b)) {
				t.Fatalf("frame %+v at %d to %d", h, at, sc.off)
			}
			if !hop {
				var e raft.Log
				h.entry(body, &e)
				frame, crc := appendFrame(nil, &e, h.mark)
				if crc != h.crc || !bytes.Equal(frame[headerSize:], body) {
					t.Fatalf("frame %+v does not encode to itself", h)
				}
			}
			next++
		}
	})
}

// FuzzSmallFiles gives any bytes to the decoders of manifest and mark.
func FuzzSmallFiles(f *testing.F) {
	b := make([]byte, slotArea+3*sealSize)
	(&charter{seq: 4, epoch: 2, first: 7, synced: 6}).encode(b)
	(&seal{7, 9, 400, 1}).encode(b[slotArea:])
	f.Add(b)
	m := newMarkFile()
	(&mark{seq: 9, epoch: 2, index: 8, segment: 7, offset: 300, crc: 5}).encode(m)
	f.Add(m)
	f.Add([]byte(manifestMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, seals, lost, err := decodeManifest(b, "manifest")
		if err == nil && (c.first == 0 || c.epoch == 0 || len(seals)+lost > len(b)/sealSize) {
			t.Fatalf("manifest %+v with %d seals, %d lost", c, len(seals), lost)
		}
		m, err := decodeMarks(b, "mark")
		if err != nil {
			return
		}
		// What was accepted encodes to a slot that is read as the same.
		out := make([]byte, slotArea)
		m.encode(out)
		if again, err := decodeMarks(out, "mark"); err != nil || again != m {
			t.Fatalf("mark %+v reads back as %+v, %v", m, again, err)
		}
	})
}

// FuzzOpen damages a log at a random place of a random file: open and the reader
// never panic, and no wrong entry is ever given out.
func FuzzOpen(f *testing.F) {
	cfg := testConfig(f.TempDir())
	cfg.Files = quickFiles{}
	l, err := Open(cfg)
	if err != nil {
		f.Fatal(err)
	}
	fill(f, l, 1, 40, 1, 300)
	mustClose(f, l)
	for i := range uint8(8) {
		f.Add(i, uint32(i)*157, []byte{i, 0xff}, uint16(i)*3)
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint32, put []byte, cut uint16) {
		cfg := cfg
		cfg.Dir = copyDir(t, cfg.Dir)
		paths := append(segmentFiles(t, cfg.Dir), pathsOf(cfg.Dir).mark, pathsOf(cfg.Dir).manifest)
		path := paths[int(which)%len(paths)]
		b := readFile(t, path)
		at %= uint32(len(b) + 1)
		copy(b[at:], put)
		b = b[:len(b)-int(cut)%(len(b)+1)]
		putFile(t, path, b)
		r, err := Inspect(cfg.Dir)
		if err == nil {
			if _, err := r.Verify(nil); err != nil {
				t.Fatalf("verify gave up: %v", err)
			}
		}
		l, err := Open(cfg)
		if err != nil {
			var damage *CorruptError
			var newer *VersionError
			if !errors.As(err, &damage) && !errors.As(err, &newer) {
				t.Fatalf("open: %v", err)
			}
			return
		}
		defer mustClose(t, l)
		last, _ := l.LastIndex()
		if last > 40 {
			t.Fatalf("log ends with %d", last)
		}
		var e raft.Log
		for i := uint64(1); i <= last; i++ {
			if err := l.GetLog(i, &e); err != nil {
				t.Fatalf("entry %d: %v", i, err)
			}
			if err := sameEntry(&e, testEntry(i, 1, 300)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestFormatIsPinned holds the bytes on disk against those of version 1.
func TestFormatIsPinned(t *testing.T) {
	e := &raft.Log{Index: 7, Term: 3, Type: raft.LogConfiguration, Extensions: []byte("ext"), Data: []byte("data")}
	frame, crc := appendFrame(nil, e, syncMark{index: 6, offset: 400, crc: 0xAABBCCDD})
	manifest := make([]byte, manifestSize+sealSize)
	(&charter{seq: 5, epoch: 2, first: 7, prevIndex: 6, prevTerm: 3, synced: 6, resetting: true}).encode(manifest)
	(&seal{first: 7, last: 9, size: 1234, chain: 0x01020304}).encode(manifest[manifestSize:])
	markBytes := make([]byte, markSize)
	(&mark{seq: 5, epoch: 2, index: 6, segment: 1, offset: 400, crc: crc}).encode(markBytes)
	got := append(append(frame, manifest...), markBytes...)
	const golden = "testdata/format.v1"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		putFile(t, golden, got)
	}
	if want := readFile(t, golden); !bytes.Equal(got, want) {
		t.Fatalf("the format has changed without a new version:\n got %x\nwant %x", got, want)
	}
}

// TestUnreadableSector: the system refuses the bytes; that is damage, with its cause.
func TestUnreadableSector(t *testing.T) {
	cfg := damagedLog(t)
	cfg.SnapshotIndex, cfg.SnapshotTerm = 100, 1
	l := mustOpen(t, cfg)
	l.files = unreadableFiles{osFiles{}}
	var e raft.Log
	var damage *CorruptError
	if err := l.GetLog(20, &e); !errors.As(err, &damage) || !errors.Is(err, errDead) {
		t.Fatalf("got %v", err)
	}
}

type unreadableFiles struct{ Files }

func (u unreadableFiles) Open(name string, flag int) (File, error) {
	f, err := u.Files.Open(name, flag)
	return unreadableFile{f}, err
}

type unreadableFile struct{ File }

func (unreadableFile) ReadAt([]byte, int64) (int, error) { return 0, errDead }

var _ io.ReaderAt = unreadableFile{}
