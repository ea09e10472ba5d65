package faultfs

import (
	"fmt"
	"math/rand/v2"
	"path"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Op is a set of kinds of operation.
type Op uint32

// The operations that rules match and traces record.
const (
	OpOpen     Op = 1 << iota
	OpCreate      // a file that was not there
	OpRead        // a read that the page cache does not answer
	OpWrite       // one write of at most 1 MiB: the kernel splits larger ones
	OpTruncate    // also what an open with O_TRUNC does
	OpAllocate    // fallocate
	OpSync        // fsync and fdatasync of a file
	OpSyncDir
	OpMkdir
	OpRename // matched by the old path and by the new one
	OpLink
	OpUnlink
	OpRmdir
	OpReadDir
	OpStatFS

	AnyOp Op = 1<<iota - 1
	// OpChange is everything that changes what is on disk.
	OpChange = OpCreate | OpWrite | OpTruncate | OpAllocate | OpMkdir | OpRename | OpLink | OpUnlink | OpRmdir
)

// Rule says which operations are to fail, and how. Path and Op select, Nth,
// Times and Probability count, the rest says what happens.
type Rule struct {
	// Path is a pattern: * and ? within a name, ** across directories. Without a
	// slash it is matched against the last name, else against the whole path, which begins
	// with a slash at the mount. Empty matches everything.
	Path string
	// Op is what the rule is about. 0 is AnyOp.
	Op Op
	// Off and Len select reads and writes that touch these bytes of the file, as an unreadable sector does. A
	// Len of 0 is the whole file.
	Off, Len int64
	// Nth is the first matching operation that is hit, from 1. 0 is 1.
	Nth int
	// Times is how many operations are hit from then on. 0 is all.
	Times int
	// Probability of a hit, from then on; decided by Seed. 0 is 1.
	Probability float64
	Seed        uint64

	// Errno is the answer. 0 with no other effect is EIO.
	Errno syscall.Errno
	// Short makes a write happen up to this many bytes. The answer is Errno, or, if
	// that is 0, the short count: most programs then write the rest in a call of its own.
	Short int
	// Hang holds the operation until the rule is removed or the power is cut. Then it is
	// done, or fails with Errno if that is set. Nothing interrupts it: a killed
	// process stays until then. While a file is being synced the kernel keeps writers out of it.
	Hang bool
	// BytesPerSecond bounds reads and writes, all that match together: each waits
	// until the bytes before it and its own could have passed.
	BytesPerSecond int64
	// Cut cuts the power: before the operation is done, or right after it.
	Cut Cut
}

// Cut is the moment of a power cut.
type Cut uint8

// When a rule cuts the power.
const (
	NoCut Cut = iota
	CutBefore
	CutAfter
)

// Injection is a rule at work. Its methods may be called by anyone at any time.
type Injection struct {
	rule    Rule
	matches func(p string) bool
	remove  func()
	gone    chan struct{} // closed by Remove
	once    sync.Once
	hit     chan struct{} // closed at the first hit

	mu    sync.Mutex
	seen  int
	hits  int
	rng   *rand.Rand
	ready time.Time // of the bandwidth
}

// Remove ends the rule; operations that hang by it go on.
func (i *Injection) Remove() {
	i.once.Do(func() {
		i.remove()
		close(i.gone)
	})
}

// Hits is how many operations were hit so far.
func (i *Injection) Hits() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.hits
}

// Hit is closed when the first operation is hit.
func (i *Injection) Hit() <-chan struct{} { return i.hit }

func newInjection(r Rule, remove func(*Injection)) (*Injection, error) {
	if r.Op == 0 {
		r.Op = AnyOp
	}
	r.Nth = max(r.Nth, 1)
	if r.Errno == 0 && r.Short == 0 && !r.Hang && r.BytesPerSecond == 0 && r.Cut == NoCut {
		r.Errno = syscall.EIO
	}
	matches, err := pattern(r.Path)
	if err != nil {
		return nil, err
	}
	i := &Injection{
		rule: r, matches: matches, gone: make(chan struct{}), hit: make(chan struct{}),
		rng: rand.New(rand.NewPCG(r.Seed, 3)),
	}
	i.remove = func() { remove(i) }
	return i, nil
}

// pattern compiles a path pattern.
func pattern(p string) (func(string) bool, error) {
	if p == "" {
		return func(string) bool { return true }, nil
	}
	if strings.Contains(p, "/") && !strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "**") {
		p = "/" + p
	}
	quoted := strings.NewReplacer(`\*\*`, `.*`, `\*`, `[^/]*`, `\?`, `[^/]`).Replace(regexp.QuoteMeta(p))
	re, err := regexp.Compile("^" + quoted + "$")
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", p, err)
	}
	if !strings.Contains(p, "/") {
		return func(full string) bool { return re.MatchString(path.Base(full)) }, nil
	}
	return re.MatchString, nil
}

// take counts a matching operation and tells whether it is hit.
func (i *Injection) take(op Op, off, bytes int64, paths []string) bool {
	matched := i.rule.Op&op != 0 && (i.rule.Len == 0 || off < i.rule.Off+i.rule.Len && off+bytes > i.rule.Off)
	if matched {
		matched = false
		for _, p := range paths {
			matched = matched || i.matches(p)
		}
	}
	if !matched {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.seen++
	r := i.rule
	if i.seen < r.Nth || r.Times > 0 && i.hits >= r.Times || r.Probability > 0 && i.rng.Float64() >= r.Probability {
		return false
	}
	i.hits++
	if i.hits == 1 {
		close(i.hit)
	}
	return true
}

// wait is how long an operation of n bytes has to wait for its bandwidth.
func (i *Injection) wait(n int64) time.Duration {
	if i.rule.BytesPerSecond <= 0 || n <= 0 {
		return 0
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	if i.ready.Before(now) {
		i.ready = now
	}
	i.ready = i.ready.Add(time.Duration(float64(n) / float64(i.rule.BytesPerSecond) * float64(time.Second)))
	return i.ready.Sub(now)
}
