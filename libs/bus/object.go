package bus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"kanade/libs/events/wire"
)

// Objects are written and read here and not by the client: its Put waits for acknowledgements that a lost connection took
// along until ctx ends, and its Get makes a consumer and leaves a goroutine behind when it is cancelled.
const (
	// chunkSize is small, so that two chunks are acknowledged within the client's time on a line of 15 KB/s.
	chunkSize   = 32 << 10
	chunkWindow = 2
	chunkBatch  = 256 // 8 MiB of ours, 32 MiB of others' chunks
	cleanupTime = 2 * time.Second
)

// Object is a stored object, whole.
type Object struct {
	// Name of the object.
	Name string
	// Data is its content, whose digest has been checked.
	Data []byte
	// Digest is the SHA-256 of Data.
	Digest wire.Digest
	// StoredAt is when the broker stored it, by its own clock, UTC.
	StoredAt time.Time
}

// PutObject writes a whole object, over an older one of that name, in the form of the client's object stores (ADR-20).
// Its digest is written padded, as old agents need it. A lost connection ends it with ErrUnavailable; then, as after any
// error, the older one is still there, or the new one in full. Other errors: ErrNotFound if there is no such store,
// ErrLogFull if it is full, ErrConflict if somebody else wrote that name meanwhile.
func (b *Bus) PutObject(ctx context.Context, store, name string, r io.Reader) error {
	old, seq, err := b.objectMeta(ctx, store, name)
	if err == nil {
		err = b.putObject(ctx, store, name, r, seq)
	}
	if err != nil {
		return fmt.Errorf("put object %s into %s: %w", name, store, err)
	}
	b.purgeChunks(ctx, store, old.NUID)
	return nil
}

func (b *Bus) putObject(ctx context.Context, store, name string, r io.Reader, seq uint64) error {
	info := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkSize}},
		Bucket:     store, NUID: nuid.Next(),
	}
	if err := b.putChunks(ctx, &info, r); err != nil {
		b.purgeChunks(ctx, store, info.NUID)
		return err
	}
	err := b.putMeta(ctx, &info, seq)
	if err != nil && !errors.Is(err, ErrUnavailable) { // else it may be stored
		b.purgeChunks(ctx, store, info.NUID)
	}
	return err
}

func (b *Bus) putChunks(ctx context.Context, info *jetstream.ObjectInfo, r io.Reader) error {
	digest := sha256.New()
	window := make([]*nats.Msg, 0, chunkWindow)
	for last := false; !last; {
		window = window[:0]
		for len(window) < chunkWindow && !last {
			chunk := make([]byte, chunkSize)
			n, err := io.ReadFull(r, chunk)
			last = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
			if err != nil && !last {
				return err
			}
			if n == 0 {
				break
			}
			digest.Write(chunk[:n])
			info.Size, info.Chunks = info.Size+uint64(n), info.Chunks+1
			window = append(window, &nats.Msg{Subject: chunkSubject(info.Bucket, info.NUID), Data: chunk[:n]})
		}
		if err := b.PublishAll(ctx, window, chunkWindow); err != nil {
			return err
		}
	}
	info.Digest = wire.FormatDigest(wire.Digest(digest.Sum(nil)))
	return nil
}

func (b *Bus) putMeta(ctx context.Context, info *jetstream.ObjectInfo, last uint64) error {
	stored := *info
	stored.ModTime = time.Time{} // readers take the broker's
	data, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	m := &nats.Msg{Subject: metaSubject(info.Bucket, info.Name), Data: data, Header: nats.Header{
		jetstream.MsgRollup: {jetstream.MsgRollupSubject},
	}}
	_, err = b.publish(ctx, m, jetstream.WithExpectLastSequencePerSubject(last))
	if isWrongLastSequence(err) {
		err = fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}

// ErrDeleted says that an object was there and has been deleted; errors.Is(err, ErrNotFound) holds as well.
var ErrDeleted = fmt.Errorf("%w: it was deleted", ErrNotFound)

// ErrTooLarge says that an object is larger than its reader allows.
var ErrTooLarge = errors.New("object is too large")

// GetObject reads an object whose size is at most limit, in bytes, and checks its digest. Errors:
// ErrNotFound (no such object or store), ErrTooLarge. Without a deadline in ctx it may take DefaultTimeout.
func (b *Bus) GetObject(ctx context.Context, store, name string, limit int) (Object, error) {
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return Object{}, fmt.Errorf("get object %s of %s: %w", name, store, err)
	}
	defer cancel()
	o, err := b.getObject(ctx, store, name, limit)
	if err != nil {
		return Object{}, fmt.Errorf("get object %s of %s: %w", name, store, err)
	}
	return o, nil
}

