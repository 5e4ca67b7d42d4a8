package readmodel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"

	"kanade/libs/events"
)

// All is the limit that is none.
const All = -1

// usualPage is how many rows most lists ask for: a page of 50, and one more to see whether that is all.
const usualPage = 51

// Errors of a Reader, to be tested with errors.Is.
var (
	// ErrNotFound: no such row.
	ErrNotFound = errors.New("not found")
	// ErrNoModel: no slot has a file of this version's schema. A projector makes one.
	ErrNoModel = errors.New("no read model of this version")
	// ErrBehind: no slot has applied the wanted sequence in the time given.
	ErrBehind = errors.New("read model is behind")
)

// lookAgain is how long a Reader stays with a slot before it looks whether another one is further.
const lookAgain = 250 * time.Millisecond

// Reader answers queries from the freshest slot under a directory. It begins without one, moves to another one when
// slots come, fall behind and go, and may be used by many goroutines at once. A query sees one state of one slot, and
// never an older one than Applied has answered before; only when the file that was asked is deleted or damaged, the best
// of the others may be older.
type Reader struct {
	dir string
	// past is the one file of a reader of the past, which looks no further.
	past *slotFile

	// turn guards the rest. Whoever has it may wait for SQLite, up to a second where somebody makes or closes a file; the others
	// wait no longer than their contexts: a mutex would hold them.
	turn    *semaphore.Weighted
	slots   map[string]*slotFile // by path
	served  map[string]*slotFile // by directory: the one that was served last
	current *slotFile
	looked  time.Time
	// seen is the highest LOG sequence that was answered: no file that is behind it is moved to while there is the other one.
	seen uint64
}

// OpenReader reads the read models under dir, which need not exist yet.
func OpenReader(dir string) (*Reader, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open read model %s: %w", dir, err)
	}
	return &Reader{dir: abs, turn: semaphore.NewWeighted(1), slots: map[string]*slotFile{}}, nil
}

// Close ends the use of all files, after the queries that run.
func (r *Reader) Close() error {
	if r.past != nil {
		return r.past.db.Close()
	}
	_ = r.turn.Acquire(context.Background(), 1) // which does not end
	defer r.turn.Release(1)
	var errs []error
	for path := range r.slots {
		errs = append(errs, r.drop(path))
	}
	return errors.Join(errs...)
}

// Applied is the LOG sequence that the queries' slot has applied, and when the broker stored that message; 0 before the first.
// Queries that are asked afterwards see at least that much.
func (r *Reader) Applied(ctx context.Context) (sequence uint64, at time.Time, err error) {
	for {
		found, from, err := ask(ctx, r, scanCheckpoint, checkpoints.all()+" WHERE stream = ?", events.StreamLog)
		if err != nil {
			return 0, time.Time{}, err
		}
		var c Checkpoint
		if len(found) > 0 {
			c = found[0]
		}
		switch ok, err := r.answers(ctx, from, c.Sequence); {
		case err != nil:
			return 0, time.Time{}, fmt.Errorf("ask how far the read model is: %w", err)
		case ok:
			return c.Sequence, c.At, nil
		}
	}
}

// answers notes how far the answers are; false where they come from another file by now, which may be behind this one.
func (r *Reader) answers(ctx context.Context, from *slotFile, sequence uint64) (bool, error) {
	if err := r.turn.Acquire(ctx, 1); err != nil {
		return false, err
	}
	defer r.turn.Release(1)
	if from != r.current && from != r.past {
		return false, nil
	}
	r.seen = max(r.seen, sequence)
	return true, nil
}

// SlotState is one slot's file as a Reader sees it.
type SlotState struct {
	// Slot is its name, File the path of the file.
	Slot, File string
	// Served: queries may be answered from it. One that is not is being built. Asked: they are at present, or in a moment
	// instead of the file that it replaces.
	Served, Asked bool
	// Sequence is how far the LOG is applied, and At when the broker stored that message.
	Sequence uint64
	At       time.Time
	// Moved is when this Reader last saw it get further, by the clock of this host; when it first saw it, until then.
	Moved time.Time
	// Damaged is what a query has met in it: another copy is asked if there is one. Nil while it is sound.
	Damaged error
}

// Slots lists the files of this version's schema, by path. Of a slot there may be two for a while: the one that is served, and
// one that is built to take its place.
func (r *Reader) Slots(ctx context.Context) ([]SlotState, error) {
	if err := r.turn.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("look for read models in %s: %w", r.dir, err)
	}
	defer r.turn.Release(1)
	if err := r.look(ctx); err != nil {
		return nil, err
	}
	states := make([]SlotState, 0, len(r.slots))
	for _, path := range slices.Sorted(maps.Keys(r.slots)) {
		s := r.slots[path]
		if s.generation > 0 && r.served[filepath.Dir(path)] != s {
			continue // it was replaced, and is about to go
		}
		found, err := queryRows(ctx, s, scanCheckpoint, checkpoints.all()+" WHERE stream = ?", events.StreamLog)
		if IsCorrupt(err) {
			s.damaged = err
		} else if err != nil {
			return nil, fmt.Errorf("look at %s: %w", path, err)
		}
		// What it replaces may be asked for a moment longer: for who looks on, that is the same.
		asked := s.generation > 0 && r.current != nil && filepath.Dir(r.current.path) == filepath.Dir(path)
		state := SlotState{Slot: filepath.Base(filepath.Dir(path)), File: path, Served: s.generation > 0, Asked: asked, Moved: s.moved, Damaged: s.damaged}
		if len(found) > 0 {
			state.Sequence, state.At = found[0].Sequence, found[0].At
		}
		states = append(states, state)
	}
	return states, nil
}

