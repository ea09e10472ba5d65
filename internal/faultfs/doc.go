// Package faultfs is a file system for tests, over FUSE, that forgets: it tells
// what was synced from what was not, and loses the latter on command, as a
// computer that loses its power does. It also injects faults by rule, and
// records every change, so that crash states can be made offline.
//
// # What is durable
//
// Strictly what POSIX promises, and not what a kind file system gives besides:
// the bytes and the size of a file once that file was synced (fdatasync counts),
// and a name (made, renamed or unlinked) once its directory was synced. So a
// file that was synced in a directory that was not is gone after a power cut. A
// rename within one directory happens as a whole or not at all; between two
// directories each has to be synced. Modes and times are durable at once.
//
// # Use
//
//	fs, err := faultfs.Mount(backing, mountpoint) // Linux, /dev/fuse, root
//	…start a child process that works in fs.Dir()…
//	fs.PowerCut()          // everything fails from here on
//	…kill the child and wait for it…
//	err = fs.Restore(ctx, faultfs.KeepTorn(seed))
//	…start it again…
//
// The workload must run in another process. A process that maps a file of a file
// system it serves itself can fault on it while it holds what the server needs,
// and then nothing goes on. Plain reads and writes from the serving process are fine.
//
// The kernel caches what was read, never what is to be written: every write,
// sync and name reaches this package when the call is made. A read that the
// page cache answers is not seen; [FS.Inject] of a rule for reads empties that
// cache first. Locks are the kernel's own, and die with their process.
//
// # Not modelled
//
// Symbolic links, extended attributes, device files, rename of a directory into
// another directory (EXDEV), RENAME_EXCHANGE, hole punching. Space is counted by
// file size, so a hole takes as much as data.
package faultfs
