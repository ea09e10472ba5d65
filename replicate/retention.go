package replicate

import (
	"sort"
	"time"
)

// batchView is what the retention needs of the batches that are kept.
type batchView struct {
	// first and last are the oldest and the newest batch kept; last < first when none is.
	first, last uint64
	// delivered is the newest batch that every sink has; 0 for none, and when
	// there is no sink: then nobody has it.
	delivered uint64
	// cutAt is a batch's cut in Unix milliseconds, growing with seq.
	cutAt func(seq uint64) int64
	// freed is how many bytes the log can let go once all batches up to seq are
	// released (first-1: as it is); it does not shrink with seq.
	freed func(seq uint64) int64
}

// limits are the bounds of the log, from the configuration; 0 is none.
type limits struct {
	retention         time.Duration
	maxBytes, minFree int64
	maxBatches        uint64
}

// usage is how the log stands against its limits.
type usage struct {
	bytes, free int64
	batches     uint64
}

// easeBytes, easeFree and easeBatches say how far before its bound each limit
// begins to release delivered batches, so that intake need not be held in a
// steady flow.
func easeBytes(maxBytes int64) int64       { return maxBytes - maxBytes/16 }
func easeFree(minFree int64) int64         { return minFree + minFree/8 }
func easeBatches(maxBatches uint64) uint64 { return maxBatches - maxBatches/16 - 1 }

// dueByTime gives the newest batch that may go because all sinks have it and
// its retention is over, 0 for none. nowMillis is the leader's clock.
func dueByTime(v batchView, retention time.Duration, nowMillis int64) uint64 {
	return newestWhere(v, func(seq uint64) bool { return v.cutAt(seq)+retention.Milliseconds() <= nowMillis })
}

// dueByRoom gives the newest batch that must go before its time because room
// runs short: as few, oldest first, as bring the log back within its bounds, or
// as free as much as can be freed now; 0 when nothing need go, or nothing can.
func dueByRoom(v batchView, l limits, u usage) uint64 {
	end := min(v.delivered, v.last)
	if v.first == 0 || end < v.first {
		return 0
	}
	need := int64(0)
	if l.maxBytes > 0 {
		need = max(need, u.bytes-easeBytes(l.maxBytes))
	}
	if l.minFree > 0 {
		need = max(need, easeFree(l.minFree)-u.free)
	}
	var release uint64
	if need > 0 {
		need = min(need, v.freed(end))
	}
	if need > 0 && need > v.freed(v.first-1) {
		n := sort.Search(int(end-v.first), func(i int) bool { return v.freed(v.first+uint64(i)) >= need })
		release = v.first + uint64(n)
	}
	if ease := easeBatches(l.maxBatches); l.maxBatches > 0 && u.batches > ease {
		release = max(release, min(end, v.first+(u.batches-ease)-1))
	}
	return release
}

// after tells how the log will stand once the batches up to seq are released.
func (u usage) after(v batchView, seq uint64) usage {
	if seq < v.first {
		return u
	}
	freed := v.freed(seq)
	// The batches were counted before they were looked at: some of those due may be newer.
	gone := min(u.batches, seq+1-v.first)
	return usage{bytes: u.bytes - freed, free: u.free + freed, batches: u.batches - gone}
}

// newestWhere gives the newest delivered batch that ok holds for, 0 for none;
// ok holds up to some batch and not beyond.
func newestWhere(v batchView, ok func(seq uint64) bool) uint64 {
	end := min(v.delivered, v.last)
	if end < v.first || v.first == 0 {
		return 0
	}
	n := sort.Search(int(end-v.first)+1, func(i int) bool { return !ok(v.first + uint64(i)) })
	if n == 0 {
		return 0
	}
	return v.first + uint64(n) - 1
}

// heldBy decides whether intake is held for want of room, and why. now is the
// present reason: a hold ends a little below the bound that began it. u is what
// will be once the delivered batches that are due are released: they go first.
func heldBy(now string, l limits, u usage) string {
	slack := func(reason string, bound int64) int64 {
		if now == reason {
			return bound / 50
		}
		return 0
	}
	switch {
	case l.maxBytes > 0 && u.bytes >= l.maxBytes-slack(HeldMaxBytes, l.maxBytes):
		return HeldMaxBytes
	case l.minFree > 0 && u.free < l.minFree+slack(HeldMinFree, l.minFree):
		return HeldMinFree
	case l.maxBatches > 0 && u.batches >= l.maxBatches-uint64(slack(HeldMaxBatches, int64(l.maxBatches))):
		return HeldMaxBatches
	default:
		return ""
	}
}
