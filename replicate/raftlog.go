package replicate

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/hashicorp/go-hclog"
)

// newRaftLogger gives Raft a logger that writes to ours, one level lower than
// Raft thinks: what it calls info is of use only to who debugs it. A single voter's
// elections are routine, so its warnings go to debug as well.
func newRaftLogger(to *slog.Logger, single bool) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	logger.RegisterSink(&raftSink{to: to.With("component", "raft"), single: single})
	return logger
}

// raftSink implements hclog.SinkAdapter.
type raftSink struct {
	to     *slog.Logger
	single bool
}

// Accept implements hclog.SinkAdapter.
func (s *raftSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	ctx := context.Background()
	l := s.level(level)
	if !s.to.Enabled(ctx, l) {
		return
	}
	rec := slog.NewRecord(time.Now(), l, msg, 0)
	for i := 0; i+1 < len(args); i += 2 {
		rec.Add(slog.Any(fmt.Sprint(args[i]), printable(args[i+1])))
	}
	// A log line that cannot be written is nobody's to handle.
	_ = s.to.Handler().Handle(ctx, rec)
}

func (s *raftSink) level(l hclog.Level) slog.Level {
	switch {
	case l >= hclog.Error:
		return slog.LevelError
	case l == hclog.Warn && !s.single:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

// printable resolves hclog's lazy formats.
func printable(v any) any {
	if f, ok := v.(hclog.Format); ok && len(f) > 0 {
		return fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
	}
	return v
}
