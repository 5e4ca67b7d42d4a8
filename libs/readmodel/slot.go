package readmodel

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/semaphore"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"kanade/libs/events"
)

// maxSlots bounds how many projectors share a directory.
const maxSlots = 64

// Parameters of the files: one writing connection whose transactions take the write lock at once, and readers that
// can't write. A power loss takes what was committed last from the database, and the log gives it again.
const (
	writerParams = "_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=busy_timeout(5000)" +
		"&_pragma=wal_autocheckpoint(10000)&_pragma=cache_size(-65536)&_pragma=temp_store(MEMORY)"
	readerParams = "mode=ro&_query_only=1&_pragma=busy_timeout(1000)"
)

// dsn of an absolute path. It always begins with "file:": without it the driver ignores mode=ro.
func dsn(path, params string) string {
	path = "/" + strings.TrimPrefix(filepath.ToSlash(path), "/") // before a drive's letter there is none
	return (&url.URL{Scheme: "file", Path: path, RawQuery: params}).String()
}

// Slot is a directory of read models that one process owns, by a file lock: nobody else writes the files in it. Of the
// files of this version's schema, readers are given the one that was served last.
type Slot struct {
	path   string
	lock   *flock.Flock
	retain events.Retain
}

// ClaimSlot locks the first free slot under dir that has a file of this schema, or else the first free one, which is made if
// need be: beside projectors of another version, one that is started again finds its own file. Its writers forget what is
// older than retain says. The lock ends with Close, at the latest with the process.
func ClaimSlot(dir string, retain events.Retain) (*Slot, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("claim a slot in %s: %w", dir, err)
	}
	var own, others []string
	for n := range maxSlots {
		slot := filepath.Join(abs, "slot-"+strconv.Itoa(n))
		files, err := modelFiles(slot)
		if err != nil {
			return nil, err
		}
		if len(files) > 0 {
			own = append(own, slot)
		} else {
			others = append(others, slot)
		}
	}
	for _, slot := range append(own, others...) {
		if err := os.MkdirAll(slot, 0o755); err != nil {
			return nil, fmt.Errorf("make slot: %w", err)
		}
		lock := flock.New(filepath.Join(slot, "lock"))
		free, err := lock.TryLock()
		if err != nil {
			return nil, fmt.Errorf("lock slot %s: %w", slot, err)
		}
		if free {
			return &Slot{path: slot, lock: lock, retain: retain}, nil
		}
	}
	return nil, fmt.Errorf("claim a slot in %s: all %d are in use", dir, maxSlots)
}

// Path is the slot's directory.
func (s *Slot) Path() string { return s.path }

// Name is the last part of Path: "slot-0".
func (s *Slot) Name() string { return filepath.Base(s.path) }

// Close frees the slot. Its writers are closed before.
func (s *Slot) Close() error {
	if err := s.lock.Unlock(); err != nil {
		return fmt.Errorf("free slot %s: %w", s.path, err)
	}
	return nil
}

// Continue opens the slot's file of this schema that was served last, at its checkpoints; where there is none, one that is
// being built, or a new one. A rebuild that was broken off is removed; a file that was served before stays until Keep, for
// it may be further than the one that has replaced it. A file that SQLite calls corrupt is removed, and damaged says why.
func (s *Slot) Continue(ctx context.Context) (w *Writer, damaged, err error) {
	paths, err := modelFiles(s.path)
	if err != nil {
		return nil, nil, err
	}
	for _, path := range paths {
		x, err := s.open(ctx, path)
		switch {
		case IsCorrupt(err), hasCode(err, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR_DELETE_NOENT):
			// Readers are in nobody's way, unless it is no WAL file any more.
			damaged, err = errors.Join(damaged, err), removeModel(path)
		case err != nil:
		case w == nil:
			w = x
		default:
			if x.generation > w.generation {
				w, x = x, w
			}
			if err = x.Close(); x.generation == 0 {
				err = errors.Join(err, removeModel(x.path))
			}
		}
		if err != nil {
			if w != nil {
				err = errors.Join(err, w.Close())
			}
			return nil, damaged, err
		}
	}
	if w == nil {
		w, err = s.Build(ctx)
	}
	return w, damaged, err
}

// Build makes a new file beside what is there. Readers are not given it until it is served.
func (s *Slot) Build(ctx context.Context) (*Writer, error) { return s.open(ctx, s.newPath()) }

func (s *Slot) newPath() string {
	// A name is never used for two files: readers keep a file that has gone open for a while, and SQLite would give a
	// left-over journal to a new file of the same name.
	var end [4]byte
	_, _ = rand.Read(end[:])
	return filepath.Join(s.path, modelPrefix()+hex.EncodeToString(end[:])+".db")
}

