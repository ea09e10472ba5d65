// Package state is a lane's replicated state: what every node computes, entry by
// entry, from the log alone. It is pure: no clock, no disk, no goroutine, no
// randomness, no iteration order. Applying the same entries at the same indexes
// gives the same state, byte for byte in its encoding, on every node.
//
// It holds no record bytes: only where they are. Not safe for concurrent use:
// the lane that owns it holds a lock. Apply changes it; Marshal and the views do
// not, so that any number of them may run together under a read lock. Everything that a
// view gives is safe to keep.
package state
