package readmodel

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"kanade/libs/events"
)

// Snapshot writes what LOG has made of a file, as it is at one moment, into another file, and gives its position. The file
// goes on being written to and read meanwhile; its journal can't be taken back and grows. There must be no file of the name
// of the copy yet. Of an error nothing is left.
//
// A copy is served to nobody. What other streams feed is not in it: it is asked for anew by whoever begins with the copy.
func Snapshot(ctx context.Context, file, copy string) (at Checkpoint, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("snapshot of %s: %w", file, err), removeModel(copy))
		}
	}()
	from, err := sql.Open("sqlite", dsn(file, "mode=ro&_pragma=busy_timeout(5000)"))
	if err != nil {
		return at, err
	}
	_, err = from.ExecContext(ctx, "VACUUM INTO ?", copy)
	if err = errors.Join(err, from.Close()); err != nil {
		return at, err
	}
	pool, err := sql.Open("sqlite", dsn(copy, "mode=rw&_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)"))
	if err != nil {
		return at, err
	}
	for _, t := range tables() {
		for _, r := range t.relations {
			if t.stream != events.StreamLog && err == nil {
				_, err = pool.ExecContext(ctx, "DELETE FROM "+r.name)
			}
		}
	}
	for _, statement := range []string{"DELETE FROM checkpoints WHERE stream <> '" + events.StreamLog + "'", "PRAGMA user_version = 0"} {
		if err == nil {
			_, err = pool.ExecContext(ctx, statement)
		}
	}
	if err == nil {
		at, err = logPosition(ctx, pool)
	}
	return at, errors.Join(err, pool.Close())
}

// CheckSnapshot reads a snapshot's file whole and gives its position; an error says that it is none.
func CheckSnapshot(ctx context.Context, file string) (at Checkpoint, err error) {
	fail := func(err error) (Checkpoint, error) { return at, fmt.Errorf("check snapshot %s: %w", file, err) }
	pool, err := sql.Open("sqlite", dsn(file, readerParams))
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	if err := checkFile(ctx, pool); err != nil {
		return fail(err)
	}
	var served int
	if err := pool.QueryRowContext(ctx, "PRAGMA user_version").Scan(&served); err != nil {
		return fail(err)
	}
	if served != 0 {
		return fail(errors.New("it says that it is served"))
	}
	if at, err = logPosition(ctx, pool); err != nil {
		return fail(err)
	}
	return at, nil
}

// logPosition is the checkpoint of LOG, which there must be.
func logPosition(ctx context.Context, pool *sql.DB) (at Checkpoint, err error) {
	return at, pool.QueryRowContext(ctx, checkpoints.all()+" WHERE stream = ?", events.StreamLog).Scan(at.fields()...)
}

// Empty reports whether the slot has no file of this version's schema.
func (s *Slot) Empty() (bool, error) {
	paths, err := modelFiles(s.path)
	return len(paths) == 0, err
}

// Room is where a snapshot is written before it is stored, or after it was fetched: a path in the slot without a file.
func (s *Slot) Room() (string, error) {
	path := filepath.Join(s.path, "snapshot.tmp")
	return path, removeModel(path)
}

// Adopt makes a snapshot's file one of the slot's that is being built, for Continue.
func (s *Slot) Adopt(file string) error {
	if err := os.Rename(file, s.newPath()); err != nil {
		return fmt.Errorf("adopt snapshot: %w", err)
	}
	return nil
}