// Keep removes every file of this schema in the slot but the writer's own.
func (s *Slot) Keep(w *Writer) error {
	paths, err := modelFiles(s.path)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		if path != w.path {
			errs = append(errs, removeModel(path))
		}
	}
	return errors.Join(errs...)
}

// modelPrefix begins the name of every file of this version's schema.
func modelPrefix() string { return "model-" + SchemaID() + "-" }

// modelFiles lists the files of this schema in the slots given.
func modelFiles(slots ...string) ([]string, error) {
	var all []string
	for _, slot := range slots {
		found, err := filepath.Glob(filepath.Join(globLiteral(slot), modelPrefix()+"*.db"))
		if err != nil {
			return nil, fmt.Errorf("look into slot %s: %w", slot, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// slotsIn lists the slots under dir.
func slotsIn(dir string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(globLiteral(dir), "slot-*"))
	if err != nil {
		return nil, fmt.Errorf("look for slots in %s: %w", dir, err)
	}
	return found, nil
}

// removeModel deletes a file that nobody writes any more, with what SQLite keeps beside it. Whoever reads it goes on
// doing so until he closes it.
func removeModel(path string) error {
	var errs []error
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove read model: %w", err)
	}
	return nil
}

// IsCorrupt reports whether an error says that the file is damaged, or no database: what only another file mends.
func IsCorrupt(err error) bool {
	return errors.Is(err, errDamaged) || hasCode(err, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
}

// errDamaged is what a check of a file has found.
var errDamaged = errors.New("the file is damaged")

// isDouble reports whether an error says that a row can't be inserted because there is one of its key.
func isDouble(err error) bool {
	return hasCode(err, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE)
}

// hasCode reports whether an error is SQLite's, of one of the result codes, primary or extended.
func hasCode(err error, codes ...int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (slices.Contains(codes, e.Code()&0xff) || slices.Contains(codes, e.Code()))
}

// globLiteral escapes what filepath.Glob would take for a pattern.
func globLiteral(path string) string {
	if runtime.GOOS == "windows" { // The backslash separates there; a bracket in a path is not supported.
		return path
	}
	var b []rune
	for _, c := range path {
		if c == '*' || c == '?' || c == '[' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return string(b)
}

// slotFile is one slot's file, open for reading. The file itself is only looked at through SQLite and os.Stat: to open
// and close it otherwise would drop the locks that SQLite holds on it in this process.
type slotFile struct {
	path string
	info os.FileInfo
	db   *sql.DB
	// As of the last look: how far the LOG is applied, and how many files of the slot were served up to this one, 0 while it
	// is being built.
	sequence   uint64
	generation int
	// moved is when a look found it further than the one before.
	moved time.Time
	// damaged is what a query has met in it; nil while it is sound.
	damaged error

	// turn guards stmts.
	turn *semaphore.Weighted
	// stmts are the prepared statements by their text: to parse a query costs as much as to answer a short one. There are
	// as many as there are combinations of filters.
	stmts map[string]*sql.Stmt
}

// prepared is the statement of a query; it is closed together with the file.
func (s *slotFile) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if err := s.turn.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer s.turn.Release(1)
	if stmt, ok := s.stmts[query]; ok {
		return stmt, nil
	}
	stmt, err := s.db.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s.stmts[query] = stmt
	return stmt, nil
}

func openSlotFile(path string) (*slotFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open slot: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(path, readerParams))
	if err != nil {
		return nil, fmt.Errorf("open slot %s: %w", path, err)
	}
	db.SetMaxOpenConns(max(4, 2*runtime.GOMAXPROCS(0)))
	db.SetMaxIdleConns(4)
	return &slotFile{path: path, info: info, db: db, turn: semaphore.NewWeighted(1), stmts: map[string]*sql.Stmt{}}, nil
}

// same reports whether the path still names the file that is open.
func (s *slotFile) same() bool {
	info, err := os.Stat(s.path)
	return err == nil && os.SameFile(info, s.info)
}

// look reads how far the file is. One that has no tables yet is an error: tables and rows are made in transactions, so a
// file is whole or not there.
func (s *slotFile) look(ctx context.Context) error {
	before := s.sequence
	defer func() {
		if s.sequence != before || s.moved.IsZero() {
			s.moved = time.Now()
		}
	}()
	return s.db.QueryRowContext(ctx, "SELECT user_version, COALESCE((SELECT sequence FROM checkpoints WHERE stream = ?), 0) FROM pragma_user_version",
		events.StreamLog).Scan(&s.generation, sequence{&s.sequence})
}