func (b *Bus) getObject(ctx context.Context, store, name string, limit int) (Object, error) {
	var data bytes.Buffer
	info, err := b.readObject(ctx, store, name, &data, func(info jetstream.ObjectInfo) error {
		if info.Size > uint64(limit) {
			return fmt.Errorf("%w: it has %d bytes, the limit is %d", ErrTooLarge, info.Size, limit)
		}
		data = *bytes.NewBuffer(make([]byte, 0, info.Size))
		return nil
	})
	if err != nil {
		return Object{}, err
	}
	return Object{Name: name, Data: data.Bytes(), Digest: *info.Digest, StoredAt: info.StoredAt}, nil
}

// ReadObject copies an object to w part by part, however large it is, and checks its digest at the end: what was written
// before an error is to be thrown away. Errors: ErrNotFound (no such object or store), those of w as they are. Without a
// deadline in ctx it may take DefaultTimeout.
func (b *Bus) ReadObject(ctx context.Context, store, name string, w io.Writer) (ObjectInfo, error) {
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return ObjectInfo{}, fmt.Errorf("read object %s of %s: %w", name, store, err)
	}
	defer cancel()
	info, err := b.readObject(ctx, store, name, w, func(jetstream.ObjectInfo) error { return nil })
	if err != nil {
		return ObjectInfo{}, fmt.Errorf("read object %s of %s: %w", name, store, err)
	}
	return info, nil
}

// readObject gives the description to begin before it writes the first part.
func (b *Bus) readObject(
	ctx context.Context, store, name string, w io.Writer, begin func(jetstream.ObjectInfo) error,
) (ObjectInfo, error) {
	info, seq, err := b.objectMeta(ctx, store, name)
	if err != nil {
		return ObjectInfo{}, err
	}
	if seq == 0 || info.Deleted || info.NUID == "" {
		return ObjectInfo{}, ErrNotFound
	}
	if err := begin(info); err != nil {
		return ObjectInfo{}, err
	}
	digest, written := sha256.New(), uint64(0)
	w = io.MultiWriter(digest, w)
	for next := uint64(1); written < info.Size; {
		before := next
		for m, err := range b.Batch(ctx, objectStream(store), chunkBatch,
			jetstreamext.GetBatchSubject(chunkSubject(store, info.NUID)), jetstreamext.GetBatchSeq(next)) {
			if err != nil {
				return ObjectInfo{}, err
			}
			if written += uint64(len(m.Data)); written > info.Size {
				return ObjectInfo{}, errors.New("it is longer than it says")
			}
			if _, err := w.Write(m.Data); err != nil {
				return ObjectInfo{}, err
			}
			next = m.Sequence + 1
		}
		if next == before {
			return ObjectInfo{}, errors.New("a part of it is missing")
		}
	}
	o := describe(info)
	if is := wire.Digest(digest.Sum(nil)); o.Digest == nil || *o.Digest != is {
		return ObjectInfo{}, fmt.Errorf("its digest is %s, not %s", wire.FormatDigest(is), info.Digest)
	}
	return o, nil
}

// ObjectInfo describes a stored object.
type ObjectInfo struct {
	// Name of the object.
	Name string
	// Size is its length in bytes.
	Size uint64
	// Digest is the SHA-256 of its content as whoever wrote it says; nil where that can't be read.
	Digest *wire.Digest
	// StoredAt is when the broker stored it, by its own clock, UTC.
	StoredAt time.Time
}

