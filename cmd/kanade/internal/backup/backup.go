// Package backup copies the whole of a system out of a broker into a directory, and back into an empty one.
//
//	manifest.json    what is in it: when, from which broker, each stream with sequences, counts and the SHA-256 of its file
//	manifest.sha256  the SHA-256 of the manifest, in the form of sha256sum
//	<stream>.snapshot  one for each stream, bucket and object store, in the broker's own form
//
// A backup is taken while the system runs. What makes the restored whole consistent is the order in which streams are
// taken, and that consumers begin again where they were before the first of them was; docs/decisions/0014-backup.md has
// the reasons. A directory is there in full or not at all, and a restore that fails leaves no stream behind.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
)

// attempts is how often a bucket or store is taken that was changed meanwhile.
const attempts = 5

// Take writes a backup of everything of ours that the broker holds into dir, which is made, and must be empty if it is
// there. An error leaves nothing behind. Version is kanade's.
func Take(ctx context.Context, b *bus.Bus, dir, version string, logger *slog.Logger) (Manifest, error) {
	m, err := take(ctx, b, dir, version, logger)
	if err != nil {
		return Manifest{}, fmt.Errorf("back up into %s: %w", dir, err)
	}
	return m, nil
}

func take(ctx context.Context, b *bus.Bus, dir, version string, logger *slog.Logger) (_ Manifest, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return Manifest{}, err
	}
	if err := vacant(dir); err != nil {
		return Manifest{}, err
	}
	names, err := b.OurStreams(ctx)
	if err != nil {
		return Manifest{}, err
	}
	if !slices.Contains(names, events.StreamLog) {
		return Manifest{}, fmt.Errorf("the broker holds no stream %s: is it kanade's?", events.StreamLog)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return Manifest{}, err
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".partial-")
	if err != nil {
		return Manifest{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	m := Manifest{Format: format, Kanade: version, Broker: b.Conn().ConnectedServerVersion()}
	if m.TakenAt, err = b.Now(ctx); err != nil {
		return Manifest{}, err
	}
	if err := m.fill(ctx, b, partial, names, logger); err != nil {
		return Manifest{}, err
	}
	if err := m.write(partial); err != nil {
		return Manifest{}, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is empty
		return Manifest{}, err
	}
	if err := os.Rename(partial, dir); err != nil {
		return Manifest{}, err
	}
	return m, syncDir(filepath.Dir(dir))
}

// vacant reports what is in the way of a directory.
func vacant(dir string) error {
	found, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(found) > 0 {
		err = errors.New("it is not empty; name another directory")
	}
	return err
}

// fill takes every stream, in the order that order says.
func (m *Manifest) fill(ctx context.Context, b *bus.Bus, dir string, names []string, logger *slog.Logger) error {
	order(names)
	for _, name := range names {
		if !replays(name) {
			continue
		}
		durables, err := b.Durables(ctx, name)
		if err != nil {
			return err
		}
		m.Durables = append(m.Durables, durables...)
	}
	for _, name := range names {
		if name == events.StreamLog {
			last, err := b.LastSeq(ctx, events.StreamExec)
			if err != nil {
				return err
			}
			m.Released = last
		}
		s, err := snapshot(ctx, b, dir, name)
		if err != nil {
			return err
		}
		if s.Removed > 0 && isTable(name) {
			logger.Warn("entries were removed or replaced while they were taken, and may be missing", "stream", name, "entries", s.Removed)
		}
		m.Streams = append(m.Streams, s)
	}
	return nil
}

// order sorts streams as they are to be taken: what is made from the log, or names places in it, before the log; what
// the log names after it.
func order(names []string) {
	rank := func(name string) int {
		switch {
		case name == events.StreamLog:
			return 1
		case name == "OBJ_"+events.StoreSchedulerState, name == "OBJ_"+events.StoreReadModel:
			return 0
		case name == events.StreamExec, strings.HasPrefix(name, "OBJ_"):
			return 2
		}
		return 0
	}
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
}

// replays reports whether the durable consumers of a stream are taken before the first stream, to begin there again. Those
// of EXEC are old agents', who have run what they acknowledged: theirs are in the snapshot. What is acknowledged on TIMERS
// is gone, so there is nothing to be known.
func replays(name string) bool { return name != events.StreamExec && name != events.StreamTimers }

// isTable reports whether a stream holds entries of which each has a place of its own.
func isTable(name string) bool {
	return strings.HasPrefix(name, "KV_") || strings.HasPrefix(name, "OBJ_")
}

// snapshot takes one stream. What is replaced meanwhile is in it neither old nor new, so a bucket or store to which that
// happened is taken again; in the other streams what is removed has had its time.
func snapshot(ctx context.Context, b *bus.Bus, dir, name string) (s Stream, err error) {
	for range attempts {
		var f *file
		if f, err = createFile(filepath.Join(dir, fileName(name))); err != nil {
			return Stream{}, err
		}
		s.Snapshot, err = b.Snapshot(ctx, name, name == events.StreamExec, f)
		if err = errors.Join(err, f.close()); err != nil {
			return Stream{}, err
		}
		s.Bytes, s.SHA256 = f.size, f.sum()
		if s.Removed == 0 || !isTable(name) {
			break
		}
	}
	return s, nil
}

// Restored says what a restore has brought back.
type Restored struct {
	Manifest Manifest `json:"manifest"`
	// Expired are messages, by stream, whose time was up since the backup was taken.
	Expired map[string]uint64 `json:"expired,omitempty"`
	// Unknown is how many commands were left out because the log does not know their execs.
	Unknown int `json:"unknown_commands,omitempty"`
}

// Restore brings a backup back. The broker must hold nothing of ours, and every file is checked before anything is
// written. After an error every stream that was made is deleted again.
func Restore(ctx context.Context, b *bus.Bus, dir string) (Restored, error) {
	r, err := restore(ctx, b, dir)
	if err != nil {
		return Restored{}, fmt.Errorf("restore %s: %w", dir, err)
	}
	return r, nil
}

func restore(ctx context.Context, b *bus.Bus, dir string) (_ Restored, err error) {
	m, err := Verify(dir)
	if err != nil {
		return Restored{}, err
	}
	if err := empty(ctx, b, m); err != nil {
		return Restored{}, err
	}
	var made []string
	defer func() {
		if err != nil {
			err = errors.Join(err, remove(ctx, b, made))
		}
	}()
	r := Restored{Manifest: m, Expired: map[string]uint64{}}
	for _, s := range m.Streams {
		f, err := os.Open(filepath.Join(dir, fileName(s.Stream)))
		if err != nil {
			return r, err
		}
		messages, err := b.Restore(ctx, s.Snapshot, f)
		f.Close()
		if !errors.Is(err, bus.ErrExists) {
			made = append(made, s.Stream)
		}
		if err != nil {
			return r, err
		}
		if missing := s.Messages - messages; missing > s.Removed {
			r.Expired[s.Stream] = missing - s.Removed
		}
	}
	for _, d := range m.Durables {
		if err := b.RestoreDurable(ctx, d); err != nil {
			return r, err
		}
	}
	r.Unknown, err = forgetUnknown(ctx, b, m.Released)
	return r, err
}

// empty reports which streams of ours, or of the backup's, the broker holds.
func empty(ctx context.Context, b *bus.Bus, m Manifest) error {
	found, err := b.OurStreams(ctx)
	if err != nil {
		return err
	}
	for _, s := range m.Streams {
		if slices.Contains(found, s.Stream) {
			continue
		}
		if _, err := b.LastSeq(ctx, s.Stream); err == nil {
			found = append(found, s.Stream)
		} else if !errors.Is(err, bus.ErrNotFound) {
			return err
		}
	}
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("the broker is not empty, it holds %s; stop api, projector and scheduler, which make streams when they start, and give it an empty store",
		strings.Join(found, ", "))
}

func remove(ctx context.Context, b *bus.Bus, names []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	var errs []error
	for _, name := range names {
		if err := b.DeleteStream(ctx, name); err != nil && !errors.Is(err, bus.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
