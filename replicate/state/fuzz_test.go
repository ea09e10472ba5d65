package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"forebay/internal/record"
)

func FuzzDecode(f *testing.F) {
	l := fullLog(f)
	for _, e := range l.entries {
		if len(e) < 4096 {
			f.Add(e)
		}
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		Describe(entry)
		e, err := Decode(entry)
		if err != nil {
			return
		}
		if _, ok := e.(record.Summary); ok {
			return
		}
		again, err := Decode(Encode(e))
		if r, ok := e.(Refuse); ok {
			for i := range r.Refusals { // reasons are clipped when they are written
				r.Refusals[i].Reason = clip(r.Refusals[i].Reason)
			}
		}
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("%#v became %#v, %v", e, again, err)
		}
	})
}

// FuzzUnmarshal makes the checksum right, so that what lies behind it is tried.
func FuzzUnmarshal(f *testing.F) {
	for _, l := range []*log{newLog(f), fullLog(f), {s: New()}} {
		b := l.s.Marshal(nil)
		f.Add(b[:len(b)-4])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		data := binary.LittleEndian.AppendUint32(body, castagnoli(body))
		s, err := Unmarshal(data)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Marshal(nil), data) {
			t.Fatal("the snapshot changed")
		}
		// What was read can go on: no entry panics, nor does a view.
		goOn(t, s, entriesFor(s))
	})
}

// entriesFor are entries that a state may accept, by what its views say.
func entriesFor(s *State) [][]byte {
	var out [][]byte
	add := func(e any) { out = append(out, Encode(e)) }
	term, seq := s.Term(), s.LastSeq()
	for _, p := range s.Positions() {
		add(Advance{Advance: record.Advance{Topic: p.Topic, TopicID: p.TopicID, Partition: p.Partition, Base: p.Next, Next: p.Next + 1, Reason: record.AdvanceSkipped}})
	}
	add(Cut{Term: term, Seq: seq + 1, At: at0})
	for _, k := range s.Sinks() {
		add(Refuse{Sink: k.Name, Term: term, Seq: k.Cursor, Drop: true, Refusals: []RefusedRecord{refusal(5)}})
		add(Done{Term: term, Done: record.Done{Sink: k.Name, Seq: k.Cursor}})
	}
	for _, r := range s.Parked() {
		add(Copy{ID: r.ID, Part: 0, Parts: 1, Data: []byte{1}})
		add(Discard{IDs: []uint64{r.ID}})
	}
	add(Release{Term: term, Seq: seq, At: at0})
	add(Void{Term: term, Seq: seq + 2, At: at0})
	add(Begin{Term: term + 1, Node: "n"})
	for _, name := range s.Topics() {
		id, _ := s.TopicID(name)
		add(TopicChange{TopicChange: record.TopicChange{Topic: name, Old: id, New: record.TopicID{0xff, 1}}})
	}
	return out
}

// goOn applies entries to a state and looks at it from all sides.
func goOn(t *testing.T, s *State, entries [][]byte) {
	t.Helper()
	for _, e := range entries {
		index := s.AppliedIndex() + 1
		if index == 0 {
			return
		}
		out := s.Apply(index, e)
		var fatal *FatalError
		if errors.As(out.Err, &fatal) {
			if s.AppliedIndex() == index {
				t.Fatal("an entry that cannot be read was applied")
			}
			continue
		}
		s.Floor()
		s.Batches(0, 3)
		s.Layout(s.LastSeq())
		s.Parked()
		s.Gaps()
	}
	again, err := Unmarshal(s.Marshal(nil))
	if err != nil {
		t.Fatalf("the state cannot be restored: %v", err)
	}
	if !bytes.Equal(again.Marshal(nil), s.Marshal(nil)) {
		t.Fatal("the restored state differs")
	}
}

// FuzzApply takes its input for a log: entries, each after two bytes of length.
func FuzzApply(f *testing.F) {
	base := fullLog(f)
	snapshot := base.s.Marshal(nil)
	pack := func(entries ...[]byte) (out []byte) {
		for _, e := range entries {
			out = append(binary.BigEndian.AppendUint16(out, uint16(len(e))), e...)
		}
		return out
	}
	f.Add(pack(entriesFor(base.s)...))
	f.Add(pack(small(f, from("t", 0, 113, 2)), small(f, from("t", 0, 115, 1), from("u", 0, 1, 1).of(idB)), small(f, from("u", 0, 1, 1).of(idB)), Encode(Cut{Term: 1, Seq: 3, At: at0})))
	for _, e := range base.entries {
		if len(e) < 4096 {
			f.Add(pack(e))
		}
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		s, err := Unmarshal(snapshot)
		if err != nil {
			t.Fatal(err)
		}
		var entries [][]byte
		for len(log) >= 2 {
			n := min(int(binary.BigEndian.Uint16(log)), len(log)-2)
			entries = append(entries, log[2:2+n])
			log = log[2+n:]
		}
		goOn(t, s, entries)
	})
}
