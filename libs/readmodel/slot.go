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
	"sync"

	"github.com/gofrs/flock"
	_ "modernc.org/sqlite" // The driver "sqlite".

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

// claimSlot makes and locks the first free slot under dir. The lock ends with the process at the latest.
func claimSlot(dir string) (string, *flock.Flock, error) {
	for n := range maxSlots {
		slot := filepath.Join(dir, "slot-"+strconv.Itoa(n))
		if err := os.MkdirAll(slot, 0o755); err != nil {
			return "", nil, fmt.Errorf("make slot: %w", err)
		}
		lock := flock.New(filepath.Join(slot, "lock"))
		free, err := lock.TryLock()
		if err != nil {
			return "", nil, fmt.Errorf("lock slot %s: %w", slot, err)
		}
		if free {
			return slot, lock, nil
		}
	}
	return "", nil, fmt.Errorf("claim a slot in %s: all %d are in use", dir, maxSlots)
}

// modelPrefix begins the name of every file of this version's schema.
func modelPrefix() string { return "model-" + SchemaHash()[:12] + "-" }

// modelFile is the slot's file of this schema, or the name of one to be made. The name ends at random, so that a name
// is never used for two files: readers keep a file that has gone open for a while, and SQLite would give a left-over
// journal to a new file of the same name.
func modelFile(slot string) (string, error) {
	found, err := filepath.Glob(filepath.Join(globLiteral(slot), modelPrefix()+"*.db"))
	if err != nil {
		return "", fmt.Errorf("look into slot %s: %w", slot, err)
	}
	if len(found) > 0 {
		slices.Sort(found)
		return found[0], nil
	}
	var end [4]byte
	_, _ = rand.Read(end[:])
	return filepath.Join(slot, modelPrefix()+hex.EncodeToString(end[:])+".db"), nil
}

// modelFiles lists the files of this schema in all slots under dir.
func modelFiles(dir string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(globLiteral(dir), "slot-*", modelPrefix()+"*.db"))
	if err != nil {
		return nil, fmt.Errorf("look for slots in %s: %w", dir, err)
	}
	return found, nil
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

	mu sync.Mutex
	// stmts are the prepared statements by their text: to parse a query costs as much as to answer a short one. There are
	// as many as there are combinations of filters.
	stmts map[string]*sql.Stmt
}

// prepared is the statement of a query; it is closed together with the file.
func (s *slotFile) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
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
	return &slotFile{path: path, info: info, db: db, stmts: map[string]*sql.Stmt{}}, nil
}

// same reports whether the path still names the file that is open.
func (s *slotFile) same() bool {
	info, err := os.Stat(s.path)
	return err == nil && os.SameFile(info, s.info)
}

// applied reads how far the LOG is applied. A file that has no tables yet is an error: tables and rows are made in
// transactions, so a file is whole or not there.
func (s *slotFile) applied(ctx context.Context) (uint64, error) {
	var sequence uint64
	err := s.db.QueryRowContext(ctx, "SELECT sequence FROM checkpoints WHERE stream = ?", events.StreamLog).Scan(&sequence)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return sequence, err
}
