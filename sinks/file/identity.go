package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"forebay/internal/record"
	"forebay/sinks"
)

// identityFormat is the version of identityFile.
const identityFormat = 1

// identityFile is the content of .forebay.json: whose directory this is.
type identityFile struct {
	Format  int    `json:"format"`
	Gateway string `json:"gateway"`
	LogID   string `json:"logId"`
	Sink    string `json:"sink"`
	// Node is set unless the directory is shared by all nodes.
	Node string `json:"node,omitempty"`
}

// claim reads whose the directory is and refuses another's; an unclaimed one it
// takes. Lanes that claim at the same time all find the one that was first.
func (s *Sink) claim(ctx context.Context, id *sinks.Identity) error {
	want := identityFile{Format: identityFormat, Gateway: id.Gateway, LogID: id.LogID, Sink: id.Sink}
	if !s.cfg.Shared {
		want.Node = id.Node
	}
	got, err := s.readIdentity(ctx)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		got, err = s.take(ctx, id, &want)
	}
	if err == nil {
		err = s.compare(&got, &want)
	}
	if err == nil && fresh && id.Next.Seq > 1 {
		s.cfg.Logger.WarnContext(ctx, "sink begins in a directory that holds none of its earlier batches; is its volume mounted?",
			"dir", s.cfg.Dir, "next", id.Next.String())
	}
	return err
}

// take claims a directory that says nobody's. Another lane may do so at the same
// time: whoever is first, both read the same afterwards.
func (s *Sink) take(ctx context.Context, id *sinks.Identity, want *identityFile) (identityFile, error) {
	if foreign := s.unclaimed(ctx); foreign != nil {
		// What was found may be that of a lane that has claimed the directory meanwhile.
		got, err := s.readIdentity(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			err = foreign
		}
		return got, err
	}
	content, err := json.Marshal(want)
	if err != nil {
		return identityFile{}, fmt.Errorf("encoding the identity: %w", err)
	}
	err = s.writeSmall(ctx, tmpName(id, tmpIdentity), identityName, append(content, '\n'), s.fs.Publish)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return identityFile{}, fmt.Errorf("claiming the directory: %w", err)
	}
	return s.readIdentity(ctx)
}

func (s *Sink) readIdentity(ctx context.Context) (identityFile, error) {
	var (
		got     identityFile
		content []byte
	)
	err := s.do(ctx, func() (err error) {
		content, err = s.fs.ReadFile(s.path(identityName))
		return err
	})
	if err != nil {
		return got, fmt.Errorf("reading whose directory it is: %w", err)
	}
	if err := json.Unmarshal(content, &got); err != nil {
		return got, sinks.Permanent(fmt.Errorf("%s is not readable (%w): restore it, or deliver into another directory",
			s.path(identityName), err))
	}
	if got.Format != identityFormat {
		return got, sinks.Permanent(fmt.Errorf("%s has format %d, which this version does not know: use the version that wrote it",
			s.path(identityName), got.Format))
	}
	return got, nil
}

// unclaimed refuses a directory that holds batches and does not say whose.
func (s *Sink) unclaimed(ctx context.Context) error {
	var found string
	err := s.do(ctx, func() error {
		return s.fs.List(s.cfg.Dir, func(name string) {
			if _, ok := parseFinal(name); ok || strings.HasPrefix(name, cursorPrefix) {
				found = name
			}
		})
	})
	if err != nil {
		return fmt.Errorf("listing the directory: %w", err)
	}
	if found != "" {
		return sinks.Permanent(fmt.Errorf("%s holds %s but no %s that says whose it is: %w: move its files away, or deliver into another directory",
			s.cfg.Dir, found, identityName, sinks.ErrForeign))
	}
	return nil
}

func (s *Sink) compare(got, want *identityFile) error {
	var of string
	switch {
	case got.Gateway != want.Gateway:
		of = fmt.Sprintf("gateway %q, and this is gateway %q", got.Gateway, want.Gateway)
	case got.Sink != want.Sink:
		of = fmt.Sprintf("sink %q, and this is sink %q", got.Sink, want.Sink)
	case got.LogID != want.LogID:
		of = fmt.Sprintf("log %s, and this is log %s (either another gateway named %q delivers into it, perhaps now, or this one's data directory was made anew and its batch numbers begin again)", got.LogID, want.LogID, got.Gateway)
	case got.Node != "" && want.Node != "" && got.Node != want.Node:
		of = fmt.Sprintf("node %q, and this is node %q (set shared = true when all nodes see one and the same directory)", got.Node, want.Node)
	default:
		return nil
	}
	return sinks.Permanent(fmt.Errorf("%s: %w: it is of %s: deliver into another directory; or, if it is certain that nobody else delivers into this one, move its files and %s away",
		s.cfg.Dir, sinks.ErrForeign, of, identityName))
}

// readCursor gives the batch that consumers may not take yet, zero when none was said.
func (s *Sink) readCursor(ctx context.Context, lane uint32) (record.BatchID, error) {
	var (
		name    = fmt.Sprintf("%s%d", cursorPrefix, lane)
		content []byte
	)
	err := s.do(ctx, func() (err error) {
		content, err = s.fs.ReadFile(s.path(name))
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return record.BatchID{}, nil
	}
	if err != nil {
		return record.BatchID{}, fmt.Errorf("reading the cursor: %w", err)
	}
	id, err := record.ParseBatchID(strings.TrimSuffix(string(content), "\n"))
	if err != nil || id.Lane != lane {
		return record.BatchID{}, sinks.Permanent(fmt.Errorf("%s is not readable (%q): remove it, and it is written anew from the log", s.path(name), content))
	}
	return id, nil
}
