// Package torture tries the log and the lane in every state that a power cut can
// leave, and under every kind of damage: see DESIGN.md of the rooms wal and
// replicate for what they promise. It has tests only.
//
// A child process works in a file system of internal/faultfs, which records each
// of its file operations. The recording is replayed here: the power is cut after
// each operation, with what was not synced dropped, kept, kept up to a sector, or
// torn anywhere, names included. Each state that differs from those before is opened, and
// held against what the child had claimed by then: it writes its claims through the
// same file system, so they stand in the recording exactly where they were made.
//
// Seeds are printed. FOREBAY_E2E=1 runs a quick cut (FUSE and root needed),
// FOREBAY_TORTURE=10m one of about that time in all; make torture does, and fuzzes as well.
package torture
