package projector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// Snapshots are in the object store as "<schema>/<sequence>-<nanoseconds>", zstd: the LOG position they are of and when the
// broker stored that message, by which a snapshot of another log is known before it is fetched.
type snapshot struct {
	name, schema string
	sequence     uint64
	at           time.Time
	// stored is when it was, by the broker's clock.
	stored time.Time
}

func snapshotName(at readmodel.Checkpoint) string {
	return fmt.Sprintf("%s/%d-%d", readmodel.SchemaID(), at.Sequence, at.At.UnixNano())
}

// parseSnapshot reads an object's name; false if it is none of ours.
func parseSnapshot(o bus.ObjectInfo) (snapshot, bool) {
	of, rest, _ := strings.Cut(o.Name, "/")
	seq, at, _ := strings.Cut(rest, "-")
	sequence, err := strconv.ParseUint(seq, 10, 64)
	nanos, err2 := strconv.ParseInt(at, 10, 64)
	return snapshot{o.Name, of, sequence, time.Unix(0, nanos).UTC(), o.StoredAt}, err == nil && err2 == nil && of != ""
}

// How long snapshots stay: the first of each day for a week, then the first of each week for as long as the store keeps
// them. Those of other schemas serve nobody but an older version that may come back, for a week.
const (
	snapshotDay  = 24 * time.Hour
	snapshotWeek = 7 * snapshotDay
)

// superfluous names the snapshots that may go; the last of a schema never does, unless it is another's and old.
func superfluous(all []snapshot, own string, now time.Time) (names []string) {
	slices.SortFunc(all, func(a, b snapshot) int { return a.stored.Compare(b.stored) })
	last, first := map[string]string{}, map[string]bool{}
	for _, s := range all {
		last[s.schema] = s.name
	}
	for _, s := range all {
		age, every := now.Sub(s.stored), snapshotDay
		if age > snapshotWeek {
			every = snapshotWeek
		}
		day := fmt.Sprint(s.schema, every, s.stored.UnixNano()/int64(every))
		switch {
		case s.schema != own && age > snapshotWeek, first[day] && s.name != last[s.schema]:
			names = append(names, s.name)
		default:
			first[day] = true
		}
	}
	return names
}

// snapshots lists those of the store, in the order in which they were stored.
func (p *projector) snapshots(ctx context.Context) ([]snapshot, error) {
	objects, err := p.bus.Objects(ctx, events.StoreReadModel)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var all []snapshot
	for _, o := range objects {
		if s, ok := parseSnapshot(o); ok {
			all = append(all, s)
		}
	}
	return all, nil
}

// usable lists the snapshots of this schema up to a sequence that are of the log that is there, and from which it can be
// followed; the newest first.
func (p *projector) usable(ctx context.Context, until uint64) (usable []snapshot, err error) {
	all, err := p.snapshots(ctx)
	if err != nil {
		return nil, err
	}
	first, ok, err := p.bus.Next(ctx, events.StreamLog, 1)
	if err != nil || !ok {
		return nil, err
	}
	last, err := p.bus.LastSeq(ctx, events.StreamLog)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.schema != readmodel.SchemaID() || s.sequence > min(last, until) || s.sequence+1 < first.Seq {
			continue
		}
		same, err := p.bus.StoredAt(ctx, events.StreamLog, s.sequence, s.at)
		if err != nil {
			return nil, err
		}
		if same {
			usable = append(usable, s)
		}
	}
	slices.SortStableFunc(usable, func(a, b snapshot) int { return cmp.Compare(b.sequence, a.sequence) })
	return usable, nil
}

// lookEvery is how often it is looked whether a snapshot is due, which another projector may have made, and how often
// whether there is something to make one of.
const (
	lookEvery  = 15 * time.Minute
	lookServed = time.Second
)

// keepSnapshots makes a snapshot when the newest one is older than Config.SnapshotEvery.
func (p *projector) keepSnapshots(ctx context.Context) error {
	for ctx.Err() == nil {
		x := p.model()
		if x == nil || !x.writer.Served() {
			pause(ctx, lookServed)
			continue
		}
		if err := p.snapshot(ctx, x); err != nil && ctx.Err() == nil {
			p.logger.Warn("make a snapshot; trying again later", "file", x.writer.Path(), "in", lookEvery, "error", err)
		}
		pause(ctx, lookEvery)
	}
	return nil
}

// snapshot makes one of a model, if it is time.
func (p *projector) snapshot(ctx context.Context, x *model) error {
	is, err := x.writer.Checkpoint(events.StreamLog)
	if err != nil {
		return err
	}
	now, err := p.bus.Now(ctx)
	if err != nil {
		return err
	}
	usable, err := p.usable(ctx, math.MaxUint64)
	if err != nil {
		return err
	}
	newest := snapshot{}
	if len(usable) > 0 {
		newest = usable[0]
	}
	if is.Sequence == newest.sequence || now.Sub(newest.stored) < p.config.SnapshotEvery {
		return nil
	}
	file, err := p.slot.Room()
	if err != nil {
		return err
	}
	at, err := readmodel.Snapshot(ctx, x.writer.Path(), file)
	if err != nil {
		return err
	}
	defer os.Remove(file)
	if err := p.store(ctx, snapshotName(at), file); err != nil {
		return err
	}
	p.logger.Info("made a snapshot", "sequence", at.Sequence)
	return p.thin(ctx, now)
}

