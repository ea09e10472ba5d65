package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// shelf is the directory of a file sink (jsonl, base64) as it is read from
// outside: each file once, and again to see that it never changes.
type shelf struct {
	dir   string
	books map[uint64]*book // by batch sequence number
	last  uint64           // the highest of them
	got   ledger           // of all files, in the order of their numbers
}

// book is one file.
type book struct {
	name    string
	size    int64
	sum     uint64
	records int64
}

func newShelf(dir string) *shelf { return &shelf{dir: dir, books: map[uint64]*book{}, got: ledger{}} }

var bookName = regexp.MustCompile(`^batch-0-([0-9]{20})\.jsonl$`)

// look reads the files that are new. Batches come in order: a new file below
// one that was there already is an error.
func (s *shelf) look(t *testing.T) {
	t.Helper()
	names, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	highest := s.last
	for _, name := range names { // ReadDir sorts, and the numbers have their zeros
		match := bookName.FindStringSubmatch(name.Name())
		if match == nil {
			if !strings.HasPrefix(name.Name(), ".") && !strings.HasPrefix(name.Name(), "cursor-") {
				t.Errorf("%s holds %s, which nobody should see", s.dir, name.Name())
			}
			continue
		}
		seq, err := strconv.ParseUint(match[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if s.books[seq] != nil {
			continue
		}
		if seq < highest {
			t.Errorf("%s came after batch %d", name.Name(), highest)
		}
		book, err := s.read(name.Name())
		if err != nil {
			t.Fatalf("%s: %v", name.Name(), err)
		}
		s.books[seq] = book
		s.last = max(s.last, seq)
	}
}

// read reads a file into the ledger.
func (s *shelf) read(name string) (*book, error) {
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := &book{name: name}
	var whole maphash.Hash
	whole.SetSeed(seed)
	lines := bufio.NewReaderSize(io.TeeReader(f, &whole), 1<<20)
	h := newHasher()
	var long []byte
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, line...)
			continue
		}
		if errors.Is(err, io.EOF) && len(line)+len(long) == 0 {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("after %d lines: %w", b.records, err)
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		p, r, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w: %.300q", b.records+1, err, line)
		}
		s.got.add(p, entry{r.Offset, h.record(r)})
		b.records++
		b.size += int64(len(line))
		long = long[:0]
	}
	b.sum = whole.Sum64()
	return b, nil
}

// unchanged reads every file again that was read before.
func (s *shelf) unchanged(t *testing.T) {
	t.Helper()
	for _, book := range s.books {
		f, err := os.Open(filepath.Join(s.dir, book.name))
		if err != nil {
			t.Errorf("a file of the sink is gone: %v", err)
			continue
		}
		var whole maphash.Hash
		whole.SetSeed(seed)
		size, err := io.Copy(&whole, f)
		f.Close()
		if err != nil || size != book.size || whole.Sum64() != book.sum {
			t.Errorf("%s has changed: %d bytes, before %d (error %v)", book.name, size, book.size, err)
		}
	}
}

// line reads one JSON line strictly: the fields in their order, no space.
type line struct {
	rest []byte
	err  error
}

func parseLine(text []byte) (place, *kgo.Record, error) {
	l := &line{rest: text}
	r := &kgo.Record{}
	l.expect(`{"topic":`)
	r.Topic = string(l.text())
	l.expect(`,"partition":`)
	r.Partition = int32(l.number())
	l.expect(`,"offset":`)
	r.Offset = l.number()
	l.expect(`,"timestamp":`)
	r.Timestamp = millis(l.number())
	l.expect(`,"key":`)
	r.Key = l.base64()
	l.expect(`,"value":`)
	r.Value = l.base64()
	l.expect(`,"headers":[`)
	for i := 0; l.err == nil && !bytes.HasPrefix(l.rest, []byte("]")); i++ {
		if i > 0 {
			l.expect(",")
		}
		var header kgo.RecordHeader
		l.expect("[")
		header.Key = string(l.text())
		l.expect(",")
		header.Value = l.base64()
		l.expect("]")
		r.Headers = append(r.Headers, header)
	}
	l.expect("]}\n")
	if l.err == nil && len(l.rest) > 0 {
		l.err = errors.New("more after the line's end")
	}
	return place{r.Topic, r.Partition}, r, l.err
}

func (l *line) fail(what string) {
	if l.err == nil {
		l.err = fmt.Errorf("want %s at %.40q", what, l.rest)
	}
}

func (l *line) expect(token string) {
	if !bytes.HasPrefix(l.rest, []byte(token)) {
		l.fail(token)
		return
	}
	l.rest = l.rest[len(token):]
}

func (l *line) number() int64 {
	end := 0
	for end < len(l.rest) && (l.rest[end] == '-' || l.rest[end] >= '0' && l.rest[end] <= '9') {
		end++
	}
	n, err := strconv.ParseInt(string(l.rest[:end]), 10, 64)
	if err != nil {
		l.fail("a number")
		return 0
	}
	l.rest = l.rest[end:]
	return n
}

// text reads a JSON string.
func (l *line) text() []byte {
	for end := 1; end < len(l.rest) && l.rest[0] == '"'; end++ {
		switch l.rest[end] {
		case '\\':
			end++
		case '"':
			var text string
			if json.Unmarshal(l.rest[:end+1], &text) != nil {
				l.fail("a JSON string")
			}
			l.rest = l.rest[end+1:]
			return []byte(text)
		}
	}
	l.fail("a string")
	return nil
}

// base64 reads a string in base64 or null; an empty string is not nil.
func (l *line) base64() []byte {
	if bytes.HasPrefix(l.rest, []byte("null")) {
		l.rest = l.rest[4:]
		return nil
	}
	if !bytes.HasPrefix(l.rest, []byte(`"`)) {
		l.fail("a string or null")
		return nil
	}
	end := bytes.IndexByte(l.rest[1:], '"')
	if end < 0 {
		l.fail("the end of a string")
		return nil
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(end))
	n, err := base64.StdEncoding.Decode(out, l.rest[1:1+end])
	if err != nil {
		l.fail("base64")
		return nil
	}
	l.rest = l.rest[end+2:]
	return out[:n]
}
