package faultfs

import (
	"os"
	"slices"
)

// store holds the durable bytes of one file.
type store interface {
	size() int64
	readAt(p []byte, off int64) error // within size
	writeAt(p []byte, off int64) error
	truncate(size int64) error
	remove()
}

// memory is a store of a replay.
type memory struct {
	b      []byte
	shared bool // with a state: b is not to be written any more
}

func (m *memory) size() int64 { return int64(len(m.b)) }

func (m *memory) readAt(p []byte, off int64) error {
	copy(p, m.b[off:])
	return nil
}

func (m *memory) writeAt(p []byte, off int64) error {
	if end := off + int64(len(p)); end > m.size() {
		_ = m.truncate(end)
	}
	if m.shared {
		m.b, m.shared = slices.Clone(m.b), false
	}
	copy(m.b[off:], p)
	return nil
}

func (m *memory) truncate(size int64) error {
	if have := m.size(); size > have {
		m.b = append(m.b, make([]byte, size-have)...)
	} else {
		m.b = m.b[:size:size] // so that growing again does not bring old bytes back
	}
	return nil
}

func (m *memory) remove() {}

// object is a store in a file of the backing directory.
type object struct {
	name   string
	length int64
	f      *os.File
}

func (o *object) size() int64 { return o.length }

func (o *object) open() (err error) {
	if o.f == nil {
		o.f, err = os.OpenFile(o.name, os.O_RDWR|os.O_CREATE, 0o600)
	}
	return err
}

// idle closes the descriptor until the next use.
func (o *object) idle() {
	if o.f != nil {
		o.f.Close()
		o.f = nil
	}
}

func (o *object) readAt(p []byte, off int64) error {
	if err := o.open(); err != nil {
		return err
	}
	_, err := o.f.ReadAt(p, off)
	return err
}

func (o *object) writeAt(p []byte, off int64) error {
	if err := o.open(); err != nil {
		return err
	}
	_, err := o.f.WriteAt(p, off)
	o.length = max(o.length, off+int64(len(p)))
	return err
}

func (o *object) truncate(size int64) error {
	if err := o.open(); err != nil {
		return err
	}
	if size == o.length {
		return nil
	}
	o.length = size
	return o.f.Truncate(size)
}

func (o *object) remove() {
	o.idle()
	os.Remove(o.name)
}
