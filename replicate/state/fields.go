package state

import "forebay/internal/record"

// fieldsOf gives the tag of an entry and what codes its fields; nil for
// anything that is no entry.
func fieldsOf(e any) (byte, func(*coder)) {
	switch e := e.(type) {
	case Form:
		return tagForm, e.fields
	case Begin:
		return tagBegin, e.fields
	case Bases:
		return tagBases, e.fields
	case Advance:
		return tagAdvance, e.fields
	case TopicChange:
		return tagTopicChange, e.fields
	case Cut:
		return tagCut, e.fields
	case SinkAdd:
		return tagSinkAdd, e.fields
	case SinkRemove:
		return tagSinkRemove, e.fields
	case SinkPause:
		return tagSinkPause, e.fields
	case Done:
		return tagDone, e.fields
	case Refuse:
		return tagRefuse, e.fields
	case Copy:
		return tagCopy, e.fields
	case Discard:
		return tagDiscard, e.fields
	case Release:
		return tagRelease, e.fields
	case Set:
		return tagSet, e.fields
	case Void:
		return tagVoid, e.fields
	}
	return 0, nil
}

// readerOf gives what reads the fields of an entry with this tag, or nil.
func readerOf(tag byte) func(*coder) any {
	switch tag {
	case tagForm:
		return read[Form]
	case tagBegin:
		return read[Begin]
	case tagBases:
		return read[Bases]
	case tagAdvance:
		return read[Advance]
	case tagTopicChange:
		return read[TopicChange]
	case tagCut:
		return read[Cut]
	case tagSinkAdd:
		return read[SinkAdd]
	case tagSinkRemove:
		return read[SinkRemove]
	case tagSinkPause:
		return read[SinkPause]
	case tagDone:
		return read[Done]
	case tagRefuse:
		return read[Refuse]
	case tagCopy:
		return read[Copy]
	case tagDiscard:
		return read[Discard]
	case tagRelease:
		return read[Release]
	case tagSet:
		return read[Set]
	case tagVoid:
		return read[Void]
	}
	return nil
}

func read[T any, P interface {
	*T
	fields(*coder)
}](c *coder) any {
	var v T
	P(&v).fields(c)
	return v
}

func (e *Form) fields(c *coder) {
	c.id((*[16]byte)(&e.LogID))
	c.str(&e.Gateway)
	c.u32(&e.Lane)
	c.u32(&e.Lanes)
	c.str(&e.Node)
	c.id(&e.Incarnation)
	c.i64(&e.At)
}

func (e *Begin) fields(c *coder) {
	c.u64(&e.Term)
	c.str(&e.Node)
	c.i64(&e.At)
}

func (e *Bases) fields(c *coder) {
	list(c, &e.Bases, func(c *coder, b *record.Base) {
		c.str(&b.Topic)
		c.id((*[16]byte)(&b.TopicID))
		c.i32(&b.Partition)
		c.i64(&b.Next)
	})
	c.i64(&e.At)
}

func (e *Advance) fields(c *coder) {
	c.str(&e.Topic)
	c.id((*[16]byte)(&e.TopicID))
	c.i32(&e.Partition)
	c.i64(&e.Base)
	c.i64(&e.Next)
	codeReason(c, &e.Reason)
	c.i64(&e.At)
}

func codeReason(c *coder, r *record.AdvanceReason) {
	u := uint64(*r)
	if c.u64(&u); !c.reading {
		return
	}
	if u > 255 {
		c.fail("number too large")
	}
	*r = record.AdvanceReason(u)
}

func (e *TopicChange) fields(c *coder) {
	c.str(&e.Topic)
	c.id((*[16]byte)(&e.Old))
	c.id((*[16]byte)(&e.New))
	c.u64(&e.Suspect)
	c.i64(&e.At)
}

func (e *Cut) fields(c *coder) {
	c.u64(&e.Term)
	c.u64(&e.Seq)
	c.i64(&e.At)
}

func (e *SinkAdd) fields(c *coder) {
	c.str(&e.Name)
	c.str(&e.Destination)
	c.bool(&e.Newest)
	c.i64(&e.At)
}

func (e *SinkRemove) fields(c *coder) {
	c.str(&e.Name)
	c.u64(&e.GivesUpFrom)
	c.i64(&e.At)
}

func (e *SinkPause) fields(c *coder) {
	c.str(&e.Name)
	c.bool(&e.Paused)
	c.i64(&e.At)
}

func (e *Done) fields(c *coder) {
	c.str(&e.Sink)
	c.u64(&e.Seq)
	c.u32(&e.Attempts)
	c.i64(&e.StartedAt)
	c.i64(&e.DoneAt)
	c.u64(&e.Term)
}

func (e *Refuse) fields(c *coder) {
	c.str(&e.Sink)
	c.u64(&e.Term)
	c.u64(&e.Seq)
	c.bool(&e.Drop)
	list(c, &e.Refusals, func(c *coder, r *RefusedRecord) {
		codeRecordID(c, &r.RecordID)
		c.reason(&r.Reason)
		c.ascending(&r.Indexes)
		c.i64(&r.Bytes)
	})
	c.i64(&e.At)
}

func codeRecordID(c *coder, id *record.RecordID) {
	c.str(&id.Topic)
	c.i32(&id.Partition)
	c.i64(&id.Offset)
}

func (e *Copy) fields(c *coder) {
	c.u64(&e.ID)
	c.u32(&e.Part)
	c.u32(&e.Parts)
	c.u32(&e.Checksum)
	c.bytes(&e.Data)
}

func (e *Discard) fields(c *coder) {
	list(c, &e.IDs, number)
	c.i64(&e.At)
}

func (e *Release) fields(c *coder) {
	c.u64(&e.Term)
	c.u64(&e.Seq)
	c.i64(&e.At)
}

func (e *Set) fields(c *coder) {
	c.str(&e.Key)
	c.str(&e.Value)
}

func (e *Void) fields(c *coder) {
	c.u64(&e.Term)
	c.u64(&e.Seq)
	c.i64(&e.At)
}