// StatObject describes an object as the store's leader knows it. Errors: ErrNotFound (no such object or store),
// ErrDeleted.
func (b *Bus) StatObject(ctx context.Context, store, name string) (ObjectInfo, error) {
	info, seq, err := b.objectMeta(ctx, store, name)
	switch {
	case err != nil:
	case info.Deleted:
		err = ErrDeleted
	case seq == 0 || info.NUID == "":
		err = ErrNotFound
	}
	if err != nil {
		return ObjectInfo{}, fmt.Errorf("stat object %s of %s: %w", name, store, err)
	}
	return describe(info), nil
}

// Objects lists the objects of a store, the one that was written last at the end. It may be answered by a follower that
// lags. ErrNotFound: no such store.
func (b *Bus) Objects(ctx context.Context, store string) ([]ObjectInfo, error) {
	list, err := b.objects(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("list objects of %s: %w", store, err)
	}
	return list, nil
}

func (b *Bus) objects(ctx context.Context, store string) ([]ObjectInfo, error) {
	if _, _, err := b.bounds(ctx, objectStream(store)); err != nil {
		return nil, err
	}
	list := []ObjectInfo{}
	for next := uint64(1); ; {
		before := next
		for m, err := range b.Batch(ctx, objectStream(store), loadPage,
			jetstreamext.GetBatchSubject(metaSubjects(store)), jetstreamext.GetBatchSeq(next)) {
			if err != nil {
				return nil, err
			}
			var info jetstream.ObjectInfo
			if err := json.Unmarshal(m.Data, &info); err != nil {
				return nil, fmt.Errorf("decode description %d: %w", m.Sequence, err)
			}
			next, info.ModTime = m.Sequence+1, m.Time.UTC()
			if !info.Deleted && info.NUID != "" {
				list = append(list, describe(info))
			}
		}
		if next == before {
			return list, nil
		}
	}
}

func describe(info jetstream.ObjectInfo) ObjectInfo {
	o := ObjectInfo{Name: info.Name, Size: info.Size, StoredAt: info.ModTime}
	if d, err := wire.ParseDigest(info.Digest); err == nil {
		o.Digest = &d
	}
	return o
}

// DeleteObject removes an object; one that is not there is none to remove.
func (b *Bus) DeleteObject(ctx context.Context, store, name string) error {
	old, seq, err := b.objectMeta(ctx, store, name)
	if err == nil && (seq == 0 || old.Deleted) {
		return nil
	}
	if err == nil {
		gone := old
		gone.Deleted, gone.Size, gone.Chunks, gone.Digest = true, 0, 0, ""
		err = b.putMeta(ctx, &gone, seq)
	}
	if err != nil {
		return fmt.Errorf("delete object %s of %s: %w", name, store, err)
	}
	b.purgeChunks(ctx, store, old.NUID)
	return nil
}

// objectMeta reads what the leader knows of an object; sequence 0 if there was never one of that name.
func (b *Bus) objectMeta(ctx context.Context, store, name string) (info jetstream.ObjectInfo, seq uint64, err error) {
	m, ok, err := b.getRaw(ctx, objectStream(store), getRequest{LastFor: metaSubject(store, name)})
	if err != nil || !ok {
		return info, 0, err
	}
	if err := json.Unmarshal(m.Data, &info); err != nil {
		return info, 0, fmt.Errorf("decode its description: %w", err)
	}
	info.ModTime = m.Time
	return info, m.Seq, nil
}

// purgeChunks removes parts that no object has any more. Where that fails they stay as long as the store keeps them.
func (b *Bus) purgeChunks(ctx context.Context, store, id string) {
	if id == "" || !b.Connected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	filter := map[string]string{"filter": chunkSubject(store, id)}
	if err := b.api(ctx, "STREAM.PURGE."+objectStream(store), filter, &struct{}{}); err != nil {
		b.logger.Warn("remove parts of an object", "store", store, "parts", id, "error", err)
	}
}

// objectStream is the stream behind an object store.
func objectStream(store string) string { return "OBJ_" + store }

func chunkSubject(store, id string) string { return "$O." + store + ".C." + id }

func metaSubject(store, name string) string {
	return "$O." + store + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

func metaSubjects(store string) string { return "$O." + store + ".M.>" }
