package readmodel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// KeptFor is how long a file of another schema stays in a slot after it was last fed. Until then an API of its version goes
// on to answer from it, and a projector of its version goes on with it, should one be installed again.
const KeptFor = 7 * 24 * time.Hour

// Tidy notes that the slot feeds w, and removes the files of other schemas that nobody has fed for KeptFor: it gives their
// paths. A file's time of modification says when it was last fed, to the pause between two calls, also where no message
// came. now is by this host's clock, as that is.
func (s *Slot) Tidy(w *Writer, now time.Time) (removed []string, err error) {
	if err := os.Chtimes(w.path, now, now); err != nil {
		return nil, fmt.Errorf("tidy slot %s: %w", s.path, err)
	}
	ours, err := modelFiles(s.path)
	if err != nil {
		return nil, err
	}
	all, err := filepath.Glob(filepath.Join(globLiteral(s.path), "model-????????????-????????.db"))
	if err != nil {
		return nil, fmt.Errorf("tidy slot %s: %w", s.path, err)
	}
	var errs []error
	for _, path := range all {
		if slices.Contains(ours, path) || now.Sub(lastFed(path)) < KeptFor {
			continue
		}
		if err := removeModel(path); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, path)
	}
	return removed, errors.Join(errs...)
}

// lastFed is when a file, or the journal beside it, was last written; long ago for one that has gone.
func lastFed(path string) (last time.Time) {
	for _, name := range []string{path, path + "-wal"} {
		if info, err := os.Stat(name); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}
