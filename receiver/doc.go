// Package receiver takes records out of Kafka and into a lane's log, as one
// member of the gateway's consumer group.
//
// What it promises:
//
//   - A record is handed to the [Log] once, in Kafka's order within its
//     partition. Every claim starts at the log's next offset, never at the
//     group's; the block that carries records says which offset it continues
//     from, and when the log refuses one, all its partitions are taken up again
//     from where the log stands.
//   - An offset is marked and committed to Kafka only after the log has said
//     that the records are on disk on a majority.
//   - No more than MaxRate, MaxBytesRate and MaxRatePerPartition are taken,
//     from the first second on.
//   - While the log holds the intake, partitions are paused and the member
//     keeps its heartbeat: no rebalance, and the intake resumes by itself.
//   - Offsets that Kafka no longer has are never skipped in silence: they are
//     recorded in the log as a gap, after the policy or the operator said so,
//     and meanwhile the other partitions go on.
//
// One [Receiver] serves one lane for one term of its lead: Run opens a Kafka
// client and a consumer group of its own and closes them before it returns.
// Status, Skip and Run may be called concurrently; Run is called once.
//
// DESIGN.md in this folder tells how, and what it leans on in sarama.
package receiver