func scanCheckpoint(scan func(...any) error) (c Checkpoint, err error) { return c, scan(c.fields()...) }

// WaitFor returns when queries see the LOG up to sequence; ErrBehind when ctx ends before.
func (r *Reader) WaitFor(ctx context.Context, sequence uint64) error {
	const poll = 2 * time.Millisecond
	for {
		applied, _, err := r.Applied(ctx)
		if err == nil && applied >= sequence {
			return nil
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return fmt.Errorf("wait for sequence %d: %w: %w", sequence, ErrBehind, err)
			}
			return fmt.Errorf("wait for sequence %d, applied %d: %w", sequence, applied, ErrBehind)
		case <-time.After(poll):
		}
	}
}

// slot is the slot to ask. It looks at the directory when the last look is too long ago, or again is set because the
// slot has just failed.
func (r *Reader) slot(ctx context.Context, again bool) (*slotFile, error) {
	if r.past != nil {
		return r.past, nil
	}
	if err := r.turn.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("look for a read model in %s: %w", r.dir, err)
	}
	defer r.turn.Release(1)
	if r.current == nil || again || time.Since(r.looked) >= lookAgain {
		if err := r.look(ctx); err != nil {
			return nil, err
		}
	}
	if r.current == nil {
		return nil, fmt.Errorf("look for a read model in %s: %w", r.dir, ErrNoModel)
	}
	return r.current, nil
}

// look opens what is there, forgets what has gone, and moves to the slot that is furthest; to another one only if that
// is further than the present one, or sound where that is damaged, and has all that was answered. Of a slot's files the one
// that was served last counts.
func (r *Reader) look(ctx context.Context) error {
	r.looked = time.Now()
	slots, err := slotsIn(r.dir)
	if err != nil {
		return err
	}
	paths, err := modelFiles(slots...)
	if err != nil {
		return err
	}
	for path, s := range r.slots {
		if !s.same() {
			_ = r.drop(path)
		}
	}
	r.served = map[string]*slotFile{}
	for _, path := range paths {
		s := r.slots[path]
		if s == nil {
			if s, err = openSlotFile(path); err != nil {
				continue
			}
			r.slots[path] = s
		}
		switch err := s.look(ctx); {
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("look for a read model in %s: %w", r.dir, ctx.Err())
		case err != nil: // Half made, or broken: not one to ask; the next look opens it anew.
			_ = r.drop(path)
		case s.generation > 0:
			slot := filepath.Dir(path)
			if other := r.served[slot]; other == nil || s.generation > other.generation {
				r.served[slot] = s
			}
		}
	}
	var best *slotFile
	for _, s := range r.served {
		if best == nil || r.better(s, best) {
			best = s
		}
	}
	if r.current != nil && (best == nil || best.sequence < r.seen && r.current.damaged == nil) {
		return nil
	}
	if r.current = best; best != nil {
		r.seen = min(r.seen, best.sequence)
	}
	return nil
}

// better reports whether one file is to be asked rather than another.
func (r *Reader) better(a, b *slotFile) bool {
	switch {
	case (a.damaged == nil) != (b.damaged == nil):
		return a.damaged == nil
	case a.sequence != b.sequence:
		return a.sequence > b.sequence
	default:
		return a == r.current
	}
}

// damage notes what a query has met in a file.
func (r *Reader) damage(ctx context.Context, s *slotFile, met error) {
	if r.turn.Acquire(ctx, 1) != nil {
		return
	}
	defer r.turn.Release(1)
	s.damaged = met
}

func (r *Reader) drop(path string) error {
	s := r.slots[path]
	delete(r.slots, path)
	if r.current == s {
		r.current = nil
	}
	return s.db.Close()
}

// list is ask without the file.
func list[R any](ctx context.Context, r *Reader, scan func(func(...any) error) (R, error), query string, args ...any) ([]R, error) {
	rows, _, err := ask(ctx, r, scan, query, args...)
	return rows, err
}

// ask runs a query, and once more on whatever slot is then the best if the first one fails. It says which file answered.
func ask[R any](ctx context.Context, r *Reader, scan func(func(...any) error) (R, error), query string, args ...any) (rows []R, s *slotFile, err error) {
	for again := range 2 {
		if s, err = r.slot(ctx, again > 0); err != nil {
			return nil, nil, err
		}
		if rows, err = queryRows(ctx, s, scan, query, args...); err == nil || ctx.Err() != nil {
			break
		}
		if IsCorrupt(err) {
			r.damage(ctx, s, err)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("query read model: %w", err)
	}
	return rows, s, nil
}

func one[R any](ctx context.Context, r *Reader, scan func(func(...any) error) (R, error), query string, args ...any) (R, error) {
	rows, err := list(ctx, r, scan, query, args...)
	if err == nil && len(rows) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		var none R
		return none, err
	}
	return rows[0], nil
}

func queryRows[R any](ctx context.Context, s *slotFile, scan func(func(...any) error) (R, error), query string, args ...any) ([]R, error) {
	stmt, err := s.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	found, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	rows := []R{}
	for found.Next() {
		row, err := scan(found.Scan)
		if err != nil {
			return nil, err
		}
		if len(rows) == 1 { // more than one is a page, most of the time
			rows = slices.Grow(rows, usualPage)
		}
		rows = append(rows, row)
	}
	return rows, found.Err()
}
