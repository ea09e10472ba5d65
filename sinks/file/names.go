package file

import (
	"fmt"
	"strconv"
	"strings"

	"forebay/internal/record"
	"forebay/sinks"
)

// Names in the directory of a sink, beside the batches.
const (
	identityName = ".forebay.json"
	tmpPrefix    = ".tmp-"
	batchPrefix  = "batch-"
	cursorPrefix = "cursor-"
	lanePrefix   = ".lane-"
	// What a temporary file is for, when it is not for a batch.
	tmpIdentity = "identity"
	tmpCursor   = "cursor"
)

// finalName is the name of a batch. It begins the same for every form that a
// batch can have, which is what makes a batch that is there count as delivered.
func finalName(id record.BatchID, suffix string) string {
	return batchPrefix + id.String() + suffix
}

// parseFinal tells which batch a name belongs to, whatever its suffix.
func parseFinal(name string) (record.BatchID, bool) {
	rest, ok := strings.CutPrefix(name, batchPrefix)
	if !ok {
		return record.BatchID{}, false
	}
	text, _, dotted := strings.Cut(rest, ".")
	id, err := record.ParseBatchID(text)
	return id, dotted && err == nil && id.String() == text
}

// tmpName is the name of a temporary file: the lane and the term come before
// anything that may hold a dash.
func tmpName(id *sinks.Identity, what string) string {
	return fmt.Sprintf("%s%d-%s-%d-%s", tmpPrefix, id.Lane, what, id.Term, id.Node)
}

func tmpBatchName(id *sinks.Identity, seq uint64) string {
	return tmpName(id, fmt.Sprintf("%020d", seq))
}

// parseTmp reads what tmpName writes.
func parseTmp(name string) (lane uint32, term uint64, node string, ok bool) {
	rest, ok := strings.CutPrefix(name, tmpPrefix)
	parts := strings.SplitN(rest, "-", 4)
	if !ok || len(parts) != 4 {
		return 0, 0, "", false
	}
	l, err1 := strconv.ParseUint(parts[0], 10, 32)
	t, err2 := strconv.ParseUint(parts[2], 10, 64)
	return uint32(l), t, parts[3], err1 == nil && err2 == nil
}

// stale tells whether a name is a temporary file that nobody who may still publish it
// can be writing: one of this lane and a lower term, or this very term and node.
func stale(name string, id *sinks.Identity) bool {
	lane, term, node, ok := parseTmp(name)
	return ok && lane == id.Lane && (term < id.Term || term == id.Term && node == id.Node)
}
