package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"forebay/internal/record"
	"forebay/replicate"
	"forebay/wal"
)

var errCut = errors.New("cut off by the test")

type dyingFiles struct {
	left atomic.Int64 // operations until all fail
	dead atomic.Bool
}

func (d *dyingFiles) step() error {
	if d.dead.Load() {
		return errCut
	}
	if d.left.Add(-1) == 0 {
		d.dead.Store(true)
		return errCut
	}
	return nil
}

type dyingFile struct {
	*os.File
	d *dyingFiles
}

func (d *dyingFiles) Open(name string, flag int) (wal.File, error) {
	if flag != os.O_RDONLY {
		if err := d.step(); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(name, flag, 0o640)
	if err != nil {
		return nil, err
	}
	return dyingFile{f, d}, nil
}
func (d *dyingFiles) List(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }
func (d *dyingFiles) MkdirAll(dir string) error              { return os.MkdirAll(dir, 0o750) }
func (d *dyingFiles) Rename(a, b string) error {
	if err := d.step(); err != nil {
		return err
	}
	return os.Rename(a, b)
}

func (d *dyingFiles) Remove(n string) error {
	if err := d.step(); err != nil {
		return err
	}
	return os.Remove(n)
}
func (d *dyingFiles) SyncDir(dir string) error { return d.step() }
func (f dyingFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.d.step(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

func (f dyingFile) Truncate(n int64) error {
	if err := f.d.step(); err != nil {
		return err
	}
	return f.File.Truncate(n)
}
func (f dyingFile) Sync() error { return f.d.step() }
func (f dyingFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

type brk struct {
	t        *testing.T
	dir      string
	mu       sync.Mutex
	rng      *rand.Rand
	durable  map[int32]int64
	digests  map[uint64]uint64
	recs     map[uint64][]record.RecordID
	left     map[uint64]map[record.RecordID]bool // excluded
	reads    int
	accepted map[record.RecordID]bool
	final    bool
	started  time.Time
}

func (b *brk) n(n int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rng.IntN(n)
}

func val(p int32, o int64, size int) []byte {
	v := make([]byte, max(16, size))
	binary.LittleEndian.PutUint64(v, uint64(p))
	binary.LittleEndian.PutUint64(v[8:], uint64(o))
	x := uint64(o)*0x9e3779b97f4a7c15 + uint64(p) + 1
	for i := 16; i < len(v); i++ {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		v[i] = byte(x)
	}
	return v
}

func TestBreakLane(t *testing.T) {
	seeds := 1
	for s := range seeds {
		seed := uint64(s) + uint64(time.Now().UnixNano())
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			t.Logf("seed %d", seed)
			b := &brk{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(seed, 1)), durable: map[int32]int64{}, digests: map[uint64]uint64{}, accepted: map[record.RecordID]bool{}, recs: map[uint64][]record.RecordID{}, left: map[uint64]map[record.RecordID]bool{}}
			for life := range 25 {
				b.life(life)
				if t.Failed() {
					return
				}
			}
			b.final = true
			b.life(-1)
			seen := map[record.RecordID]bool{}
			for _, ids := range b.recs {
				for _, id := range ids {
					if seen[id] {
						t.Errorf("%v twice", id)
					}
					seen[id] = true
				}
			}
			for id := range b.accepted {
				if !seen[id] {
					t.Errorf("%v accepted and not there", id)
				}
			}
			t.Logf("%d accepted %d seen", len(b.accepted), len(seen))
			last := map[int32]int64{}
			for seq := uint64(1); b.digests[seq] != 0; seq++ {
				for _, id := range b.recs[seq] {
					if id.Offset < last[id.Partition] {
						t.Fatalf("batch %d: %v comes after %d", seq, id, last[id.Partition])
					}
					last[id.Partition] = id.Offset + 1
				}
			}
			t.Logf("batches %d, positions %v, reads %d", len(b.digests), last, b.reads)
			if uint64(len(b.digests)) == 0 {
				t.Error("nothing")
			}
		})
	}
}

func (b *brk) life(life int) {
	t := b.t
	files := &dyingFiles{}
	kill := b.n(4) != 0 && !b.final
	files.left.Store(1 << 60)
	newest, err := replicate.NewestSnapshot(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	logger := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	ring := int64(64 << 10)
	if b.n(3) == 0 {
		ring = -1
	}
	log, err := wal.Open(wal.Config{Dir: b.dir, SegmentSize: 16 << 10, RingBytes: ring, SnapshotIndex: newest.Index, SnapshotTerm: newest.Term, SnapshotTaken: newest.TakenHere, Files: files, Logger: logger, OnFailure: func(err error) {
		select {
		case failed <- err:
		default:
		}
	}})
	if err != nil {
		t.Fatalf("life %d: %v", life, err)
	}
	l, err := replicate.Open(replicate.Config{
		NodeID: "n", Gateway: "g", Lanes: 1, Dir: b.dir, Store: log, SnapshotBytes: 100 << 10, SnapshotEntries: 60, InFlightBytes: 200 << 10,
		Retention: 100 * time.Millisecond, MaxBytes: 12 << 20, ParkedMaxBytes: 100 << 20, Logger: logger, Lost: func(err error) { t.Errorf("lost: %v", err) },
	})
	if err != nil {
		t.Fatalf("life %d: %v", life, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	led := make(chan error, 1)
	go func() {
		led <- l.Lead(ctx, func(ctx context.Context, term *replicate.Term) { b.term(ctx, cancel, term, l, kill, files, failed) })
	}()
	if err := <-led; !errors.Is(err, context.Canceled) {
		t.Errorf("life %d: lead: %v", life, err)
	}
	cctx, cc := context.WithTimeout(context.Background(), 20*time.Second)
	defer cc()
	if err := l.Close(cctx); err != nil && !files.dead.Load() {
		t.Errorf("close: %v", err)
	}
	if err := log.Close(); err != nil && !files.dead.Load() {
		t.Errorf("close log: %v", err)
	}
	if os.Getenv("BRKTORN") != "" && files.dead.Load() {
		_ = filepath.Base
	}
}

func (b *brk) term(ctx context.Context, end context.CancelFunc, term *replicate.Term, l *replicate.Lane, kill bool, files *dyingFiles, failed chan error) {
	t := b.t
	defer end()
	id := record.TopicID{1}
	for p := range int32(3) {
		pos, ok := term.Position("a", p)
		if ok && pos.Next < b.durable[p] {
			t.Errorf("partition %d at %d, settled up to %d", p, pos.Next, b.durable[p])
		}
		if !ok && b.durable[p] > 0 {
			t.Errorf("no position")
		}
	}
	if err := term.SetBases(ctx, []record.Base{{Topic: "a", TopicID: id}, {Topic: "a", TopicID: id, Partition: 1}, {Topic: "a", TopicID: id, Partition: 2}}); err != nil {
		t.Errorf("bases: %v", err)
		return
	}
	if _, ok := term.Sink("s"); !ok {
		_ = term.AddSink(ctx, "s", "d", false)
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	if kill {
		files.left.Store(int64(20 + b.n(2000)))
	}
	var wg sync.WaitGroup
	if b.final {
		_ = term.Cut(ctx, term.LastSeq()+1, time.Now().UnixMilli())
		wg.Go(func() { b.deliver(work, term, l) })
		for k, _ := term.Sink("s"); k.Cursor <= term.LastSeq() && ctx.Err() == nil; k, _ = term.Sink("s") {
			time.Sleep(5 * time.Millisecond)
		}
		stop()
		wg.Wait()
		return
	}
	for _, f := range []func(context.Context, *replicate.Term, *replicate.Lane){b.receive, b.cut, b.deliver, b.reread, b.reread} {
		wg.Go(func() { f(work, term, l) })
	}
	select {
	case <-time.After(time.Duration(100+b.n(900)) * time.Millisecond):
	case <-failed:
	case <-ctx.Done():
	}
	if kill {
		files.dead.Store(true)
	}
	stop()
	wg.Wait()
}

func (b *brk) receive(ctx context.Context, term *replicate.Term, l *replicate.Lane) {
	id := record.TopicID{1}
	for ctx.Err() == nil {
		// A session.
		var bad atomic.Bool
		var flying sync.WaitGroup
		next := map[int32]int64{}
		for p := range int32(3) {
			pos, _ := term.Position("a", p)
			next[p] = pos.Next
		}
		sealer := record.NewSealer(record.S2)
		for ctx.Err() == nil && !bad.Load() {
			var runs []*record.Run
			ends := map[int32]int64{}
			var ids []record.RecordID
			for p := range int32(3) {
				if b.n(2) == 0 && !(p == 2 && len(runs) == 0) {
					continue
				}
				run := &record.Run{}
				base := next[p]
				if b.n(300) == 0 {
					base++
				}
				run.Reset("a", id, p, base)
				o := base + int64(b.n(2))
				for range 1 + b.n(5) {
					size := b.n(3000)
					if b.n(150) == 0 {
						size = 1<<20 + b.n(2<<20)
					}
					if err := run.Append(&record.Record{Topic: "a", Partition: p, Offset: o, Timestamp: 1, Value: val(p, o, size)}); err != nil {
						b.t.Error(err)
						return
					}
					ids = append(ids, record.RecordID{Topic: "a", Partition: p, Offset: o})
					o += 1 + int64(b.n(2))
				}
				next[p] = run.Span().Last + 1
				ends[p] = next[p]
				runs = append(runs, run)
			}
			if len(runs) == 0 {
				continue
			}
			flying.Add(1)
			err := term.Append(ctx, sealer.Seal(runs), func(err error) {
				defer flying.Done()
				if err != nil {
					bad.Store(true)
					if !errors.Is(err, record.ErrRefused) && !errors.Is(err, record.ErrLeadLost) {
						b.t.Errorf("settled %v", err)
					}
					return
				}
				for p, e := range ends {
					if pos, _ := term.Position("a", p); pos.Next < e {
						b.t.Errorf("settled %d, position %d", e, pos.Next)
					}
					b.mu.Lock()
					b.durable[p] = max(b.durable[p], e)
					b.mu.Unlock()
				}
				b.mu.Lock()
				for _, id := range ids {
					b.accepted[id] = true
				}
				b.mu.Unlock()
			})
			if err != nil {
				flying.Done()
				break
			}
			if b.n(40) == 0 {
				p := int32(b.n(3))
				_ = term.Advance(ctx, record.Advance{Topic: "a", TopicID: id, Partition: p, Base: next[p], Next: next[p] + 3, Reason: record.AdvanceControl})
				pos, _ := term.Position("a", p)
				next[p] = pos.Next
				if pos.Next < ends[p] {
					bad.Store(true)
				}
			}
		}
		flying.Wait()
	}
}

func (b *brk) cut(ctx context.Context, term *replicate.Term, _ *replicate.Lane) {
	for ctx.Err() == nil {
		_ = term.Cut(ctx, term.LastSeq()+1, time.Now().UnixMilli())
		select {
		case <-time.After(time.Duration(1+b.n(20)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (b *brk) digest(ctx context.Context, read func(context.Context, uint64, func(string) bool, func(*record.Record) error) error, seq uint64) (uint64, []record.RecordID, error) {
	h := fnv.New64a()
	var ids []record.RecordID
	err := read(ctx, seq, nil, func(r *record.Record) error {
		fmt.Fprintf(h, "%d %d ", r.Partition, r.Offset)
		h.Write(r.Value)
		if len(r.Value) < 16 || int64(binary.LittleEndian.Uint64(r.Value[8:])) != r.Offset || int32(binary.LittleEndian.Uint64(r.Value)) != r.Partition {
			b.t.Errorf("record %d/%d has another's value", r.Partition, r.Offset)
		}
		ids = append(ids, record.RecordID{Topic: "a", Partition: r.Partition, Offset: r.Offset})
		return nil
	})
	return h.Sum64(), ids, err
}

func (b *brk) check(seq, d uint64, ids []record.RecordID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads++
	if was := b.digests[seq]; was != 0 && was != d {
		b.t.Errorf("batch %d read differently", seq)
	}
	b.digests[seq], b.recs[seq] = d, ids
}

func (b *brk) deliver(ctx context.Context, term *replicate.Term, l *replicate.Lane) {
	for ctx.Err() == nil {
		changed := term.Changed()
		k, _ := term.Sink("s")
		if k.Cursor > term.LastSeq() {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		d, ids, err := b.digest(ctx, term.Read, k.Cursor)
		if err != nil {
			if !errors.Is(err, record.ErrLeadLost) && ctx.Err() == nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errCut) {
				b.t.Errorf("reading batch %d: %v", k.Cursor, err)
			}
			return
		}
		b.check(k.Cursor, d, ids)
		if b.n(4) == 0 {
			var refusals []record.Refusal
			for range 1 + b.n(3) {
				refusals = append(refusals, record.Refusal{RecordID: ids[b.n(len(ids))], Reason: "x"})
			}
			if err := term.Refuse(ctx, "s", k.Cursor, b.n(3) == 0, refusals); err != nil {
				if ctx.Err() == nil && !errors.Is(err, record.ErrLeadLost) && !errors.Is(err, errCut) && !errors.Is(err, replicate.ErrParkedFull) {
					b.t.Errorf("refuse: %v", err)
				}
				if ctx.Err() != nil {
					return
				}
			}
		}
		if parked := term.Parked(); len(parked) > 0 {
			ref := parked[b.n(len(parked))]
			_, rec, err := l.ReadParked(ctx, ref.ID)
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, record.ErrLeadLost) && !errors.Is(err, errCut) && !errors.Is(err, record.ErrReleased) {
					b.t.Errorf("parked %+v: %v", ref, err)
				}
			} else if rec.Offset != ref.Record.Offset || rec.Partition != ref.Record.Partition || int64(binary.LittleEndian.Uint64(rec.Value[8:])) != rec.Offset {
				b.t.Errorf("parked %+v: %d/%d", ref, rec.Partition, rec.Offset)
			}
			if len(parked) > 5 {
				_ = term.Discard(ctx, []uint64{parked[b.n(len(parked))].ID})
			}
		}
		_ = term.Done(ctx, record.Done{Sink: "s", Seq: k.Cursor, Attempts: 1, StartedAt: 1, DoneAt: time.Now().UnixMilli()})
	}
}

func (b *brk) reread(ctx context.Context, term *replicate.Term, l *replicate.Lane) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(b.n(5)) * time.Millisecond)
		first, last := term.FirstSeq(), term.LastSeq()
		if first > last {
			continue
		}
		seq := first + uint64(b.n(int(last-first+1)))
		d, ids, err := b.digest(ctx, l.ReadBatch, seq)
		if err != nil {
			if !errors.Is(err, record.ErrReleased) && ctx.Err() == nil && !errors.Is(err, errCut) && !errors.Is(err, record.ErrLeadLost) && !errors.Is(err, context.Canceled) {
				b.t.Errorf("rereading %d: %v", seq, err)
			}
			continue
		}
		b.check(seq, d, ids)
	}
}

type gnode struct {
	id   string
	dir  string
	log  *wal.Log
	lane *replicate.Lane
	net  *raft.InmemTransport
	stop func()
}

func TestBreakGroup(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	b := &brk{t: t, rng: rand.New(rand.NewPCG(seed, 1)), durable: map[int32]int64{}, digests: map[uint64]uint64{}, recs: map[uint64][]record.RecordID{}, left: map[uint64]map[record.RecordID]bool{}, accepted: map[record.RecordID]bool{}}
	var voters []replicate.Voter
	nodes := map[string]*gnode{}
	for i := range 3 {
		id := fmt.Sprintf("n%d", i)
		voters = append(voters, replicate.Voter{ID: id, Address: id})
		nodes[id] = &gnode{id: id, dir: t.TempDir()}
	}
	connect := func(cut string) {
		for _, a := range nodes {
			for _, c := range nodes {
				if a == c || a.net == nil || c.net == nil {
					continue
				}
				if a.id == cut || c.id == cut {
					a.net.Disconnect(raft.ServerAddress(c.id))
				} else {
					a.net.Connect(raft.ServerAddress(c.id), c.net)
				}
			}
		}
	}
	var quiet atomic.Bool
	terms := make(chan *replicate.Term, 100)
	var nterms atomic.Int64
	open := func(n *gnode) {
		newest, err := replicate.NewestSnapshot(n.dir)
		if err != nil {
			t.Fatal(err)
		}
		logger := slog.New(slog.DiscardHandler)
		if testing.Verbose() {
			logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", n.id)
		}
		n.log, err = wal.Open(wal.Config{Dir: n.dir, SegmentSize: 16 << 10, RingBytes: 64 << 10, SnapshotIndex: newest.Index, SnapshotTerm: newest.Term, SnapshotTaken: newest.TakenHere, Logger: logger, OnFailure: func(err error) { t.Errorf("%s: log: %v", n.id, err) }})
		if err != nil {
			t.Fatalf("%s: %v", n.id, err)
		}
		_, n.net = raft.NewInmemTransportWithTimeout(raft.ServerAddress(n.id), 100*time.Millisecond)
		connect("")
		n.lane, err = replicate.Open(replicate.Config{NodeID: n.id, Gateway: "g", Lanes: 1, Dir: n.dir, Store: n.log, Voters: voters, Transport: n.net, ElectionTimeout: 150 * time.Millisecond, SnapshotBytes: 100 << 10, SnapshotEntries: 60, InFlightBytes: 200 << 10,
			Retention: 100 * time.Millisecond, MaxBytes: 12 << 20, ParkedMaxBytes: 100 << 20, Logger: logger, Lost: func(err error) { t.Errorf("%s lost: %v", n.id, err) }})
		if err != nil {
			t.Fatalf("%s: %v", n.id, err)
		}
		lane := n.lane
		ctx, cancel := context.WithCancel(context.Background())
		led := make(chan struct{})
		go func() {
			defer close(led)
			err := lane.Lead(ctx, func(ctx context.Context, term *replicate.Term) {
				nterms.Add(1)
				if quiet.Load() {
					terms <- term
					<-ctx.Done()
					return
				}
				tctx, end := context.WithCancel(ctx)
				files := &dyingFiles{}
				b.groupTerm(tctx, end, term, lane, files)
				<-ctx.Done()
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s lead: %v", n.id, err)
			}
		}()
		n.stop = func() {
			cancel()
			<-led
			cctx, cc := context.WithTimeout(context.Background(), 20*time.Second)
			defer cc()
			if err := lane.Close(cctx); err != nil {
				t.Errorf("%s close: %v", n.id, err)
			}
			if err := n.log.Close(); err != nil {
				t.Errorf("%s close log: %v", n.id, err)
			}
			n.net = nil
		}
	}
	for _, n := range nodes {
		open(n)
	}
	until := time.Now().Add(25 * time.Second)
	for time.Now().Before(until) && !t.Failed() {
		time.Sleep(time.Duration(200+b.n(800)) * time.Millisecond)
		n := nodes[fmt.Sprintf("n%d", b.n(3))]
		if b.n(2) == 0 {
			for _, x := range nodes {
				if x.lane.Status().Role == "leader" {
					n = x
				}
			}
		}
		switch b.n(3) {
		case 0:
			n.stop()
			time.Sleep(time.Duration(b.n(400)) * time.Millisecond)
			open(n)
		default:
			connect(n.id)
			time.Sleep(time.Duration(100+b.n(900)) * time.Millisecond)
			connect("")
		}
	}
	quiet.Store(true)
	for _, n := range nodes {
		n.stop()
	}
	for _, n := range nodes {
		open(n)
	}
	defer func() {
		for _, n := range nodes {
			n.stop()
		}
	}()
	b.final = true
	term := <-terms
	var lane *replicate.Lane
	for _, n := range nodes {
		if n.lane.Status().Role == "leader" {
			lane = n.lane
		}
	}
	work, stop := context.WithCancel(context.Background())
	defer stop()
	_ = term.Cut(work, term.LastSeq()+1, time.Now().UnixMilli())
	var wg sync.WaitGroup
	wg.Go(func() { b.deliver(work, term, lane) })
	for k, _ := term.Sink("s"); k.Cursor <= term.LastSeq() && !t.Failed(); k, _ = term.Sink("s") {
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	wg.Wait()
	seen := map[record.RecordID]bool{}
	for _, ids := range b.recs {
		for _, id := range ids {
			if seen[id] {
				t.Errorf("%v twice", id)
			}
			seen[id] = true
		}
	}
	for id := range b.accepted {
		if !seen[id] {
			t.Errorf("%v accepted and not there", id)
		}
	}
	t.Logf("%d terms, %d accepted %d seen, %d batches", nterms.Load(), len(b.accepted), len(seen), len(b.digests))
}

func (b *brk) groupTerm(ctx context.Context, end context.CancelFunc, term *replicate.Term, l *replicate.Lane, files *dyingFiles) {
	defer end()
	id := record.TopicID{1}
	for p := range int32(3) {
		b.mu.Lock()
		was := b.durable[p]
		b.mu.Unlock()
		if pos, _ := term.Position("a", p); pos.Next < was {
			b.t.Errorf("partition %d at %d, settled up to %d", p, pos.Next, was)
		}
	}
	if err := term.SetBases(ctx, []record.Base{{Topic: "a", TopicID: id}, {Topic: "a", TopicID: id, Partition: 1}, {Topic: "a", TopicID: id, Partition: 2}}); err != nil {
		return
	}
	if _, ok := term.Sink("s"); !ok {
		_ = term.AddSink(ctx, "s", "d", false)
	}
	var wg sync.WaitGroup
	for _, f := range []func(context.Context, *replicate.Term, *replicate.Lane){b.receive, b.cut, b.deliver, b.reread} {
		wg.Go(func() { f(ctx, term, l) })
	}
	wg.Wait()
}
