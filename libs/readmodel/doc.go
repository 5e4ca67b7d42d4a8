// Package readmodel turns the log into rows of SQLite and answers queries from them.
//
// It promises five things.
//
//   - Same log, same rows, bit for bit. Apply has no clock, no randomness and no I/O but its own database; every time is
//     one that the message bears. Messages may be given again, in batches of any size, across crashes: rows and
//     checkpoint are committed in one transaction, so each message is applied once. Digest proves it.
//   - One writer a file. A Writer owns a slot: a directory held by a file lock, with a full copy of the read model in
//     it. Another Writer on the same directory takes the next slot. Readers never write and need no lock.
//   - No migrations. The hash of the schema is in the file's name; a file of another schema is never opened, changed
//     or removed. It may be deleted by hand once nothing of its version runs.
//   - What is too old is forgotten by the time of the log, in steps: see forget.go and docs/decisions/0020.
//   - What can't be decoded is decided by the message alone: it is handed back as Poison, and the checkpoint passes it.
//     An error of the disk or the database aborts the batch and is returned; nothing of the batch is then visible.
//
// Rooms: slot.go (directories, locks, file names, DSNs), writer.go, reader.go, message.go (decoding), table.go (what a
// table is), forget.go, relation.go (rows and their SQL), checkpoint.go, digest.go, page.go (cursors), snapshot.go (copies
// to begin with), past.go (models of past moments),
// and one file a noun: schema, Apply, queries; of results the lists, groups and words have files of their own. A
// table is fed by exactly one stream, so that no row depends on how streams interleave; what belongs together is joined
// by queries. No Apply reads a table of another noun.
//
// Times are stored as Unix nanoseconds, 0 for none. Where a row has a time of the broker's clock its field's comment
// says so; started and finished are the endpoint's.
package readmodel
