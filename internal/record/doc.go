// Package record holds the nouns that travel between the rooms of Forebay: the
// record, the block, the batch, and the facts about partitions, with their
// encodings. It imports nothing of ours, so that every room may import it.
//
// Values here are plain data. Byte slices handed out by a [Decoder] alias its
// buffers and are valid until its next use; everything else is safe to keep.
package record