// store puts a snapshot into the store. While that is full, the oldest one gives way.
func (p *projector) store(ctx context.Context, name, file string) error {
	all, err := p.snapshots(ctx)
	if err != nil {
		return err
	}
	for {
		err := p.put(ctx, name, file)
		if !errors.Is(err, bus.ErrLogFull) || len(all) == 0 {
			return err
		}
		p.logger.Warn("the store of snapshots is full; taking out the oldest", "snapshot", all[0].name, "error", err)
		if err := p.bus.DeleteObject(ctx, events.StoreReadModel, all[0].name); err != nil {
			return err
		}
		all = all[1:]
	}
}

// put compresses a file on its way into the store.
func (p *projector) put(ctx context.Context, name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	r, w := io.Pipe()
	compressed := make(chan error, 1)
	go func() {
		err := compress(w, f)
		w.CloseWithError(err)
		compressed <- err
	}()
	err = p.bus.PutObject(ctx, events.StoreReadModel, name, r)
	r.CloseWithError(err) // the compressor ends, if it has not
	<-compressed          // its error is what PutObject has read
	return err
}

// window bounds what compression holds in memory, in bytes.
const window = 1 << 20

func compress(w io.Writer, r io.Reader) error {
	enc, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	_, err = io.Copy(enc, r)
	return errors.Join(err, enc.Close())
}

// thin takes out of the store what nobody needs any more.
func (p *projector) thin(ctx context.Context, now time.Time) error {
	all, err := p.snapshots(ctx)
	if err != nil {
		return err
	}
	for _, name := range superfluous(all, readmodel.SchemaID(), now) {
		if err := p.bus.DeleteObject(ctx, events.StoreReadModel, name); err != nil {
			return err
		}
	}
	return nil
}

// discard takes out all snapshots of this schema: they may be copies of rows that were found not to be as the log says.
func (p *projector) discard(ctx context.Context) error {
	all, err := p.snapshots(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.schema == readmodel.SchemaID() {
			if err := p.bus.DeleteObject(ctx, events.StoreReadModel, s.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetchTimeout bounds the fetching of a snapshot.
const fetchTimeout = 10 * time.Minute

// fetch writes a snapshot into a file and looks whether it is what its name says. Of an error nothing is left.
func (p *projector) fetch(ctx context.Context, s snapshot, file string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("fetch snapshot %s: %w", s.name, errors.Join(err, removeFile(file)))
		}
	}()
	if err := p.get(ctx, s.name, file); err != nil {
		return err
	}
	at, err := readmodel.CheckSnapshot(ctx, file)
	if err == nil && (at.Sequence != s.sequence || !at.At.Equal(s.at)) {
		err = fmt.Errorf("it is of sequence %d at %s", at.Sequence, at.At)
	}
	return err
}

func removeFile(file string) error {
	if err := os.Remove(file); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// get decompresses an object into a file, which is on the disk when it returns.
func (p *projector) get(ctx context.Context, name, file string) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	read := make(chan error, 1)
	go func() {
		_, err := p.bus.ReadObject(ctx, events.StoreReadModel, name, w)
		w.CloseWithError(err)
		read <- err
	}()
	err = decompress(f, r)
	r.CloseWithError(err)
	broken := <-read // at its end the digest is checked
	if err == nil {
		err = broken
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func decompress(w io.Writer, r io.Reader) error {
	dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		return err
	}
	defer dec.Close()
	_, err = io.Copy(w, dec)
	return err
}

// beginWithSnapshot gives an empty slot the newest snapshot that can be used. Without one, whatever the reason, nothing is
// lost: the model begins with the log.
func (p *projector) beginWithSnapshot(ctx context.Context) error {
	empty, err := p.slot.Empty()
	if err != nil || !empty {
		return err
	}
	found, err := p.usable(ctx, math.MaxUint64)
	for wait := retryMin; errors.Is(err, bus.ErrUnavailable) && ctx.Err() == nil; wait = min(2*wait, retryMax) {
		pause(ctx, wait)
		found, err = p.usable(ctx, math.MaxUint64)
	}
	if err != nil {
		p.logger.Warn("look for a snapshot; beginning with the log", "error", err)
		return nil
	}
	for _, s := range found {
		file, err := p.slot.Room()
		if err != nil {
			return err
		}
		if err = p.fetch(ctx, s, file); err == nil {
			p.logger.Info("beginning with a snapshot", "sequence", s.sequence)
			return p.slot.Adopt(file)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.logger.Error("a snapshot can't be used; trying what is older", "error", err)
	}
	return nil
}
