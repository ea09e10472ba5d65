// Package replicate runs a lane: one Raft group whose log is the write-ahead
// log, and whose replicated state (package replicate/state) says what the log
// means. The same code serves one voter and several.
//
// # What it promises
//
//   - A nil outcome of [Term.Append] and of every other proposal means: the
//     entry is synced on a majority's disks, applied, and accepted by the state
//     machine. An entry that the state machine refuses changes nothing, the same
//     on every node, and is reported as record.ErrRefused.
//   - Outcomes of Append are reported exactly once each, in the order of the
//     calls, from one goroutine. When the lead is lost everything that is
//     outstanding ends with record.ErrLeadLost, unless it was committed before.
//   - Nobody leads before everything committed in earlier terms is applied here
//     and the term's Begin entry with it ([Lane.Lead]).
//   - A batch reads the same for ever, or as record.ErrReleased, or as an error:
//     what was read is compared with what the state says of the batch.
//   - No entry at or above the floor leaves the log; a snapshot that is sent to
//     another node never lies above the floor, so the undelivered tail reaches it
//     by ordinary replication.
//   - Blocks wait when there is no room ([Term.Held]); the small entries that
//     make room still go.
//
// # Concurrency
//
// All methods of [Lane] and [Term] are safe for concurrent use. Lead is called
// once in the life of a Lane. Calls that block take a context and return soon
// after it ends; the entry that was proposed may be committed all the same.
//
// # On disk
//
// A lane's directory holds stable.db (bbolt: Raft's term and vote, and whose
// directory it is) and snapshots/<term>-<index>.snap; the log beside them
// belongs to the [Store]. DESIGN.md draws the bytes and argues the crash points.
package replicate
