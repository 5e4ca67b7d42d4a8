package bus

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"kanade/libs/events"
)

// metadataRevision is the key under which a stream says which revision of the declarations made it.
const metadataRevision = "kanade-revision"

// serverMetadata is the prefix of what the broker itself writes into a stream's metadata.
const serverMetadata = "_nats."

// EnsureError says that the broker refuses the declared configuration of one stream.
type EnsureError struct {
	Stream string
	// Fields are those in which the stream differs from its declaration; empty if it did not exist.
	Fields []string
	Err    error
}

func (e *EnsureError) Error() string {
	if len(e.Fields) == 0 {
		return fmt.Sprintf("create stream %s: %v", e.Stream, e.Err)
	}
	return fmt.Sprintf("update stream %s (%s): %v", e.Stream, strings.Join(e.Fields, ", "), e.Err)
}

func (e *EnsureError) Unwrap() error { return e.Err }

// Ensure makes every stream, bucket and object store equal to its declaration; whatever somebody has changed by hand is
// changed back. Any service may call it at any time, several at once too. What bears a later revision than
// events.Revision is left alone, so that an old process beside new ones does no harm; between the look and the change
// lies one round trip, in which the two could still cross when both start at the same moment: the next Ensure mends it.
// A broker that is away is waited for until ctx ends, as Connect does; then the error is ErrUnavailable. An *EnsureError
// names stream and fields if the broker refuses; the rest has been ensured nevertheless.
func (b *Bus) Ensure(ctx context.Context, l events.Limits) error {
	var failed []error
	for _, want := range declared(l) {
		err := b.ensureStream(ctx, want)
		for wait := firstRetry; errors.Is(err, ErrUnavailable); err = b.ensureStream(ctx, want) {
			if ctx.Err() != nil || b.nc.IsClosed() {
				return fmt.Errorf("ensure stream %s: %w", want.Name, err)
			}
			b.logger.Warn("the broker is away; waiting to ensure streams", "stream", want.Name, "error", err)
			wait = b.again(ctx, wait)
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (b *Bus) ensureStream(ctx context.Context, want jetstream.StreamConfig) error {
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	s, err := b.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if _, err = b.js.CreateStream(ctx, want); err == nil {
			return nil
		}
		if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return unavailable(&EnsureError{Stream: want.Name, Err: err})
		}
		s, err = b.js.Stream(ctx, want.Name) // somebody else was faster
	}
	if err != nil {
		return unavailable(fmt.Errorf("look up stream %s: %w", want.Name, err))
	}
	have := s.CachedInfo().Config
	if revision(have) > events.Revision {
		b.logger.Info("leave stream of a later revision alone", "stream", want.Name, "revision", revision(have))
		return nil
	}
	fields := differences(have, want)
	if len(fields) == 0 {
		return nil
	}
	if _, err := b.js.UpdateStream(ctx, want); err != nil {
		return unavailable(&EnsureError{Stream: want.Name, Fields: fields, Err: err})
	}
	b.logger.Info("updated stream", "stream", want.Name, "fields", fields)
	return nil
}

func revision(c jetstream.StreamConfig) int {
	n, err := strconv.Atoi(c.Metadata[metadataRevision])
	if err != nil {
		return 0
	}
	return n
}

// differences names the fields in which two configurations differ, apart from what the broker notes for itself.
func differences(have, want jetstream.StreamConfig) []string {
	kept := map[string]string{}
	for k, v := range have.Metadata {
		if !strings.HasPrefix(k, serverMetadata) {
			kept[k] = v
		}
	}
	have.Metadata = kept
	var fields []string
	h, w := reflect.ValueOf(have), reflect.ValueOf(want)
	for i := range h.NumField() {
		if !reflect.DeepEqual(h.Field(i).Interface(), w.Field(i).Interface()) {
			fields = append(fields, h.Type().Field(i).Name)
		}
	}
	return fields
}

// declared gives the whole configuration of every stream, with the values that the broker would fill in written out, so
// that a change by hand to any field is seen.
func declared(l events.Limits) []jetstream.StreamConfig {
	var all []jetstream.StreamConfig
	for _, s := range events.Streams(l) {
		all = append(all, streamConfig(s))
	}
	for _, s := range events.Buckets(l) {
		all = append(all, bucketConfig(s))
	}
	for _, s := range events.ObjectStores(l) {
		all = append(all, storeConfig(s))
	}
	return all
}

// base is what streams, buckets and stores have in common.
func base(name, why string, replicas int, age time.Duration, bytes int64) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name: name, Description: why, Replicas: max(replicas, 1), Storage: jetstream.FileStorage,
		MaxAge: age, MaxBytes: bytes, MaxMsgs: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Duplicates: duplicateWindow, AllowDirect: true,
		Metadata: map[string]string{metadataRevision: strconv.Itoa(events.Revision)},
	}
	if bytes == 0 {
		c.MaxBytes = -1
	}
	if age > 0 {
		c.Duplicates = min(c.Duplicates, age)
	}
	return c
}

// duplicateWindow is how long the broker remembers a message id: the server's own default.
const duplicateWindow = 2 * time.Minute

func streamConfig(s events.Stream) jetstream.StreamConfig {
	c := base(s.Name, s.Why, s.Replicas, s.MaxAge, s.MaxBytes)
	c.Subjects = slices.Clone(s.Subjects)
	c.AllowMsgTTL, c.AllowMsgSchedules, c.AllowBatchPublish = s.AllowTTL, s.AllowSchedules, s.AllowBatch
	// A timer's header makes the broker replace what waits on its subject, which is a rollup.
	c.AllowRollup = s.AllowSchedules
	if s.Retention == events.RetainWorkQueue {
		c.Retention = jetstream.WorkQueuePolicy
	}
	if s.DiscardNew {
		c.Discard = jetstream.DiscardNew
	}
	if s.MaxPerSubject > 0 {
		c.MaxMsgsPerSubject = s.MaxPerSubject
	}
	if s.MaxConsumers > 0 {
		c.MaxConsumers = s.MaxConsumers
	}
	if s.Transform != nil {
		c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: s.Transform.Source, Destination: s.Transform.Destination}
	}
	return c
}

// bucketConfig is what the client's own key-value API makes, which can't set the number of consumers nor switch the
// direct get off.
func bucketConfig(s events.Bucket) jetstream.StreamConfig {
	c := base("KV_"+s.Name, s.Why, s.Replicas, 0, 0)
	c.Subjects = []string{"$KV." + s.Name + ".>"}
	c.MaxMsgsPerSubject = max(int64(s.History), 1)
	c.Discard, c.AllowRollup, c.DenyDelete = jetstream.DiscardNew, true, true
	c.AllowDirect = s.Direct
	if s.MaxConsumers > 0 {
		c.MaxConsumers = s.MaxConsumers
	}
	if s.AllowTTL {
		c.AllowMsgTTL, c.SubjectDeleteMarkerTTL = true, markerTTL
	}
	return c
}

// markerTTL is how long a bucket keeps the marker of an entry that has expired.
const markerTTL = time.Hour

func storeConfig(s events.ObjectStore) jetstream.StreamConfig {
	c := base("OBJ_"+s.Name, s.Why, s.Replicas, s.MaxAge, s.MaxBytes)
	c.Subjects = []string{"$O." + s.Name + ".C.>", "$O." + s.Name + ".M.>"}
	c.Discard, c.AllowRollup = jetstream.DiscardNew, true
	return c
}
