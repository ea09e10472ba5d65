package receiver

import (
	"fmt"
	"time"

	"forebay/internal/record"
)

// truncationChecks is how often an offset must be found beyond the end.
const truncationChecks = 3

// outOfRange is what is known of a partition whose next offset Kafka does not
// have. It is a plain value; the receiver's lock guards it.
type outOfRange struct {
	reason         record.AdvanceReason // AdvanceExpired or AdvanceTruncated
	next           int64                // what the log wants
	oldest, newest int64                // what Kafka has
	first, last    time.Time            // of the checks that found it so
	checks         int
}

// examine compares the log's offset with Kafka's range: nil when it lies in it.
// seen is what the check before found, or nil. An offset below the oldest is
// expired at once; one beyond the end is believed only after three checks over
// wait, as a broker that has just taken the lead may answer with an end that it
// is about to raise.
func examine(seen *outOfRange, next, oldest, newest int64, now time.Time, wait time.Duration) *outOfRange {
	found := outOfRange{next: next, oldest: oldest, newest: newest, first: now, last: now, checks: 1}
	switch {
	case next < oldest:
		found.reason = record.AdvanceExpired
	case next > newest:
		found.reason = record.AdvanceTruncated
	default:
		return nil
	}
	if seen != nil && seen.reason == found.reason && seen.next == next {
		found.first, found.last, found.checks = seen.first, seen.last, seen.checks
		if now.Sub(seen.last) >= wait/truncationChecks {
			found.last = now
			found.checks++
		}
	}
	return &found
}

// certain tells whether the policy may be applied.
func (o *outOfRange) certain(wait time.Duration) bool {
	return o.reason == record.AdvanceExpired || o.checks >= truncationChecks && o.last.Sub(o.first) >= wait*(truncationChecks-1)/truncationChecks
}

// resume tells where a policy goes on. What was truncated is in the log
// already, so that nothing but the end makes sense there.
func (o *outOfRange) resume(policy string) int64 {
	if o.reason == record.AdvanceTruncated || policy == Latest {
		return o.newest
	}
	return o.oldest
}

// detail says it to the operator.
func (o *outOfRange) detail(certain bool) string {
	switch {
	case o.reason == record.AdvanceExpired:
		return fmt.Sprintf("Kafka has deleted offsets %d to %d before they were read; it has %d to %d. `gaps skip` goes on at %d and records the gap", o.next, o.oldest-1, o.oldest, o.newest-1, o.oldest)
	case !certain:
		return fmt.Sprintf("the log wants offset %d, but the partition ends at %d; checking again before that is believed", o.next, o.newest)
	default:
		return fmt.Sprintf("the log wants offset %d, but the partition ends at %d: Kafka has lost its end, as after an unclean election. `gaps skip` goes on at %d and records it", o.next, o.newest, o.newest)
	}
}

func reasonText(r record.AdvanceReason) string {
	switch r {
	case record.AdvanceControl:
		return "control"
	case record.AdvanceExpired:
		return "expired"
	case record.AdvanceTruncated:
		return "truncated"
	case record.AdvanceSkipped:
		return "skipped"
	default:
		return "unknown"
	}
}
