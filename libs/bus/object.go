package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// PutObject writes a whole object, over an older one of that name. Its digest is written padded, as old agents need it.
// ErrNotFound if there is no such store.
func (b *Bus) PutObject(ctx context.Context, store, name string, r io.Reader) error {
	s, err := b.store(ctx, store)
	if err != nil {
		return fmt.Errorf("put object %s: %w", name, err)
	}
	if _, err := s.Put(ctx, jetstream.ObjectMeta{Name: name}, &unhurried{ctx: ctx, reader: r}); err != nil {
		return fmt.Errorf("put object %s into %s: %w", name, store, publishError(err))
	}
	return nil
}

// unhurried waits a moment between the first part of an object and the next one. With the first part the client starts a
// goroutine that watches the connection; if that has not begun to do so when the object is stored, nothing ends it ever.
type unhurried struct {
	ctx    context.Context
	reader io.Reader
	parts  int
}

func (u *unhurried) Read(p []byte) (int, error) {
	if u.parts++; u.parts == 2 {
		_ = sleep(u.ctx, time.Millisecond)
	}
	return u.reader.Read(p)
}

// GetObject opens an object for reading; the last Read checks its digest. ErrNotFound if there is no such object or
// store. Close it, and keep ctx alive until then.
func (b *Bus) GetObject(ctx context.Context, store, name string) (io.ReadCloser, error) {
	s, err := b.store(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("get object %s: %w", name, err)
	}
	object, err := s.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("get object %s of %s: %w", name, store, notFound(unavailable(err)))
	}
	return object, nil
}

// DeleteObject removes an object; one that is not there is none to remove.
func (b *Bus) DeleteObject(ctx context.Context, store, name string) error {
	s, err := b.store(ctx, store)
	if err != nil {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	if err := notFound(s.Delete(ctx, name)); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("delete object %s of %s: %w", name, store, unavailable(err))
	}
	return nil
}

func (b *Bus) store(ctx context.Context, name string) (jetstream.ObjectStore, error) {
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	s, err := b.js.ObjectStore(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", name, notFound(unavailable(err)))
	}
	return s, nil
}
