// Package e2e holds the tests of the whole program: the real binary as a child
// process, a real Apache Kafka, and whatever may happen to either.
//
// The oracle of all of them: every record that Kafka has for a read_committed
// reader is in the files of an exactly-once sink once, byte for byte, in order
// within its partition, and nothing else is; files that were there before a crash
// are the same after it; batches are numbered without holes; and the offset that
// the group has committed is never ahead of what the log holds. What Kafka has is
// told by another client library (franz-go) than the one that the program uses,
// and by the acknowledgements that the producers got.
//
// FOREBAY_E2E=1 runs them (Java 17 and Maven; root, loop mounts and /dev/fuse for those
// that make a disk fail), FOREBAY_SOAK=1 their long
// versions, FOREBAY_E2E_RACE=1 a binary with the race detector.
package e2e
