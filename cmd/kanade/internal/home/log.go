package home

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// maxLog is how large a log file gets, in bytes.
const maxLog = 10 << 20

// LogFile is a file of bounded size to write lines to. Safe for concurrent use.
type LogFile struct {
	path string

	mu   sync.Mutex
	file *os.File
	size int64
}

// Log opens kanade.log at its end. It never grows beyond 2 × 10 MiB: a full one becomes kanade.log.old.
func (h *Home) Log() (*LogFile, error) {
	l := &LogFile{path: h.Path("kanade.log")}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *LogFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open log file: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write appends one line; before it would grow too large the file is put aside, over the one put aside before.
func (l *LogFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(line)) > maxLog {
		// Closed first, since Windows renames no open file. Where it can't be renamed it grows on.
		_, _ = l.file.Close(), os.Rename(l.path, l.path+".old")
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	return n, err
}

// Close closes the file. Writing afterwards is an error.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
