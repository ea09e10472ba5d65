package state

import (
	"fmt"
	"strings"
	"time"

	"forebay/internal/record"
)

// Describe says in short what an entry is, for people: its kind, one word, and
// what it carries.
func Describe(entry []byte) (kind, detail string) {
	e, err := Decode(entry)
	if err != nil {
		return "unknown", err.Error()
	}
	switch e := e.(type) {
	case record.Summary:
		return describeBlock(&e)
	case Form:
		return "form", fmt.Sprintf("log %s, gateway %s, lane %d of %d, by %s at %s", e.LogID, e.Gateway, e.Lane, e.Lanes, e.Node, clock(e.At))
	case Begin:
		return "begin", fmt.Sprintf("term %d, leader %s at %s", e.Term, e.Node, clock(e.At))
	case Bases:
		return "bases", describeBases(e)
	case Advance:
		return "advance", fmt.Sprintf("%s/%d from %d to %d: %s at %s", e.Topic, e.Partition, e.Base, e.Next, reasonWord(e.Reason), clock(e.At))
	case TopicChange:
		return "topic", fmt.Sprintf("%s was %x, is %x at %s", e.Topic, e.Old, e.New, clock(e.At))
	case Cut:
		return "cut", fmt.Sprintf("batch %d at %s (term %d)", e.Seq, clock(e.At), e.Term)
	default:
		return describeDelivery(e)
	}
}

func describeDelivery(e any) (kind, detail string) {
	switch e := e.(type) {
	case SinkAdd:
		from := "oldest"
		if e.Newest {
			from = "newest"
		}
		return "sink-add", fmt.Sprintf("%s from the %s batch at %s", e.Name, from, clock(e.At))
	case SinkRemove:
		return "sink-remove", fmt.Sprintf("%s gives up from batch %d at %s", e.Name, e.GivesUpFrom, clock(e.At))
	case SinkPause:
		return "sink-pause", fmt.Sprintf("%s paused=%t at %s", e.Name, e.Paused, clock(e.At))
	case Done:
		return "done", fmt.Sprintf("%s has batch %d at %s after %d attempts (term %d)", e.Sink, e.Seq, clock(e.DoneAt), e.Attempts, e.Term)
	case Refuse:
		verb := "parks"
		if e.Drop {
			verb = "drops"
		}
		detail = fmt.Sprintf("%s %s %d records of batch %d at %s (term %d)", e.Sink, verb, len(e.Refusals), e.Seq, clock(e.At), e.Term)
		if len(e.Refusals) > 0 {
			r := &e.Refusals[0]
			detail += fmt.Sprintf(": %s/%d@%d %q", r.Topic, r.Partition, r.Offset, r.Reason)
		}
		return "refuse", detail
	case Copy:
		return "copy", fmt.Sprintf("parked record %d, part %d of %d, %d bytes", e.ID, e.Part+1, e.Parts, len(e.Data))
	case Discard:
		return "discard", fmt.Sprintf("%d parked records at %s", len(e.IDs), clock(e.At))
	case Release:
		return "release", fmt.Sprintf("up to batch %d at %s (term %d)", e.Seq, clock(e.At), e.Term)
	case Void:
		return "void", fmt.Sprintf("batches up to %d have no records, at %s (term %d)", e.Seq, clock(e.At), e.Term)
	case Set:
		return "set", fmt.Sprintf("%s = %q", e.Key, e.Value)
	}
	return "unknown", fmt.Sprintf("%T", e)
}

// describedSpans is how many spans or bases of an entry are written out.
const describedSpans = 8

func describeBlock(s *record.Summary) (kind, detail string) {
	var b strings.Builder
	kind = "block"
	if s.Parts > 0 {
		kind = "part"
		fmt.Fprintf(&b, "%d of %d: ", s.Part+1, s.Parts)
	}
	fmt.Fprintf(&b, "%d records, %d bytes:", s.Records, s.Bytes)
	for i, sp := range s.Spans {
		if i == describedSpans {
			fmt.Fprintf(&b, " and %d more", len(s.Spans)-i)
			break
		}
		fmt.Fprintf(&b, " %s/%d %d-%d", sp.Topic, sp.Partition, sp.First, sp.Last)
		if sp.Base != sp.First {
			fmt.Fprintf(&b, " (after %d)", sp.Base)
		}
	}
	return kind, b.String()
}

func describeBases(e Bases) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d partitions at %s:", len(e.Bases), clock(e.At))
	for i, base := range e.Bases {
		if i == describedSpans {
			fmt.Fprintf(&b, " and %d more", len(e.Bases)-i)
			break
		}
		fmt.Fprintf(&b, " %s/%d from %d", base.Topic, base.Partition, base.Next)
	}
	return b.String()
}

func reasonWord(r record.AdvanceReason) string {
	switch r {
	case record.AdvanceControl:
		return "control"
	case record.AdvanceExpired:
		return "expired"
	case record.AdvanceTruncated:
		return "truncated"
	case record.AdvanceSkipped:
		return "skipped"
	}
	return fmt.Sprintf("reason %d", r)
}

func clock(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
