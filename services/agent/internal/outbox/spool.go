package outbox

import (
	"fmt"
	"os"
	"path/filepath"

	"kanade/services/agent/internal/ledger"
)

// CleanSpool makes the directory of kept outputs and removes what no message in the outbox names: the output of runs
// whose agent died before their end was written down. Call it before anything runs.
func CleanSpool(dir string, l *ledger.Ledger) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make spool directory: %w", err)
	}
	wanted := map[string]bool{}
	for last := uint64(0); ; {
		items, err := l.Outbox(last, pageSize)
		if err != nil {
			return err
		}
		for _, it := range items {
			last = it.Key
			for _, u := range it.Message.Uploads {
				wanted[filepath.Base(u.File)] = true
			}
		}
		if len(items) < pageSize {
			break
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read spool directory: %w", err)
	}
	for _, f := range files {
		if wanted[f.Name()] {
			continue
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
			return fmt.Errorf("clean spool directory: %w", err)
		}
	}
	return nil
}
