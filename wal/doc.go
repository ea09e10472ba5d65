// Package wal is the log on this node's disk: a raft.LogStore, and a
// raft.MonotonicLogStore, over segments written by tidwall/wal.
//
// What it promises:
//
//   - When StoreLogs has returned nil, the entries survive kill -9 and power cuts.
//   - GetLog returns what was stored or an error, never anything else. Every read
//     from disk checks two CRC-32C sums and the index.
//   - After a failed write or sync nothing more is written: every later store
//     returns the first error, and the next Open repairs.
//   - Open cuts back a torn tail, and only that: bytes that were never
//     acknowledged. All other damage is a [*CorruptError], found before
//     anything was changed.
//   - Entries at or above the floor are never deleted from the front, whoever asks.
//
// A Log is safe for concurrent use. Stores and deletions take turns; reads wait
// for neither them nor each other. [Inspect] reads a log without owning it.
//
// What is on disk, each crash point, and what is not protected against:
// DESIGN.md in this directory.
package wal
