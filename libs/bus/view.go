package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// HeaderLogSeq is borne by every value and delete marker that we write into a bucket: the log sequence it was made from.
// A revision without it is somebody else's act.
const HeaderLogSeq = "Kanade-Log-Sequence"

// headerKVOperation marks a delete in a bucket.
const headerKVOperation = "KV-Operation"

// ErrForeign says that a bucket's entry was written by somebody else and has not been adopted into the log yet.
var ErrForeign = errors.New("entry is not ours")

// View is one entry of a bucket that is made from the log.
type View struct {
	// Value of the entry; nil if it is deleted.
	Value []byte
	// LogSeq is the log sequence it was made from, 0 if it is not ours (Ours).
	LogSeq uint64
	// Revision is its sequence in the bucket.
	Revision uint64
	// Ours says whether it bears HeaderLogSeq.
	Ours bool
	// Marker says that the broker has put it there because the entry's time was up.
	Marker bool
	// Deleted says that it is a delete marker.
	Deleted bool
}

// PutView writes an entry made from the log at logSeq; a nil value deletes it. It never goes back: where the bucket
// holds one made from the same or a later log sequence it does nothing. It never covers what somebody else wrote
// (ErrForeign): adopt that first, then use ReplaceView.
func (b *Bus) PutView(ctx context.Context, bucket, key string, value []byte, logSeq uint64) error {
	return b.PutViewFor(ctx, bucket, key, value, logSeq, 0)
}

// PutViewFor is PutView of an entry that the broker removes after a while, whole seconds and at least one; 0: never. The
// bucket must allow it.
func (b *Bus) PutViewFor(ctx context.Context, bucket, key string, value []byte, logSeq uint64, ttl time.Duration) error {
	for {
		v, ok, err := b.View(ctx, bucket, key)
		if err != nil {
			return fmt.Errorf("put view: %w", err)
		}
		if ok && v.Ours && v.LogSeq >= logSeq || !ok && value == nil {
			return nil
		}
		if ok && !v.Ours && !v.Marker {
			return fmt.Errorf("put view %s of %s over revision %d: %w", key, bucket, v.Revision, ErrForeign)
		}
		err = b.replaceView(ctx, bucket, key, value, logSeq, v.Revision, ttl)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
}

// ReplaceView writes an entry over exactly one revision, whoever wrote that (0: none must be there); ErrConflict if
// another one is there. A nil value deletes.
func (b *Bus) ReplaceView(ctx context.Context, bucket, key string, value []byte, logSeq, revision uint64) error {
	return b.replaceView(ctx, bucket, key, value, logSeq, revision, 0)
}

func (b *Bus) replaceView(ctx context.Context, bucket, key string, value []byte, logSeq, revision uint64, ttl time.Duration) error {
	m := &nats.Msg{Subject: kvSubject(bucket, key), Data: value, Header: nats.Header{
		HeaderLogSeq: {strconv.FormatUint(logSeq, 10)},
	}}
	if value == nil {
		m.Header.Set(headerKVOperation, "DEL")
	}
	if ttl > 0 {
		m.Header.Set(jetstream.MsgTTLHeader, fmt.Sprintf("%ds", max(int64(ttl/time.Second), 1)))
	}
	_, err := b.publish(ctx, m, jetstream.WithExpectLastSequencePerSubject(revision))
	if isWrongLastSequence(err) {
		err = fmt.Errorf("%w: %w", ErrConflict, err)
	}
	if err != nil {
		return fmt.Errorf("put view %s of %s: %w", key, bucket, err)
	}
	return nil
}

// GetView reads an entry from the bucket's leader; ok is false if there is none or it is deleted. logSeq is 0 if it is
// not ours.
func (b *Bus) GetView(ctx context.Context, bucket, key string) (value []byte, logSeq, revision uint64, ok bool, err error) {
	v, ok, err := b.View(ctx, bucket, key)
	if err != nil || !ok || v.Deleted {
		return nil, 0, v.Revision, false, err
	}
	return v.Value, v.LogSeq, v.Revision, true, nil
}

// View is GetView with everything there is to know, delete markers included. The leader answers.
func (b *Bus) View(ctx context.Context, bucket, key string) (View, bool, error) {
	m, ok, err := b.getRaw(ctx, BucketStream(bucket), getRequest{LastFor: kvSubject(bucket, key)})
	if err != nil {
		return View{}, false, fmt.Errorf("get view %s of %s: %w", key, bucket, err)
	}
	if !ok {
		return View{}, false, nil
	}
	return ViewOf(m), true, nil
}

// ViewOf reads a message of a bucket's stream, as Follow gives it.
func ViewOf(m RawMsg) View {
	v := View{Value: m.Data, Revision: m.Seq, Marker: first(m.Header, "Nats-Marker-Reason") != ""}
	v.Deleted = v.Marker || first(m.Header, headerKVOperation) != ""
	if s := first(m.Header, HeaderLogSeq); s != "" {
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			v.LogSeq, v.Ours = n, true
		}
	}
	if v.Deleted {
		v.Value = nil
	} else if v.Value == nil {
		v.Value = []byte{}
	}
	return v
}

func kvSubject(bucket, key string) string { return "$KV." + bucket + "." + key }

// BucketStream is the stream behind a bucket, for Follow.
func BucketStream(bucket string) string { return "KV_" + bucket }
