// Package batcher cuts a lane's log into batches and delivers each batch to each
// sink. It runs on the leader of the lane, one [Batcher] for each term.
//
// # Promises
//
//   - A batch is cut at the multiples of the interval, and early when the open
//     batch has reached its bounds. Nothing came: nothing is cut, nothing is proposed, and no timer runs.
//   - Each sink gets each batch from its cursor on, in order, one at a time. The
//     same batch comes again, with capped exponential backoff and jitter, until
//     the sink has taken it and the log has the done.
//   - No sink waits for another, and the cuts wait for none.
//   - A record that a sink refuses is left out of a batch only once the log says
//     so; the operator's [Policy] decides whether it may be.
//   - Once the context of [Batcher.Run] has ended, or the log has said
//     [record.ErrLeadLost], nothing more is proposed.
//   - Nothing of a batch is kept in memory: what is streamed is streamed by the
//     log to the sink. The history of deliveries is bounded.
//
// # Concurrency
//
// Run is called once. Everything else may be called at any time from any
// goroutine. A sink's code is called from one goroutine at a time.
package batcher
