// Package peer is the network between the nodes of a cluster.
//
// # What it promises
//
//   - A [Hub] has one listener for everything: the Raft of all lanes ([Hub.Transport])
//     and control calls ([Hub.Call], [Hub.Handle]).
//   - No byte of either is exchanged before both ends agreed on who they are: gateway,
//     node id, number of lanes, protocol version, and certificate where TLS is on. Who is refused
//     learns why in words, on both sides, once.
//   - Each Raft RPC is bound to the data directory (the incarnation) at its other end. Those
//     that could elect or count an emptied one are refused unless the lane allows them.
//   - An answer of a call is whole, or an error.
//   - Whatever a peer does or does not do, memory, goroutines and waiting are bounded;
//     DESIGN.md has the numbers.
//   - [Decide] says whether a node may form a cluster; it does no I/O.
//
// # Concurrency
//
// All methods of [Hub] and [Transport] are safe for concurrent use. What blocks takes a
// context, or has a bound of its own; Close waits for every goroutine, Cut for none.
package peer
